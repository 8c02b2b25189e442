"""Scores to classes, for a whole image or for every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.formulas import process
from ml_inference.contract.interpret.activation import activate
from ml_inference.contract.interpret.answers import is_raster, to_planes
from ml_inference.contract.interpret.labels import (
    binary_classes,
    class_of_value,
    classes_of_channels,
    label_format,
    open_label_format,
)
from ml_inference.contract.interpret.restore import finite_mask, restore_labels, restore_values
from ml_inference.contract.predictions import Classification, Segmentation
from ml_inference.errors import ContractMismatch, InferenceFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ml_inference.contract.card import ClassLabel, OutputSpec
    from ml_inference.contract.frame import Frame
    from ml_inference.contract.options import PredictOptions
    from ml_inference.contract.resample import Mask, Planes

EVEN_ODDS = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class _Decision:
    """A choice for every cell.

    Attributes:
        index: into `classes`, of any integer type, shape `(rows, columns)`.
        classes: that may be chosen.
        unknown: where the scores are not finite; None when they are everywhere.
    """

    index: NDArray[Any]
    classes: tuple[ClassLabel, ...]
    unknown: Mask | None


def classify(raw: NDArray[Any], output: OutputSpec, options: PredictOptions) -> Classification:
    """Read one decision for the whole image.

    A single score decides between two classes by a threshold; once activated it stands beside its complement. A model that
    answers the class's value itself gives no scores.
    """
    planes = to_planes(output, raw)
    if planes.shape[1:] != (1, 1):
        raise InferenceFailed(
            f"The model answered {raw.shape}, and its card promises one decision for the image."
        )
    values = planes if options.output == "raw" else _processed(planes, output)
    if finite_mask(values) is not None:
        raise InferenceFailed("The model answered NaN or infinity instead of scores.")
    if options.output == "raw":
        return Classification(
            "raw", _score_classes(output, len(values)), values.reshape(-1).astype(np.float32), None
        )
    if _holds_labels(planes, values, output, options):
        _refuse_scores(output, options)
        label = class_of_value(int(np.rint(values[0, 0, 0])), output.classes)
        return Classification(options.output, (), np.empty(0, np.float32), label)
    decision = _decide(values, output, options)
    label = decision.classes[int(decision.index[0, 0])]
    scores = _scores(values, output, options).reshape(-1)
    if len(scores) == 1 and output.activation is not None:
        return Classification(options.output, decision.classes, np.concatenate([1 - scores, scores]), label)
    return Classification(options.output, _score_classes(output, len(scores)), scores, label)


def segment(raw: NDArray[Any], output: OutputSpec, frame: Frame, options: PredictOptions) -> Segmentation:
    """Read a decision for every pixel of the image, whatever the resolution of the model's answer."""
    if not is_raster(output, raw) and frame.fit.grid != (1, 1):
        raise InferenceFailed(
            f"The model answered {raw.shape}, and its card promises a decision for every pixel."
        )
    planes = to_planes(output, raw)
    if options.output == "raw":
        return _score_raster(planes, output, frame, options)
    values = _processed(planes, output)
    if _holds_labels(planes, values, output, options):
        _refuse_scores(output, options)
        return _given_labels(values, planes.dtype, output, frame)
    if options.output == "probabilities":
        return _score_raster(_scores(values, output, options), output, frame, options)
    decision = _decide(values, output, options)
    index, valid = restore_labels(decision.index, decision.unknown, frame)
    dtype, nodata = label_format((*decision.classes, *output.classes))
    lookup = np.array([label.value for label in decision.classes], dtype=dtype)
    return _label_raster(lookup.take(index), valid, nodata, decision.classes, frame)


def _processed(planes: Planes, output: OutputSpec) -> Planes:
    for expression in output.processing:
        planes = process(expression, planes, output.bands)
    return planes


def _score_classes(output: OutputSpec, count: int) -> tuple[ClassLabel, ...]:
    """Give the class of each score; a single one belongs to the class above the threshold."""
    return (binary_classes(output.classes)[1],) if count == 1 else classes_of_channels(output.classes, count)


def _holds_labels(planes: Planes, values: Planes, output: OutputSpec, options: PredictOptions) -> bool:
    """Tell whether a model answers class values, not scores.

    These are integers or bools in a single channel, or what post-processing makes whole numbers of (`A > 0.5`), unless a
    rule for scores is declared.
    """
    if len(values) != 1 or output.activation not in (None, "none") or output.threshold is not None:
        return False
    if len(planes) == 1 and planes.dtype.kind in "iub":
        return True
    if not output.processing or output.activation is not None or options.threshold is not None:
        return False
    known = values[np.isfinite(values)]
    return bool((known == np.rint(known)).all())


