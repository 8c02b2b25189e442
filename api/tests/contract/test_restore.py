"""The way back to the image's own pixels, and answers that are values or tensors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    make_card,
    make_input,
    make_output,
    make_pixels,
    make_raster,
    refused,
    segmentation,
)

from ml_inference.contract.card import Axis, Expression, Task
from ml_inference.contract.interpret import interpret
from ml_inference.contract.options import PredictOptions
from ml_inference.contract.predictions import Tensors
from ml_inference.contract.prepare import prepare
from ml_inference.contract.raster import Raster
from ml_inference.errors import InferenceFailed

B, C, H, W = NCHW


# ---- the way back ---------------------------------------------------------------------------------------------------

FITS = st.sampled_from(["as it is", "multiple", "pad", "crop", "half crop"])


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    fit=FITS,
    axes=st.sampled_from([NCHW, (B, H, W, C)]),
    seed=st.integers(0, 99),
)
def test_interpret_after_an_identity_after_prepare_gives_the_pixels_back(height, width, fit, axes, seed):
    rng = np.random.default_rng(seed)
    pixels, valid = make_pixels((2, height, width), seed=seed), rng.random((2, height, width)) < 0.9
    small = {H: max(1, height - 3), W: max(1, width - 2)}
    large = {H: height + 5, W: width + 2}
    more = {
        "as it is": {},
        "multiple": {"size_multiple": 8},
        "pad": {"shape": tuple(large.get(axis, -1) for axis in axes), "resize": "pad"},
        "crop": {"shape": tuple(small.get(axis, -1) for axis in axes), "resize": "crop"},
        "half crop": {
            "shape": tuple(small[H] if axis == H else -1 for axis in axes),
            "resize": "crop",
            "size_multiple": 4,
        },
    }[fit]
    card = make_card(make_input(axes=axes, **more), output=make_output(axes=axes, classes=2))
    ready = prepare(Raster(pixels, valid, georeference=PLACE), card, DEFAULTS)
    found = interpret({"y": ready.tensors["x"]}, card, ready.frame, RAW)
    expected = valid.all(axis=0)
    rows = small[H] if "crop" in fit else height
    columns = small[W] if fit == "crop" else width
    window = np.zeros((height, width), dtype=bool)
    top, left = (height - rows) // 2, (width - columns) // 2
    window[top : top + rows, left : left + columns] = True
    expected = expected & window
    np.testing.assert_array_equal(found.valid, expected)
    np.testing.assert_array_equal(found.values[:, expected], pixels[:, expected])
    assert np.isnan(found.values[:, ~expected]).all()
    assert found.georeference == PLACE
    chosen = interpret({"y": ready.tensors["x"]}, card, ready.frame, DEFAULTS)
    np.testing.assert_array_equal(chosen.values[0][expected], pixels.argmax(axis=0)[expected])
    assert (chosen.values[0][~expected] == chosen.nodata).all()


@pytest.mark.parametrize("factor", [2, 3])
def test_a_resize_by_a_whole_factor_is_undone_for_labels(factor):
    pixels = make_pixels((2, 6, 4))
    card = make_card(
        make_input(shape=(-1, 2, 6 * factor, 4 * factor), resize="interpolation-nearest"),
        output=make_output(classes=2),
    )
    ready = prepare(make_raster(pixels), card, DEFAULTS)
    found = interpret({"y": ready.tensors["x"]}, card, ready.frame, DEFAULTS)
    np.testing.assert_array_equal(found.values[0], pixels.argmax(axis=0))


def test_linear_scores_come_back_exactly_through_a_linear_resize():
    """A ramp is linear on any grid: halved by averaging and brought back, only the replicated edge differs."""
    ramp = np.broadcast_to(np.arange(16, dtype=np.float32), (1, 8, 16))
    card = make_card(make_input(shape=(-1, 1, 4, 8), resize="interpolation-area"), output=make_output())
    ready = prepare(make_raster(ramp), card, DEFAULTS)
    found = interpret({"y": ready.tensors["x"]}, card, ready.frame, RAW)
    np.testing.assert_allclose(found.values[:, :, 1:-1], ramp[:, :, 1:-1], rtol=1e-6)


@given(height=st.integers(1, 40), width=st.integers(1, 40), stride=st.sampled_from([2, 4, 8]))
def test_an_answer_at_a_networks_stride_covers_every_pixel_by_its_cell(height, width, stride):
    rows, columns = -(-height // stride), -(-width // stride)
    coarse = np.arange(rows * columns).reshape(1, rows, columns)
    found = segmentation(coarse, frame=frame_of(height, width), axes=(B, H, W))
    grid = np.mgrid[:height, :width] // stride
    np.testing.assert_array_equal(found.values[0], grid[0] * columns + grid[1])


def test_a_finer_answer_is_a_segmentation_of_the_image_still():
    fine = np.arange(36, dtype=np.int64).reshape(1, 6, 6)
    found = segmentation(fine, frame=frame_of(2, 2), axes=(B, H, W))
    np.testing.assert_array_equal(found.values[0], fine[0, 1::3, 1::3])


def test_an_answer_whose_place_is_unknown_fails():
    """A network that trims its borders answers 388 cells for 572 pixels: they are not the whole image."""
    with pytest.raises(InferenceFailed, match="388x388"):
        segmentation(np.zeros((1, 2, 388, 388), np.float32), frame=frame_of(572, 572), classes=2)


def test_scores_of_cells_that_saw_nothing_do_not_bleed_into_their_neighbours():
    valid = np.ones((8, 8), dtype=bool)
    valid[:, :4] = False
    frame = frame_of(8, 8, valid, shape=(-1, 1, 4, 4), resize="interpolation-area")
    scores = np.full((1, 1, 4, 4), 5, dtype=np.float32)
    scores[..., :2] = 1e6
    found = segmentation(scores, RAW, frame)
    np.testing.assert_array_equal(found.valid, valid)
    np.testing.assert_allclose(found.values[0][valid], 5)


# ---- regression, tensors --------------------------------------------------------------------------------------------


def test_values_for_the_whole_image():
    output = make_output(Task.REGRESSION, axes=(B, Axis.VALUE), bands=("height", "biomass"))
    found = answer(np.array([[1.5, 2.5]], np.float64), output)
    assert found.names == ("height", "biomass")
    assert found.values.tolist() == [1.5, 2.5]
    assert found.values.dtype == np.float32
    assert (found.valid, found.nodata) == (None, None)
    with pytest.raises(InferenceFailed):
        answer(np.array([[np.nan, 1]]), output)


def test_values_for_every_pixel_with_nan_where_invalid():
    valid = np.array([[True, False]])
    found = answer(
        np.array([[[[1, 2]]]], np.float32), make_output(Task.REGRESSION), frame=frame_of(1, 2, valid)
    )
    np.testing.assert_array_equal(found.values, [[[1, np.nan]]])
    assert found.names == ("y",)
    np.testing.assert_array_equal(found.valid, valid)
    assert found.georeference == PLACE


def test_processing_and_activation_of_values_unless_raw():
    double = Expression(format="gdal-calc", expression="A * 2")
    output = make_output(Task.REGRESSION, axes=NC, processing=(double,), activation="sigmoid")
    assert answer(np.array([[1.0]]), output).values[0] == pytest.approx(1 / (1 + np.exp(-2)))
    assert answer(np.array([[1.0]]), output, RAW).values[0] == 1


def test_super_resolution_keeps_its_finer_grid_on_the_same_ground():
    valid = np.ones((3, 4), dtype=bool)
    valid[0, 0] = False
    frame = frame_of(3, 4, valid, size_multiple=4)
    fine = make_pixels((1, 1, 8, 8))
    found = answer(fine, make_output(Task.REGRESSION), frame=frame)
    assert found.values.shape == (1, 6, 8)
    np.testing.assert_array_equal(found.valid, valid.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(found.values[:, found.valid], fine[0, :, :6, :8][:, found.valid])
    assert found.georeference.locate(0, 0) == PLACE.locate(0, 0)
    assert found.georeference.locate(8, 6) == PLACE.locate(4, 3)


def test_a_raw_task_gives_every_tensor_without_its_batch_axis():
    found = answer(make_pixels((1, 3, 2)), make_output(Task.RAW, axes=()), other=make_pixels((1, 5)))
    assert isinstance(found, Tensors)
    assert {name: array.shape for name, array in found.tensors.items()} == {"y": (3, 2), "other": (5,)}
    inner = make_output(Task.RAW, axes=(C, B))
    assert answer(make_pixels((3, 1)), inner).tensors["y"].shape == (3,)


@pytest.mark.parametrize("task", [Task.REGRESSION, Task.DETECTION, Task.RAW])
def test_probabilities_of_what_has_no_classes_are_refused(task):
    assert refused(answer, np.zeros((1, 1)), make_output(task, axes=NC), PROBABILITIES).field == "output"


@pytest.mark.parametrize("task", [Task.REGRESSION, Task.RAW])
def test_a_threshold_of_what_has_none_is_refused(task):
    options = PredictOptions(threshold=0.5)
    assert refused(answer, np.zeros((1, 1)), make_output(task, axes=NC), options).field == "threshold"


@pytest.mark.parametrize(
    ("tensor", "more"),
    [
        (np.zeros((2, 3), np.float32), {"axes": NC}),
        (np.zeros((1, 2, 3), np.float32), {"axes": (B, Axis.TIME, C)}),
        (np.zeros((1, 3, 2, 2), np.float32), {"axes": NCHW}),
        (np.zeros((1, 1, 1, 1, 1), np.float32), {"axes": NC}),
    ],
)
def test_a_shape_that_the_card_does_not_promise_fails(tensor, more):
    with pytest.raises(InferenceFailed):
        classification(tensor, **more)


def test_an_output_that_the_model_did_not_give_fails():
    with pytest.raises(InferenceFailed, match="'y'"):
        interpret({"z": np.zeros(1)}, make_card(output=make_output(Task.RAW)), frame_of(), DEFAULTS)


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    task=st.sampled_from([Task.SEGMENTATION, Task.REGRESSION]),
)
def test_an_image_without_a_valid_pixel_is_answered_with_nodata_alone(shape, task):
    frame = frame_of(*shape, np.zeros(shape, dtype=bool))
    found = answer(np.ones((1, 1, *shape), np.float32), make_output(task, activation="none"), frame=frame)
    assert not found.valid.any()
    assert found.values.shape == (1, *shape)
    assert np.isnan(found.values).all() if task is Task.REGRESSION else (found.values == found.nodata).all()
