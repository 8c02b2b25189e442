"""Bands by name, never by a guess; derived bands by their formula."""

from __future__ import annotations

import numpy as np
import pytest
from pixel_cards import DEFAULTS, band, make_card, make_input, make_pixels, make_raster

from ml_inference.contract.card import MinMax, Scale
from ml_inference.contract.options import PredictOptions
from ml_inference.contract.prepare import prepare
from ml_inference.errors import ContractMismatch


def tensor_of(raster, spec, options=DEFAULTS) -> np.ndarray:
    return prepare(raster, make_card(spec), options).tensors["x"][0]


@pytest.mark.parametrize(
    ("file", "card"),
    [
        ("B02 B03 B04 B08", "B04 B03 B02"),
        ("B08 B04 B03 B02", "B02 B04"),
        ("blue green red nir", "B08 B02"),
        ("B02 B03 B04 B08", "nir red"),
        ("B02 B03 B04 B08", "B02 B03 B04 B08"),
        ("B02 B03 B04 B08", "B08 B04 B08 B04"),
    ],
)
def test_channels_come_in_the_cards_order_whatever_the_files(file, card):
    pixels = make_pixels((len(file.split()), 3, 4), "uint16")
    alias = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
    codes = [alias.get(name, name) for name in file.split()]
    expected = np.stack([pixels[codes.index(alias.get(name, name))] for name in card.split()])
    np.testing.assert_array_equal(tensor_of(make_raster(pixels, file), make_input(card)), expected)


def test_eight_bands_of_two_dates_are_taken_as_the_file_repeats_them():
    """item_pytorch_geo_unet: four bands twice; a file that lists the very same names in that order is unambiguous."""
    names = "B4 B3 B2 B8 B4 B3 B2 B8"
    pixels = make_pixels((8, 3, 3), "uint16")
    np.testing.assert_array_equal(tensor_of(make_raster(pixels, names), make_input(names)), pixels)
    with pytest.raises(ContractMismatch) as caught:
        tensor_of(make_raster(pixels, "B8 B3 B2 B4 B4 B3 B2 B8"), make_input(names))
    assert caught.value.field == "bands"


def test_a_repeated_band_of_the_card_may_come_from_one_band_of_the_file():
    names = "B4 B3 B2 B8 B4 B3 B2 B8"
    pixels = make_pixels((4, 3, 3), "uint16")
    ready = prepare(make_raster(pixels, "B2 B3 B4 B8"), make_card(make_input(names)), DEFAULTS)
    np.testing.assert_array_equal(ready.tensors["x"][0], pixels[[2, 1, 0, 3, 2, 1, 0, 3]])
    assert any("same band" in words for words in ready.warnings)
    whole = make_raster(make_pixels((8, 3, 3), "uint16"), names)
    assert prepare(whole, make_card(make_input(names)), DEFAULTS).warnings == ()


def test_a_missing_band_lists_what_the_image_has_and_names_the_override():
    with pytest.raises(ContractMismatch) as caught:
        tensor_of(make_raster(make_pixels((3, 2, 2)), "B02 B03 B04"), make_input("B04 B08"))
    assert (caught.value.field, caught.value.expected) == ("bands", ["B04", "B08"])
    assert caught.value.got == ["B02", "B03", "B04"]
    assert "no band B08" in str(caught.value)
    assert "`bands=`" in str(caught.value)


def test_a_partly_named_image_counts_as_named():
    raster = make_raster(make_pixels((2, 2, 2)))
    partly = type(raster)(raster.pixels, bands=("B04", ""))
    with pytest.raises(ContractMismatch) as caught:
        tensor_of(partly, make_input("B04 B08"))
    assert caught.value.field == "bands"


def test_an_image_without_names_is_taken_by_position_with_a_warning():
    pixels = make_pixels((2, 3, 3), "uint16")
    ready = prepare(make_raster(pixels), make_card(make_input("B04 B08")), DEFAULTS)
    np.testing.assert_array_equal(ready.tensors["x"][0], pixels)
    assert ready.warnings == ("bands taken by position: the image names none",)


@pytest.mark.parametrize("count", [1, 3, 13])
def test_a_wrong_number_of_unnamed_bands_is_refused(count):
    with pytest.raises(ContractMismatch, match="2 bands") as caught:
        tensor_of(make_raster(make_pixels((count, 2, 2))), make_input("B04 B08"))
    assert (caught.value.field, caught.value.got) == ("bands", "1 band" if count == 1 else f"{count} bands")


def test_a_card_without_bands_takes_the_image_as_it_comes_and_counts():
    pixels = make_pixels((3, 2, 2))
    spec = make_input(shape=(-1, 3, -1, -1))
    np.testing.assert_array_equal(tensor_of(make_raster(pixels, "B04 B03 B02"), spec), pixels)
    with pytest.raises(ContractMismatch) as caught:
        tensor_of(make_raster(make_pixels((4, 2, 2))), spec)
    assert caught.value.field == "bands"


def test_the_request_says_which_band_is_which():
    pixels = make_pixels((3, 2, 2))
    options = PredictOptions(bands=("B04", "B03", "B02"))
    tensor = tensor_of(make_raster(pixels, "x y z"), make_input("B02 B04"), options)
    np.testing.assert_array_equal(tensor, pixels[[2, 0]])
    with pytest.raises(ContractMismatch, match="names 3 bands and the image has 2") as caught:
        tensor_of(make_raster(pixels[:2]), make_input("B02 B04"), options)
    assert caught.value.field == "bands"
    assert "alpha" in str(
        caught.value
    )  # four bytes a pixel without names are colours and alpha, by GDAL's habit


