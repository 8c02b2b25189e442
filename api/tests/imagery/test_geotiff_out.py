"""GeoTIFF answers, read back by rasterio from a file."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from imagery.image_files import LIMITS, Reading
from imagery.predictions import CLASSES, labelled, place, quantities, scored
from rasterio.crs import CRS

from ml_inference.contract.card import ClassLabel
from ml_inference.contract.predictions import Segmentation
from ml_inference.contract.raster import Georeference
from ml_inference.imagery import GEOTIFF, decode, encode

MADE_BY = {"model": "spectral-landcover", "version": "3", "preprocessing": "divide by 10000; pad to 64 x 64"}


def test_labels_keep_grid_nodata_colours_and_names_in_one_file(tmp_path):
    prediction = labelled(georeference=place())
    found = Reading(encode(prediction, GEOTIFF, MADE_BY), tmp_path)
    np.testing.assert_array_equal(found.pixels, prediction.values)
    assert found.profile["dtype"] == "uint8"
    assert found.profile["crs"] == CRS.from_epsg(32630)
    assert found.profile["transform"][:6] == prediction.georeference.transform
    assert found.profile["nodata"] == 255
    np.testing.assert_array_equal(found.masks[0] > 0, prediction.valid)
    assert found.table[1] == (10, 20, 200, 255)
    assert len({found.table[each.value] for each in CLASSES}) == 3
    assert {key: text for key, text in found.band_tags.items() if key.startswith("CLASS_")} == {
        "CLASS_1": "water",
        "CLASS_4": "wood",
        "CLASS_9": "cloud",
    }
    assert {key: found.tags[key.upper()] for key in MADE_BY} == MADE_BY
    assert found.files == ["answer"]


@pytest.mark.parametrize(
    ("values", "nodata", "dtype"),
    [
        ((0, 1), None, "uint8"),
        ((0, 255), None, "uint8"),
        ((111, 523), 0.0, "uint16"),
        ((0, 1), 65535.0, "uint16"),
        ((-1, 3), None, "int16"),
        ((-70_000, 3), None, "int32"),
    ],
)
def test_labels_take_the_smallest_type_that_holds_them(tmp_path, values, nodata, dtype):
    classes = tuple(ClassLabel(value=value, name=str(value)) for value in values)
    prediction = labelled(classes=classes, nodata=nodata)
    found = Reading(encode(prediction, GEOTIFF), tmp_path)
    assert found.profile["dtype"] == dtype
    assert found.profile["nodata"] == nodata
    np.testing.assert_array_equal(found.pixels, prediction.values)
    if dtype.startswith("u"):
        assert all(value in found.table for value in values)


def test_invalid_pixels_stay_invalid_where_every_value_of_a_byte_is_taken(tmp_path):
    labels = np.arange(256).reshape(1, 16, 16)
    valid = np.ones((16, 16), bool)
    valid[3, 4:6] = False
    classes = tuple(ClassLabel(value=value, name=f"c{value}") for value in range(256))
    found = Reading(encode(Segmentation("labels", classes, labels, valid, None, None), GEOTIFF), tmp_path)
    np.testing.assert_array_equal(found.masks[0] > 0, valid)
    np.testing.assert_array_equal(found.pixels[0][valid], labels[0][valid])


def test_scores_are_named_bands_with_nan_for_nodata(tmp_path):
    prediction = scored(georeference=place())
    found = Reading(encode(prediction, GEOTIFF, MADE_BY), tmp_path)
    np.testing.assert_array_equal(found.pixels, prediction.values)
    assert found.profile["dtype"] == "float32"
    assert np.isnan(found.profile["nodata"])
    assert found.descriptions == ("water", "wood", "cloud")
    np.testing.assert_array_equal(found.masks[0] > 0, prediction.valid)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_quantities_keep_their_numbers(tmp_path, dtype):
    prediction = quantities(("ndvi", "ndwi"), georeference=place(), dtype=dtype)
    found = Reading(encode(prediction, GEOTIFF), tmp_path)
    np.testing.assert_array_equal(found.pixels, prediction.values)
    assert found.profile["dtype"] == ("float64" if dtype == "float64" else "float32")
    assert found.descriptions == ("ndvi", "ndwi")


def test_quantities_take_the_nodata_they_are_given(tmp_path):
    prediction = quantities(nodata=-9999.0)
    found = Reading(encode(prediction, GEOTIFF), tmp_path)
    assert found.profile["nodata"] == -9999
    np.testing.assert_array_equal(found.pixels[0] == -9999, ~prediction.valid)


def test_a_nodata_that_a_valid_pixel_has_gives_way_to_nan(tmp_path):
    prediction = quantities(nodata=0.0)
    prediction.values[0, 10, 10] = 0.0
    found = Reading(encode(prediction, GEOTIFF), tmp_path)
    assert np.isnan(found.profile["nodata"])
    assert found.masks[0, 10, 10] == 255


def test_a_picture_without_a_place_gives_a_plain_tiff(tmp_path):
    found = Reading(encode(labelled(), GEOTIFF), tmp_path)
    assert found.profile["crs"] is None
    assert found.profile["transform"].is_identity


def test_a_place_without_a_crs_keeps_its_transform(tmp_path):
    transform = (0.5, 0.0, 7.0, 0.0, -0.5, 9.0)
    found = Reading(encode(labelled(georeference=Georeference(None, transform)), GEOTIFF), tmp_path)
    assert found.profile["transform"][:6] == transform


@pytest.mark.parametrize("epsg", [4326, 3857, 2154, 3035, 3031, 28992, 5514, 27700])
def test_a_crs_survives_both_ways(tmp_path, epsg):
    prediction = labelled(georeference=place(epsg))
    data = encode(prediction, GEOTIFF)
    assert Reading(data, tmp_path).profile["crs"] == CRS.from_epsg(epsg)
    found = decode(data, LIMITS).georeference
    assert CRS.from_wkt(found.crs) == CRS.from_epsg(epsg)
    assert found.transform == prediction.georeference.transform


def test_large_answers_are_tiled(tmp_path):
    assert Reading(encode(labelled(1100, 30), GEOTIFF), tmp_path).profile["blockxsize"] == 512
    assert not Reading(encode(labelled(), GEOTIFF), tmp_path).profile["tiled"]


def test_our_own_answers_are_read_back(tmp_path):
    prediction = scored(georeference=place())
    raster = decode(encode(prediction, GEOTIFF), LIMITS)
    np.testing.assert_array_equal(raster.pixels, prediction.values)
    np.testing.assert_array_equal(raster.valid[0], prediction.valid)
    assert raster.bands == ("water", "wood", "cloud")


def test_eight_threads_write_the_same():
    answers = [labelled(georeference=place()), scored(georeference=place()), quantities()]
    alone = [encode(each, GEOTIFF) for each in answers]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda each: encode(each, GEOTIFF), answers * 10))
    assert together == alone * 10
