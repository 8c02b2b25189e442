"""The nine example items of the MLM specification and two items of EOTDL, read or refused with the right reason."""

from __future__ import annotations

import json
from importlib import resources

import pytest
from mlm_items import make_graph

from ml_inference.contract.card import Axis, Expression, MinMax, Severity, Task, ZScore
from ml_inference.contract.mlm import read_card
from ml_inference.contract.profile import parse_profile
from ml_inference.contract.reconcile import reconcile
from ml_inference.errors import CardInvalid

NCHW = (Axis.BATCH, Axis.CHANNEL, Axis.HEIGHT, Axis.WIDTH)
PYTHON = "Python code to import, and nothing from a model's metadata is ever run"


@pytest.fixture
def load(shared_data):
    def load(name):
        return json.loads((shared_data("mlm") / name).read_text())

    return load


def remarks(card, severity=Severity.WARNING):
    return {d.pointer for d in card.diagnostics if d.severity is severity}


def basic(card):
    (spec,), (output,) = card.inputs, card.outputs
    assert (card.name, card.item_id, card.mlm_version, card.architecture) == (
        "example-model",
        "example-model",
        "1.5.2",
        "ResNet",
    )
    assert (spec.bands, spec.axes, spec.shape, spec.dtype, spec.scaling) == (
        (),
        NCHW,
        (-1, 3, 64, 64),
        "float32",
        None,
    )
    assert (output.task, output.axes, output.shape, output.dtype) == (
        Task.CLASSIFICATION,
        (Axis.BATCH, Axis.CHANNEL),
        (-1, 1),
        "uint8",
    )
    assert [(c.value, c.name, c.color) for c in output.classes] == [
        (0, "BACKGROUND", (0, 0, 0)),
        (1, "CITY", (0, 0, 255)),
    ]


def bands_expression(card):
    (spec,), (output,) = card.inputs, card.outputs
    assert [b.name for b in spec.bands] == ["B04", "B03", "B02", "NDVI"]
    assert [b.common_name for b in spec.bands] == ["red", "green", "blue", None]
    assert spec.bands[3].expression == Expression(format="rio-calc", expression="(B08 - B04) / (B08 + B04)")
    assert spec.shape == (-1, 4, 64, 64)
    assert (card.framework, card.batch_size, card.accelerator) == ("pytorch 2.1.2+cu121", 256, "cuda")
    # The output's own task wins over the item's, and its result of two axes cannot be a raster.
    assert (output.task, output.axes) == (Task.SEGMENTATION, ())
    assert {"/properties/mlm:output/0/tasks", "/properties/mlm:output/0/result"} <= remarks(card)
    # Listed as 1, 0; channel 0 is value 0.
    assert [(c.value, c.name, c.color) for c in output.classes] == [
        (0, "background", (0, 0, 0)),
        (1, "vegetation", (0, 255, 0)),
    ]


def multi_io(card):
    rgb, ndvi, dem = card.inputs
    assert [[b.name for b in spec.bands] for spec in card.inputs] == [
        ["B04", "B03", "B02"],
        ["B04", "B08"],
        [],
    ]
    assert [b.nodata for b in rgb.bands] == [0, 0, 0]  # joined to "B04 - red" and its like
    assert (rgb.dtype, ndvi.dtype, dem.dtype) == ("uint16", "uint16", "float32")
    assert ndvi.processing == (Expression(format="gdal-calc", expression="(A - B) / (A + B)"),)
    assert ndvi.shape == (-1, 1, 64, 64)  # two bands become one channel
    assert dem.axes == NCHW  # `h` beside `y`: a channel
    assert "/properties/mlm:input/2/input/dim_order/1" in remarks(card)
    assert [o.name for o in card.outputs] == ["vegetation-segmentation", "inverse-mask"]
    assert card.outputs[1].processing == (Expression(format="gdal-calc", expression="logical_not(A)"),)


def pytorch_geo_unet(card):
    (spec,), (output,) = card.inputs, card.outputs
    assert [b.name for b in spec.bands] == ["B4", "B3", "B2", "B8"] * 2
    assert "/properties/mlm:input/0/bands" in remarks(card)
    assert spec.shape == (-1, 8, 3, 3)
    assert spec.scaling == ((ZScore(mean=0, stddev=3000),),)
    assert (output.task, output.axes) == (Task.SEGMENTATION, ())
    assert [c.name for c in output.classes] == ["class_0", "class_1"]


def eurosat(card):
    (spec,), (output,) = card.inputs, card.outputs
    assert (card.name, card.item_id, card.mlm_version) == ("model.onnx", "model.onnx", "1.2.0")
    assert [b.name for b in spec.bands] == ["red", "green", "blue"]
    assert (spec.axes, spec.shape, spec.dtype, spec.scaling) == (NCHW, (-1, 3, -1, -1), "float32", None)
    assert "64x64 RGB Sentinel-2" in spec.description
    assert (output.task, output.axes, output.shape) == (
        Task.CLASSIFICATION,
        (Axis.BATCH, Axis.CHANNEL),
        (-1, 10),
    )
    assert (output.classes, output.activation) == ((), None)
    assert {"/properties/mlm:input", "/properties/mlm:output"} <= remarks(card)
    assert "/stac_extensions/0" in remarks(card, Severity.INFO)


