"""Objects, in the image's own pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.card import BoxSpec
from ml_inference.contract.interpret.boxes import read_boxes, suppress
from ml_inference.contract.interpret.labels import classes_of_channels
from ml_inference.contract.predictions import Detection
from ml_inference.errors import ContractMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ml_inference.contract.card import OutputSpec
    from ml_inference.contract.frame import Frame
    from ml_inference.contract.options import PredictOptions
    from ml_inference.contract.resample import Mask


def detect(
    tensors: Mapping[str, NDArray[Any]], output: OutputSpec, frame: Frame, options: PredictOptions
) -> Detection:
    """Read, select and place boxes.

    Those below the threshold, without area, not finite, off the image, or on nothing but nodata are dropped; then each class
    is thinned out by non-maximum suppression.

    Args:
        tensors: all outputs without their batch axis.
        output: the one declared for detection.
        frame: of the image.
        options: `threshold` overrides the card's.

    Raises:
        ContractMismatch: scores that are none, with no activation declared that makes them so.
    """
    spec = output.boxes or BoxSpec()
    candidates = read_boxes(output.name, tensors, spec, output.activation)
    if output.activation is None:
        _refuse_unbounded(candidates.scores)
    threshold = spec.score_threshold if options.threshold is None else options.threshold
    with np.errstate(all="ignore"):  # a comparison with NaN is False, which drops the box
        candidates = candidates[candidates.scores >= threshold]
        boxes = candidates.boxes
        if spec.normalized:
            boxes = boxes * np.array(frame.fit.grid[::-1] * 2, dtype=np.float64)
        placed = _placed(boxes, frame)
        there = (
            np.isfinite(boxes).all(axis=1)
            & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
            & _on_data(placed, frame.valid)
        )
        candidates, placed = candidates[there], placed[there]
        kept = suppress(candidates, spec.iou_threshold if spec.nms else None, spec.max_detections)
    classes = output.classes
    labels = candidates.labels[kept]
    if candidates.channels:
        classes = classes_of_channels(classes, candidates.channels)
        labels = np.array([label.value for label in classes], dtype=np.int64)[labels]
    return Detection(
        classes,
        placed[kept].astype(np.float32),
        candidates.scores[kept],
        labels,
        frame.height,
        frame.width,
        frame.georeference,
    )


def _refuse_unbounded(scores: NDArray[np.float32]) -> None:
    known = scores[np.isfinite(scores)]
    if not known.size or (known.min() >= 0 and known.max() <= 1):
        return
    span = f"{known.min():.4g} to {known.max():.4g}"
    raise ContractMismatch(
        f"The model's scores reach from {span}, and what makes them scores from 0 to 1 is not declared: set `activation` "
        "(none, sigmoid) in its profile, or ask for `output=raw`.",
        field="output",
        expected="scores from 0 to 1, or a declared activation",
        got=span,
    )


def _placed(boxes: NDArray[np.float64], frame: Frame) -> NDArray[np.float64]:
    """Bring boxes to pixels of the image and cut off what lies outside."""
    limit = np.array([frame.width, frame.height] * 2, dtype=np.float64)
    placed: NDArray[np.float64] = np.clip(np.nan_to_num(frame.to_source(boxes)), 0, limit)
    return placed


def _on_data(boxes: NDArray[np.float64], valid: Mask) -> Mask:
    """Tell which boxes, within the image, have area and touch a valid pixel, by a summed-area table (Crow 1984)."""
    proper: Mask = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    if valid.all():
        return proper
    table = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1), dtype=np.int64)
    table[1:, 1:] = valid.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    left, top = np.floor(boxes[:, :2]).astype(np.intp).T
    right, bottom = np.ceil(boxes[:, 2:]).astype(np.intp).T
    count = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
    touching: Mask = proper & (count > 0)
    return touching
