"""GeoJSON answers, judged by RFC 7946, shapely, and arithmetic in the source's own grid."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio.warp
import shapely
from imagery.predictions import CLASSES, WOOD, boxed, labelled, place

from ml_inference.contract.card import ClassLabel
from ml_inference.contract.predictions import Detection, Segmentation
from ml_inference.contract.raster import Georeference
from ml_inference.errors import InvalidRequest, TooLarge
from ml_inference.imagery import GEOJSON, encode
from ml_inference.imagery.geojson import MAX_FEATURES


def written(prediction, provenance=None):
    """The document, its geometries as shapely's, its properties."""
    document = json.loads(encode(prediction, GEOJSON, provenance or {}))
    assert document["type"] == "FeatureCollection"
    shapes = [shapely.from_geojson(json.dumps(each["geometry"])) for each in document["features"]]
    assert all(shape.is_valid for shape in shapes)
    for shape in shapes:
        for part in shapely.get_parts(shape):
            assert part.exterior.is_ccw
            assert not any(hole.is_ccw for hole in part.interiors)
    return document, shapes, [each["properties"] for each in document["features"]]


def at(column, row, georeference, epsg=32630):
    (x,), (y,) = rasterio.warp.transform(
        f"EPSG:{epsg}", "OGC:CRS84", *([value] for value in georeference.locate(column, row))
    )
    return x, y


def test_boxes_lie_where_their_corners_are_on_earth():
    prediction = boxed(place())
    document, shapes, properties = written(prediction, {"model": "ships"})
    assert "crs" not in document
    assert document["provenance"] == {"model": "ships"}
    for box, shape in zip(prediction.boxes.tolist(), shapes, strict=True):
        x0, y0, x1, y1 = box
        expected = shapely.Polygon(
            [at(*corner, prediction.georeference) for corner in ((x0, y0), (x0, y1), (x1, y1), (x1, y0))]
        )
        assert shape.symmetric_difference(expected).area < expected.area * 1e-3
    assert properties[0] == {"class": "wood", "value": 4, "score": 0.9}


def test_boxes_of_a_picture_are_in_pixels_and_say_so():
    document, shapes, _ = written(boxed())
    assert document["coordinates_in"] == "pixels"
    assert document["crs"] is None
    assert shapes[0].bounds == (2, 3, 12, 8)


@pytest.mark.parametrize(
    "georeference",
    [
        pytest.param(Georeference(None, (10.0, 0.0, 5.0, 0.0, -10.0, 7.0)), id="a transform alone"),
        pytest.param(Georeference(place().crs, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)), id="a CRS alone"),
    ],
)
def test_half_a_place_is_no_place(georeference):
    document, shapes, _ = written(boxed(georeference))
    assert document["coordinates_in"] == "pixels"
    assert shapes[0].bounds == (2, 3, 12, 8)


def test_areas_cover_the_pixels_of_their_class():
    prediction = labelled()
    _, shapes, properties = written(prediction)
    for each in CLASSES:
        found = sum(s.area for s, p in zip(shapes, properties, strict=True) if p["value"] == each.value)
        counted = 0 if each.nodata else np.count_nonzero(prediction.values[0] == each.value)
        assert found == counted
    assert {"class": "water", "value": 1, "color": "#0a14c8"} in properties


def test_areas_of_large_class_values_keep_their_class():
    classes = (ClassLabel(value=2**40 + 1, name="far"), ClassLabel(value=1, name="near"))
    labels = np.array([[[2**40 + 1, 1]]])
    prediction = Segmentation("labels", classes, labels, np.ones((1, 2), bool), None, None)
    _, _, properties = written(prediction)
    assert sorted((each["class"], each["value"]) for each in properties) == [("far", 2**40 + 1), ("near", 1)]


def test_areas_on_earth_are_as_large_as_their_pixels():
    prediction = labelled(georeference=place())
    document, _, _ = written(prediction)
    back = rasterio.warp.transform_geom(
        "OGC:CRS84", "EPSG:32630", [each["geometry"] for each in document["features"]]
    )
    wood = sum(
        shapely.geometry.shape(geometry).area
        for geometry, each in zip(back, document["features"], strict=True)
        if each["properties"]["class"] == "wood"
    )
    assert wood == pytest.approx(np.count_nonzero(prediction.values == WOOD.value) * 100, rel=1e-4)


def test_a_hole_is_a_hole():
    labels = np.full((1, 9, 9), 1)
    labels[0, 3:6, 3:6] = 4
    _, shapes, properties = written(
        Segmentation("labels", CLASSES, labels, np.ones((9, 9), bool), None, place())
    )
    outer = shapes[[each["class"] for each in properties].index("water")]
    assert len(outer.interiors) == 1


def test_touching_corners_part_areas():
    labels = np.where(np.indices((6, 6)).sum(axis=0) % 2, 1, 4)[np.newaxis]
    _, shapes, _ = written(Segmentation("labels", CLASSES, labels, np.ones((6, 6), bool), None, None))
    assert len(shapes) == 36


def test_a_box_across_the_date_line_is_cut_there():
    georeference = place(3413, (1000.0, 0.0, -2e6, 0.0, -1000.0, 2e6))
    box = np.array([[0, 0, 100, 100]], np.float32)
    prediction = Detection(CLASSES, box, np.ones(1, np.float32), np.array([1]), 100, 100, georeference)
    _, (shape,), _ = written(prediction)
    assert shape.geom_type == "MultiPolygon"
    assert all(part.bounds[2] - part.bounds[0] < 10 for part in shape.geoms)


def test_nothing_found_is_an_empty_collection():
    nothing = Detection(
        CLASSES, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), 9, 9, place()
    )
    assert written(nothing)[0]["features"] == []


@pytest.mark.parametrize("side", [200, 1500])
def test_more_areas_than_anyone_can_use_are_refused(side):
    labels = np.random.default_rng(0).integers(0, 2, (1, side, side)) * 3 + 1
    if side == 200:
        labels = np.where(np.indices((side, side)).sum(axis=0) % 2, 1, 4)[np.newaxis]
    prediction = Segmentation("labels", CLASSES, labels, np.ones((side, side), bool), None, None)
    assert side * side > MAX_FEATURES
    with pytest.raises(TooLarge, match="image/tiff"):
        encode(prediction, GEOJSON)


def test_a_crs_without_a_way_to_longitudes_is_an_error_in_words():
    local = (
        'ENGCRS["site",EDATUM["gate"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    )
    with pytest.raises(InvalidRequest, match="WGS84"):
        encode(boxed(Georeference(local, (10.0, 0.0, 5.0, 0.0, -10.0, 7.0))), GEOJSON)


def test_the_text_is_utf8_and_strict_json():
    data = encode(boxed(), GEOJSON, {"model": "Küste"})
    assert "Küste" in data.decode()
    json.loads(data, parse_constant=pytest.fail)
