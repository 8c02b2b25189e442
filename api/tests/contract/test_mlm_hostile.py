"""Whatever an item holds, it becomes a card or a `CardInvalid`, soon, and nothing in it is run."""

from __future__ import annotations

import copy
import json
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlm_items import make_input, make_item, make_output

from ml_inference.contract.card import ModelCard
from ml_inference.contract.mlm import read_card
from ml_inference.errors import CardInvalid

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=8)
    | st.sampled_from(
        [-1, 0, 3, 1e308, 10**400, "B04", "python", "gdal-calc", "A/0", "\ud800", "~/", "float32", "z-score"]
    )
)
KEYS = st.sampled_from(
    [
        "name",
        "bands",
        "input",
        "shape",
        "dim_order",
        "data_type",
        "value_scaling",
        "type",
        "mean",
        "stddev",
        "format",
        "expression",
        "tasks",
        "result",
        "classes",
        "value",
        "color_hint",
        "post_processing_function",
        "pre_processing_function",
        "variables",
        "norm_type",
        "statistics",
    ]
) | st.text(max_size=4)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def outcome(item):
    """The card, or None after a refusal that gives its reasons; both must be fit to be sent as JSON."""
    problems = None
    try:
        card = read_card(item)
    except CardInvalid as error:
        card, problems = None, error.problems
        json.dumps([str(error), problems], allow_nan=False).encode()
    if card is None:
        assert problems
        assert all(isinstance(p, str) and isinstance(m, str) and m for p, m in problems)
    else:
        ModelCard.model_validate_json(card.model_dump_json())
    return card


@given(JSON)
def test_any_json_is_a_card_or_a_refusal(value):
    outcome(value)


@given(
    st.dictionaries(
        st.sampled_from(["mlm:input", "mlm:output", "mlm:tasks", "mlm:name", "mlm:accelerator"]), JSON
    )
)
def test_any_properties_are_a_card_or_a_refusal(properties):
    outcome(make_item() | {"properties": properties})


def places(value, path=()):
    yield path
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in steps:
        yield from places(child, (*path, key))


RICH = make_item(
    inputs=[
        make_input(
            bands=["B04", "B03", {"name": "N", "format": "gdal-calc", "expression": "A/B"}],
            resize_type="pad",
            pre_processing_function=[{"format": "gdal-calc", "expression": "A+1"}],
        )
    ],
    outputs=[make_output(post_processing_function={"format": "gdal-calc", "expression": "A"}, bands=["x"])],
    hyperparameters={"iou_threshold": 0.5},
    accelerator="cuda",
    memory_size=5,
)
RICH["assets"]["model"]["eo:bands"] = [{"name": "B04", "common_name": "red", "nodata": 0}]


@given(st.sampled_from([p for p in places(RICH) if p]), JSON)
def test_a_good_item_with_anything_anywhere_is_a_card_or_a_refusal(path, value):
    item = copy.deepcopy(RICH)
    target = item
    for step in path[:-1]:
        target = target[step]
    target[path[-1]] = value
    outcome(item)


def test_the_rich_item_itself_is_a_card():
    assert outcome(RICH) is not None


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def circle():
    value = {}
    value["mlm:input"] = value
    return value


HOSTILE = {
    "nested a hundred thousand deep": lambda: make_item(hyperparameters=deep(100_000)),
    "a circle": lambda: make_item() | {"properties": circle()},
    "a text of ten megabytes": lambda: make_item(name="a" * 10**7),
    "a key of ten megabytes": lambda: make_item(**{"a" * 10**7: 1}),
    "a million values": lambda: make_item(hyperparameters={"x": [0] * 10**6}),
    "a hundred thousand unknown fields": lambda: make_item(**{f"f{i}": i for i in range(100_000)}),
    "sixty thousand inputs": lambda: make_item(inputs=[{}] * 60_000),
    "a name made to backtrack": lambda: make_item(name="a" + " " * 15_000 + "!"),
    "ten thousand assets": lambda: (
        make_item() | {"assets": {f"a{i}": {"href": "x.onnx"} for i in range(10_000)}}
    ),
    "ten thousand band objects": lambda: (
        make_item(inputs=[make_input(bands=[f"b{i}" for i in range(1000)], shape=[-1, 1000, -1, -1])])
        | {
            "assets": {
                "m": {"eo:bands": [{"name": f"B0{i} - x", "common_name": "red"} for i in range(10_000)]}
            }
        }
    ),
    "ten thousand wrong classes": lambda: make_item(
        outputs=[make_output(**{"classification:classes": [[]] * 10_000})]
    ),
    "ten thousand doubtful classes": lambda: make_item(
        outputs=[make_output(**{"classification:classes": [{"name": "x", "color_hint": "x"}] * 10_000})]
    ),
    "a schema made to backtrack": lambda: make_item() | {"stac_extensions": ["mlm/v" + "1." * 9000] * 100},
    "a hundred thousand schemas": lambda: make_item() | {"stac_extensions": ["x"] * 100_000},
    "a vast integer": lambda: make_item(memory_size=10**4000, total_parameters=-(10**4000)),
}


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_item_is_settled_within_seconds(make):
    item = make()
    start = time.perf_counter()
    card = outcome(item)
    assert time.perf_counter() - start < 5
    assert card is None or len(card.diagnostics) <= 300


def test_nothing_named_in_an_item_is_imported():
    item = make_item(
        inputs=[make_input(pre_processing_function={"format": "python", "expression": "antigravity:fly"})],
        outputs=[make_output(post_processing_function={"format": "python", "expression": "this:s"})],
    )
    assert outcome(item) is None
    assert not {"antigravity", "this"} & set(sys.modules)
