"""From an image to the tensors that a card asks for.

The order is fixed, the specification leaving it open: bands and derived bands → crop, resize or pad → scaling → processing →
cast → axes. What the card does not declare is refused, never guessed; what was done is said in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.card import Axis, Processing, Task
from ml_inference.contract.formulas import process
from ml_inference.contract.frame import make_frame, plan_fit
from ml_inference.contract.prepare.channels import select_channels
from ml_inference.contract.prepare.choice import (
    chain_words,
    range_doubts,
    refuse_floats,
    refuse_override,
    scaling_steps,
)
from ml_inference.contract.prepare.scale import scale_values
from ml_inference.contract.prepare.tensor import cast_values, fill_of, lay_out, limits
from ml_inference.contract.resample import resample
from ml_inference.errors import ContractMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ml_inference.contract.card import InputSpec, ModelCard, ScalingStep
    from ml_inference.contract.frame import Fit, Frame
    from ml_inference.contract.options import PredictOptions
    from ml_inference.contract.prepare.channels import Channels
    from ml_inference.contract.raster import Raster
    from ml_inference.contract.resample import Mask, Planes


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What the model gets, and what is needed to read its answer.

    Attributes:
        tensors: by input name: C-contiguous, of the card's dtype and axes with a batch of 1, without NaN or infinity.
            A tensor may share its memory with the image.
        frame: leads the answer back to the image.
        applied: the preprocessing, in order and in words.
        warnings: what a reader of the answer should know.
    """

    tensors: Mapping[str, NDArray[Any]]
    frame: Frame
    applied: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class _Input:
    """One input, in planes on the model's grid without its padding."""

    values: Planes
    seen: Mask | None
    applied: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare(raster: Raster, card: ModelCard, options: PredictOptions) -> Prepared:
    """Prepare every input of a model from one image.

    Args:
        raster: at least one pixel.
        card: reconciled with its graph.
        options: `bands` and `scaling` are used here.

    Raises:
        ContractMismatch: the image does not fit the card; names the field, what was expected and what came.
        CardInvalid: the card contradicts itself in a way that its loading did not see.
    """
    _refuse_bare(card)
    refuse_override(card, options)
    fit = _one_fit(card, raster)
    inputs = [_prepare_input(raster, spec, fit, options) for spec in card.inputs]
    seen = _seen_by_all([each.seen for each in inputs])
    frame = make_frame(fit, seen, raster.georeference)
    _refuse_empty(frame, card)
    tensors = {
        spec.name: lay_out(each.values, spec, fit.grid)
        for spec, each in zip(card.inputs, inputs, strict=True)
    }
    applied = _told([(spec.name, each.applied) for spec, each in zip(card.inputs, inputs, strict=True)])
    warnings = _told([(spec.name, each.warnings) for spec, each in zip(card.inputs, inputs, strict=True)])
    return Prepared(tensors, frame, applied, warnings)


def _refuse_bare(card: ModelCard) -> None:
    """Where no item says which axis is which, an image has no place to go."""
    bare = next((spec for spec in card.inputs if Axis.VALUE in spec.axes), None)
    if bare is not None:
        raise ContractMismatch(
            f"The model is served as tensors: nothing says which axis of its input {bare.name!r} is which. "
            "Publish it with a STAC MLM item (an item.json beside the ONNX file) to send it images.",
            field="image",
            expected=f"a tensor of shape {list(bare.shape)}",
            got="an image",
        )


def _one_fit(card: ModelCard, raster: Raster) -> Fit:
    fits = [plan_fit(spec, raster.height, raster.width) for spec in card.inputs]
    different = next((i for i, fit in enumerate(fits) if fit != fits[0]), None)
    if different is None:
        return fits[0]
    names = card.inputs[0].name, card.inputs[different].name
    raise ContractMismatch(
        f"Inputs {names[0]!r} and {names[1]!r} would see the image on grids that differ "
        f"({fits[0].grid} and {fits[different].grid}). Send an image of the size that both take.",
        field="image.size",
        expected=list(fits[different].grid),
        got=[raster.height, raster.width],
    )


