"""Profiles: what they hold, and how a wrong one is told."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from ml_inference.contract.card import BoxSpec, ClassLabel, Expression, Scale, Task, ZScore
from ml_inference.contract.profile import Profile, parse_color, parse_profile
from ml_inference.errors import CardInvalid

EVERYTHING = """
source = "a paper"
asset = "weights"

[[input]]
name = "chips"
scaling = "offset:1000+divide:10000"
source_scaling = { type = "scale", value = 255 }
resize = "pad"
processing = [{ format = "gdal-calc", expression = "(A - B) / (A + B)" }]
size_multiple = 32
nodata_fill = -1
band_aliases = { red = ["R", "rouge"] }
dim_order = ["batch", "height", "width", "channel"]
shape = [-1, -1, -1, 3]
data_type = "float32"

[[input]]
scaling = [{ type = "z-score", mean = 1, stddev = 2 }, { type = "z-score", mean = 3, stddev = 4 }]

[output]
task = "object-detection"
activation = "sigmoid"
threshold = 0.5
classes = ["a", { value = 7, name = "b", color = "#ff0080" }, { value = 8, name = "c", color = [1, 2, 3] }]
processing = []

[output.boxes]
layout = "yolo"
normalized = true
score_threshold = 0.3
"""


def test_every_key_is_read():
    profile = parse_profile(EVERYTHING)
    first, second = profile.input
    (output,) = profile.output
    assert (profile.source, profile.asset) == ("a paper", "weights")
    assert [step[0].type for step in first.scaling] == ["offset", "scale"]
    assert first.source_scaling == ((Scale(value=255),),)
    assert first.processing == (Expression(format="gdal-calc", expression="(A - B) / (A + B)"),)
    assert (first.resize, first.size_multiple, first.nodata_fill) == ("pad", 32, -1)
    assert first.band_aliases == {"red": ("R", "rouge")}
    assert (first.shape, first.data_type) == ((-1, -1, -1, 3), "float32")
    assert second.scaling == ((ZScore(mean=1, stddev=2), ZScore(mean=3, stddev=4)),)
    assert (output.task, output.activation, output.threshold) == (Task.DETECTION, "sigmoid", 0.5)
    assert output.classes == (
        ClassLabel(value=0, name="a"),
        ClassLabel(value=7, name="b", color=(255, 0, 128)),
        ClassLabel(value=8, name="c", color=(1, 2, 3)),
    )
    assert output.processing == ()
    assert output.boxes == BoxSpec(layout="yolo", normalized=True, score_threshold=0.3)


def test_an_empty_profile_says_nothing():
    assert parse_profile("") == Profile()


def test_scaling_none_is_a_declaration_and_no_scaling_is_none():
    assert parse_profile('[input]\nscaling = "none"').input[0].scaling == ()
    assert parse_profile("[input]\nsize_multiple = 2").input[0].scaling is None


WRONG = {
    "key at the top": ("sorce = 'x'", "profile:/sorce", "did you mean 'source'?"),
    "key of an input": ("[input]\nsclaing = 'none'", "profile:/input/0/sclaing", "did you mean 'scaling'?"),
    "key of the second output": (
        "[[output]]\n[[output]]\nactivaton = 'none'",
        "profile:/output/1/activaton",
        "did you mean 'activation'?",
    ),
    "key of boxes": (
        "[output.boxes]\nlayuot = 'xyxy'",
        "profile:/output/0/boxes/layuot",
        "did you mean 'layout'?",
    ),
    "key of a class": (
        "[output]\nclasses = [{ value = 1, name = 'x', colour = 'f00' }]",
        "profile:/output/0/classes/0/colour",
        "did you mean 'color'?",
    ),
    "key of a scaling": (
        "[input]\nscaling = [{ type = 'z-score', mean = 1, stddev = 1, std = 1 }]",
        "profile:/input/0/scaling/0/0/std",
        "did you mean 'stddev'?",
    ),
    "key of an expression": (
        "[input]\nprocessing = [{ format = 'gdal-calc', expresion = 'A', expression = 'A' }]",
        "profile:/input/0/processing/0/expresion",
        "did you mean 'expression'?",
    ),
    "key like nothing": ("[output]\nqqq = 1", "profile:/output/0/qqq", "legal are activation, boxes"),
    "value of an activation": (
        "[output]\nactivation = 'relu'",
        "profile:/output/0/activation",
        "'none', 'softmax'",
    ),
    "text of a scaling": (
        "[input]\nscaling = 'dvide:2'",
        "profile:/input/0/scaling",
        "did you mean 'divide'?",
    ),
    "type of a scaling": ("[input]\nscaling = 3", "profile:/input/0/scaling", "should be a list"),
    "division by zero": (
        "[input]\nscaling = [{ type = 'scale', value = 0 }]",
        "profile:/input/0/scaling/0/0",
        "division by zero",
    ),
    "color": (
        "[output]\nclasses = [{ value = 1, name = 'x', color = 'red' }]",
        "profile:/output/0/classes",
        "'red' is neither #RRGGBB",
    ),
    "code": (
        "[input]\nprocessing = [{ format = 'python', expression = 'os:system' }]",
        "profile:/input/0/processing/0/format",
        "'gdal-calc' or 'rio-calc'",
    ),
    "expression outside the whitelist": (
        "[output]\nprocessing = [{ format = 'gdal-calc', expression = 'eval(A)' }]",
        "profile:/output/0",
        "calls 'eval'",
    ),
    "size multiple": (
        "[input]\nsize_multiple = 0",
        "profile:/input/0/size_multiple",
        "greater than or equal to 1",
    ),
    "not finite": ("[input]\nnodata_fill = nan", "profile:/input/0/nodata_fill", "finite"),
    "syntax": ("source = 'x'\n[input\n", "profile:/", "line 2"),
    "depth": ("a = " + "[" * 20000, "profile:/", "nested too deep"),
    "size": ("#" * 70000, "profile:/", "70000 characters"),
    "slash in a key": ('[input]\n"a/b~" = 1', "profile:/input/0/a~1b~0", "unknown key"),
}


@pytest.mark.parametrize(("text", "pointer", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_profile_names_the_place_and_what_is_legal(text, pointer, words):
    with pytest.raises(CardInvalid, match="profile") as caught:
        parse_profile(text)
    assert pointer in [where for where, _ in caught.value.problems]
    assert words in dict(caught.value.problems)[pointer]


def test_all_mistakes_are_told_at_once():
    with pytest.raises(CardInvalid) as caught:
        parse_profile("a = 1\n[input]\nb = 2\n[output]\nc = 3")
    assert {where for where, _ in caught.value.problems} == {
        "profile:/a",
        "profile:/input/0/b",
        "profile:/output/0/c",
    }


@pytest.mark.parametrize(
    ("value", "color"),
    [
        ("#00FF00", (0, 255, 0)),
        ("00ff00", (0, 255, 0)),
        ([0, 255, 0], (0, 255, 0)),
        ([0.0, 255.0, 0.0], (0, 255, 0)),
        ("#0F0", None),
        ([0, 256, 0], None),
        ([0, -1, 0], None),
        ([0.5, 1, 1], None),
        ([float("nan"), 0, 0], None),
        ([float("inf"), 0, 0], None),
        ([1, 2], None),
        (["1", "2", "3"], None),
        (None, None),
    ],
)
def test_a_color_is_hex_or_three_numbers(value, color):
    assert parse_color(value) == color


PACKAGED = sorted(
    file.name
    for file in (resources.files("ml_inference") / "profiles").iterdir()
    if file.name.endswith(".toml")
)


def test_the_two_sourced_profiles_are_in_the_package():
    assert PACKAGED == ["EuroSAT-RGB-Q2.toml", "RoadSegmentationQ2.toml"]


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_profile_is_valid_and_says_where_its_values_come_from(name):
    profile = parse_profile((resources.files("ml_inference") / "profiles" / name).read_text())
    assert "not confirmed" in profile.source
    assert profile.input[0].scaling == ((Scale(value=255),),)


DOCUMENTED = (Path(__file__).resolve().parents[3] / "docs" / "models.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCUMENTED, re.DOTALL)


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_profile_in_the_documentation_is_valid(text):
    assert parse_profile(text).input


def test_the_documentation_shows_every_key_of_a_profile():
    shown = parse_profile(EXAMPLES[0])
    for part in (shown, shown.input[0], shown.output[0], shown.output[0].boxes):
        assert part.model_fields_set == set(type(part).model_fields)
