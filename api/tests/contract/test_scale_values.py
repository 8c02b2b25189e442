"""Every `value_scaling` type against its formula, computed in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_cards import DEFAULTS, make_card, make_input, make_pixels, make_raster

from ml_inference.contract.card import (
    Clip,
    Expression,
    Identity,
    MinMax,
    Offset,
    Processing,
    Scale,
    ZScore,
)
from ml_inference.contract.options import PredictOptions
from ml_inference.contract.prepare import prepare
from ml_inference.contract.scaling import parse_scaling
from ml_inference.errors import ContractMismatch

OPERATIONS = {
    "identity": (Identity(), lambda x: x),
    "min-max": (MinMax(minimum=-100, maximum=9900), lambda x: (x + 100) / 10000),
    "z-score": (
        ZScore(mean=1354.40546513, stddev=245.71762908),
        lambda x: (x - 1354.40546513) / 245.71762908,
    ),
    "clip": (Clip(minimum=10, maximum=90), lambda x: np.clip(x, 10, 90)),
    "clip-min": (Clip(minimum=10), lambda x: np.maximum(x, 10)),
    "clip-max": (Clip(maximum=90), lambda x: np.minimum(x, 90)),
    "offset": (Offset(value=-1000), lambda x: x + 1000),
    "scale": (Scale(value=10000), lambda x: x / 10000),
    "processing": (
        Processing(expression=Expression(format="gdal-calc", expression="sqrt(A) / 100")),
        lambda x: np.sqrt(x) / 100,
    ),
}
DTYPES = ("uint8", "uint16", "int16", "int32", "float32", "float64")


def prepared(pixels: np.ndarray, *steps, options=DEFAULTS, **more) -> np.ndarray:
    card = make_card(make_input(scaling=steps, **more))
    return prepare(make_raster(pixels), card, options).tensors["x"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_one_operation_for_all_channels(name, dtype):
    operation, formula = OPERATIONS[name]
    pixels = make_pixels((3, 5, 4), dtype)
    tensor = prepared(pixels, (operation,))
    assert tensor.dtype == np.float32
    assert tensor.shape == (1, 3, 5, 4)
    np.testing.assert_allclose(tensor[0], formula(pixels.astype(np.float64)), rtol=1e-6, atol=1e-6)


def test_one_operation_for_each_channel():
    pixels = make_pixels((len(OPERATIONS), 6, 6), "uint16", high=10000)
    tensor = prepared(pixels, tuple(operation for operation, _ in OPERATIONS.values()))
    for plane, source, (_, formula) in zip(tensor[0], pixels, OPERATIONS.values(), strict=True):
        np.testing.assert_allclose(plane, formula(source.astype(np.float64)), rtol=1e-6, atol=1e-6)


def test_steps_follow_each_other():
    pixels = make_pixels((2, 4, 4), "uint16", high=20000)
    tensor = prepared(pixels, (Offset(value=1000),), (Scale(value=10000),), (Clip(minimum=0, maximum=1),))
    np.testing.assert_allclose(tensor[0], np.clip((pixels - 1000.0) / 10000, 0, 1), rtol=1e-6)


@given(
    mean=st.floats(-1e4, 1e4),
    stddev=st.floats(0.5, 1e4),
    value=st.integers(0, 65535),
)
def test_z_score_of_any_number(mean, stddev, value):
    pixels = np.full((1, 1, 1), value, dtype=np.uint16)
    exact = (value - mean) / stddev
    # float32 holds `mean` to 2⁻²⁴ of itself, and the difference to 2⁻²⁴ of that.
    bound = 2.0**-22 * (abs(mean) / stddev + abs(exact) + 1e-30)
    assert prepared(pixels, (ZScore(mean=mean, stddev=stddev),))[0, 0, 0, 0] == pytest.approx(
        exact, abs=bound
    )


def test_a_double_model_is_computed_in_double():
    pixels = make_pixels((2, 4, 4), "float64")
    tensor = prepared(pixels, (ZScore(mean=1 / 3, stddev=3),), dtype="float64")
    np.testing.assert_array_equal(tensor[0], (pixels - 1 / 3) / 3)


def test_the_image_is_never_written_to():
    pixels = make_pixels((2, 4, 4))
    before = pixels.copy()
    prepared(pixels, (Scale(value=10),), (Clip(minimum=1, maximum=2),))
    np.testing.assert_array_equal(pixels, before)


def test_the_per_channel_expression_may_use_its_bands_name():
    halved = Processing(expression=Expression(format="rio-calc", expression="B04 / 2"))
    card = make_card(make_input("B03 B04", scaling=((Identity(), halved),)))
    pixels = make_pixels((2, 3, 3), "uint16")
    tensor = prepare(make_raster(pixels, "B03 B04"), card, DEFAULTS).tensors["x"]
    np.testing.assert_allclose(tensor[0], [pixels[0], pixels[1] / 2])


def test_undeclared_scaling_of_integers_for_a_float_model_is_refused_and_names_the_override():
    card = make_card(make_input(scaling=None))
    with pytest.raises(ContractMismatch) as caught:
        prepare(make_raster(make_pixels((3, 4, 4), "uint16")), card, DEFAULTS)
    assert caught.value.field == "scaling"
    assert caught.value.expected == "a declared value_scaling"
    assert caught.value.got == "none declared, uint16 pixels"
    for words in ("scaling=none", "scaling=divide:10000", "`scaling` in the model's profile"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        ("none", lambda x: x),
        ("divide:10000", lambda x: x / 10000),
        ("offset:1000+divide:10000", lambda x: (x - 1000) / 10000),
        ("clip:0,200+min-max:0,100", lambda x: np.clip(x, 0, 200) / 100),
    ],
)
def test_a_request_may_say_what_the_card_leaves_open(text, formula):
    pixels = make_pixels((2, 4, 4), "uint16")
    card = make_card(make_input(scaling=None))
    ready = prepare(make_raster(pixels), card, PredictOptions(scaling=parse_scaling(text)))
    np.testing.assert_allclose(ready.tensors["x"][0], formula(pixels.astype(np.float64)), rtol=1e-6)
    assert any("[request]" in words for words in ready.applied)


@pytest.mark.parametrize("declared", [(), ((Scale(value=255),),)])
def test_a_request_may_not_change_a_declared_scaling(declared):
    options = PredictOptions(scaling=parse_scaling("divide:10000"))
    with pytest.raises(ContractMismatch, match="declares") as caught:
        prepare(make_raster(make_pixels((1, 2, 2))), make_card(make_input(scaling=declared)), options)
    assert caught.value.field == "scaling"


def test_undeclared_scaling_of_floats_is_passed_on_and_said():
    pixels = make_pixels((2, 4, 4), high=1)
    ready = prepare(make_raster(pixels), make_card(make_input(scaling=None)), DEFAULTS)
    np.testing.assert_array_equal(ready.tensors["x"][0], pixels)
    assert ready.applied == ("no scaling declared: float pixels used as they are",)
    assert ready.warnings == ()


def test_a_request_with_another_number_of_operations_than_channels_is_refused():
    options = PredictOptions(scaling=((Scale(value=1), Scale(value=2)),))
    with pytest.raises(ContractMismatch, match="2 operations for the 3 channels"):
        prepare(make_raster(make_pixels((3, 2, 2))), make_card(make_input(scaling=None)), options)


def test_values_far_from_the_usual_are_warned_of_with_their_range():
    """The published z-score of ImageNet fits pixels of 0…1; on bytes it makes 1111 of 255, instead of 2.25."""
    imagenet = ((ZScore(mean=0.485, stddev=0.229),),)
    pixels = np.array([[[0, 255]]], dtype=np.uint8)
    loud = prepare(make_raster(pixels), make_card(make_input(scaling=imagenet)), DEFAULTS)
    assert any("1111.42" in words for words in loud.warnings)
    quiet = prepare(make_raster(pixels / np.float32(255)), make_card(make_input(scaling=imagenet)), DEFAULTS)
    assert quiet.warnings == ()
    assert quiet.tensors["x"].max() == pytest.approx((1 - 0.485) / 0.229)


def test_raw_numbers_that_were_asked_for_are_not_warned_of():
    pixels = np.full((1, 2, 2), 9000, dtype=np.uint16)
    assert prepare(make_raster(pixels), make_card(make_input(scaling=())), DEFAULTS).warnings == ()


def test_what_overflows_the_models_type_is_refused():
    for dtype, pixels in (("float32", np.full((1, 1, 1), 1e300)), ("float16", np.full((1, 1, 1), 70000.0))):
        with pytest.raises(ContractMismatch) as caught:
            prepare(
                make_raster(pixels),
                make_card(make_input(scaling=((Scale(value=0.5),),), dtype=dtype)),
                DEFAULTS,
            )
        assert caught.value.field == "image.dtype"


def test_the_chain_is_told_in_order():
    card = make_card(
        make_input(
            "red green",
            scaling=((Scale(value=255),), (ZScore(mean=0.4, stddev=0.2), ZScore(mean=0.5, stddev=0.25))),
            size_multiple=4,
        )
    )
    ready = prepare(make_raster(make_pixels((2, 3, 4), "uint8"), "B03 B04"), card, DEFAULTS)
    assert ready.applied == (
        "bands red,green",
        "pad 3x4 to 4x4 at the bottom and right",
        "divide by 255",
        "per channel: z-score with mean 0.4, stddev 0.2; z-score with mean 0.5, stddev 0.25",
    )