def _prepare_input(raster: Raster, spec: InputSpec, fit: Fit, options: PredictOptions) -> _Input:
    channels = select_channels(raster, spec, options)
    steps = scaling_steps(spec, channels, options)
    values, seen = _fitted(channels, fit, spec)
    with np.errstate(
        all="ignore"
    ):  # what is not finite afterwards is found below, with its place or its size
        values = _computed(values, steps or (), spec, channels.names)
        if channels.derived or spec.processing or _has_formula(steps or ()):
            seen = _where_finite(values, seen)
    refuse_floats(values, channels, steps, spec)
    if seen is not None:
        values = np.where(
            seen, values, values.dtype.type(0)
        )  # a value that every dtype can take, until it has its own
    values, span, rounded = cast_values(values, spec)
    if seen is not None and spec.nodata_fill != 0:
        values = _filled(values, seen, fill_of(spec), channels)
    applied = (
        *channels.applied,
        *fit.words(),
        *chain_words(spec, steps, channels),
        *_hidden_words(seen, spec),
    )
    return _Input(
        values, seen, applied, (*channels.warnings, *range_doubts(span, steps, spec, rounded=rounded))
    )


def _fitted(channels: Channels, fit: Fit, spec: InputSpec) -> tuple[Planes, Mask | None]:
    """Cut and resample; the values may still be a view of the image."""
    values, seen = channels.values[:, *fit.slices], channels.valid
    if seen is not None:
        seen = seen[fit.slices]
    if fit.resized:
        source = values.dtype
        if fit.kernel != "nearest":
            values = values.astype(_precision(values, spec), copy=False)
        values, seen = resample(values, fit.content, fit.kernel, seen)
        if source.kind in "iu" and fit.kernel in (
            "cubic",
            "lanczos4",
        ):  # these overshoot what the source could hold
            np.clip(values, *limits(source.name), out=values)
    return values, None if seen is None or seen.all() else seen


def _precision(values: Planes, spec: InputSpec) -> type[np.floating[Any]]:
    """Give the type to compute in: what the model takes, or for an integer model one that can count as far as the image."""
    if spec.dtype == "float64":
        return np.float64
    return (
        np.float32 if spec.dtype.startswith("float") or np.can_cast(values.dtype, np.float32) else np.float64
    )


def _computed(
    values: Planes, steps: tuple[ScalingStep, ...], spec: InputSpec, names: Sequence[str]
) -> Planes:
    """Apply scaling, then processing; the image itself stays as it is."""
    if steps or spec.dtype.startswith("float"):
        values = values.astype(_precision(values, spec), copy=bool(steps))
    for step in steps:
        scale_values(values, step, names)
    for expression in spec.processing:
        values = process(expression, values, names if len(names) == len(values) else ())
    return values


def _filled(values: Planes, seen: Mask, fill: float, channels: Channels) -> Planes:
    if np.may_share_memory(values, channels.values):
        values = values.copy()  # never into the image
    np.copyto(values, values.dtype.type(fill), where=~seen)
    return values


def _has_formula(steps: tuple[ScalingStep, ...]) -> bool:
    return any(isinstance(operation, Processing) for step in steps for operation in step)


def _where_finite(values: Planes, seen: Mask | None) -> Mask | None:
    finite: Mask = np.isfinite(values).all(axis=0)
    if seen is not None:
        finite &= seen
    return None if finite.all() else finite


def _hidden_words(seen: Mask | None, spec: InputSpec) -> tuple[str, ...]:
    if seen is None:
        return ()
    hidden = seen.size - int(np.count_nonzero(seen))
    return (f"fill {hidden} of {seen.size} pixels without data with {spec.nodata_fill:g}",)


def _seen_by_all(masks: list[Mask | None]) -> Mask | None:
    given = [mask for mask in masks if mask is not None]
    return np.logical_and.reduce(given) if given else None


def _refuse_empty(frame: Frame, card: ModelCard) -> None:
    """An answer for the whole image needs a pixel to rest on; one for every pixel can say that there is none."""
    output = card.outputs[0]
    by_pixel = not output.axes or Axis.HEIGHT in output.axes
    if card.task in (Task.SEGMENTATION, Task.DETECTION) or (card.task is Task.REGRESSION and by_pixel):
        return
    if not frame.valid.any():
        raise no_valid_pixel()


def no_valid_pixel() -> ContractMismatch:
    """Say that an image has nothing to look at."""
    return ContractMismatch(
        "The image has no valid pixel: all of it is nodata in the bands that the model needs, or outside what it sees.",
        field="pixels",
        expected="at least one valid pixel",
        got="none",
    )


def _told(said: list[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    """Join what was said of each input, with its name when there are several."""
    if len(said) == 1:
        return said[0][1]
    return tuple(f"{name}: {words}" for name, sentences in said for words in sentences)
