"""PNG answers, read by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imagery.predictions import CLASSES, WATER, boxed, labelled, quantities, scored

from ml_inference.contract.card import ClassLabel
from ml_inference.contract.predictions import Detection, Regression, Segmentation
from ml_inference.imagery import PNG, encode
from ml_inference.imagery.palette import class_colours
from ml_inference.imagery.picture import encode_png


def seen(data):
    """Red, green, blue and alpha as OpenCV reads them."""
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return picture[..., [2, 1, 0, 3]]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_any_picture_is_written_without_loss(height, width, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 4)).astype(np.uint8)
    np.testing.assert_array_equal(seen(encode_png(picture)), picture)


def test_labels_appear_in_their_classes_colours():
    prediction = labelled()
    picture = seen(encode(prediction, PNG))
    water = prediction.values[0] == WATER.value
    assert (picture[water] == (*WATER.color, 255)).all()
    assert (picture[~prediction.valid, 3] == 0).all()
    assert (picture[prediction.values[0] == 9, 3] == 0).all()  # a class that counts as nodata


@pytest.mark.parametrize("values", [(0, 70_000), (-5, 3), (0, 200)])
def test_labels_of_any_range_are_drawn(values):
    classes = tuple(ClassLabel(value=v, name=str(v), color=(v % 200, 7, n)) for n, v in enumerate(values))
    prediction = labelled(classes=classes, nodata=None)
    picture = seen(encode(prediction, PNG))
    for each in classes:
        assert (picture[prediction.values[0] == each.value] == (*each.color, 255)).all()


def test_a_label_that_no_class_has_is_grey():
    prediction = Segmentation("labels", CLASSES, np.full((1, 2, 2), 77), np.ones((2, 2), bool), None, None)
    assert (seen(encode(prediction, PNG)) == (128, 128, 128, 255)).all()


def test_quantities_go_from_dark_to_bright_and_outliers_stay_at_the_ends():
    values = np.linspace(0, 1, 101, dtype=np.float32)[np.newaxis, np.newaxis].copy()
    values[..., 50] = 1e9
    picture = seen(encode(Regression(("x",), values, np.ones((1, 101), bool), None, None), PNG)).astype(int)
    luma = picture[0, :, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(np.delete(luma, 50)) >= -1e-9).all()
    assert luma[50] == luma.max()
    assert picture[0, 0, :3].tolist() == [68, 1, 84]
    assert picture[0, -1, :3].tolist() == [253, 231, 37]


def test_where_no_quantity_is_known_the_picture_is_transparent():
    prediction = quantities()
    prediction.values[0, 9, 9] = np.nan  # valid, and still not a number
    picture = seen(encode(prediction, PNG))
    expected = prediction.valid.copy()
    expected[9, 9] = False
    np.testing.assert_array_equal(picture[..., 3] == 255, expected)


@pytest.mark.parametrize("value", [3.5, np.nan])
def test_a_flat_or_empty_raster_is_drawn_too(value):
    values = np.full((1, 4, 4), value, np.float32)
    picture = seen(encode(Regression(("x",), values, np.ones((4, 4), bool), None, None), PNG))
    assert picture.shape == (4, 4, 4)


def test_scores_are_paler_where_they_are_unsure():
    values = np.array([[[1.0, 0.5]], [[0.0, 0.5]], [[0.0, 0.0]]], np.float32)
    prediction = Segmentation("probabilities", CLASSES, values, np.ones((1, 2), bool), None, None)
    picture = seen(encode(prediction, PNG))
    assert picture[0, 0].tolist() == [10, 20, 200, 255]
    np.testing.assert_allclose(picture[0, 1], [132.5, 137.5, 227.5, 255], atol=0.5)


def test_scores_of_other_channels_than_classes_are_a_ramp():
    prediction = scored()
    single = Segmentation("probabilities", CLASSES, prediction.values[:1], prediction.valid, None, None)
    np.testing.assert_array_equal(seen(encode(single, PNG))[..., 3] == 255, prediction.valid)


def test_boxes_are_outlines_on_a_transparent_ground():
    picture = seen(encode(boxed(), PNG))
    assert picture.shape == (30, 40, 4)
    inside = np.zeros((30, 40), bool)
    inside[3:8, 2:12] = True
    inside[4:7, 3:11] = False
    np.testing.assert_array_equal(picture[:9, :, 3] > 0, inside[:9])
    assert (picture[3:8, 2, :3] == class_colours(boxed().classes)[4]).all()


def test_boxes_beyond_the_edge_are_cut():
    prediction = Detection(
        CLASSES,
        np.array([[-5, -5, 99, 99], [39.8, 29.9, 40, 30]], np.float32),
        np.ones(2, np.float32),
        np.array([1, 1]),
        30,
        40,
        None,
    )
    picture = seen(encode(prediction, PNG))
    assert (picture[[0, -1], :, 3] == 255).all()
    assert (picture[1:-1, 1:-1, 3] == 0).all()
