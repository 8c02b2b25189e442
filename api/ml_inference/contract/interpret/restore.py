"""Answers for every pixel, brought back to the grid of the image: padding, cropping and resizing undone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.frame import back_to_window, steps
from ml_inference.contract.resample import apply_taps, nearest_index, taps
from ml_inference.errors import InferenceFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ml_inference.contract.frame import Fit, Frame
    from ml_inference.contract.raster import Georeference
    from ml_inference.contract.resample import Mask, Planes, Size

type Factors = tuple[float, float]
"""Cells of an answer for one cell of the model's grid, down and across."""

STRIDES = (2, 4, 8, 16, 32, 64)
"""Pixels for one cell in networks, tried first: at most one of them explains a size."""


def factors_of(answer: Size, grid: Size) -> Factors:
    """Tell an answer's resolution: that of the model's grid, a whole multiple, or one cell for every so many pixels.

    Raises:
        InferenceFailed: any other size, such as that of a network which trims its borders: where it lies is not known.
    """
    if all(a and a % g == 0 for a, g in zip(answer, grid, strict=True)):
        return answer[0] / grid[0], answer[1] / grid[1]
    for rounded in (math.ceil, math.floor):  # networks pad their input, or leave out its rest
        for stride in (*STRIDES, round(grid[0] / max(1, answer[0])) or 1):
            if all(a == rounded(g / stride) > 0 for a, g in zip(answer, grid, strict=True)):
                return 1 / stride, 1 / stride
    raise InferenceFailed(
        f"The model answered {answer[0]}x{answer[1]} cells for {grid[0]}x{grid[1]} pixels: "
        "neither as many, nor a whole multiple, nor one for every so many, so their place in the image is unknown."
    )


def restore_labels(labels: NDArray[Any], unknown: Mask | None, frame: Frame) -> tuple[NDArray[Any], Mask]:
    """Bring a label for every cell back to the image, each pixel taking that of the nearest cell.

    Args:
        labels: shape `(rows, columns)` of the answer.
        unknown: where the model gave none; None when it gave one everywhere.
        frame: of the image.

    Returns:
        Labels and validity, both of the image's shape; what is not valid is 0.
    """
    fit, answer = frame.fit, (labels.shape[0], labels.shape[1])
    if answer == fit.grid and not fit.resized:
        pick: tuple[Any, Any] = slice(fit.window[0]), slice(fit.window[1])
    else:
        pick = back_to_window(fit, answer, factors_of(answer, fit.grid))
    known = None if unknown is None else ~unknown[pick]
    return _on_image(labels[pick][np.newaxis], fit)[0], _narrowed(frame, known)


def restore_values(planes: Planes, frame: Frame) -> tuple[NDArray[np.float32], Mask]:
    """Bring values for every cell back to the image, linearly where the grids differ.

    Args:
        planes: shape `(planes, rows, columns)` of the answer; what is not finite counts as no value.
        frame: of the image.

    Returns:
        float32 `(planes, height, width)`, NaN where not valid, and validity `(height, width)`.
    """
    fit, answer = frame.fit, (planes.shape[1], planes.shape[2])
    values: Planes = planes.astype(np.float32, copy=False)
    if answer == fit.grid and not fit.resized:
        values = values[:, : fit.window[0], : fit.window[1]]
        known = finite_mask(values)
    else:
        values, known = _interpolated(values, frame, factors_of(answer, fit.grid))
    valid = _narrowed(frame, known)
    return blank(_on_image(values, fit), valid), valid


def restore_finer(planes: Planes, frame: Frame) -> tuple[NDArray[np.float32], Mask, Georeference | None]:
    """Keep an answer on its own finer grid (super-resolution); only padding is undone.

    Returns:
        float32 values, validity, and the place of their grid: the same ground, smaller pixels.
    """
    fit = frame.fit
    factors = factors_of((planes.shape[1], planes.shape[2]), fit.grid)
    rows, columns = (round(c * f) for c, f in zip(fit.content, factors, strict=True))
    values = planes[:, :rows, :columns].astype(np.float32, copy=False)
    height, width = fit.window
    down, across = nearest_index(rows, height / rows, height), nearest_index(columns, width / columns, width)
    valid = frame.valid[fit.slices][np.ix_(down, across)]
    known = finite_mask(values)
    valid = valid if known is None else valid & known
    place = frame.georeference
    if place is not None:
        place = place.shifted(fit.origin[1], fit.origin[0]).scaled(width / columns, height / rows)
    return blank(values, valid), valid, place


def is_finer(planes: Planes, frame: Frame) -> bool:
    """Tell whether an answer has more cells than the model's grid, both ways."""
    return all(cells > pixels for cells, pixels in zip(planes.shape[1:], frame.fit.grid, strict=True))


def finite_mask(planes: Planes) -> Mask | None:
    """Give where every plane is finite; None when all are everywhere."""
    if planes.dtype.kind != "f" or np.isfinite(planes).all():
        return None
    mask: Mask = np.isfinite(planes).all(axis=0)
    return mask


def blank(values: Planes, valid: Mask) -> NDArray[np.float32]:
    """Put NaN where there is no valid value; the model's own array stays as it is."""
    return values if valid.all() else np.where(valid, values, np.float32(np.nan))


def _interpolated(values: Planes, frame: Frame, factors: Factors) -> tuple[Planes, Mask | None]:
    fit = frame.fit
    rows, columns = (
        min(int(np.ceil(content * factor)), cells)
        for content, factor, cells in zip(fit.content, factors, values.shape[1:], strict=True)
    )
    values = values[:, :rows, :columns]
    known = finite_mask(values)
    if frame.seen is not None:
        down = nearest_index(rows, 1 / factors[0], fit.content[0])
        across = nearest_index(columns, 1 / factors[1], fit.content[1])
        seen = frame.seen[np.ix_(down, across)]
        known = seen if known is None else known & seen
    down_step, across_step = steps(fit, factors)
    down_taps = taps("linear", rows, fit.window[0], down_step)
    return apply_taps(values, down_taps, taps("linear", columns, fit.window[1], across_step), known)


def _narrowed(frame: Frame, known: Mask | None) -> Mask:
    """Give the image's validity, less what the model left unknown in the window."""
    if known is None:
        return frame.valid
    valid = frame.valid.copy()
    valid[frame.fit.slices] &= known
    return valid


def _on_image(planes: Planes, fit: Fit) -> Planes:
    if not fit.cropped:
        return planes
    whole = np.zeros((len(planes), *fit.source), dtype=planes.dtype)
    whole[:, *fit.slices] = planes
    return whole
