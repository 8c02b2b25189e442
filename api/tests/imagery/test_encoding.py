"""Which answers each prediction offers; everything offered is written, everything else is refused in words."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from imagery.predictions import boxed, decided, labelled, place, quantities, scored, tensors, vector

from ml_inference.errors import ContractMismatch
from ml_inference.imagery import GEOJSON, GEOTIFF, JSON, NPY, PNG, encode, offered

OFFERS = [
    (decided(), (JSON, NPY)),
    (vector(), (JSON, NPY)),
    (boxed(place()), (JSON, GEOJSON, PNG, NPY)),
    (labelled(georeference=place()), (GEOTIFF, JSON, PNG, GEOJSON, NPY)),
    (scored(), (GEOTIFF, JSON, PNG, NPY)),
    (scored("raw"), (GEOTIFF, JSON, NPY)),
    (quantities(), (GEOTIFF, JSON, PNG, NPY)),
    (tensors(1), (JSON, NPY)),
    (tensors(2), (JSON,)),
]
BEGINNINGS = {
    JSON: b"{",
    GEOJSON: b"{",
    GEOTIFF: b"II*\0",
    PNG: b"\x89PNG\r\n\x1a\n",
    NPY: b"\x93NUMPY",
}


@pytest.mark.parametrize(("prediction", "expected"), OFFERS)
def test_everything_offered_is_written_in_its_format(prediction, expected):
    assert offered(prediction) == expected
    for media_type in expected:
        assert encode(prediction, media_type, {"model": "m"}).startswith(BEGINNINGS[media_type])


@pytest.mark.parametrize(("prediction", "expected"), OFFERS)
def test_everything_else_is_refused_with_what_there_is(prediction, expected):
    for media_type in {*BEGINNINGS, "text/html", ""} - set(expected):
        with pytest.raises(ContractMismatch) as caught:
            encode(prediction, media_type, {})
        assert caught.value.field == "accept"
        assert caught.value.expected == list(expected)
        assert caught.value.got == media_type


@pytest.mark.parametrize("media_type", ["image/tiff", "IMAGE/TIFF", 'image/tiff;profile="x"'])
def test_parameters_and_case_of_a_media_type_do_not_matter(media_type):
    assert encode(labelled(), media_type) == encode(labelled(), GEOTIFF)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (decided(), decided().scores),
        (labelled(), labelled().values),
        (quantities(), quantities().values),
        (tensors(1), tensors(1).tensors["out0"]),
    ],
)
def test_arrays_come_back_as_they_were(prediction, expected):
    found = np.load(io.BytesIO(encode(prediction, NPY)), allow_pickle=False)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_boxes_as_an_array_are_rows_of_box_score_and_label():
    found = np.load(io.BytesIO(encode(boxed(), NPY)), allow_pickle=False)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], np.array([2, 3, 12, 8, 0.9, 4], np.float32))


def test_json_names_what_made_it():
    assert json.loads(encode(decided(), JSON, {"model": "m", "version": "2"}))["provenance"] == {
        "model": "m",
        "version": "2",
    }
