"""Hostile uploads get their status, in the one error shape, fast, and change nothing else."""

from __future__ import annotations

import json
import time

import httpx
import numpy as np
import pytest
from system.files import geotiff, opened, scene
from system.formulas import ndvi

NAMES = ("B02", "B03", "B04", "B08")
UPLOADS = [
    "sparse_40000.tif", "wide.tif", "tile_bomb.tif", "bands.tif", "vrt.tif", "gdalg.tif", "wms.tif", "text.tif",
    "empty.tif", "cut.png", "cut_70.png", "flipped.png", "cut.tif", "reference.tif",
]  # fmt: skip


def post(server, body, model="ndvi", **options):
    return httpx.post(f"{server.url}/{model}", content=body, timeout=60, **options)


def is_problem(response, *statuses):
    problem = response.json()
    assert response.status_code in statuses, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "error", "instance"} <= problem.keys()
    assert problem["status"] == response.status_code
    assert "Traceback" not in response.text
    assert "/tmp" not in response.text
    return problem


def still_right(server):
    pixels = scene(1, 16, 16)
    response = post(server, geotiff(pixels, NAMES))
    np.testing.assert_allclose(opened(response.content)[1][0], ndvi(pixels[2], pixels[3]), atol=1e-6)


@pytest.mark.parametrize("name", UPLOADS)
def test_a_hostile_upload_gets_its_status(server, shared_data, name):
    folder = shared_data("hostile")
    expected = json.loads((folder / "expect.json").read_text())[name]["status"]
    started = time.monotonic()
    response = post(server, (folder / name).read_bytes())
    assert time.monotonic() - started < 5
    is_problem(response, *(expected if isinstance(expected, list) else [expected]))
    still_right(server)


@pytest.mark.parametrize(
    ("body", "query", "status", "field"),
    [
        pytest.param(geotiff(scene(1, 8, 8)[:3]), {}, 400, "bands", id="wrong-band-count"),
        pytest.param(geotiff(scene(1, 8, 8)[:2], ("B04", "B05")), {}, 400, "bands", id="missing-band-name"),
        pytest.param(geotiff(scene(1, 8, 8)), {"bands": "B04,B08"}, 400, "bands", id="bands-do-not-fit-the-file"),
        pytest.param(
            geotiff(np.full((2, 4, 4), np.inf, np.float32), ("B04", "B08")), {}, 400, "pixels", id="infinite-pixels"
        ),
        pytest.param(geotiff(scene(1, 8, 8), NAMES), {"scaling": "none"}, 400, "scaling", id="scaling-is-declared"),
        pytest.param(geotiff(scene(1, 8, 8), NAMES), {"output": "lables"}, 400, None, id="misspelt-output"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_card_names_the_field_and_both_sides(server, body, query, status, field):
    problem = is_problem(post(server, body, params=query), status)
    if field is not None:
        assert problem["field"] == field
        assert {"expected", "got"} <= problem.keys()


def test_one_pixel_is_an_image(server):
    pixels = scene(2, 1, 1)
    response = post(server, geotiff(pixels, NAMES))
    np.testing.assert_allclose(opened(response.content)[1][0], ndvi(pixels[2], pixels[3]), atol=1e-6)


def test_nan_is_nodata_and_comes_back_as_nodata(server):
    pixels = scene(3, 9, 9).astype(np.float32)
    pixels[2, 4, 4] = np.nan
    values = opened(post(server, geotiff(pixels, NAMES)).content)[1][0]
    assert np.argwhere(np.isnan(values)).tolist() == [[4, 4]]


@pytest.mark.parametrize("name", ["..%2F", "..%2f..%2Fetc%2Fpasswd", "x" * 10_000, "%00", "no-such", "-1"])
def test_a_name_that_is_none_is_not_found(server, name):
    response = post(server, geotiff(scene(1, 8, 8), NAMES), model=name)
    assert response.status_code == 404
    assert len(response.content) < 2000


def test_two_thousand_parts_are_refused(server):
    files = [("image", ("a.tif", b"x"))] * 2000
    response = httpx.post(f"{server.url}/ndvi", files=files, timeout=60)
    is_problem(response, 400, 413)
    still_right(server)
