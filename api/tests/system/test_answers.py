"""Answers of the running service against numpy, on real tiles and planted ones."""

from __future__ import annotations

import httpx
import numpy as np
import pytest
from system.files import geotiff, opened, scene
from system.formulas import CLASSES, landcover, ndvi, shares

EUROSAT = "B01,B02,B03,B04,B05,B06,B07,B08,B09,B10,B11,B12,B8A"
TWELVE = "B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B11,B12"
TILES = {
    "AnnualCrop_1.tif": EUROSAT,
    "AnnualCrop_2.tif": EUROSAT,
    "Forest_1.tif": EUROSAT,
    "Forest_2.tif": EUROSAT,
    "boadella_2020-01-13.tif": TWELVE,
    "colombia2018-sat.tif": None,  # its bands carry common names
}
NAMES = ("B02", "B03", "B04", "B08")


def post(server, model, body, **query):
    response = httpx.post(f"{server.url}/{model}", content=body, params=query, timeout=60)
    assert response.status_code == 200, response.text
    return response


@pytest.mark.parametrize("name", TILES)
def test_ndvi_of_a_real_tile_is_numpys_on_the_same_grid(server, shared_data, name):
    body = (shared_data("sentinel2") / name).read_bytes()
    profile, pixels = opened(body)
    answer = post(server, "ndvi", body, **({"bands": TILES[name]} if TILES[name] else {}))
    assert answer.headers["content-type"].startswith("image/tiff")
    result, values = opened(answer.content)
    expected = ndvi(pixels[3], pixels[7])  # B04 and B08 are the fourth and eighth of each of them
    if profile["nodata"] is not None:
        missing = (pixels[3] == profile["nodata"]) | (pixels[7] == profile["nodata"])
        assert np.isnan(values[0][missing]).all()
        expected = np.where(missing, np.nan, expected)
    np.testing.assert_allclose(values[0], expected, atol=1e-6, rtol=0, equal_nan=True)
    for key in ("crs", "transform", "width", "height"):
        assert result[key] == profile[key]
    assert np.isnan(result["nodata"])


def test_landcover_takes_bands_by_name_whatever_their_order(server):
    order = ("B08", "B11", "B03", "B02", "B04")
    numbers = dict(
        zip(order, np.random.default_rng(1).integers(0, 6000, (5, 91, 67), dtype=np.uint16), strict=True)
    )
    body = geotiff(np.stack(list(numbers.values())), order)
    result, values = opened(post(server, "spectral-landcover", body).content)
    assert result["dtype"] == "uint8"
    np.testing.assert_array_equal(values[0], landcover(numbers))


def test_nodata_stays_nodata_and_does_not_count(server):
    pixels = scene(3, 40, 50)
    pixels[:, 5:20, 10:30] = 0
    bands = dict(zip(NAMES, pixels, strict=True))
    body = geotiff(pixels, NAMES, nodata=0)
    result, values = opened(post(server, "spectral-landcover", body).content)
    missing = (pixels == 0).any(axis=0)
    assert result["nodata"] is not None
    assert result["nodata"] not in range(len(CLASSES))
    np.testing.assert_array_equal(values[0] == result["nodata"], missing)
    np.testing.assert_array_equal(values[0][~missing], landcover(bands)[~missing])
    answer = post(server, "landcover-share", body).json()
    scores = {s["class"]: s["score"] for s in answer["prediction"]["scores"]}
    for name, share in zip(CLASSES, shares(bands), strict=True):
        assert scores[name] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("driver", ["GTiff", "JP2OpenJPEG"])
def test_the_share_of_classes_is_the_same_from_every_lossless_format(server, driver):
    pixels = scene(4, 64, 64)
    options = {"QUALITY": "100", "REVERSIBLE": "YES"} if driver == "JP2OpenJPEG" else {}
    body = geotiff(pixels, NAMES if driver == "GTiff" else (), driver=driver, **options)
    answer = post(server, "landcover-share", body, bands="B02,B03,B04,B08").json()
    expected = shares(dict(zip(NAMES, pixels, strict=True)))
    scores = {s["class"]: s["score"] for s in answer["prediction"]["scores"]}
    np.testing.assert_allclose([scores[name] for name in CLASSES], expected, atol=1e-6)


def test_planted_targets_are_found_exactly_once_each_and_lie_where_they_were_planted(server):
    random = np.random.default_rng(5)
    pixels = random.normal(800, 30, (1, 200, 240)).astype(np.uint16)
    planted = [(20, 20), (60, 180), (100, 100), (150, 40), (170, 200)]
    for row, column in planted:
        pixels[0, row : row + 2, column : column + 3] = 9000
    body = geotiff(pixels, ("B08",))
    found = post(server, "bright-targets", body).json()["prediction"]["detections"]
    boxes = sorted((d["box"][1], d["box"][0], d["box"][3], d["box"][2]) for d in found)
    assert boxes == [(row, column, row + 2, column + 3) for row, column in planted]


def test_boxes_as_geojson_lie_at_their_place_on_earth(server):
    import rasterio.warp  # noqa: PLC0415 - independent arithmetic

    pixels = np.full((1, 100, 100), 500, np.uint16)
    pixels[0, 40:42, 60:62] = 9000
    answer = httpx.post(
        f"{server.url}/bright-targets",
        content=geotiff(pixels, ("B08",)),
        headers={"Accept": "application/geo+json"},
        timeout=60,
    )
    (feature,) = answer.json()["features"]
    ring = np.array(feature["geometry"]["coordinates"][0])
    xs, ys = rasterio.warp.transform(
        "EPSG:32631", "EPSG:4326", [500000 + 600, 500000 + 620], [4600000 - 420, 4600000 - 400]
    )
    np.testing.assert_allclose([ring[:, 0].min(), ring[:, 0].max()], sorted(xs), atol=2e-6)
    np.testing.assert_allclose([ring[:, 1].min(), ring[:, 1].max()], sorted(ys), atol=2e-6)


def test_a_fourth_band_that_gdal_takes_for_alpha_is_a_band_when_the_request_names_four(server):
    pixels = np.random.default_rng(8).integers(0, 256, (4, 40, 30), dtype=np.uint8)
    pixels[3, :5] = 0  # as alpha these pixels would be invalid
    body = geotiff(pixels)
    assert opened(body)[0]["count"] == 4
    _, values = opened(post(server, "ndvi", body, bands="red,green,blue,nir").content)
    np.testing.assert_allclose(values[0], ndvi(pixels[0], pixels[3]), atol=1e-6)
