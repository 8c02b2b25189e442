"""From a model's tensors to an answer in the image's own pixels and the card's own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

import numpy as np

from ml_inference.contract.card import Task
from ml_inference.contract.formulas import process
from ml_inference.contract.interpret.activation import activate
from ml_inference.contract.interpret.answers import is_raster, to_planes, without_batch
from ml_inference.contract.interpret.classify import classify, segment
from ml_inference.contract.interpret.detect import detect
from ml_inference.contract.interpret.restore import is_finer, restore_finer, restore_values
from ml_inference.contract.predictions import Regression, Tensors
from ml_inference.contract.prepare import no_valid_pixel
from ml_inference.errors import ContractMismatch, InferenceFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ml_inference.contract.card import ModelCard, OutputSpec
    from ml_inference.contract.frame import Frame
    from ml_inference.contract.options import PredictOptions
    from ml_inference.contract.predictions import Prediction


def interpret(
    outputs: Mapping[str, NDArray[Any]], card: ModelCard, frame: Frame, options: PredictOptions
) -> Prediction:
    """Read a model's answer to one image.

    Args:
        outputs: by name, with a batch axis of length 1 where the graph has one.
        card: the one the tensors were prepared by; its first output is decoded.
        frame: of the image, from `prepare`.
        options: `output` and `threshold` are used here.

    Raises:
        ContractMismatch: the request asks for something that this model's answer does not hold.
        InferenceFailed: the answer is not finite, or not of the shape that the card promises.
    """
    output = card.outputs[0]
    if output.name not in outputs:
        raise InferenceFailed(f"The model did not answer {output.name!r}; it answered {', '.join(outputs)}.")
    _refuse_options(output, options)
    raw = _single(outputs[output.name])
    match output.task:
        case Task.CLASSIFICATION:
            return classify(raw, output, options)
        case Task.SEGMENTATION:
            return segment(raw, output, frame, options)
        case Task.REGRESSION:
            return _regress(raw, output, frame, options)
        case Task.DETECTION if options.output != "raw":
            return detect(without_batch(outputs, card), output, frame, options)
        case Task.DETECTION | Task.RAW:
            return Tensors(without_batch(outputs, card))
        case _:
            assert_never(output.task)


def _single(raw: NDArray[Any]) -> NDArray[Any]:
    """Give floats as float32, in which every answer is; what that cannot hold becomes infinite, and is treated as such."""
    if raw.dtype.kind != "f":
        return raw
    with np.errstate(over="ignore"):
        return raw.astype(np.float32, copy=False)


def _refuse_options(output: OutputSpec, options: PredictOptions) -> None:
    if options.output == "probabilities" and output.task not in (Task.CLASSIFICATION, Task.SEGMENTATION):
        raise ContractMismatch(
            f"A model for {output.task} gives no probabilities of classes.",
            field="output",
            expected=["labels", "raw"],
            got="probabilities",
        )
    if options.threshold is not None and output.task in (Task.REGRESSION, Task.RAW):
        raise ContractMismatch(
            f"A model for {output.task} has no threshold to set.",
            field="threshold",
            expected="no `threshold` in the request",
            got=options.threshold,
        )


def _regress(raw: NDArray[Any], output: OutputSpec, frame: Frame, options: PredictOptions) -> Regression:
    """Read values: one vector, or one for every pixel, on the image's grid or on the model's own finer one."""
    planes = to_planes(output, raw)
    if options.output != "raw":
        for expression in output.processing:
            planes = process(expression, planes, output.bands)
        planes = activate(planes, output.activation)
    names = _value_names(output, len(planes))
    if not is_raster(output, raw):
        if not frame.valid.any():
            raise no_valid_pixel()
        values = planes.reshape(-1).astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise InferenceFailed("The model answered NaN or infinity.")
        return Regression(names, values, None, None, frame.georeference)
    if is_finer(planes, frame):
        values, valid, place = restore_finer(planes, frame)
    else:
        (values, valid), place = restore_values(planes, frame), frame.georeference
    return Regression(names, values, valid, float("nan"), place)


def _value_names(output: OutputSpec, count: int) -> tuple[str, ...]:
    if len(output.bands) == count:
        return output.bands
    return (output.name,) if count == 1 else tuple(f"{output.name}_{k}" for k in range(count))
