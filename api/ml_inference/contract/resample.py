"""Resampling as separable sums of a few taps, with the conventions of OpenCV's `resize`.

Pixel centres lie at half-integers and edges are replicated. As in OpenCV, `linear`, `cubic` (Keys 1981, a = -0.75) and
`lanczos4` do not widen their kernel when they shrink, `area` averages whole boxes when both axes shrink and turns into a
linear form otherwise, and `nearest` takes `floor(i · n_in / n_out)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

type Size = tuple[int, int]
"""Rows and columns of a grid."""

type Planes = NDArray[Any]
"""Values of shape `(planes, height, width)`."""

type Mask = NDArray[np.bool_]
"""Validity, shape `(height, width)`."""

type Kernel = Literal["nearest", "linear", "cubic", "area", "lanczos4"]
"""How values between pixels are found (MLM `resize_type`, without its prefix)."""

type Form = Kernel | Literal["area-linear"]
"""A kernel, and what `area` becomes when either axis grows."""

CUBIC_A = -0.75
LANCZOS_LOBES = 4
EDGE = 1e-9
"""A position this little before a pixel's edge is there by rounding, and belongs to the next pixel."""

REMEMBERED = 1 << 14
"""Length of an axis up to which its taps are kept for the next image; longer ones are rare, and their taps large."""

ENOUGH = 0.5
"""Share of a kernel's weight that must lie on valid pixels for its result to be valid."""


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Which samples make up each result, and how much of each.

    Attributes:
        index: intp `(n_out, taps)`, each within the input.
        weight: float32 `(n_out, taps)`, rows sum to 1.
    """

    index: NDArray[np.intp]
    weight: NDArray[np.float32]


def taps(kernel: Form, n_in: int, n_out: int, step: float | None = None) -> Taps:
    """Give the taps that bring an axis from `n_in` samples to `n_out`.

    Args:
        kernel: the way of interpolation.
        n_in: samples there are.
        n_out: samples wanted.
        step: input samples from one result to the next; `n_in / n_out` unless the axis is only partly wanted.
    """
    make = _remembered_taps if max(n_in, n_out) <= REMEMBERED else _make_taps
    return make(kernel, n_in, n_out, step)


def _make_taps(kernel: Form, n_in: int, n_out: int, step: float | None) -> Taps:
    step = 1 / (n_out / n_in) if step is None else step  # OpenCV's own rounding, which `nearest` can show
    result = np.arange(n_out, dtype=np.float64)
    if kernel == "nearest":
        return _taps(np.floor(result * step)[:, None], np.ones((n_out, 1)), n_in)
    if kernel == "area":
        return _area(result, step, n_in)
    centre = (result + 0.5) * step - 0.5
    base = np.floor(centre)
    fraction = (centre - base)[:, None]
    if kernel == "area-linear":
        base = np.floor(result * step + EDGE)
        fraction = (result + 1 - (base + 1) / step)[:, None]
        fraction = np.where(fraction <= 0, 0, fraction - np.floor(fraction))
    reach = {"cubic": 2, "lanczos4": LANCZOS_LOBES}.get(kernel, 1)
    offsets = np.arange(1 - reach, reach + 1)
    distance = np.abs(offsets - fraction)
    weight = {"cubic": _cubic, "lanczos4": _lanczos}.get(kernel, _triangle)(distance)
    return _taps(base[:, None] + offsets, weight, n_in)


_remembered_taps = lru_cache(maxsize=128)(_make_taps)


def nearest_index(n_out: int, step: float, n_in: int) -> NDArray[np.intp]:
    """Give for each of `n_out` results, `step` samples apart, the sample whose pixel holds its centre."""
    cells: NDArray[np.intp] = np.minimum((np.arange(n_out) + 0.5) * step, n_in - 1).astype(np.intp)
    return cells


def _taps(index: NDArray[Any], weight: NDArray[np.float64], n_in: int) -> Taps:
    used = weight.any(axis=0)  # an axis that keeps its size needs one tap, whatever the kernel
    bounded = np.clip(index[:, used], 0, n_in - 1).astype(np.intp)
    normal = weight[:, used] / weight.sum(axis=1, keepdims=True)
    return Taps(bounded, normal.astype(np.float32))


def _area(result: NDArray[np.float64], step: float, n_in: int) -> Taps:
    start, stop = result * step, np.minimum((result + 1) * step, n_in)
    first = np.floor(start + EDGE)
    index = first[:, None] + np.arange(int(np.ceil(step)) + 1)
    weight = np.minimum(index + 1, stop[:, None]) - np.maximum(index, start[:, None])
    return _taps(index, np.maximum(weight, 0), n_in)


def _triangle(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1 - distance, 0)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    d, a = distance, CUBIC_A
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)


def _lanczos(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sinc(distance) * np.sinc(distance / LANCZOS_LOBES)


def resample(
    values: Planes, size: Size, kernel: Kernel, valid: Mask | None = None
) -> tuple[Planes, Mask | None]:
    """Bring planes to another size.

    Args:
        values: finite where valid; `nearest` keeps any dtype, the other kernels need a float one.
        size: rows and columns wanted.
        kernel: the way of interpolation.
        valid: None means that everything is valid.

    Returns:
        Values `(planes, *size)`, and their validity (None when given None).
    """
    height, width = values.shape[1:]
    rows, columns = size
    form: Form = kernel
    if kernel == "area" and (rows > height or columns > width):
        form = "area-linear"
    return apply_taps(values, taps(form, height, rows), taps(form, width, columns), valid)


def apply_taps(
    values: Planes, rows: Taps, columns: Taps, valid: Mask | None = None
) -> tuple[Planes, Mask | None]:
    """Resample planes by the taps of both axes.

    An invalid pixel lends nothing to its neighbours: a result is the mean of its valid taps, by their weights, and is
    itself valid when these make up at least half of the kernel. Invalid results are 0.
    """
    if rows.index.shape[1] == columns.index.shape[1] == 1:
        pick = np.ix_(rows.index[:, 0], columns.index[:, 0])
        return values[:, *pick], None if valid is None else valid[pick]
    if valid is None:
        return _both(values, rows, columns), None
    share = _both(valid[None].astype(values.dtype), rows, columns)[0]
    good = share >= ENOUGH
    total = _both(np.where(valid, values, values.dtype.type(0)), rows, columns)
    return np.where(good, total / np.where(good, share, 1), 0).astype(values.dtype, copy=False), good


def _both(values: Planes, rows: Taps, columns: Taps) -> Planes:
    height, width = values.shape[1:]
    if len(rows.index) * width <= len(columns.index) * height:  # the smaller intermediate first
        return _along(_along(values, rows, 1), columns, 2)
    return _along(_along(values, columns, 2), rows, 1)


def _along(values: Planes, by: Taps, axis: int) -> Planes:
    n_out, count = by.index.shape
    weight = by.weight.astype(values.dtype, copy=False).reshape(
        (n_out, 1, count) if axis == 1 else (n_out, count)
    )
    total: Planes = np.take(values, by.index[:, 0], axis=axis) * weight[..., 0]
    for k in range(1, count):
        total += np.take(values, by.index[:, k], axis=axis) * weight[..., k]
    return total
