"""Small image files, made by other people's software or byte by byte."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import cv2
import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from ml_inference.imagery import DecodeLimits

LIMITS = DecodeLimits(max_pixels=4_000_000, max_bytes=64 << 20, max_bands=64)
UTM = "EPSG:32630"
GRID = rasterio.Affine(10, 0, 500_000, 0, -10, 4_600_000)


def noise(bands=3, height=24, width=20, dtype="uint16", seed=0):
    return np.random.default_rng(seed).integers(1, 250, (bands, height, width)).astype(dtype)


def written(pixels, driver="GTiff", *, names=(), colours=None, table=None, mask=None, tags=None, **options):
    """Write pixels `(bands, height, width)` with rasterio."""
    count, height, width = pixels.shape
    profile = {"driver": driver, "count": count, "height": height, "width": width, "dtype": pixels.dtype.name}
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), memory.open(**profile, **options) as dataset:
            if colours:
                dataset.colorinterp = colours
            if table:
                dataset.write_colormap(1, table)
            dataset.write(pixels)
            if mask is not None:
                dataset.write_mask(mask)
            if names:
                dataset.descriptions = names
            if tags:
                dataset.update_tags(**tags)
        return memory.read()


class Reading:
    """What rasterio finds in a file of its own accord."""

    def __init__(self, data, tmp_path):
        path = tmp_path / "answer"
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                self.pixels = dataset.read()
                self.profile = dataset.profile
                self.descriptions = dataset.descriptions
                self.tags = dataset.tags()
                self.band_tags = dataset.tags(1)
                self.masks = dataset.read_masks()
                self.interpretation = dataset.colorinterp
                has_table = dataset.colorinterp[0].name == "palette"
                self.table = dataset.colormap(1) if has_table else None
        self.files = sorted(each.name for each in tmp_path.iterdir())


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *extra):
    """Write a PNG from packed rows of samples; `extra` chunks stand before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(row) for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + pixels + chunk(b"IEND", b"")


def opencv(extension, pixels, *parameters):
    """Write pixels `(3, height, width)` with OpenCV, which orders channels blue, green, red."""
    done, data = cv2.imencode(extension, np.moveaxis(pixels[::-1], 0, -1), list(parameters))
    assert done
    return data.tobytes()


def tiff(entries, pages=1):
    """Write a little-endian TIFF of nothing but directories of `{tag: number}`."""
    body, offset = b"II*\0" + struct.pack("<I", 8), 8
    for page in range(pages):
        offset += 2 + 12 * len(entries) + 4
        rows = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in sorted(entries.items()))
        body += struct.pack("<H", len(entries)) + rows + struct.pack("<I", 0 if page == pages - 1 else offset)
    return body


def declared(width, height, **more):
    """Entries of a TIFF that says a size and holds no pixels."""
    entries = {
        256: width,
        257: height,
        258: 8,
        259: 1,
        262: 1,
        273: 0,
        277: 1,
        278: max(height, 1),
        279: 0,
        284: 1,
    }
    return entries | {int(tag.removeprefix("tag")): number for tag, number in more.items()}


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()