def roads(card):
    (spec,), (output,) = card.inputs, card.outputs
    assert [b.name for b in spec.bands] == ["red", "green", "blue"]
    assert (spec.size_multiple, spec.scaling) == (1, None)
    assert "divisible by 16" in spec.description
    assert (output.task, output.axes, output.dtype) == (Task.SEGMENTATION, NCHW, "uint8")
    assert {"/properties/mlm:input", "/properties/mlm:output"} <= remarks(card)


READ = {
    "item_basic.json": basic,
    "item_bands_expression.json": bands_expression,
    "item_multi_io.json": multi_io,
    "item_pytorch_geo_unet.json": pytorch_geo_unet,
    "eotdl_EuroSAT-RGB-Q2.json": eurosat,
    "eotdl_RoadSegmentationQ2.json": roads,
}
FUNCTION = "/properties/mlm:input/0/pre_processing_function"
REFUSED = {
    "item_eo_bands.json": {FUNCTION: PYTHON},
    "item_eo_bands_summarized.json": {FUNCTION: PYTHON},
    "item_eo_and_raster_bands.json": {FUNCTION: PYTHON},
    "item_raster_bands.json": {FUNCTION: PYTHON},
    "item_datacube_variables.json": {
        "/properties/mlm:input/0/variables": "datacube variables are unsupported",
        FUNCTION: "is a script to fetch",
    },
    "collection.json": {"": "a STAC Collection is no STAC Item"},
}


@pytest.mark.parametrize("name", READ)
def test_a_published_item_becomes_this_card(load, name):
    READ[name](read_card(load(name)))


@pytest.mark.parametrize("name", REFUSED)
def test_a_published_item_is_refused_for_this_reason(load, name):
    with pytest.raises(CardInvalid) as caught:
        read_card(load(name))
    problems = dict(caught.value.problems)
    assert problems.keys() == REFUSED[name].keys()
    for pointer, reason in REFUSED[name].items():
        assert reason in problems[pointer]


@pytest.mark.parametrize("name", [n for n, reasons in REFUSED.items() if list(reasons) == [FUNCTION]])
def test_a_profile_that_says_images_come_prepared_lifts_the_refusal(load, name):
    item = load(name)
    card = read_card(item, parse_profile("[input]\nprocessing = []"))
    declared = item["properties"]["mlm:input"][0].get("value_scaling")
    expected = ZScore(mean=declared[9]["mean"], stddev=declared[9]["stddev"]) if declared else None
    assert (card.inputs[0].scaling[0][9] if card.inputs[0].scaling else None) == expected
    assert FUNCTION in remarks(card)
    assert [c.name for c in card.outputs[0].classes][:2] == ["Annual Crop", "Forest"]
    # Three bands share "rededge", so it names none of them.
    common = {b.name: b.common_name for b in card.inputs[0].bands}
    assert (common["B05"], common["B06"], common["B07"]) == (None, None, None)
    if name != "item_raster_bands.json":
        assert (common["B8A"], common["B12"]) == ("nir08", "swir22")


def packaged(name):
    return parse_profile((resources.files("ml_inference") / "profiles" / f"{name}.toml").read_text())


def test_eurosat_with_its_packaged_profile_has_scaling_activation_and_classes(load):
    card = read_card(load("eotdl_EuroSAT-RGB-Q2.json"), packaged("EuroSAT-RGB-Q2"))
    graph = make_graph([("input", (-1, 3, -1, -1))], [("output", (-1, 10))])
    settled = reconcile(card, graph)
    assert (settled.inputs[0].name, settled.outputs[0].name) == ("input", "output")
    assert settled.inputs[0].scaling[0][0].value == 255
    assert settled.outputs[0].activation == "softmax"
    assert [c.value for c in settled.outputs[0].classes] == list(range(10))
    assert settled.outputs[0].classes[9].name == "SeaLake"


def test_roads_with_its_packaged_profile_is_a_binary_score_whatever_the_item_says(load):
    card = read_card(load("eotdl_RoadSegmentationQ2.json"), packaged("RoadSegmentationQ2"))
    settled = reconcile(card, make_graph([("x", (-1, 3, -1, -1))], [("y", (-1, 1, -1, -1))]))
    (spec,), (output,) = settled.inputs, settled.outputs
    assert (spec.size_multiple, output.activation, output.threshold) == (16, "sigmoid", 0.5)
    assert output.dtype == "float32"  # the item says uint8; the graph gives scores, never cast
    assert [c.name for c in output.classes] == ["background", "road"]
    assert "onnx:y" in remarks(settled)


def test_an_item_with_another_graph_is_settled_by_it(load):
    card = read_card(load("item_pytorch_geo_unet.json"))
    settled = reconcile(card, make_graph([("x", (-1, 8, -1, -1))], [("y", (-1, 2, -1, -1))]))
    assert settled.outputs[0].axes == NCHW
    card = read_card(load("item_bands_expression.json"))
    settled = reconcile(card, make_graph([("x", (-1, 4, 64, 64))], [("y", (-1, 2))]))
    assert settled.outputs[0].task is Task.CLASSIFICATION
    assert settled.outputs[0].axes == (Axis.BATCH, Axis.CHANNEL)


def test_the_items_of_the_old_norm_fields_would_divide(load):
    """EOTDL's item with the fields of its own MLM version, 1.2."""
    item = load("eotdl_EuroSAT-RGB-Q2.json")
    item["properties"]["mlm:input"] |= {
        "norm_by_channel": False,
        "norm_type": "min-max",
        "statistics": [{"minimum": 0, "maximum": 255}],
    }
    assert read_card(item).inputs[0].scaling == ((MinMax(minimum=0, maximum=255),),)