def _refuse_scores(output: OutputSpec, options: PredictOptions) -> None:
    if options.output == "probabilities":
        raise ContractMismatch(
            f"Output {output.name!r} holds class values, not scores.",
            field="output",
            expected=["labels", "raw"],
            got="probabilities",
        )
    if options.threshold is not None:
        raise _no_threshold(output, options.threshold)


def _no_threshold(output: OutputSpec, threshold: float) -> ContractMismatch:
    return ContractMismatch(
        f"A threshold is for a single score, and output {output.name!r} decides otherwise: leave out `threshold`.",
        field="threshold",
        expected="no `threshold` in the request",
        got=threshold,
    )


def _scores(values: Planes, output: OutputSpec, options: PredictOptions) -> NDArray[np.float32]:
    if options.output == "probabilities" and output.activation is None:
        raise ContractMismatch(
            f"What makes probabilities of output {output.name!r} is not declared: set `activation` (none, softmax, sigmoid) "
            "in the model's profile, or ask for `output=raw`.",
            field="output",
            expected=["labels", "raw"],
            got="probabilities",
        )
    return _activated(values, output)


def _activated(values: Planes, output: OutputSpec) -> NDArray[np.float32]:
    if output.activation == "softmax" and len(values) == 1:
        raise ContractMismatch(
            f"Output {output.name!r} has a single score, of which a softmax is always 1: declare sigmoid in the profile.",
            field="output",
            expected="activation sigmoid or none",
            got="softmax",
        )
    return activate(values, output.activation)


def _decide(values: Planes, output: OutputSpec, options: PredictOptions) -> _Decision:
    finite = finite_mask(values)
    unknown = None if finite is None else ~finite
    if len(values) == 1:
        threshold = _threshold(output, options)
        above = _activated(values, output)[0] >= threshold
        return _Decision(above.view(np.uint8), binary_classes(output.classes), unknown)
    if options.threshold is not None:
        raise _no_threshold(output, options.threshold)
    classes = classes_of_channels(output.classes, len(values))
    return _Decision(best_channel(values), classes, unknown)


def best_channel(values: Planes) -> NDArray[Any]:
    """Give the channel of the highest value, the first of equal ones, for every pixel.

    A plane at a time, which runs several times faster than an `argmax` along the first axis.
    """
    if values[0].size == 1:
        return values.argmax(axis=0)
    best, index = values[0], np.zeros(values.shape[1:], dtype=np.min_scalar_type(len(values)))
    for channel in range(1, len(values)):
        better = values[channel] > best
        np.maximum(index, better * index.dtype.type(channel), out=index)  # a later channel is a larger number
        best = np.maximum(best, values[channel])
    return index


def _threshold(output: OutputSpec, options: PredictOptions) -> float:
    """Give where label 1 begins: the request's, the profile's, or even odds when the score is one of odds."""
    for threshold in (options.threshold, output.threshold):
        if threshold is not None:
            return threshold
    if output.activation is not None:
        return EVEN_ODDS
    raise ContractMismatch(
        f"From where on the score of output {output.name!r} means its class is not declared: say it with the request "
        "(`threshold=0.5`), or set `activation` or `threshold` in the model's profile.",
        field="threshold",
        expected="a threshold or a declared activation",
        got="neither",
    )


def _score_raster(planes: Planes, output: OutputSpec, frame: Frame, options: PredictOptions) -> Segmentation:
    values, valid = restore_values(planes, frame)
    classes = _score_classes(output, len(planes))
    return Segmentation(options.output, classes, values, valid, float("nan"), frame.georeference)


def _given_labels(values: Planes, dtype: np.dtype[Any], output: OutputSpec, frame: Frame) -> Segmentation:
    """Read class values that the model itself has chosen."""
    finite = finite_mask(values)
    labels, valid = restore_labels(values[0], None if finite is None else ~finite, frame)
    kind, nodata = label_format(output.classes) if output.classes else open_label_format(dtype)
    labels = np.where(valid, np.rint(labels) if labels.dtype.kind == "f" else labels, 0)
    info = np.iinfo(kind)
    low, high = labels.min(), labels.max()
    if not (info.min <= low and high <= info.max):
        raise InferenceFailed(
            f"The model answered class values from {low} to {high}, which its card does not list."
        )
    return _label_raster(labels.astype(kind), valid, nodata, output.classes, frame)


def _label_raster(
    labels: NDArray[Any], valid: Mask, nodata: int, classes: tuple[ClassLabel, ...], frame: Frame
) -> Segmentation:
    for value in {nodata, *(label.value for label in classes if label.nodata)}:
        hit = labels == value
        if hit.any():
            valid = valid & ~hit
    labels = labels if valid.all() else np.where(valid, labels, labels.dtype.type(nodata))
    return Segmentation("labels", classes, labels[np.newaxis], valid, nodata, frame.georeference)
