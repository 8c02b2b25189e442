"""Default colours: told apart, and never one that a class already has."""

from __future__ import annotations

import colorsys

import pytest

from ml_inference.contract.card import ClassLabel
from ml_inference.imagery.palette import class_colours


@pytest.mark.parametrize("count", [1, 8, 9, 40, 256])
def test_every_class_has_a_colour_of_its_own(count):
    classes = [ClassLabel(value=n * 3, name=str(n)) for n in range(count)]
    colours = class_colours(classes)
    assert list(colours) == [each.value for each in classes]
    assert len(set(colours.values())) == count


def test_a_class_keeps_its_own_colour_and_no_default_repeats_it():
    first = class_colours([ClassLabel(value=0, name="a")])[0]
    colours = class_colours([ClassLabel(value=0, name="a"), ClassLabel(value=1, name="b", color=first)])
    assert colours[1] == first
    assert colours[0] != first


def test_two_classes_that_share_a_colour_keep_it():
    classes = [ClassLabel(value=n, name=str(n), color=(1, 2, 3)) for n in range(3)]
    assert set(class_colours(classes).values()) == {(1, 2, 3)}


def test_colours_beyond_the_first_eight_are_neither_dark_nor_pale():
    colours = class_colours([ClassLabel(value=n, name=str(n)) for n in range(60)])
    for value in range(8, 60):
        _, saturation, brightness = colorsys.rgb_to_hsv(*(channel / 255 for channel in colours[value]))
        assert saturation == pytest.approx(0.65, abs=0.02)
        assert brightness == pytest.approx(0.85, abs=0.02)
