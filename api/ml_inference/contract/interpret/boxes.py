"""Boxes out of a detector's tensors: reading its layout, and non-maximum suppression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np

from ml_inference.contract.interpret.activation import activate
from ml_inference.errors import CardInvalid, InferenceFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ml_inference.contract.card import Activation, BoxSpec

type Tensors = Mapping[str, NDArray[Any]]

CORNERS = 4
ROW = 6
BLOCK = 256
"""Boxes compared with each other at a time."""
PAIRS = 1 << 20
"""Pairs of boxes compared at a time, which bounds the memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Boxes before any selection.

    Attributes:
        boxes: float64 `(n, 4)`: x0, y0, x1, y1, in the units of the model.
        scores: float32 `(n,)`.
        labels: int64 `(n,)`: class values, or positions among the model's class scores where `channels` counts these.
        channels: number of the model's class scores; 0 when it chose the class itself.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    channels: int = 0

    def __getitem__(self, chosen: NDArray[Any]) -> Candidates:
        """Give the chosen ones, by mask or by index."""
        return Candidates(self.boxes[chosen], self.scores[chosen], self.labels[chosen], self.channels)


def read_boxes(primary: str, tensors: Tensors, spec: BoxSpec, activation: Activation | None) -> Candidates:
    """Read boxes by their layout.

    Args:
        primary: the output that holds `yolo` or `rows`.
        tensors: all outputs by name, without their batch axis.
        spec: layout and names.
        activation: what makes scores of the model's raw ones.

    Raises:
        CardInvalid: the layout is not known, or names an output that the model has not.
        InferenceFailed: a tensor has another shape than its layout.
    """
    if activation == "softmax" and spec.layout != "yolo":
        raise CardInvalid(
            "A softmax needs a score for every class, and this layout has one for each box: declare sigmoid."
        )
    match spec.layout:
        case "yolo":
            return _read_yolo(_named(tensors, primary), activation)
        case "rows":
            return _read_rows(_named(tensors, primary), activation)
        case "xyxy":
            boxes, scores, labels = (_named(tensors, name) for name in (spec.boxes, spec.scores, spec.labels))
            return _read_parts(boxes, scores, labels, activation)
        case None:
            raise CardInvalid(
                "How the model writes its boxes is not known: set `boxes.layout` in its profile."
            )
        case _:
            assert_never(spec.layout)


def _named(tensors: Tensors, name: str | None) -> NDArray[Any]:
    if name is None or name not in tensors:
        raise CardInvalid(
            f"The model's boxes need an output {name or 'that is not named'}; it has {', '.join(tensors)}."
        )
    return tensors[name]


def _read_parts(
    boxes: NDArray[Any], scores: NDArray[Any], labels: NDArray[Any], activation: Activation | None
) -> Candidates:
    count = scores.size
    if boxes.ndim < 2 or boxes.shape[-1] != CORNERS or boxes.size != CORNERS * count or labels.size != count:  # noqa: PLR2004 - rows and columns
        raise _misshapen("xyxy", "(n, 4), (n), (n)", boxes.shape, scores.shape, labels.shape)
    return _labelled(
        boxes.reshape(count, CORNERS), activate(scores.reshape(count), activation), labels.reshape(count)
    )


def _read_rows(rows: NDArray[Any], activation: Activation | None) -> Candidates:
    if rows.ndim < 2 or rows.shape[-1] != ROW:  # noqa: PLR2004 - rows and columns
        raise _misshapen("rows", "(n, 6)", rows.shape)
    rows = rows.reshape(-1, ROW)
    boxes, scores, labels = rows[:, :CORNERS], rows[:, CORNERS], rows[:, CORNERS + 1]
    return _labelled(boxes, activate(scores, activation), labels)


def _read_yolo(tensor: NDArray[Any], activation: Activation | None) -> Candidates:
    if tensor.ndim != 2 or len(tensor) <= CORNERS:  # noqa: PLR2004 - values and anchors
        raise _misshapen("yolo", "(4 + classes, n)", tensor.shape)
    centre_x, centre_y, width, height = tensor[:CORNERS].astype(np.float64)
    half_width, half_height = width / 2, height / 2
    boxes = np.stack(
        [centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height], axis=1
    )
    scores = activate(tensor[CORNERS:], activation)
    best = scores.argmax(axis=0)
    chosen = np.take_along_axis(scores, best[np.newaxis], axis=0)[0]
    return Candidates(boxes, chosen, best.astype(np.int64), len(scores))


