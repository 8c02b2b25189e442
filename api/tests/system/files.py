"""Images as other people's software writes them."""

from __future__ import annotations

import warnings

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

GRID = rasterio.Affine(10, 0, 500000, 0, -10, 4600000)


def geotiff(pixels, names=(), crs="EPSG:32631", nodata=None, driver="GTiff", **options):
    """Pixels `(bands, height, width)` as a file."""
    count, height, width = pixels.shape
    profile = {"driver": driver, "count": count, "height": height, "width": width, "dtype": pixels.dtype}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile() as memory:
            place = {"crs": crs, "transform": GRID} if crs else {}
            with memory.open(**profile, **place, nodata=nodata, **options) as dataset:
                dataset.write(pixels)
                for number, name in enumerate(names, 1):
                    dataset.set_band_description(number, name)
            return memory.read()


def opened(data):
    """Profile and pixels of a file, read by rasterio."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with MemoryFile(bytes(data)) as memory, memory.open() as dataset:
            return dataset.profile, dataset.read()


def scene(seed, height, width):
    """Plausible digital numbers for B02 B03 B04 B08."""
    return np.random.default_rng(seed).integers(1, 6000, (4, height, width), dtype=np.uint16)
