"""Makers of cards and rasters for the tests of pixel arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ml_inference.contract.card import (
    Axis,
    Band,
    ClassLabel,
    Expression,
    InputSpec,
    ModelCard,
    OutputSpec,
    Task,
)
from ml_inference.contract.interpret import interpret
from ml_inference.contract.options import PredictOptions
from ml_inference.contract.prepare import prepare
from ml_inference.contract.raster import Georeference, Raster
from ml_inference.errors import ContractMismatch

NCHW = (Axis.BATCH, Axis.CHANNEL, Axis.HEIGHT, Axis.WIDTH)
NC = (Axis.BATCH, Axis.CHANNEL)
PLACE = Georeference("EPSG:32631", (10.0, 0.0, 500000.0, 0.0, -10.0, 4600000.0))
DEFAULTS, RAW, PROBABILITIES = (PredictOptions(output=kind) for kind in ("labels", "raw", "probabilities"))


def band(name: str, expression: str | None = None, form: Any = "rio-calc", **more: Any) -> Band:
    derived = Expression(format=form, expression=expression) if expression else None
    return Band(name=name, expression=derived, **more)


def make_input(bands: str | tuple[Band, ...] = "", **more: Any) -> InputSpec:
    """Make an input whose bands are given as `"B04 B03"`; open in height and width, unscaled by declaration."""
    given = {
        "name": "x",
        "bands": tuple(band(name) for name in bands.split()) if isinstance(bands, str) else bands,
        "axes": NCHW,
        "shape": (-1,) * len(more.get("axes", NCHW)),
        "dtype": "float32",
        "scaling": (),
    }
    return InputSpec(**(given | more))


def make_output(
    task: Task = Task.SEGMENTATION, classes: int | tuple[ClassLabel, ...] = (), **more: Any
) -> OutputSpec:
    """Make an output; a number of classes stands for so many, valued 0, 1, …"""
    named = (
        tuple(ClassLabel(value=k, name=f"kind {k}") for k in range(classes))
        if isinstance(classes, int)
        else classes
    )
    axes = more.pop("axes", NCHW if task in (Task.SEGMENTATION, Task.REGRESSION) else NC)
    return OutputSpec(
        **{"name": "y", "task": task, "classes": named, "axes": axes, "shape": (-1,) * len(axes)} | more
    )


def make_card(
    *inputs: InputSpec, output: OutputSpec | None = None, others: tuple[OutputSpec, ...] = ()
) -> ModelCard:
    return ModelCard(
        name="test", inputs=inputs or (make_input(),), outputs=(output or make_output(), *others)
    )


def make_pixels(
    shape: tuple[int, ...], dtype: str = "float32", seed: int = 0, high: float = 250.0
) -> np.ndarray:
    """Make random pixels from 0 to `high`, whole numbers for an integer dtype."""
    return (np.random.default_rng(seed).random(shape) * high).astype(dtype)


def make_raster(pixels: np.ndarray, bands: str = "", **more: Any) -> Raster:
    return Raster(pixels, bands=tuple(bands.split()), **more)


def frame_of(height: int = 1, width: int = 1, valid: np.ndarray | None = None, **more):
    raster = Raster(
        make_pixels((1, height, width)), None if valid is None else valid[None], georeference=PLACE
    )
    return prepare(raster, make_card(make_input(**more)), DEFAULTS).frame


def answer(tensor, output, options=DEFAULTS, frame=None, **others):
    return interpret(
        {"y": np.asarray(tensor), **others}, make_card(output=output), frame or frame_of(), options
    )


def classification(tensor, options=DEFAULTS, **more):
    return answer(tensor, make_output(Task.CLASSIFICATION, **more), options)


def segmentation(tensor, options=DEFAULTS, frame=None, **more):
    tensor = np.asarray(tensor)
    frame = frame or frame_of(*tensor.shape[-2:])
    return answer(tensor, make_output(Task.SEGMENTATION, **more), options, frame)


def refused(call, *args, **more) -> ContractMismatch:
    with pytest.raises(ContractMismatch) as caught:
        call(*args, **more)
    return caught.value


def make_labels(*values: int, **more) -> tuple[ClassLabel, ...]:
    return tuple(ClassLabel(value=value, name=f"v{value}", **more) for value in values)
