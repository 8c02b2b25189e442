"""Small images as clients send them."""

from __future__ import annotations

import io

import numpy as np
from rasterio.io import MemoryFile
from rasterio.transform import from_origin

BANDS = ("B02", "B03", "B04", "B08")


def tile(height=20, width=30, seed=0, bands=BANDS, dtype="uint16") -> tuple[np.ndarray, bytes]:
    pixels = np.random.default_rng(seed).integers(100, 10_000, (len(bands), height, width)).astype(dtype)
    place = {"crs": "EPSG:32630", "transform": from_origin(500_000, 4_500_000, 10, 10)}
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", count=len(bands), height=height, width=width, dtype=dtype, **place
        ) as dataset:
            dataset.write(pixels)
            dataset.descriptions = bands
        return pixels, memory.read()


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()
