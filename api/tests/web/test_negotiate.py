"""Content negotiation by the rules and examples of RFC 9110 §12.5.1."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_inference.errors import InvalidRequest
from ml_inference.web.errors import NotAcceptable
from ml_inference.web.negotiate import LONGEST, choose

GEOTIFF = "image/tiff; application=geotiff"
RASTER = (GEOTIFF, "image/png", "application/x-npy", "application/json")
CLASSES = ("application/json",)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", GEOTIFF),
        ("*/*", GEOTIFF),
        ("image/*", GEOTIFF),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/tiff", GEOTIFF),
        ("image/tiff;application=geotiff", GEOTIFF),
        ('image/tiff; application="geotiff"', GEOTIFF),
        ("application/json", "application/json"),
        ("application/json;q=0.5, image/png;q=0.9", "image/png"),
        ("image/png;q=0.5, */*;q=0.1", "image/png"),
        ("image/png;q=0, */*", GEOTIFF),
        ("image/*;q=0, */*;q=0.3", "application/x-npy"),
        # a browser's <img>, axios, and a browser's address bar
        ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", "image/png"),
        ("application/json, text/plain, */*", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", GEOTIFF),
        ("nonsense, image/png", "image/png"),
        ('text/x;a="b,c;d", image/png', "image/png"),
        ("image/png;q=high, application/json", "application/json"),
    ],
)
def test_the_client_gets_what_it_prefers(accept, chosen):
    assert choose(accept, RASTER) == chosen


def test_the_most_precise_range_decides_for_its_type():
    """RFC 9110's own example, with its own result for text/html;level=3."""
    accept = (
        "text/*;q=0.3, text/plain;q=0.7, text/plain;format=flowed, text/plain;format=fixed;q=0.4, */*;q=0.5"
    )
    assert choose(accept, ["text/html", "text/plain"]) == "text/plain"
    assert choose(accept, ["text/plain; format=fixed", "image/jpeg"]) == "image/jpeg"
    assert choose(accept, ["image/jpeg", "text/plain; format=flowed"]) == "text/plain; format=flowed"


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "text/html",
        "application/geo+json",
        "image/tiff",
        "*/*;q=0",
        "nonsense",
        "application/json;q=0",
    ],
)
def test_nothing_that_fits_is_said_with_what_there_is(accept):
    with pytest.raises(NotAcceptable, match="application/json"):
        choose(accept, CLASSES)


def test_a_type_with_a_parameter_that_is_not_offered_does_not_fit():
    with pytest.raises(NotAcceptable):
        choose("image/tiff; application=geotiff; profile=cloud-optimized", RASTER)


def test_an_endless_header_is_refused():
    with pytest.raises(InvalidRequest, match=str(LONGEST)):
        choose("a/b," * LONGEST, RASTER)


@given(st.text(max_size=LONGEST))
def test_any_header_gives_an_offered_type_or_a_refusal(accept):
    with contextlib.suppress(NotAcceptable):
        assert choose(accept, RASTER) in RASTER
