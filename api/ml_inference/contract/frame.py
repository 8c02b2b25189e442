"""Where an image lies on the model's grid, and the way back.

A fit takes a window of the image, resamples it to the content of the model's grid and pads that at the bottom and right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from ml_inference.contract.card import ANY, Axis
from ml_inference.contract.resample import nearest_index
from ml_inference.errors import ContractMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ml_inference.contract.card import InputSpec
    from ml_inference.contract.raster import Georeference
    from ml_inference.contract.resample import Kernel, Mask, Size

MAX_SHRINK = 4096
"""Pixels along an axis that resizing makes one of at most: a file of a few kilobytes may hold a strip of millions."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The arithmetic of a fit; every pair is (rows, columns).

    Attributes:
        source: size of the image.
        origin: upper left corner of the window that the model sees, in the image.
        window: size of that window.
        content: size of that window on the model's grid.
        grid: size of the model's grid: the content and its padding.
        kernel: how the window became the content.
    """

    source: Size
    origin: Size
    window: Size
    content: Size
    grid: Size
    kernel: Kernel = "nearest"

    @property
    def resized(self) -> bool:
        """Whether the content is on another grid than the image."""
        return self.content != self.window

    @property
    def cropped(self) -> bool:
        """Whether the model sees only a part of the image."""
        return self.window != self.source

    @property
    def padded(self) -> bool:
        """Whether the model sees more than the image."""
        return self.grid != self.content

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window, to index an image with."""
        (row, column), (rows, columns) = self.origin, self.window
        return slice(row, row + rows), slice(column, column + columns)

    def words(self) -> tuple[str, ...]:
        """Say what was done to an image's size, in the order it was done."""
        said = []
        if self.cropped:
            said.append(f"crop to {_by(self.window)} from row {self.origin[0]}, column {self.origin[1]}")
        if self.resized:
            said.append(f"resize {_by(self.window)} to {_by(self.content)} ({self.kernel})")
        if self.padded:
            said.append(f"pad {_by(self.content)} to {_by(self.grid)} at the bottom and right")
        return tuple(said)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """What `interpret` must know of the image behind a tensor.

    Attributes:
        fit: how the image came to the model's grid.
        valid: bool, shape of the image: False where an answer would mean nothing, because the image has no data there or
            the model did not see it.
        seen: bool, shape of `fit.content`: False where the model saw the fill value; None when it saw data everywhere.
        georeference: of the image.
    """

    fit: Fit
    valid: Mask
    seen: Mask | None = None
    georeference: Georeference | None = None

    @property
    def height(self) -> int:
        """Rows of the image."""
        return self.fit.source[0]

    @property
    def width(self) -> int:
        """Columns of the image."""
        return self.fit.source[1]

    def to_source(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bring boxes `(n, 4)` (x0, y0, x1, y1) from pixels of the model's grid to pixels of the image, not clipped."""
        (row, column), (rows, columns), (height, width) = self.fit.origin, self.fit.window, self.fit.content
        factors = np.array([columns / width, rows / height] * 2)
        return cast("NDArray[np.float64]", boxes * factors + np.array([column, row] * 2))


def make_frame(fit: Fit, seen: Mask | None, georeference: Georeference | None) -> Frame:
    """Derive an image's validity from what the model saw of it."""
    if not fit.cropped and not fit.resized:
        return Frame(fit, np.ones(fit.source, dtype=np.bool_) if seen is None else seen, seen, georeference)
    valid = np.zeros(fit.source, dtype=np.bool_)
    valid[fit.slices] = True if seen is None else seen[back_to_window(fit, fit.grid)]
    return Frame(fit, valid, seen, georeference)


def back_to_window(
    fit: Fit, answer: Size, factors: tuple[float, float] = (1, 1)
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give the nearest cell of the model's answer for each row and column of the window, as an open mesh to index with.

    Args:
        fit: how the window came to the model's grid.
        answer: rows and columns of the answer.
        factors: cells of the answer for one cell of the model's grid, down and across.
    """
    rows, columns = (
        nearest_index(window, step, cells)
        for window, step, cells in zip(fit.window, steps(fit, factors), answer, strict=True)
    )
    return rows[:, None], columns[None, :]


def steps(fit: Fit, factors: tuple[float, float]) -> tuple[float, float]:
    """Give the cells of an answer that one pixel of the window takes up, down and across."""
    down, across = (c / w * f for c, w, f in zip(fit.content, fit.window, factors, strict=True))
    return down, across


def plan_fit(spec: InputSpec, height: int, width: int) -> Fit:
    """Decide how an image comes to the size an input wants.

    Raises:
        ContractMismatch: the input's size is fixed and the card gives no way there.
    """
    rows, columns = _plan_axis(spec, Axis.HEIGHT, height), _plan_axis(spec, Axis.WIDTH, width)
    origin, window, content, grid = zip(rows, columns, strict=True)
    kernel = (spec.resize or "").removeprefix("interpolation-")
    resampled = content != window
    return Fit(
        (height, width), origin, window, content, grid, cast("Kernel", kernel) if resampled else "nearest"
    )


def _plan_axis(spec: InputSpec, axis: Axis, length: int) -> tuple[int, int, int, int]:
    """Give origin, window, content and grid along one axis."""
    target = spec.size(axis)
    if target == ANY:
        return 0, length, length, -(-length // spec.size_multiple) * spec.size_multiple
    if length == target:
        return 0, length, length, length
    if spec.resize == "crop" and length > target:
        return (length - target) // 2, target, target, target
    if spec.resize == "pad" and length < target:
        return 0, length, length, target
    if _interpolates(spec) and length <= target * MAX_SHRINK:
        return 0, length, target, target
    raise _misfit(spec, axis, length, target)


def _interpolates(spec: InputSpec) -> bool:
    return spec.resize is not None and spec.resize.startswith("interpolation-")


def _misfit(spec: InputSpec, axis: Axis, length: int, target: int) -> ContractMismatch:
    reason = {
        "crop": "the card lets larger images be cropped, not smaller ones enlarged",
        "pad": "the card lets smaller images be padded, not larger ones cut",
    }.get(spec.resize or "", "the card declares no resize_type")
    if _interpolates(spec):
        reason = f"resizing makes one of {MAX_SHRINK} pixels at most"
    return ContractMismatch(
        f"The image's {axis} is {length} pixels and input {spec.name!r} takes {target}: {reason}. "
        "Send an image of that size, or set `resize` in the model's profile.",
        field="image.size",
        expected={str(axis): target},
        got={str(axis): length},
    )


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
