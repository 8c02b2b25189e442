"""A raster as a plain GeoTIFF: what `decode` reads comes back as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

from ml_inference.imagery import gdal

if TYPE_CHECKING:
    from ml_inference.contract.raster import Raster

BLOCK = 256
PREDICTORS = {"u": 2, "i": 2, "f": 3}
"""TIFF's predictors by kind of number (TIFF 6.0 §14 and Adobe's note 3): differences compress better than values."""


def write_raster(raster: Raster) -> bytes:
    """A tiled, DEFLATE-compressed GeoTIFF with the raster's own dtype, band names, CRS, transform and nodata.

    Raises:
        ValueError: pixels are invalid and no nodata value could say so.
    """
    pixels = raster.pixels
    if raster.valid is not None and not raster.valid.all():
        if raster.nodata is None:
            raise ValueError("invalid pixels need a nodata value")
        pixels = np.where(raster.valid, pixels, np.asarray(raster.nodata, pixels.dtype))
    place = raster.georeference
    profile = {
        "count": raster.count,
        "height": raster.height,
        "width": raster.width,
        "dtype": pixels.dtype,
        "nodata": raster.nodata,
        "crs": place.crs if place else None,
        "transform": Affine(*place.transform) if place else None,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "predictor": PREDICTORS[pixels.dtype.kind],
    }
    with gdal.created("GTiff", **profile) as (dataset, memory):
        dataset.write(pixels)
        for index, name in enumerate(raster.bands, start=1):
            dataset.set_band_description(index, name)
        dataset.close()
        return bytes(memory.read())
