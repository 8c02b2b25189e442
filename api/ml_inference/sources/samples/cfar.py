"""`bright-targets`: a cell-averaging constant false alarm rate (CA-CFAR) detector on one band.

For a pixel x with signal (x > 0), with N the number and mean the average of the pixels with signal in its
training ring, that is the 25 x 25 window around it without the 9 x 9 guard window::

    alpha(N)  = N * (Pfa**(-1 / N) - 1),  Pfa = 0.001
    threshold = alpha(N) * mean
    detected  : N > 0 and x > threshold
    score     = x / (x + threshold)       0.5 at the threshold, towards 1 above it

Finn and Johnson 1968 (RCA Review 29, 414-464); Richards, Fundamentals of Radar Signal Processing, chapter 6. For
exponentially distributed clutter Pfa is the false alarm rate per pixel whatever the clutter's strength; reflectance
of a calm surface varies far less, so there it is an upper bound. Windows shrink at the image's borders and around
nodata (fed to the model as 0), and alpha with them. A stricter rate needs no other model: asking for score >= s
multiplies alpha by s / (1 - s), so s = 2/3 brings 0.001 down to about one in a million.

A target gives one box: its brightest pixel (of equals the first in reading order) among the detected pixels of its
9 x 9 window stands for it, and the box encloses the detected pixels of that window, in pixel corners. Targets of up
to 5 pixels across are found whole; two with fewer than 4 pixels between them are one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ml_inference.sources.samples.graph import FLOAT, INT64, Graph

if TYPE_CHECKING:
    from ml_inference.sources.samples.graph import Tensor

BAND = "B08"
FALSE_ALARM_RATE = 1e-3
GUARD, TRAINING = 4, 12
"""Pixels on each side of the one under test."""
MAX_TARGETS = 100


def bright_targets() -> bytes:
    """`reflectance` float32 `[batch, 1, height, width]` → the K best targets, best first.

    K is the smaller of 100 and the number of pixels. `boxes` float32 `[batch, K, 4]` (x0 y0 x1 y1, pixel corners),
    `scores` float32 `[batch, K]`, `labels` int64 `[batch, K]` (all 0); rows beyond the last target are 0 throughout.
    """
    graph = Graph("bright-targets", "Cell-averaging CFAR: boxes around pixels far above their surroundings")
    pixels = graph.input("reflectance", ["batch", 1, "height", "width"])
    score = _score(graph, pixels)
    detected = score > 0.0
    down, across = _axis(graph, pixels, 2, (1, 1, -1, 1)), _axis(graph, pixels, 3, (1, 1, 1, -1))
    peak = _first(graph, _first(graph, _brightest(graph, pixels, detected), down), across)
    best, places = _best(graph, graph.where(peak, score, 0.0))
    (top, bottom), (left, right) = _extent(graph, detected, down), _extent(graph, detected, across)
    corners = [_pick(graph, side, places) for side in (left, top, right, bottom)]
    found = graph.op("Unsqueeze", best > 0.0, graph.int64(2))
    graph.output(
        "boxes", graph.where(found, graph.op("Concat", *corners, axis=2), 0.0), ["batch", "targets", 4]
    )
    graph.output("scores", best, ["batch", "targets"])
    graph.output("labels", (best * 0.0).cast(INT64), ["batch", "targets"], INT64)
    return graph.serialize()


def _score(graph: Graph, pixels: Tensor) -> Tensor:
    """The score where detected, else 0."""
    signal = pixels > 0.0
    ones, power = graph.where(signal, 1.0, 0.0), graph.where(signal, pixels, 0.0)
    count = graph.op("Round", _ring_sum(graph, ones))
    number = graph.op("Max", count, 1.0)
    alpha = number * (graph.op("Exp", -math.log(FALSE_ALARM_RATE) / number) - 1.0)
    threshold = alpha * (_ring_sum(graph, power) / number)
    detected = (count > 0.0) & (power > threshold)
    return graph.where(detected, power / graph.where(detected, power + threshold, 1.0), 0.0)


def _ring_sum(graph: Graph, values: Tensor) -> Tensor:
    """Sum over the training window less that over the guard window; 0 lies beyond the border."""
    return _box_sum(graph, values, TRAINING) - _box_sum(graph, values, GUARD)


def _box_sum(graph: Graph, values: Tensor, radius: int) -> Tensor:
    return _pool(graph, "AveragePool", values, radius, count_include_pad=1) * float((2 * radius + 1) ** 2)


def _window_max(graph: Graph, values: Tensor) -> Tensor:
    return _pool(graph, "MaxPool", values, GUARD)


def _pool(graph: Graph, kind: str, values: Tensor, radius: int, **attributes: int) -> Tensor:
    """Pool over a square window, along rows and then columns: 2k steps for each pixel instead of k squared."""
    size = 2 * radius + 1
    wide = graph.op(kind, values, kernel_shape=[1, size], pads=[0, radius, 0, radius], **attributes)
    return graph.op(kind, wide, kernel_shape=[size, 1], pads=[radius, 0, radius, 0], **attributes)


class _Axis(NamedTuple):
    """Positions along rows or columns, float32, broadcastable to the image: from 1 up to `size`, and down to 1."""

    size: Tensor
    rising: Tensor
    falling: Tensor


def _axis(graph: Graph, pixels: Tensor, axis: int, shape: tuple[int, ...]) -> _Axis:
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    size = graph.op("Gather", graph.op("Shape", pixels), graph.constant(axis, np.int64))
    numbers = graph.op("Reshape", graph.op("Range", zero, size, one), graph.int64(*shape)).cast(FLOAT)
    length = size.cast(FLOAT)
    return _Axis(length, numbers + 1.0, length - numbers)


def _brightest(graph: Graph, pixels: Tensor, detected: Tensor) -> Tensor:
    """Whether a detected pixel is as bright as any detected pixel of its window."""
    power = graph.where(detected, pixels, 0.0)
    return detected & power.equals(_window_max(graph, power))


def _first(graph: Graph, chosen: Tensor, axis: _Axis) -> Tensor:
    """Of the chosen pixels, those that come first along the axis within their window."""
    order = graph.where(chosen, axis.falling, 0.0)
    return chosen & order.equals(_window_max(graph, order))


def _extent(graph: Graph, detected: Tensor, axis: _Axis) -> tuple[Tensor, Tensor]:
    """Where the detected pixels of each pixel's window begin and end along the axis."""
    begin = axis.size - _window_max(graph, graph.where(detected, axis.falling, 0.0))
    return begin, _window_max(graph, graph.where(detected, axis.rising, 0.0))


def _best(graph: Graph, score: Tensor) -> tuple[Tensor, Tensor]:
    """The K highest scores, float32 `[batch, K]`, and their places in the flattened image."""
    flat = graph.op("Reshape", score, graph.int64(0, -1))
    pixels = graph.op("Gather", graph.op("Shape", flat), graph.int64(1))
    count = graph.op("Min", pixels, graph.int64(MAX_TARGETS))
    values, places = graph.ops("TopK", 2, flat, count, axis=1)
    return values, places


def _pick(graph: Graph, field: Tensor, places: Tensor) -> Tensor:
    """`[batch, 1, height, width]` read at places `[batch, K]`, as `[batch, K, 1]`."""
    flat = graph.op("Reshape", field, graph.int64(0, -1))
    return graph.op("Unsqueeze", graph.op("GatherElements", flat, places, axis=1), graph.int64(2))
