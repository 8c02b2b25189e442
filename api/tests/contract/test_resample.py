"""Resampling equals OpenCV's `resize`, and nodata never bleeds."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ml_inference.contract.resample import apply_taps, nearest_index, resample, taps

OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos4": cv2.INTER_LANCZOS4,
}
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def by_opencv(planes: np.ndarray, size: tuple[int, int], kernel: str) -> np.ndarray:
    rows, columns = size
    return np.stack(
        [cv2.resize(p, (columns, rows), interpolation=OPENCV[kernel]).reshape(size) for p in planes]
    )


def opencv_slips(n_in: int, n_out: int) -> bool:
    """Whether OpenCV's float step lands short of an edge that it should reach, and takes the pixel before it."""
    result = np.arange(n_out)
    return bool((np.floor(result * (1 / (n_out / n_in))) != result * n_in // n_out).any())


@pytest.mark.parametrize("kernel", OPENCV)
@given(source=sizes, target=sizes, seed=st.integers(0, 99))
def test_every_kernel_equals_opencv(kernel, source, target, seed):
    grows = any(t > s for s, t in zip(source, target, strict=True))
    if kernel == "area" and grows:
        assume(not any(opencv_slips(s, t) for s, t in zip(source, target, strict=True)))
    planes = np.random.default_rng(seed).random((2, *source), dtype=np.float32)
    ours, valid = resample(planes, target, kernel)
    assert valid is None
    assert ours.dtype == np.float32
    np.testing.assert_allclose(
        ours, by_opencv(planes, target, kernel), atol=0 if kernel == "nearest" else 1e-4
    )


def test_an_area_that_grows_is_exact_where_opencv_slips_by_one_pixel():
    assert opencv_slips(14, 18)
    column = np.arange(14, dtype=np.float32)[None, :, None]
    ours, _ = resample(column, (18, 1), "area")
    assert ours[0, 9, 0] == pytest.approx(7)  # result 9 begins at 9 · 14 / 18 = 7, exactly


@pytest.mark.parametrize("kernel", OPENCV)
def test_keeping_the_size_keeps_the_pixels(kernel):
    planes = np.random.default_rng(1).random((3, 7, 9), dtype=np.float32)
    ours, _ = resample(planes, (7, 9), kernel)
    np.testing.assert_array_equal(ours, planes)


@pytest.mark.parametrize("kernel", OPENCV)
@given(n_in=st.integers(1, 200), n_out=st.integers(1, 200))
def test_taps_stay_in_the_image_and_their_weights_sum_to_one(kernel, n_in, n_out):
    found = taps(kernel, n_in, n_out)
    assert found.index.min() >= 0
    assert found.index.max() < n_in
    np.testing.assert_allclose(found.weight.sum(axis=1), 1, atol=1e-5)


def test_nearest_keeps_any_dtype():
    planes = np.arange(12, dtype=np.uint16).reshape(1, 3, 4)
    ours, _ = resample(planes, (6, 8), "nearest")
    np.testing.assert_array_equal(ours, planes.repeat(2, axis=1).repeat(2, axis=2))
    assert ours.dtype == np.uint16


@pytest.mark.parametrize("kernel", OPENCV)
@given(source=sizes, target=sizes, seed=st.integers(0, 99))
def test_invalid_pixels_lend_nothing(kernel, source, target, seed):
    """Whatever stands where nothing is valid, even NaN, the result is the same; and a constant image stays constant."""
    rng = np.random.default_rng(seed)
    valid = rng.random(source) < 0.7
    constant = np.full((1, *source), 3, dtype=np.float32)
    for junk in (np.nan, 1e9, -7):
        ours, good = resample(np.where(valid, constant, np.float32(junk)), target, kernel, valid)
        np.testing.assert_allclose(ours[0][good], 3, rtol=1e-4)


def test_a_result_is_valid_when_half_of_its_weight_is():
    valid = np.array([[True, True, False, False, True, False, False, False]])
    ours, good = resample(np.ones((1, 1, 8), np.float32), (1, 2), "area", valid)
    assert good.tolist() == [[True, False]]
    assert ours.tolist() == [[[1, 0]]]


def test_a_scene_is_resampled_without_a_matrix_of_its_size():
    found = taps("area", 10980, 512)
    assert found.index.shape[1] <= np.ceil(10980 / 512) + 1
    ramp = np.arange(10980, dtype=np.float32)[None, None]
    ours, _ = apply_taps(ramp, taps("area", 1, 1), found)
    centres = (np.arange(512) + 0.5) * 10980 / 512 - 0.5
    np.testing.assert_allclose(ours[0, 0], centres, rtol=1e-5, atol=1e-2)


def test_taps_are_remembered_for_usual_sizes_and_not_for_strips_as_long_as_a_scene_has_pixels():
    """A cache of 128 entries of half a gigabyte each would be filled by a few kilobytes of PNG."""
    assert taps("linear", 512, 10980) is taps("linear", 512, 10980)
    assert taps("linear", 512, 1_000_000) is not taps("linear", 512, 1_000_000)
    assert taps("area", 1_000_000, 512) is not taps("area", 1_000_000, 512)


@given(n=st.integers(1, 50), factor=st.integers(1, 8))
def test_nearest_index_undoes_a_whole_enlargement(n, factor):
    enlarged = np.arange(n).repeat(factor)
    np.testing.assert_array_equal(enlarged[nearest_index(n, factor, n * factor)], np.arange(n))