def _labelled(boxes: NDArray[Any], scores: NDArray[np.float32], labels: NDArray[Any]) -> Candidates:
    """Make labels integers; a box whose label is none loses its score.

    Raises:
        InferenceFailed: labels have fractions, so they are something else.
    """
    if labels.dtype.kind == "f":
        usable = np.abs(labels.astype(np.float64)) < 2**31  # NaN is not
        broken = usable & (labels != np.rint(labels)) & (scores > 0)
        if broken.any():
            raise InferenceFailed(
                f"The model answered {labels[broken][0]:.4g} where its layout has the number of a class: "
                "the layout is another one; set `boxes.layout` in its profile, or ask for `output=raw`."
            )
        labels, scores = np.where(usable, np.rint(labels), 0), np.where(usable, scores, np.float32(np.nan))
    return Candidates(boxes.astype(np.float64), scores, labels.astype(np.int64))


def _misshapen(layout: str, expected: str, *got: tuple[int, ...]) -> InferenceFailed:
    shapes = ", ".join(str(shape) for shape in got)
    return InferenceFailed(
        f"The model answered boxes of shape {shapes}, and its layout {layout!r} means {expected} after the batch axis."
    )


def intersection_over_union(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the area that boxes share over the area that either covers; 0 where there is none.

    Args:
        boxes: float64 `(n, 4)`.
        others: float64 `(m, 4)`.

    Returns:
        float64 `(n, m)`.
    """
    left, top, right, bottom = np.ascontiguousarray(boxes.T)[:, :, np.newaxis]
    lefts, tops, rights, bottoms = np.ascontiguousarray(others.T)
    width = np.minimum(right, rights) - np.maximum(left, lefts)
    height = np.minimum(bottom, bottoms) - np.maximum(top, tops)
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = (right - left) * (bottom - top) + (rights - lefts) * (bottoms - tops) - shared
    ratio: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def suppress(candidates: Candidates, iou_threshold: float | None, limit: int) -> NDArray[np.intp]:
    """Keep the best box of every heap, class by class (greedy non-maximum suppression).

    Args:
        candidates: proper boxes with finite scores; of equal scores the earlier box is better.
        iou_threshold: a box goes when it overlaps a kept one of its own class by more than this; None keeps them all.
        limit: boxes kept at most.

    Returns:
        Indices of the kept boxes, best first.
    """
    waiting: NDArray[np.intp] = np.argsort(-candidates.scores, kind="stable")
    if iou_threshold is None:
        return waiting[:limit]
    kept = waiting[:0]
    while (
        waiting.size and len(kept) < limit
    ):  # block by block: what comes after the last one kept costs nothing
        size = max(1, min(BLOCK, PAIRS // (len(kept) + 1)))
        block, waiting = waiting[:size], waiting[size:]
        beaten = _rivals(candidates, kept, block, iou_threshold).any(axis=0)
        kept = np.concatenate([kept, _greedy(candidates, block[~beaten], iou_threshold)])
    return kept[:limit]


def _rivals(
    candidates: Candidates, winners: NDArray[np.intp], others: NDArray[np.intp], iou_threshold: float
) -> NDArray[np.bool_]:
    """Tell for each pair whether they are of one class and overlap by more than the threshold."""
    same: NDArray[np.bool_] = candidates.labels[winners][:, np.newaxis] == candidates.labels[others]
    overlap = intersection_over_union(candidates.boxes[winners], candidates.boxes[others])
    return same & (overlap > iou_threshold)


def _greedy(candidates: Candidates, block: NDArray[np.intp], iou_threshold: float) -> NDArray[np.intp]:
    """Thin out a few boxes, best first, among themselves."""
    rivals = _rivals(candidates, block, block, iou_threshold)
    standing = np.ones(len(block), dtype=np.bool_)
    for place in range(len(block)):
        if standing[place]:
            standing[place + 1 :] &= ~rivals[place, place + 1 :]
    return block[standing]
