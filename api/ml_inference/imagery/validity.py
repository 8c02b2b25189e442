"""Which pixels of a file count: its nodata value, its mask and its alpha band as one boolean array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import ColorInterp, MaskFlags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_WIDE = 4  # bytes; nodata travels as a double, which is exact for integers up to this size


def alpha_band(colours: Sequence[ColorInterp], descriptions: Sequence[str]) -> int | None:
    """Return the index (from 0) of the alpha band, None where there is none.

    GDAL declares a fourth band of bytes as alpha without being asked; a description of its own says otherwise.
    """
    if len(colours) == 1 or ColorInterp.alpha not in colours:
        return None
    index = colours.index(ColorInterp.alpha)
    return index if descriptions[index].lower() in {"", "alpha"} else None


def read_validity(
    dataset: Any, pixels: NDArray[Any], indexes: list[int], alpha: int | None
) -> NDArray[np.bool_] | None:
    """Read where pixels are valid.

    Args:
        dataset: an open rasterio dataset.
        pixels: all of its bands.
        indexes: of the bands that count, from 0.
        alpha: index of the alpha band.

    Returns:
        bool `(len(indexes), height, width)`, maybe read-only; None when every pixel is valid.
    """
    masks = [_band_mask(dataset, i, pixels[i], set(flags)) for i, flags in enumerate(dataset.mask_flag_enums)]
    found = [masks[i] for i in indexes]
    if alpha is not None:
        opaque = pixels[alpha] > 0
        found = [opaque if mask is None else mask & opaque for mask in found]
    if all(mask is None or mask.all() for mask in found):
        return None
    if all(mask is found[0] for mask in found):
        return np.broadcast_to(found[0], (len(indexes), *pixels.shape[1:]))  # type: ignore[arg-type]
    everywhere = np.ones(pixels.shape[1:], np.bool_)
    return np.stack([everywhere if mask is None else mask for mask in found])


def _band_mask(
    dataset: Any, index: int, band: NDArray[Any], flags: set[MaskFlags]
) -> NDArray[np.bool_] | None:
    if MaskFlags.all_valid in flags or MaskFlags.alpha in flags:
        return None
    nodata = dataset.nodatavals[index]
    valid: NDArray[np.bool_]
    if flags == {MaskFlags.nodata} and nodata is not None:
        if np.isnan(nodata):
            return ~np.isnan(band)
        if band.dtype.kind in "iu" and band.dtype.itemsize <= _WIDE:
            valid = band != nodata
            return valid
        if band.dtype == np.float16:
            # GDAL compares with -9999 as it is tagged, and pixels of 16 bits hold it rounded, as -10000.
            with np.errstate(over="ignore"):
                valid = band != np.float16(nodata)
            return valid
    mask: NDArray[np.uint8] = np.zeros(band.shape, np.uint8)
    dataset.read_masks(index + 1, out=mask)
    shown: NDArray[np.bool_] = mask != 0
    return shown
