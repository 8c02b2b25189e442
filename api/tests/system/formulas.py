"""The published formulas of the sample models, in numpy."""

from __future__ import annotations

import numpy as np

CLASSES = ("water", "bare-or-built-up", "sparse-vegetation", "moderate-vegetation", "dense-vegetation")


def reflectance(numbers):
    """Digital numbers to reflectance, in float32 as the service computes."""
    return np.asarray(numbers).astype(np.float32) / np.float32(10000)


def index(a, b):
    """`(a - b) / (a + b)` in float32; 0 where the sum is 0."""
    total = a + b
    return np.where(total == 0, np.float32(0), (a - b) / np.where(total == 0, np.float32(1), total))


def ndvi(red, nir):
    """NDVI of digital numbers (Rouse et al. 1974)."""
    return index(reflectance(nir), reflectance(red))


def landcover(bands):
    """Class of each pixel from `{"B02": …, "B03": …, "B04": …, "B08": …}` of digital numbers."""
    ndwi = index(reflectance(bands["B03"]), reflectance(bands["B08"]))
    green = ndvi(bands["B04"], bands["B08"])
    return np.select([ndwi > 0, green < 0.2, green < 0.5, green < 0.6], [0, 1, 2, 3], 4)


def shares(bands):
    """Share of each class among the pixels where any band is above 0."""
    signal = np.max([bands[name] for name in ("B02", "B03", "B04", "B08")], axis=0) > 0
    counts = np.bincount(landcover(bands)[signal], minlength=len(CLASSES))
    return counts / max(1, signal.sum())
