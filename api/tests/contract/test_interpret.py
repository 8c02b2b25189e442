"""From tensors to answers: scores, classes by value, nodata in every kind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pixel_cards import (
    DEFAULTS,
    NC,
    NCHW,
    PLACE,
    PROBABILITIES,
    RAW,
    answer,
    classification,
    frame_of,
    make_labels,
    make_output,
    make_pixels,
    refused,
    segmentation,
)

from ml_inference.contract.card import ClassLabel, Expression, Task
from ml_inference.contract.interpret.activation import activate
from ml_inference.contract.interpret.labels import classes_of_channels
from ml_inference.contract.options import PredictOptions
from ml_inference.errors import InferenceFailed

B, C, H, W = NCHW


# ---- activations ----------------------------------------------------------------------------------------------------

floats = hnp.arrays(np.float32, (4, 3), elements=st.floats(-200, 200, width=32))


@given(raw=floats)
def test_softmax_equals_its_definition_and_shifting_changes_nothing(raw):
    wide = raw.astype(np.longdouble)
    expected = np.exp(wide - wide.max(axis=0))
    expected /= expected.sum(axis=0)
    np.testing.assert_allclose(activate(raw, "softmax"), expected.astype(np.float64), rtol=2e-5, atol=1e-30)
    np.testing.assert_allclose(activate(raw, "softmax").sum(axis=0), 1, rtol=1e-5)
    assert activate(raw, "softmax").dtype == np.float32


@given(raw=floats)
def test_sigmoid_equals_its_definition_on_both_sides(raw):
    expected = 1 / (1 + np.exp(-raw.astype(np.longdouble)))
    np.testing.assert_allclose(activate(raw, "sigmoid"), expected.astype(np.float64), rtol=1e-5, atol=1e-37)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_extreme_logits_overflow_nothing(activation):
    scores = activate(np.array([[1e30], [-1e30], [0]], dtype=np.float32), activation)
    assert np.isfinite(scores).all()
    assert (scores[0, 0], scores[1, 0]) == (1, 0)


@pytest.mark.parametrize("activation", [None, "none"])
def test_no_activation_leaves_values_alone(activation):
    raw = make_pixels((3, 2))
    np.testing.assert_array_equal(activate(raw, activation), raw)


# ---- classification -------------------------------------------------------------------------------------------------


def test_the_highest_score_decides_and_softmax_makes_probabilities():
    logits = np.array([[1.0, 3.0, 2.0]], dtype=np.float32)
    found = classification(logits, PROBABILITIES, classes=3, activation="softmax")
    np.testing.assert_allclose(found.scores, np.exp(logits[0]) / np.exp(logits[0]).sum(), rtol=1e-6)
    assert found.label.value == 1
    assert [label.value for label in found.classes] == [0, 1, 2]


@pytest.mark.parametrize("shape", [(1, 3), (3,), (1, 3, 1, 1)])
def test_scores_of_every_shape(shape):
    axes = {1: (C,), 2: NC, 4: NCHW}[len(shape)]
    found = classification(np.array([0, 5, 1], np.float32).reshape(shape), classes=3, axes=axes)
    assert found.label.value == 1
    assert found.scores.tolist() == [0, 5, 1]
    assert classification(np.array([0, 5, 1], np.float32).reshape(shape), classes=3, axes=()).label.value == 1


def test_labels_need_no_activation_but_probabilities_do():
    logits = np.array([[1.0, 3.0]], dtype=np.float32)
    assert classification(logits, classes=2).label.value == 1
    error = refused(classification, logits, PROBABILITIES, classes=2)
    assert error.field == "output"
    assert "`activation`" in str(error)
    assert classification(logits, RAW, classes=2).label is None


def test_classes_go_by_value_not_by_their_place_in_the_list():
    """item_bands_expression lists 1 (vegetation) before 0 (background)."""
    found = classification(np.array([[0.1, 0.9]], np.float32), classes=make_labels(1, 0))
    assert found.label.name == "v1"
    assert [label.name for label in found.classes] == ["v0", "v1"]


def test_values_that_are_no_positions_go_by_their_place():
    found = classification(np.array([[0.1, 0.9, 0.3]], np.float32), classes=make_labels(30, 10, 20))
    assert found.label.value == 10
    assert [label.value for label in found.classes] == [30, 10, 20]


def test_a_class_for_nodata_takes_no_score():
    classes = (*make_labels(255, nodata=True), *make_labels(0, 1))
    found = classification(np.array([[0.1, 0.9]], np.float32), classes=classes)
    assert [label.value for label in found.classes] == [0, 1]


def test_unlabelled_scores_get_numbered_names():
    found = classification(np.array([[0.1, 0.9, 0.3]], np.float32))
    assert (found.label.name, found.label.value) == ("class_1", 1)
    assert len(found.classes) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_fail(bad):
    with pytest.raises(InferenceFailed, match="NaN"):
        classification(np.array([[0.1, bad]], np.float32), classes=2)


@pytest.mark.parametrize(
    ("options", "more", "logit", "value"),
    [
        (DEFAULTS, {"activation": "sigmoid"}, 0.1, 1),
        (DEFAULTS, {"activation": "sigmoid"}, -0.1, 0),
        (DEFAULTS, {"activation": "none"}, 0.5, 1),
        (DEFAULTS, {"activation": "none"}, 0.49, 0),
        (DEFAULTS, {"activation": "sigmoid", "threshold": 0.9}, 1.0, 0),
        (PredictOptions(threshold=0.7), {"activation": "sigmoid", "threshold": 0.9}, 1.0, 1),
        (PredictOptions(threshold=2.0), {}, 2.0, 1),
        (DEFAULTS, {"threshold": 3.0}, 2.0, 0),
    ],
)
def test_a_single_score_decides_by_request_then_profile_then_even_odds(options, more, logit, value):
    found = classification(np.array([[logit]], np.float32), options, classes=2, **more)
    assert found.label.value == value


def test_a_single_score_without_any_rule_is_refused_and_names_the_override():
    error = refused(classification, np.array([[2.0]], np.float32), classes=2)
    assert error.field == "threshold"
    assert "threshold=0.5" in str(error)
    assert refused(classification, np.array([[2.0]], np.float32), activation="softmax").field == "output"


def test_a_single_probability_stands_beside_its_complement():
    found = classification(
        np.array([[1.0]], np.float32), PROBABILITIES, classes=make_labels(1, 0), activation="sigmoid"
    )
    np.testing.assert_allclose(found.scores, [1 - 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-1))], rtol=1e-6)
    assert [label.value for label in found.classes] == [0, 1]


def test_a_lone_class_is_the_one_above_the_threshold():
    for logit, value in ((9.0, 7), (-9.0, 0)):
        found = classification(np.array([[logit]], np.float32), classes=make_labels(7), activation="sigmoid")
        assert found.label.value == value


def test_a_threshold_for_several_scores_is_refused():
    error = refused(
        classification, np.array([[1.0, 2.0]], np.float32), PredictOptions(threshold=0.5), classes=2
    )
    assert error.field == "threshold"


def test_a_model_that_answers_the_class_value_itself():
    """item_basic: uint8 [-1, 1] with two classes."""
    found = classification(np.array([[1]], np.uint8), classes=2)
    assert (found.label.name, found.scores.size) == ("kind 1", 0)
    assert refused(classification, np.array([[1]], np.uint8), PROBABILITIES, classes=2).field == "output"


# ---- segmentation ---------------------------------------------------------------------------------------------------


def test_labels_are_class_values_by_the_highest_score():
    scores = make_pixels((1, 3, 4, 5))
    found = segmentation(scores, classes=make_labels(30, 10, 20))
    np.testing.assert_array_equal(found.values[0], np.array([30, 10, 20])[scores[0].argmax(axis=0)])
    assert found.values.dtype == np.uint8
    assert (found.nodata, found.georeference) == (255, PLACE)
    assert found.valid.all()


def test_probabilities_and_raw_values_are_float_rasters_of_all_classes():
    scores = make_pixels((1, 3, 4, 5), high=3)
    powers = np.exp(scores[0].astype(np.float64))
    found = segmentation(scores, PROBABILITIES, classes=3, activation="softmax")
    np.testing.assert_allclose(found.values, powers / powers.sum(axis=0), rtol=1e-5)
    assert found.values.dtype == np.float32
    raw = segmentation(scores, RAW, classes=3, activation="softmax")
    np.testing.assert_array_equal(raw.values, scores[0])
    assert len(found.classes) == len(raw.classes) == 3


@pytest.mark.parametrize(
    ("axes", "order"), [(NCHW, "chw"), ((B, H, W, C), "hwc"), ((C, H, W), "chw"), ((B, W, H, C), "whc")]
)
def test_every_order_of_axes_comes_back(axes, order):
    scores = make_pixels((3, 4, 5))
    tensor = np.einsum(f"chw->{order}", scores)
    tensor = tensor[None] if B in axes else tensor
    found = segmentation(tensor, RAW, frame_of(4, 5), axes=axes, classes=3)
    np.testing.assert_array_equal(found.values, scores)


def test_axes_that_the_card_dropped_are_those_usual_for_the_rank():
    scores = make_pixels((3, 4, 5))
    for tensor in (scores[None], scores):
        np.testing.assert_array_equal(segmentation(tensor, RAW, axes=()).values, scores)
    for tensor in (scores[:1], scores[0]):
        np.testing.assert_array_equal(segmentation(tensor, RAW, frame_of(4, 5), axes=()).values, scores[:1])


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool"])
@pytest.mark.parametrize("axes", [(B, H, W), NCHW])
def test_integer_answers_are_class_values_already(dtype, axes):
    chosen = np.random.default_rng(0).integers(0, 2, (1, 4, 5)).astype(dtype)
    found = segmentation(chosen if axes == (B, H, W) else chosen[None], axes=axes, classes=make_labels(1, 0))
    np.testing.assert_array_equal(found.values, chosen)
    assert (found.values.dtype, found.nodata) == (np.uint8, 255)


def test_integer_answers_without_classes_keep_every_value_beside_nodata():
    mask = np.array([[[0, 255, 7]]], dtype=np.uint8)
    valid = np.array([[True, True, False]])
    found = segmentation(mask, frame=frame_of(1, 3, valid), axes=(B, H, W))
    assert found.values.tolist() == [[[0, 255, -32768]]]
    assert found.nodata == -32768
    with pytest.raises(InferenceFailed, match="class values"):
        segmentation(np.array([[[2**40]]]), axes=(B, H, W))


def test_a_label_that_does_not_fit_the_raster_fails_instead_of_wrapping():
    with pytest.raises(InferenceFailed, match="300"):
        segmentation(np.array([[[300, 1]]]), axes=(B, H, W), classes=2)


@pytest.mark.parametrize(
    ("values", "dtype", "nodata"),
    [
        ((0, 1), np.uint8, 255),
        ((0, 255), np.uint8, 254),
        (range(256), np.uint16, 65535),
        ((0, 256), np.uint16, 65535),
        ((-1, 3), np.int16, -32768),
        ((0, 70000), np.int32, -(2**31)),
    ],
)
def test_nodata_is_a_value_that_no_class_has(values, dtype, nodata):
    classes = make_labels(*values)
    found = segmentation(make_pixels((1, len(classes), 2, 2)), classes=classes)
    assert (found.values.dtype, found.nodata) == (dtype, nodata)


def test_a_class_that_marks_nodata_lends_its_value():
    classes = (*make_labels(0, nodata=True), *make_labels(1, 2))
    scores = np.zeros((1, 3, 1, 3), np.float32)
    scores[0, [0, 1, 2], 0, [0, 1, 2]] = 1
    found = segmentation(scores, frame=frame_of(1, 3, np.array([[True, True, False]])), classes=classes)
    assert found.nodata == 0
    assert found.values.tolist() == [[[0, 1, 0]]]
    assert found.valid.tolist() == [[False, True, False]]


def test_nodata_comes_back_in_every_kind():
    valid = np.array([[True, False], [True, True]])
    scores = make_pixels((1, 2, 2, 2))
    found = segmentation(scores, frame=frame_of(2, 2, valid), classes=2)
    assert found.values[0, 0, 1] == found.nodata == 255
    np.testing.assert_array_equal(found.valid, valid)
    raw = segmentation(scores, RAW, frame_of(2, 2, valid), classes=2)
    np.testing.assert_array_equal(np.isnan(raw.values), np.broadcast_to(~valid, (2, 2, 2)))
    assert np.isnan(raw.nodata)
    np.testing.assert_array_equal(raw.values[:, valid], scores[0][:, valid])


def test_a_pixel_that_the_model_leaves_open_is_nodata():
    scores = make_pixels((1, 2, 2, 2))
    scores[0, 1, 0, 0] = np.nan
    expected = np.array([[False, True], [True, True]])
    for options in (DEFAULTS, RAW, PROBABILITIES):
        found = segmentation(scores, options, classes=2, activation="softmax")
        np.testing.assert_array_equal(found.valid, expected)


def test_a_binary_mask_by_threshold():
    """RoadSegmentationQ2: one channel of logits; with a sigmoid declared, label 1 begins at even odds."""
    logits = make_pixels((1, 1, 4, 5), high=10) - 5
    found = segmentation(logits, activation="sigmoid", classes=make_labels(0, 1))
    np.testing.assert_array_equal(found.values[0], logits[0, 0] >= 0)
    strict = segmentation(logits, PredictOptions(threshold=0.9), activation="sigmoid")
    np.testing.assert_array_equal(strict.values[0], 1 / (1 + np.exp(-logits[0, 0].astype(np.float64))) >= 0.9)
    assert refused(segmentation, logits).field == "threshold"
    share = segmentation(logits, PROBABILITIES, activation="sigmoid", classes=make_labels(0, 1))
    assert [label.value for label in share.classes] == [1]
    assert share.values.shape == (1, 4, 5)


@pytest.mark.parametrize("values", [(0, 255), (255, 0), (1, 0), (10, 20), (20, 10)])
def test_of_two_classes_for_one_score_the_larger_value_is_above_the_threshold_however_they_are_listed(values):
    scores = np.array([[[[0.2, 0.8]]]], np.float32)
    found = segmentation(scores, activation="none", classes=make_labels(*values))
    assert found.values.tolist() == [[[min(values), max(values)]]]
    share = segmentation(scores, PROBABILITIES, activation="none", classes=make_labels(*values))
    assert [label.value for label in share.classes] == [max(values)]


def test_naming_channels_takes_time_in_proportion_to_their_number():
    """Counted, not timed: how often a class is asked for its value."""
    asked = 0

    class Counting(ClassLabel):
        def __getattribute__(self, name: str):
            nonlocal asked
            asked += name == "value"
            return super().__getattribute__(name)

    classes = tuple(Counting(value=k, name=f"v{k}") for k in range(500))
    assert [c.value for c in classes_of_channels(classes, 500)] == list(range(500))
    assert asked <= 5 * 500


@pytest.mark.parametrize("options", [DEFAULTS, PROBABILITIES])
def test_a_softmax_of_a_single_score_is_refused_since_it_is_always_one(options):
    for call, shape in ((segmentation, (1, 1, 2, 2)), (classification, (1, 1))):
        assert refused(call, make_pixels(shape), options, activation="softmax").got == "softmax"


def test_post_processing_is_done_to_the_raw_values():
    """item_multi_io: `logical_not(A)` on a mask of class values; and a comparison makes a mask of scores."""
    mask = np.array([[[[0, 1, 1]]]], dtype=np.uint8)
    inverse = Expression(format="gdal-calc", expression="logical_not(A)")
    found = segmentation(mask, classes=2, processing=(inverse,))
    assert found.values.tolist() == [[[1, 0, 0]]]
    scores = make_pixels((1, 2, 2, 3))
    larger = Expression(format="gdal-calc", expression="A > B")
    found = segmentation(scores, classes=2, processing=(larger,))
    np.testing.assert_array_equal(found.values[0], scores[0, 0] > scores[0, 1])
    np.testing.assert_array_equal(
        segmentation(scores, RAW, classes=2, processing=(larger,)).values, scores[0]
    )


def test_an_answer_without_pixels_is_no_segmentation_of_more_than_one():
    tensor = np.array([[0.2, 0.8]], np.float32)
    with pytest.raises(InferenceFailed, match="every pixel"):
        answer(tensor, make_output(Task.SEGMENTATION, axes=NC), frame=frame_of(4, 4))
    found = answer(tensor, make_output(Task.SEGMENTATION, axes=NC), frame=frame_of(1, 1))
    assert found.values.tolist() == [[[1]]]
