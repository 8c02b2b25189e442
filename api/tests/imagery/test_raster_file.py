"""A raster written as GeoTIFF is, to rasterio, what it was."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS

from ml_inference.contract.raster import Georeference, Raster
from ml_inference.imagery import DecodeLimits, decode
from ml_inference.imagery.raster_file import write_raster

UTM = Georeference(CRS.from_epsg(32631).to_wkt(), (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_600_000.0))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 300, 200), (13, 7, 513)])
def test_pixels_names_place_and_nodata_come_back(dtype, shape, tmp_path):
    pixels = (np.random.default_rng(1).random(shape) * 100).astype(dtype)
    pixels[0, 0, 0] = 7
    names = tuple(f"B{i:02}" for i in range(shape[0]))
    path = tmp_path / "raster.tif"
    path.write_bytes(write_raster(Raster(pixels, bands=names, georeference=UTM, nodata=7)))
    with rasterio.open(path) as dataset:
        assert dataset.driver == "GTiff"
        assert dataset.descriptions == names
        assert dataset.crs.to_epsg() == 32631
        assert dataset.transform[:6] == UTM.transform
        assert dataset.nodata == 7
        assert dataset.dtypes == (dtype,) * shape[0]
        np.testing.assert_array_equal(dataset.read(), pixels)


def test_invalid_pixels_are_written_as_nodata_and_read_as_invalid():
    pixels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    valid = pixels % 5 != 0
    back = decode(write_raster(Raster(pixels, valid, ("a", "b"), UTM, 65535)), DecodeLimits())
    np.testing.assert_array_equal(back.valid, valid)
    np.testing.assert_array_equal(back.pixels[valid], pixels[valid])
    assert (back.bands, back.nodata) == (("a", "b"), 65535)


def test_invalid_pixels_without_a_nodata_value_are_refused():
    pixels = np.zeros((1, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="nodata"):
        write_raster(Raster(pixels, pixels == 1))


def test_a_picture_without_a_place_stays_one():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    back = decode(write_raster(Raster(pixels, bands=("x", "y", "z"))), DecodeLimits())
    assert back.georeference is None
    assert back.valid is None
    np.testing.assert_array_equal(back.pixels, pixels)
