"""The way from an image to a tensor: sizes, types, axes, and nothing invalid ever gets through."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_cards import (
    DEFAULTS,
    NC,
    NCHW,
    PLACE,
    band,
    make_card,
    make_input,
    make_output,
    make_pixels,
    make_raster,
)

from ml_inference.contract.card import Axis, Expression, Scale, Task
from ml_inference.contract.prepare import prepare
from ml_inference.contract.raster import Raster
from ml_inference.errors import CardInvalid, ContractMismatch

B, C, H, W, T = Axis.BATCH, Axis.CHANNEL, Axis.HEIGHT, Axis.WIDTH, Axis.TIME


def tensor_of(pixels: np.ndarray, **more) -> np.ndarray:
    return prepare(make_raster(pixels), make_card(make_input(**more)), DEFAULTS).tensors["x"]


def refused(pixels: np.ndarray, **more) -> ContractMismatch:
    with pytest.raises(ContractMismatch) as caught:
        tensor_of(pixels, **more)
    return caught.value


@pytest.mark.parametrize(
    ("axes", "order"),
    [
        ((B, C, H, W), "chw"),
        ((B, H, W, C), "hwc"),
        ((C, H, W), "chw"),
        ((H, W, C), "hwc"),
        ((B, C, W, H), "cwh"),
        ((B, T, C, H, W), "chw"),
        ((B, C, T, H, W), "chw"),
        ((W, B, C, Axis.OTHER, H), "wch"),
    ],
)
def test_every_order_of_axes(axes, order):
    pixels = make_pixels((3, 4, 5), "uint8")
    tensor = tensor_of(pixels, axes=axes, dtype="uint8", scaling=None)
    expected = np.einsum(f"chw->{order}", pixels)
    assert tensor.flags.c_contiguous
    np.testing.assert_array_equal(tensor.squeeze(), expected)
    assert tensor.ndim == len(axes)
    assert all(size == 1 for axis, size in zip(axes, tensor.shape, strict=True) if axis not in (C, H, W))


@pytest.mark.parametrize("axes", [(B, H, W, C), (C, W, H), NCHW])
def test_padding_goes_to_the_bottom_and_right_in_every_order_of_axes(axes):
    pixels = make_pixels((2, 3, 5), "uint8")
    tensor = tensor_of(pixels, axes=axes, size_multiple=4, nodata_fill=-1.0)
    sizes = {B: 1, C: 2, H: 4, W: 8}
    assert tensor.shape == tuple(sizes[axis] for axis in axes)
    planes = np.transpose(
        tensor[0] if B in axes else tensor, [[a for a in axes if a != B].index(a) for a in (C, H, W)]
    )
    np.testing.assert_array_equal(planes[:, :3, :5], pixels)
    assert (planes[:, 3:] == -1).all()
    assert (planes[:, :, 5:] == -1).all()


def test_a_tensor_of_height_and_width_alone_takes_one_band():
    pixels = make_pixels((1, 4, 5), "uint8")
    np.testing.assert_array_equal(tensor_of(pixels, axes=(H, W), dtype="uint8"), pixels[0])
    error = refused(make_pixels((2, 4, 5), "uint8"), axes=(H, W), dtype="uint8")
    assert (error.field, error.expected, error.got) == ("bands", "1 band", "2 bands")


def test_a_model_of_single_pixels_takes_one():
    pixels = make_pixels((4, 1, 1))
    np.testing.assert_array_equal(tensor_of(pixels, axes=NC), pixels.reshape(1, 4))
    assert refused(make_pixels((4, 2, 1)), axes=NC).field == "image.size"


def test_a_series_of_images_cannot_come_from_one():
    error = refused(make_pixels((1, 2, 2)), axes=(B, T, C, H, W), shape=(-1, 4, -1, -1, -1))
    assert (error.field, error.expected, error.got) == ("input.time", 4, 1)


def test_one_pixel_is_an_image():
    pixels = np.array([[[7]], [[9]]], dtype=np.uint16)
    ready = prepare(make_raster(pixels), make_card(make_input(size_multiple=16)), DEFAULTS)
    assert ready.tensors["x"].shape == (1, 2, 16, 16)
    assert ready.tensors["x"][0, :, 0, 0].tolist() == [7, 9]
    assert ready.tensors["x"].sum() == 16


# ---- sizes ----------------------------------------------------------------------------------------------------------


def test_a_fixed_size_without_resize_type_refuses_other_sizes():
    error = refused(make_pixels((1, 60, 64)), shape=(-1, -1, 64, 64))
    assert (error.field, error.expected, error.got) == ("image.size", {"height": 64}, {"height": 60})
    assert tensor_of(make_pixels((1, 64, 64)), shape=(-1, -1, 64, 64)).shape == (1, 1, 64, 64)


def test_crop_takes_the_centre_and_refuses_to_enlarge():
    pixels = make_pixels((2, 10, 13))
    np.testing.assert_array_equal(
        tensor_of(pixels, shape=(-1, -1, 4, 5), resize="crop")[0], pixels[:, 3:7, 4:9]
    )
    assert refused(pixels, shape=(-1, -1, 12, 5), resize="crop").field == "image.size"


def test_pad_fills_up_and_refuses_to_cut():
    pixels = make_pixels((2, 3, 4))
    expected = np.pad(pixels, ((0, 0), (0, 3), (0, 4)), constant_values=9)
    np.testing.assert_array_equal(
        tensor_of(pixels, shape=(-1, -1, 6, 8), resize="pad", nodata_fill=9)[0], expected
    )
    assert refused(pixels, shape=(-1, -1, 2, 8), resize="pad").field == "image.size"


@pytest.mark.parametrize(
    ("kernel", "flag"),
    [
        ("nearest", cv2.INTER_NEAREST),
        ("linear", cv2.INTER_LINEAR),
        ("cubic", cv2.INTER_CUBIC),
        ("area", cv2.INTER_AREA),
        ("lanczos4", cv2.INTER_LANCZOS4),
    ],
)
def test_interpolation_equals_opencv(kernel, flag):
    pixels = make_pixels((2, 30, 21))
    tensor = tensor_of(pixels, shape=(-1, -1, 16, 16), resize=f"interpolation-{kernel}")
    expected = [cv2.resize(plane, (16, 16), interpolation=flag) for plane in pixels]
    np.testing.assert_allclose(tensor[0], expected, atol=1e-3)


def test_one_fixed_side_resizes_that_side_alone():
    pixels = make_pixels((1, 10, 7))
    tensor = tensor_of(pixels, shape=(-1, -1, 5, -1), resize="interpolation-area", size_multiple=4)
    assert tensor.shape == (1, 1, 5, 8)
    np.testing.assert_allclose(tensor[0, 0, :, :7], pixels[0].reshape(5, 2, 7).mean(axis=1), rtol=1e-6)


def test_a_strip_of_millions_is_not_resized_to_a_few_pixels():
    """Thirty million pixels in one row fit into 30 kB of PNG, and took gigabytes and seconds to average."""
    resized = {"shape": (-1, 1, 4, 4), "resize": "interpolation-area"}
    longest = make_raster(np.ones((1, 1, 4 * 4096), np.uint8))
    ready = prepare(longest, make_card(make_input(**resized)), DEFAULTS)
    np.testing.assert_allclose(ready.tensors["x"], np.ones((1, 1, 4, 4)), rtol=1e-5)
    error = refused(np.ones((1, 1, 4 * 4096 + 1), np.uint8), **resized)
    assert (error.field, error.expected) == ("image.size", {"width": 4})
    assert "4096" in str(error)


def test_interpolated_integers_stay_what_integers_can_be():
    """As in OpenCV, a cubic overshoot below 0 or above 255 is cut off, and an integer model gets rounded values."""
    pixels = np.zeros((1, 8, 8), dtype=np.uint8)
    pixels[:, :, 4:] = 255
    more = {"shape": (-1, -1, 16, 16), "resize": "interpolation-cubic"}
    floats, integers = tensor_of(pixels, **more), tensor_of(pixels, **more, dtype="uint8", scaling=None)
    assert (floats.min(), floats.max()) == (0, 255)
    by_opencv = cv2.resize(pixels[0], (16, 16), interpolation=cv2.INTER_CUBIC)
    assert np.abs(integers[0, 0].astype(int) - by_opencv).max() <= 1
    np.testing.assert_array_equal(integers, np.rint(floats))


# ---- types ----------------------------------------------------------------------------------------------------------


def test_integers_for_an_integer_model_pass_untouched():
    pixels = make_pixels((3, 4, 4), "uint16", high=65535)
    ready = prepare(make_raster(pixels), make_card(make_input(dtype="uint16", scaling=None)), DEFAULTS)
    np.testing.assert_array_equal(ready.tensors["x"][0], pixels)
    assert ready.tensors["x"].dtype == np.uint16


@pytest.mark.parametrize(("source", "target"), [("uint16", "uint8"), ("int16", "uint16"), ("int64", "int32")])
def test_a_wider_integer_passes_when_every_valid_value_fits(source, target):
    info = np.iinfo(target)
    pixels = np.array([[[info.min, info.max, 1]]], dtype="int64").clip(
        np.iinfo(source).min, np.iinfo(source).max
    )
    tensor = tensor_of(pixels.astype(source), dtype=target, scaling=None)
    assert tensor.dtype == target
    np.testing.assert_array_equal(tensor[0], pixels)
    outside = info.min - 1 if np.iinfo(source).min < info.min else info.max + 1
    error = refused(np.array([[[outside, 0]]], dtype=source), dtype=target, scaling=None)
    assert error.field == "image.dtype"


def test_a_value_too_large_for_the_model_is_refused_with_the_range_seen_unless_it_is_nodata():
    pixels = np.array([[[3, 300], [7, 9]]], dtype=np.uint16)
    error = refused(pixels, dtype="uint8", scaling=None)
    assert (error.field, error.got) == ("image.dtype", "uint16 (3 to 300)")
    raster = Raster(pixels, valid=pixels != 300)
    tensor = prepare(raster, make_card(make_input(dtype="uint8", scaling=None)), DEFAULTS).tensors["x"]
    assert tensor[0].tolist() == [[[3, 0], [7, 9]]]


@pytest.mark.parametrize("scaling", [None, ()])
def test_a_float_tile_for_an_integer_card_is_refused(scaling):
    error = refused(make_pixels((3, 4, 4)), dtype="uint8", scaling=scaling)
    assert (error.field, error.expected, error.got) == ("image.dtype", "uint8", "float32")


def test_a_declared_chain_may_end_in_integers_rounded_with_a_warning():
    pixels = np.array([[[0, 149, 151, 1000]]], dtype=np.float32)
    card = make_card(make_input(dtype="uint8", scaling=((Scale(value=100),),)))
    ready = prepare(make_raster(pixels), card, DEFAULTS)
    assert ready.tensors["x"].tolist() == [[[[0, 1, 2, 10]]]]
    assert ready.warnings == ("values are rounded to uint8",)
    error = refused(pixels, dtype="uint8", scaling=((Scale(value=1),),))
    assert error.field == "image.dtype"


def test_a_bool_model_takes_zeros_and_ones_alone():
    assert tensor_of(np.array([[[0, 1]]], np.uint8), dtype="bool", scaling=None).tolist() == [
        [[[False, True]]]
    ]
    assert refused(np.array([[[0, 2]]], np.uint8), dtype="bool", scaling=None).field == "image.dtype"
    assert tensor_of(np.array([[[False, True]]]), dtype="uint8", scaling=None).tolist() == [[[[0, 1]]]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_tensor_has_the_cards_dtype(dtype):
    assert tensor_of(make_pixels((1, 2, 2), "uint8"), dtype=dtype).dtype == dtype


def test_pixels_of_the_other_byte_order_mean_the_same():
    pixels = make_pixels((2, 3, 3), "uint16", high=60000)
    tensor = tensor_of(pixels.astype(">u2"), dtype="uint16", scaling=None)
    assert tensor.dtype == np.dtype("uint16")
    np.testing.assert_array_equal(tensor[0], pixels)


# ---- processing -----------------------------------------------------------------------------------------------------


def test_processing_of_two_bands_gives_one_channel_and_is_taken_literally():
    """item_multi_io: `(A - B) / (A + B)` over B04, B08 is the negative NDVI, as written."""
    spec = make_input(
        "B04 B08",
        shape=(-1, 1, -1, -1),
        scaling=None,
        processing=(Expression(format="gdal-calc", expression="(A - B) / (A + B)"),),
    )
    pixels = make_pixels((2, 4, 4), "uint16") + np.uint16(1)
    tensor = prepare(make_raster(pixels, "B04 B08"), make_card(spec), DEFAULTS).tensors["x"]
    red, nir = pixels.astype(np.float64)
    np.testing.assert_allclose(tensor[0, 0], (red - nir) / (red + nir), atol=1e-6)


def test_processing_of_a_alone_is_done_to_every_channel():
    halve = Expression(format="gdal-calc", expression="A / 2")
    pixels = make_pixels((3, 2, 2))
    np.testing.assert_allclose(tensor_of(pixels, processing=(halve, halve))[0], pixels / 4, rtol=1e-6)


def test_processing_that_names_no_channel_is_the_cards_fault():
    with pytest.raises(CardInvalid):
        tensor_of(make_pixels((1, 2, 2)), processing=(Expression(format="rio-calc", expression="B99 + 1"),))


# ---- nodata ---------------------------------------------------------------------------------------------------------


@given(data=st.data(), dtype=st.sampled_from(["uint8", "int16", "float32"]))
def test_neither_nodata_nor_nan_reaches_the_model(data, dtype):
    shape = (2, data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9)))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    pixels = rng.integers(0, 100, shape).astype(dtype)
    valid = rng.random(shape) < 0.8
    if dtype == "float32":
        pixels[rng.random(shape) < 0.2] = np.nan
    sound = valid.all(axis=0) & np.isfinite(pixels).all(axis=0)
    spec = make_input(scaling=((Scale(value=10),),), nodata_fill=-3, size_multiple=4)
    ready = prepare(Raster(pixels, valid), make_card(spec), DEFAULTS)
    content = ready.tensors["x"][0, :, : shape[1], : shape[2]]
    np.testing.assert_array_equal(ready.frame.valid, sound)
    np.testing.assert_allclose(content, np.where(sound, np.nan_to_num(pixels) / 10, -3), rtol=1e-6)
    rest = ready.tensors["x"].copy()
    rest[0, :, : shape[1], : shape[2]] = -3
    assert (rest == -3).all()


def test_only_bands_in_use_decide_what_is_valid():
    valid = np.ones((2, 2, 2), dtype=bool)
    valid[0, 0, 0] = valid[1, 1, 1] = False
    raster = Raster(make_pixels((2, 2, 2), "uint8"), valid, ("B04", "B08"))
    frame = prepare(raster, make_card(make_input("B08")), DEFAULTS).frame
    assert frame.valid.tolist() == [[True, True], [True, False]]


@pytest.mark.parametrize(
    "resize", ["interpolation-linear", "interpolation-area", "interpolation-cubic", "interpolation-lanczos4"]
)
def test_nodata_does_not_bleed_through_interpolation(resize):
    pixels = np.full((1, 12, 12), 5, dtype=np.float32)
    pixels[:, 3:6, 3:6] = np.nan
    spec = make_input(shape=(-1, -1, 8, 8), resize=resize, nodata_fill=5)
    tensor = prepare(make_raster(pixels), make_card(spec), DEFAULTS).tensors["x"]
    np.testing.assert_allclose(tensor, 5, rtol=1e-4)


def test_where_the_resized_pixel_is_unseen_the_source_pixels_are_not_valid():
    valid = np.ones((1, 4, 4), dtype=bool)
    valid[0, :2, :2] = False
    spec = make_input(shape=(-1, -1, 2, 2), resize="interpolation-area")
    ready = prepare(Raster(make_pixels((1, 4, 4)), valid), make_card(spec), DEFAULTS)
    np.testing.assert_array_equal(ready.frame.valid, valid[0])
    np.testing.assert_array_equal(ready.frame.seen, [[False, True], [True, True]])


def test_outside_of_a_crop_no_answer_means_anything():
    spec = make_input(shape=(-1, -1, 2, 2), resize="crop")
    frame = prepare(make_raster(make_pixels((1, 4, 5))), make_card(spec), DEFAULTS).frame
    expected = np.zeros((4, 5), dtype=bool)
    expected[1:3, 1:3] = True
    np.testing.assert_array_equal(frame.valid, expected)


@pytest.mark.parametrize(
    ("task", "axes", "refuses"),
    [
        (Task.CLASSIFICATION, NC, True),
        (Task.REGRESSION, NC, True),
        (Task.RAW, NC, True),
        (Task.REGRESSION, NCHW, False),
        (Task.SEGMENTATION, NCHW, False),
        (Task.DETECTION, NC, False),
    ],
)
def test_an_image_without_a_valid_pixel(task, axes, refuses):
    raster = Raster(make_pixels((1, 2, 2)), np.zeros((1, 2, 2), dtype=bool))
    card = make_card(output=make_output(task, axes=axes))
    if not refuses:
        assert not prepare(raster, card, DEFAULTS).frame.valid.any()
        return
    with pytest.raises(ContractMismatch, match="no valid pixel") as caught:
        prepare(raster, card, DEFAULTS)
    assert caught.value.field == "pixels"


def test_a_fill_that_the_type_cannot_hold_is_the_cards_fault():
    with pytest.raises(CardInvalid, match="-9999"):
        tensor_of(make_pixels((1, 3, 3), "uint8"), dtype="uint8", size_multiple=4, nodata_fill=-9999)


# ---- several inputs -------------------------------------------------------------------------------------------------


def test_every_input_is_prepared_from_the_same_image_and_validity_is_shared():
    valid = np.ones((3, 4, 4), dtype=bool)
    valid[0, 0, 0] = valid[2, 3, 3] = False
    raster = Raster(make_pixels((3, 4, 4), "uint16"), valid, ("B02", "B04", "B08"), PLACE)
    ndvi = make_input(bands=(band("ndvi", "(B08 - B04) / (B08 + B04)"),), name="index")
    ready = prepare(raster, make_card(make_input("B04 B02", scaling=((Scale(value=10),),)), ndvi), DEFAULTS)
    assert ready.tensors["x"].shape == (1, 2, 4, 4)
    assert ready.tensors["index"].shape == (1, 1, 4, 4)
    np.testing.assert_array_equal(ready.frame.valid, valid.all(axis=0))
    assert ready.frame.georeference == PLACE
    assert "x: divide by 10" in ready.applied


def test_inputs_that_would_see_the_image_on_different_grids_are_refused():
    small = make_input(name="small", shape=(-1, -1, 2, 2), resize="interpolation-area")
    with pytest.raises(ContractMismatch) as caught:
        prepare(make_raster(make_pixels((1, 4, 4))), make_card(make_input(), small), DEFAULTS)
    assert caught.value.field == "image.size"
