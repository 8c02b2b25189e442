"""Predictions as JSON values, counted and averaged again by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from imagery.predictions import CLASSES, boxed, decided, labelled, quantities, scored, tensors, vector

from ml_inference.contract.predictions import Classification, Regression, Segmentation, Tensors
from ml_inference.imagery import to_plain

EVERYTHING = [
    decided(), decided("probabilities"), decided("raw"), boxed(), labelled(), scored(), scored("raw"), quantities(),
    vector(), tensors(0), tensors(3),
    Tensors({"odd": np.array([np.nan, np.inf, -np.inf, 1.5], np.float16), "flags": np.array([True, False])}),
    Regression(("x",), np.full((1, 2, 2), np.nan, np.float32), np.zeros((2, 2), bool), None, None),
    Segmentation("labels", CLASSES, np.zeros((1, 2, 2), np.uint8), np.zeros((2, 2), bool), 0.0, None),
]  # fmt: skip


@pytest.mark.parametrize("prediction", EVERYTHING, ids=lambda each: each.type)
def test_everything_is_strict_json(prediction):
    plain = to_plain(prediction)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["type"] == prediction.type


def test_classes_come_best_first_with_the_numbers_of_the_model():
    plain = to_plain(decided())
    assert plain["class"] == {"class": "wood", "value": 4}
    assert plain["scores"] == [
        {"class": "wood", "value": 4, "score": 0.7},
        {"class": "cloud", "value": 9, "score": 0.2},
        {"class": "water", "value": 1, "score": 0.1},
    ]


def test_raw_values_stay_in_the_models_order_and_choose_nothing():
    plain = to_plain(decided("raw"))
    assert plain["class"] is None
    assert [each["class"] for each in plain["scores"]] == ["water", "wood", "cloud"]


def test_channels_without_a_class_are_known_by_their_index():
    plain = to_plain(Classification("raw", CLASSES, np.array([0.25, 3], np.float32), None))
    assert plain["scores"] == [
        {"class": None, "value": 0, "score": 0.25},
        {"class": None, "value": 1, "score": 3.0},
    ]


def test_boxes_are_in_pixels_with_class_and_score():
    first, second = to_plain(boxed())["detections"]
    assert first == {"box": [2.0, 3.0, 12.0, 8.0], "class": "wood", "value": 4, "score": 0.9}
    assert second["box"] == [20.5, 10.25, 30.0, 29.0]


def test_labels_are_counted():
    prediction = labelled()
    plain = to_plain(prediction)
    valid = prediction.values[0][prediction.valid]
    assert plain["valid_pixels"] == valid.size == 30 * 40 - 12
    assert plain["nodata_pixels"] == 12
    for each in plain["classes"]:
        assert each["pixels"] == (valid == each["value"]).sum()
        assert each["share"] == pytest.approx((valid == each["value"]).mean())
    assert sum(each["share"] for each in plain["classes"]) == pytest.approx(1)


def test_a_label_that_no_class_has_is_counted_without_a_name():
    values = np.array([[[1, 77]]])
    plain = to_plain(Segmentation("labels", CLASSES, values, np.ones((1, 2), bool), None, None))
    assert plain["classes"][-1] == {"class": None, "value": 77, "pixels": 1, "share": 0.5}


def test_scores_are_averaged_over_valid_pixels():
    prediction = scored()
    plain = to_plain(prediction)
    means = np.nanmean(prediction.values.astype(np.float64), axis=(1, 2))
    assert [each["mean"] for each in plain["classes"]] == pytest.approx(means.tolist())


def test_quantities_are_summed_up_and_values_are_named():
    prediction = quantities()
    (summary,) = to_plain(prediction)["values"]
    assert summary["name"] == "ndvi"
    assert summary["mean"] == pytest.approx(np.nanmean(prediction.values.astype(np.float64)))
    assert summary["minimum"] == pytest.approx(np.nanmin(prediction.values))
    assert summary["maximum"] == pytest.approx(np.nanmax(prediction.values))
    assert summary["pixels"] == 30 * 40 - 5
    assert to_plain(vector())["values"] == [{"name": "height", "value": 12.5}, {"name": "age", "value": None}]


def test_tensors_carry_shape_type_and_data():
    plain = to_plain(Tensors({"y": np.array([[1, 2], [3, np.nan]], np.float64)}))
    assert plain["tensors"] == {"y": {"shape": [2, 2], "dtype": "float64", "data": [[1.0, 2.0], [3.0, None]]}}
