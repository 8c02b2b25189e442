"""Bands are found by name, in a fixed order of rules, and never guessed."""

from __future__ import annotations

import pytest

from ml_inference.contract.bands import canonical, find_band
from ml_inference.contract.card import Band
from ml_inference.errors import ContractMismatch

# Sentinel-2 and the common names that the STAC eo extension gives its bands.
SENTINEL_2 = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge071",
    "B06": "rededge075",
    "B07": "rededge078",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
}


@pytest.mark.parametrize("code", SENTINEL_2)
def test_a_band_is_known_by_code_short_code_and_common_name(code):
    spellings = {code, code.replace("B0", "B"), code.lower(), SENTINEL_2[code], SENTINEL_2[code].upper()}
    assert {canonical(spelling) for spelling in spellings} == {code}


def test_no_two_bands_are_the_same():
    names = [name for pair in SENTINEL_2.items() for name in pair]
    codes = [canonical(name) for name in names]
    assert {codes.count(code) for code in codes} == {2}


@pytest.mark.parametrize(
    "name", ["rededge", "swir", "Band 4", "4", "", "B13", "B005", "B5 - nir", "Red edge 1 (band 5)"]
)
def test_a_name_that_fits_several_bands_or_none_is_no_alias(name):
    assert canonical(name) is None


@pytest.mark.parametrize(
    "name", ["B02 - blue", "B2: Blue, 490 nm", "b02, blue", "B02 (blue)", "B02 - Blue (band 2)"]
)
def test_a_description_that_begins_with_a_code_is_that_band(name):
    assert canonical(name) == "B02"


FOUND = {
    "the exact name wins over everything": (Band(name="B4"), ["red", "b4", "B4"], 2),
    "then the name regardless of case": (Band(name="B4"), ["red", "b4"], 1),
    "then the profile's alias": (Band(name="B4", common_name="red", aliases=("r",)), ["red", "R"], 1),
    "then the common name": (Band(name="X1", common_name="red"), ["B04", "Red"], 1),
    "then the table": (Band(name="red"), ["B02", "B03", "B04"], 2),
    "the table goes by the common name first": (
        Band(name="B5", common_name="nir"),
        ["B05 - red edge 1", "B08"],
        1,
    ),
    "Landsat's B5 is found where the item says nir": (Band(name="B5", common_name="nir"), ["blue", "nir"], 1),
    "without more, B5 is Sentinel-2's": (Band(name="B5"), ["rededge1", "nir"], 0),
    "spaces do not count": (Band(name="red"), [" red "], 0),
    "a band of its own name needs no table": (Band(name="soil moisture"), ["Soil Moisture"], 0),
    "nothing fits": (Band(name="B08"), ["red", "green", ""], None),
    "unnamed bands fit nothing": (Band(name="red"), ["", "", ""], None),
    "no bands": (Band(name="red"), [], None),
}


@pytest.mark.parametrize(("band", "available", "index"), FOUND.values(), ids=FOUND.keys())
def test_rules_apply_in_order(band, available, index):
    assert find_band(band, available) == index


@pytest.mark.parametrize("available", [["red", "red"], ["B4", "B04"], ["Red", "RED"]])
def test_two_matches_by_the_same_rule_are_an_error(available):
    with pytest.raises(ContractMismatch, match="could be any of") as caught:
        find_band(Band(name="red"), available)
    assert (caught.value.field, caught.value.expected, caught.value.got) == ("bands", "red", available)


def test_a_name_of_a_megabyte_is_no_band():
    assert canonical("B02 - " + "blue" * 2**18) == "B02"
    assert canonical("x" * 2**20) is None