def test_naming_bands_for_a_card_without_any_is_said_to_change_nothing():
    ready = prepare(
        make_raster(make_pixels((1, 2, 2))), make_card(make_input()), PredictOptions(bands=("B04",))
    )
    assert any("changes nothing" in words for words in ready.warnings)


def ndvi_input(**more):
    bands = (band("B04"), band("NDVI", "(B08 - B04) / (B08 + B04)"))
    return make_input(**({"bands": bands} | more))


@pytest.mark.parametrize("names", ["B02 B04 B08", "blue red nir"])
def test_a_derived_band_is_its_formula_over_bands_of_the_image(names):
    pixels = make_pixels((3, 4, 4), "uint16", high=9000) + np.uint16(1)
    red, nir = pixels[1].astype(np.float64), pixels[2].astype(np.float64)
    tensor = tensor_of(make_raster(pixels, names), ndvi_input())
    np.testing.assert_array_equal(tensor[0], red)
    np.testing.assert_allclose(tensor[1], (nir - red) / (nir + red), atol=1e-6)


def test_letters_of_gdal_calc_are_the_listed_bands():
    spec = make_input(bands=(band("B04"), band("B08"), band("ratio", "A / B", "gdal-calc")))
    pixels = make_pixels((2, 3, 3), "uint16") + np.uint16(1)
    tensor = tensor_of(make_raster(pixels, "B08 B04"), spec)
    np.testing.assert_allclose(tensor[2], pixels[1] / pixels[0], rtol=1e-6)


def test_a_letter_of_gdal_calc_is_its_place_in_the_list_even_when_a_band_is_called_so():
    """Of red, green and blue, `B` is the second band (gdal_calc's rule), not the one named B."""
    spec = make_input(
        bands=(band("R"), band("G"), band("B"), band("greenness", "B / (A + B + C)", "gdal-calc"))
    )
    red, green, blue = pixels = make_pixels((3, 3, 3)) + 1
    tensor = tensor_of(make_raster(pixels, "R G B"), spec)
    np.testing.assert_allclose(tensor[3], green / (red + green + blue), rtol=1e-6)


def test_a_division_of_zero_by_zero_is_no_data_there():
    pixels = np.ones((2, 2, 2), dtype=np.uint16)
    pixels[:, 0, 1] = 0
    ready = prepare(make_raster(pixels, "B04 B08"), make_card(ndvi_input(nodata_fill=-2)), DEFAULTS)
    assert ready.frame.valid.tolist() == [[True, False], [True, True]]
    assert (ready.tensors["x"][0, :, 0, 1] == -2).all()
    assert np.isfinite(ready.tensors["x"]).all()


def test_derived_bands_of_an_image_without_names_cannot_be_resolved():
    raster = make_raster(make_pixels((2, 2, 2), "uint16"))
    with pytest.raises(ContractMismatch) as caught:
        tensor_of(raster, ndvi_input())
    assert caught.value.expected == ["B04", "B08"]
    options = PredictOptions(bands=("B04", "B08"))
    assert tensor_of(raster, ndvi_input(), options).shape == (2, 2, 2)


def test_a_derived_band_with_a_missing_source_names_it():
    with pytest.raises(ContractMismatch, match="no band B08") as caught:
        tensor_of(make_raster(make_pixels((2, 2, 2), "uint16"), "B04 B03"), ndvi_input())
    assert caught.value.field == "bands"


def test_integers_beside_a_derived_band_still_need_a_declared_scaling():
    raster = make_raster(make_pixels((2, 2, 2), "uint16"), "B04 B08")
    with pytest.raises(ContractMismatch) as caught:
        tensor_of(raster, ndvi_input(scaling=None))
    assert caught.value.field == "scaling"
    only = make_input(bands=(band("NDVI", "(B08 - B04) / (B08 + B04)"),), scaling=None)
    assert np.abs(tensor_of(raster, only)).max() <= 1


def test_scaling_comes_after_derived_bands():
    pixels = make_pixels((2, 3, 3), "uint16") + np.uint16(1)
    scaling = ((Scale(value=10000), MinMax(minimum=-1, maximum=1)),)
    tensor = tensor_of(make_raster(pixels, "B04 B08"), ndvi_input(scaling=scaling))
    red, nir = pixels.astype(np.float64)
    np.testing.assert_allclose(tensor, [red / 10000, ((nir - red) / (nir + red) + 1) / 2], atol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinity_in_a_band_that_is_used_is_refused_with_its_place(bad):
    pixels = make_pixels((2, 3, 3))
    pixels[1, 2, 0] = bad
    with pytest.raises(ContractMismatch, match="row 2, column 0") as caught:
        tensor_of(make_raster(pixels, "B04 B08"), make_input("B08"))
    assert caught.value.field == "pixels"
    assert np.isfinite(tensor_of(make_raster(pixels, "B04 B08"), make_input("B04"))).all()


def test_complex_pixels_are_refused():
    with pytest.raises(ContractMismatch) as caught:
        tensor_of(make_raster(np.ones((1, 2, 2), np.complex64)), make_input())
    assert (caught.value.field, caught.value.got) == ("image.dtype", "complex64")
