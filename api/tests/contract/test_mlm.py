"""Every dialect of an MLM item: what it is read as, and the pointer of the remark; or what is refused, and where."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mlm_items import make_input, make_item, make_output

from ml_inference.contract.card import (
    Axis,
    BoxSpec,
    Clip,
    Expression,
    Identity,
    MinMax,
    Offset,
    Processing,
    Scale,
    Severity,
    Task,
    ZScore,
)
from ml_inference.contract.mlm import read_card
from ml_inference.contract.profile import parse_profile
from ml_inference.errors import CardInvalid

B, C, H, W, T, OTHER = (
    Axis.BATCH,
    Axis.CHANNEL,
    Axis.HEIGHT,
    Axis.WIDTH,
    Axis.TIME,
    Axis.OTHER,
)


def with_input(**changes):
    return make_item(inputs=[make_input(**changes)])


def with_output(**changes):
    return make_item(outputs=[make_output(**changes)])


def remarks(card):
    return {d.pointer: d.severity for d in card.diagnostics}


def problems(item, profile=""):
    with pytest.raises(CardInvalid) as caught:
        read_card(item, parse_profile(profile))
    assert caught.value.problems
    return dict(caught.value.problems)


def test_a_clean_item_is_read_without_a_remark():
    card = read_card(make_item())
    assert card.diagnostics == ()
    assert (card.name, card.item_id, card.mlm_version, card.framework) == (
        "tiny net",
        "tiny",
        "1.5.2",
        "ONNX",
    )
    assert card.inputs[0].scaling == ((Scale(value=10000),),)
    assert card.task is Task.SEGMENTATION


# --- versions


@pytest.mark.parametrize(
    ("uri", "version"),
    [
        ("https://crim-ca.github.io/mlm-extension/v1.0.0/schema.json", "1.0.0"),
        ("https://crim-ca.github.io/mlm-extension/v1.2.0/schema.json", "1.2.0"),
        ("https://crim-ca.github.io/mlm-extension/v1.3.0/schema.json", "1.3.0"),
        ("https://stac-extensions/mlm/v1.1.0/schema.json", "1.1.0"),
        ("https://stac-extensions.github.io/mlm/v1.4.0/schema.json", "1.4.0"),
        ("https://stac-extensions.github.io/mlm/v1.5.2/schema.json", "1.5.2"),
        ("https://stac-extensions.github.io/mlm/v1.6.0/schema.json#", "1.6.0"),
    ],
)
def test_the_version_is_that_of_the_schema_address_wherever_it_once_lay(uri, version):
    item = make_item() | {"stac_extensions": ["https://stac-extensions.github.io/eo/v1.1.0/schema.json", uri]}
    card = read_card(item)
    assert card.mlm_version == version
    assert ("/stac_extensions/1" in remarks(card)) == ("stac-extensions.github.io" not in uri)


@pytest.mark.parametrize("listed", [[], None, "x", [7]])
def test_an_item_without_a_schema_is_read_with_a_warning(listed):
    card = read_card(make_item() | {"stac_extensions": listed})
    assert card.mlm_version is None
    assert remarks(card)["/stac_extensions"] is Severity.WARNING


def test_an_unknown_version_is_read_with_a_warning():
    item = make_item() | {"stac_extensions": ["https://stac-extensions.github.io/mlm/v2.0.0/schema.json"]}
    assert remarks(read_card(item))["/stac_extensions/0"] is Severity.WARNING


# --- item properties: what is kept, and where a warning stands

PROPERTIES = {
    "no name": ({"name": ...}, "name", "tiny", "mlm:name"),
    "a name outside the schema": ({"name": "7"}, "name", "7", "mlm:name"),
    "a name that is no text": ({"name": [1]}, "name", "tiny", "mlm:name"),
    "no architecture": ({"architecture": ...}, "architecture", "", "mlm:architecture"),
    "an unknown field": ({"flavour": "x"}, "name", "tiny net", "mlm:flavour"),
    "a batch of none": ({"batch_size_suggestion": 0}, "batch_size", None, "mlm:batch_size_suggestion"),
    "a negative batch": ({"batch_size_suggestion": -4}, "batch_size", None, "mlm:batch_size_suggestion"),
    "half a batch": ({"batch_size_suggestion": 1.5}, "batch_size", None, "mlm:batch_size_suggestion"),
    "a batch as a float": ({"batch_size_suggestion": 8.0}, "batch_size", 8, "mlm:batch_size_suggestion"),
    "memory in gigabytes": ({"memory_size": 1.5}, "memory_size", None, "mlm:memory_size"),
    "cpu": ({"accelerator": "cpu"}, "accelerator", "amd64", "mlm:accelerator"),
    "gpu": ({"accelerator": "gpu"}, "accelerator", "cuda", "mlm:accelerator"),
    "an unknown accelerator": ({"accelerator": "abacus"}, "accelerator", None, "mlm:accelerator"),
    "an accelerator that is no word": ({"accelerator": {"a": 1}}, "accelerator", None, "mlm:accelerator"),
    "many accelerators": ({"accelerator_count": 4}, "accelerator", None, "mlm:accelerator_count"),
    "a constraint that is no truth": (
        {"accelerator": "cuda", "accelerator_constrained": "yes"},
        "accelerator_constrained",
        False,
        "mlm:accelerator_constrained",
    ),
    "hyperparameters as text": ({"hyperparameters": "x"}, "hyperparameters", {}, "mlm:hyperparameters"),
    "no tasks": ({"tasks": ...}, "task", Task.SEGMENTATION, "mlm:tasks"),
    "one task as text": ({"tasks": "segmentation"}, "task", Task.SEGMENTATION, "mlm:tasks"),
}


@pytest.mark.parametrize(("changes", "field", "value", "where"), PROPERTIES.values(), ids=PROPERTIES.keys())
def test_a_property_that_is_not_as_it_should_be_is_told_and_never_fatal(changes, field, value, where):
    card = read_card(make_item(**changes))
    assert getattr(card, field) == value
    assert f"/properties/{where}" in remarks(card)


def test_good_properties_are_kept_without_a_remark():
    card = read_card(
        make_item(
            accelerator="cuda",
            accelerator_constrained=True,
            batch_size_suggestion=16,
            memory_size=10**9,
            framework_version="2.1",
            hyperparameters={"lr": 0.1},
        )
    )
    assert (card.accelerator, card.accelerator_constrained, card.batch_size) == ("cuda", True, 16)
    assert (card.memory_size, card.framework, card.hyperparameters) == (10**9, "ONNX 2.1", {"lr": 0.1})
    assert card.diagnostics == ()


def test_a_constraint_to_an_unknown_accelerator_is_no_constraint():
    assert (
        read_card(make_item(accelerator="abacus", accelerator_constrained=True)).accelerator_constrained
        is False
    )


def test_the_model_asset_overrides_the_item_except_for_what_belongs_to_the_item():
    item = make_item(accelerator="cuda", batch_size_suggestion=4)
    item["assets"]["model"] |= {
        "mlm:accelerator": "amd64",
        "mlm:batch_size_suggestion": 2,
        "mlm:name": "other",
    }
    card = read_card(item)
    assert (card.accelerator, card.batch_size, card.name) == ("amd64", 2, "tiny net")
    assert remarks(card) == {"/assets/model/mlm:name": Severity.WARNING}


def test_memory_smaller_than_the_file_is_another_unit():
    item = make_item(memory_size=43)
    item["assets"]["model"]["file:size"] = 43_000_000
    assert "/properties/mlm:memory_size" in remarks(read_card(item))


# --- containers


def test_objects_instead_of_lists_are_wrapped_and_pointers_stay_true():
    item = make_item(
        inputs=make_input(dim_order=["Batch", "Bands", "Height", "Width"]), outputs=make_output()
    )
    card = read_card(item)
    assert (len(card.inputs), len(card.outputs)) == (1, 1)
    assert remarks(card) == {
        "/properties/mlm:input": Severity.WARNING,
        "/properties/mlm:output": Severity.WARNING,
        "/properties/mlm:input/input/dim_order": Severity.WARNING,
    }


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("value", [..., None, [], [None], "x", 7, [[]], [{}] * 65])
def test_no_inputs_or_outputs_are_refused(side, value):
    item = make_item(**{side: value})
    assert any(pointer.startswith(f"/properties/mlm:{side}") for pointer in problems(item))


@pytest.mark.parametrize(
    "item",
    [{}, {"properties": None}, {"properties": []}, {"type": "FeatureCollection"}, None, [], "x", 10**400],
)
def test_what_is_no_item_is_refused(item):
    assert list(problems(item)) == [""]


def test_a_flat_row_of_a_catalogue_is_read():
    item = make_item()
    row = {k: v for k, v in item.items() if k != "properties"} | item["properties"]
    card = read_card(row)
    assert card.inputs == read_card(item).inputs
    assert remarks(card)[""] is Severity.WARNING


def nulls(value):
    """What a column of structs makes of an object: every key of any row, integers as floats."""
    if isinstance(value, dict):
        return {key: nulls(v) for key, v in value.items()} | {
            "format": None,
            "minimum": None,
            "nothing": {"deep": None},
        }
    if isinstance(value, list):
        return [nulls(v) for v in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def arrays(value):
    """What geopandas hands out: numpy arrays instead of lists, numpy scalars instead of numbers."""
    if isinstance(value, dict):
        return {key: arrays(v) for key, v in value.items()}
    if isinstance(value, list):
        made = np.empty(len(value), dtype=object)
        made[:] = [arrays(v) for v in value]
        return made
    return np.float64(value) if isinstance(value, float) else value


@pytest.mark.parametrize("spoil", [nulls, arrays, lambda item: arrays(nulls(item))])
def test_a_null_filled_item_of_a_parquet_catalogue_is_the_same_card(spoil):
    item = make_item(inputs=[make_input(shape=[-1, 3, 64, 64])], batch_size_suggestion=8)
    plain, spoilt = read_card(item), read_card(spoil(item))
    assert spoilt.model_copy(update={"diagnostics": ()}) == plain
    assert all(d.severity is Severity.INFO for d in spoilt.diagnostics)


# --- inputs: bands


def bands_of(item):
    return read_card(item).inputs[0].bands


def test_bands_are_names_or_objects():
    listed = ["B04", {"name": "B03"}, {"name": "B02", "format": None, "expression": None}]
    assert [b.name for b in bands_of(with_input(bands=listed))] == ["B04", "B03", "B02"]


@pytest.mark.parametrize("bands", [..., None, []])
def test_no_bands_are_positional_channels(bands):
    assert bands_of(with_input(bands=bands)) == ()


def test_a_derived_band_carries_its_expression():
    ndvi = {"name": "NDVI", "format": "rio-calc", "expression": "(B08 - B04) / (B08 + B04)"}
    gndvi = {"name": "NDR", "format": "GDAL-calc", "expression": "(A - B) / (A + B)"}
    bands = bands_of(with_input(bands=["B04", "B03", ndvi, gndvi], shape=[-1, 4, -1, -1]))
    assert bands[2].expression == Expression(format="rio-calc", expression=ndvi["expression"])
    assert bands[3].expression == Expression(format="gdal-calc", expression=gndvi["expression"])


JOINS = {
    "asset eo:bands": ("asset", "eo:bands", {"name": "B04", "common_name": "red"}),
    "asset raster:bands": ("asset", "raster:bands", {"name": "B04", "common_name": "red"}),
    "asset bands of STAC 1.1": ("asset", "bands", {"name": "B04", "eo:common_name": "red"}),
    "item eo:bands": ("item", "eo:bands", {"name": "B04", "common_name": "red"}),
    "item bands of STAC 1.1": ("item", "bands", {"name": "B04", "eo:common_name": "red"}),
    "a described name": ("asset", "eo:bands", {"name": "B04 - red", "common_name": "red"}),
    "a name of the table": ("asset", "eo:bands", {"name": "red", "common_name": "red"}),
}


@pytest.mark.parametrize(("holder", "key", "definition"), JOINS.values(), ids=JOINS.keys())
def test_bands_are_joined_to_the_items_band_objects(holder, key, definition):
    item = make_item()
    target = item["properties"] if holder == "item" else item["assets"]["model"]
    target[key] = [
        definition | {"nodata": 0},
        {"name": "B99", "common_name": "green"},
        "nonsense",
        {"name": 7},
    ]
    red, green, blue = bands_of(item)
    assert (red.common_name, red.nodata) == ("red", 0)
    assert (green.common_name, green.nodata, blue.common_name) == (None, None, None)


def test_a_nodata_that_is_no_number_is_left_out():
    item = make_item()
    item["assets"]["model"]["raster:bands"] = [
        {"name": "B04", "nodata": "nan"},
        {"name": "B03", "nodata": float("inf")},
    ]
    assert [b.nodata for b in bands_of(item)] == [None, None, None]


BAD_BANDS = {
    "no list": ("B04", "/bands"),
    "no name": ([{"description": "x"}, "B03", "B02"], "/bands/0"),
    "an empty name": (["", "B03", "B02"], "/bands/0"),
    "a number": (["B04", 3, "B02"], "/bands/1"),
    "python": (["B04", "B03", {"name": "N", "format": "python", "expression": "os:system"}], "/bands/2"),
    "a letter too many": (
        ["B04", "B03", {"name": "N", "format": "gdal-calc", "expression": "A + C"}],
        "/bands/2",
    ),
    "more bands than channels": (["B04", "B03", "B02", "B08"], "/bands"),
    "fewer bands than channels": (["B04"], "/bands"),
    "a flood": (["B"] * 2000, "/bands"),
}


@pytest.mark.parametrize(("bands", "where"), BAD_BANDS.values(), ids=BAD_BANDS.keys())
def test_bands_that_cannot_be_served_are_refused(bands, where):
    assert f"/properties/mlm:input/0{where}" in problems(with_input(bands=bands))


def test_datacube_variables_are_refused_and_an_empty_list_of_them_is_none():
    assert "/properties/mlm:input/0/variables" in problems(with_input(variables=["t2m"]))
    assert read_card(with_input(variables=[])).diagnostics == ()


# --- inputs: the tensor

AXES = {
    "long": (["batch", "channel", "height", "width"], (B, C, H, W)),
    "short": (["b", "c", "h", "w"], (B, C, H, W)),
    "plural": (["batches", "channels", "y", "x"], (B, C, H, W)),
    "geographic": (["batch", "band", "lat", "lon"], (B, C, H, W)),
    "channels last": (["batch", "latitude", "longitude", "bands"], (B, H, W, C)),
    "x before y": (["batch", "band", "x", "y"], (B, C, W, H)),
    "upper case": (["BATCH", "Channel", "H", "W"], (B, C, H, W)),
}


@pytest.mark.parametrize(("names", "axes"), AXES.values(), ids=AXES.keys())
def test_axes_have_many_names(names, axes):
    shape = [{B: -1, C: 3, H: 64, W: 32}[axis] for axis in axes]
    spec = read_card(with_input(dim_order=names, shape=shape)).inputs[0]
    assert (spec.axes, list(spec.shape)) == (axes, shape)


def test_h_beside_y_is_a_channel_and_an_unknown_axis_of_one_carries_nothing():
    def read(names, shape):
        return read_card(with_input(bands=[], dim_order=names, shape=shape)).inputs[0].axes

    assert read(["batch", "h", "y", "x"], [-1, 1, 64, 64]) == (B, C, H, W)
    assert read(["batch", "level", "bands", "y", "x"], [-1, 1, 3, 64, 64]) == (B, OTHER, C, H, W)
    assert read(["batch", "time", "bands", "y", "x"], [-1, 1, 3, 64, 64]) == (B, T, C, H, W)


TYPES = {
    "float32": "float32",
    "Float32": "float32",
    "torch.float16": "float16",
    "float": "float32",
    "double": "float64",
    "uint8": "uint8",
}


@pytest.mark.parametrize("name", TYPES)
def test_element_types_have_other_names_too(name):
    card = read_card(with_input(data_type=name))
    assert card.inputs[0].dtype == TYPES[name]
    assert ("/properties/mlm:input/0/input/data_type" in remarks(card)) == (name != TYPES[name])


TENSORS = {
    "no shape of integers": ({"shape": "any"}, "/input/shape"),
    "a size of zero": ({"shape": [-1, 3, 0, 64]}, "/input/shape/2"),
    "a size below -1": ({"shape": [-2, 3, 64, 64]}, "/input/shape/0"),
    "a size that is no integer": ({"shape": [-1, 3, 64.5, 64]}, "/input/shape/2"),
    "a size that is text": ({"shape": [-1, "3", 64, 64]}, "/input/shape/1"),
    "a size that is true": ({"shape": [True, 3, 64, 64]}, "/input/shape/0"),
    "a size beyond all": ({"shape": [-1, 3, 10**400, 64]}, "/input/shape/2"),
    "an empty shape": ({"shape": []}, "/input/shape"),
    "fewer names than sizes": ({"dim_order": ["batch", "bands", "height"]}, "/input/shape"),
    "an unknown axis": ({"dim_order": ["batch", "bands", "height", "depth"]}, "/input/dim_order/3"),
    "an axis twice": ({"dim_order": ["batch", "bands", "channel", "height"]}, "/input/dim_order/2"),
    "no names": ({"dim_order": None}, "/input"),
    "names that are none": ({"dim_order": [1, 2, 3, 4]}, "/input/dim_order"),
    "no type": ({"data_type": None}, "/input"),
    "a complex type": ({"data_type": "cfloat32"}, "/input/data_type"),
    "complex integers": ({"data_type": "cint16"}, "/input/data_type"),
    "another type": ({"data_type": "other"}, "/input/data_type"),
    "a type that is no word": ({"data_type": {}}, "/input/data_type"),
    "no tensor": ({"input": None}, "/input"),
    "a tensor that is text": ({"input": "x"}, "/input"),
}


@pytest.mark.parametrize(("changes", "where"), TENSORS.values(), ids=TENSORS.keys())
def test_a_tensor_that_cannot_be_understood_is_refused(changes, where):
    assert f"/properties/mlm:input/0{where}" in problems(with_input(**changes))


def test_the_profile_may_replace_the_tensors_description():
    item = with_input(dim_order=["batch", "bands", "height"], data_type="other")
    card = read_card(
        item, parse_profile('[input]\ndim_order = ["batch", "bands", "height", "width"]\ndata_type = "uint8"')
    )
    assert (card.inputs[0].axes, card.inputs[0].shape, card.inputs[0].dtype) == (
        (B, C, H, W),
        (-1, 3, -1, -1),
        "uint8",
    )
    card = read_card(with_input(shape=[-1, 3, 3, 3]), parse_profile("[input]\nshape = [-1, 3, 256, 256]"))
    assert card.inputs[0].shape == (-1, 3, 256, 256)


def test_a_missing_shape_is_left_to_the_graph():
    assert read_card(with_input(shape=None)).inputs[0].shape == (-1, -1, -1, -1)


# --- inputs: scaling

Z = {"type": "z-score", "mean": 1, "stddev": 2}
SCALINGS = {
    "min-max": ([{"type": "min-max", "minimum": 0, "maximum": 255}], ((MinMax(minimum=0, maximum=255),),)),
    "z-score": ([Z], ((ZScore(mean=1, stddev=2),),)),
    "z-score for each": ([Z, Z, Z], ((ZScore(mean=1, stddev=2),) * 3,)),
    "clip": ([{"type": "clip", "minimum": 0, "maximum": 1}], ((Clip(minimum=0, maximum=1),),)),
    "clip-min": ([{"type": "clip-min", "minimum": 0}], ((Clip(minimum=0),),)),
    "clip-max": ([{"type": "clip-max", "maximum": 1}], ((Clip(maximum=1),),)),
    "offset": ([{"type": "offset", "value": 1000}], ((Offset(value=1000),),)),
    "scale": ([{"type": "scale", "value": 255}], ((Scale(value=255),),)),
    "processing": (
        [{"type": "processing", "format": "gdal-calc", "expression": "A / 255"}],
        ((Processing(expression=Expression(format="gdal-calc", expression="A / 255")),),),
    ),
    "type null": ([{"type": None}], ()),
    "null": ([None], ()),
    "null for each": ([None, {"type": None}, {}], ()),
    "null for one": ([None, Z, Z], ((Identity(), ZScore(mean=1, stddev=2), ZScore(mean=1, stddev=2)),)),
    "absent": (..., None),
    "no scaling": (None, None),
    "an empty list": ([], None),
    "one object": (Z, ((ZScore(mean=1, stddev=2),),)),
    "std": ([{"type": "z-score", "mean": 1, "std": 2}], ((ZScore(mean=1, stddev=2),),)),
    "upper case": ([{"type": "Z_Score", "mean": 1, "stddev": 2}], ((ZScore(mean=1, stddev=2),),)),
}
CLEAN = {
    "no scaling",
    "min-max",
    "z-score",
    "z-score for each",
    "clip",
    "clip-min",
    "clip-max",
    "offset",
    "scale",
    "processing",
    "absent",
}


@pytest.mark.parametrize(("value", "steps"), SCALINGS.values(), ids=SCALINGS.keys())
def test_value_scaling_is_read(value, steps, request):
    card = read_card(with_input(value_scaling=value))
    assert card.inputs[0].scaling == steps
    assert bool(card.diagnostics) == (request.node.callspec.id not in CLEAN)


BAD_SCALINGS = {
    "unknown type": ([{"type": "l2"}], "/0"),
    "no type but numbers": ([{"mean": 1, "stddev": 2}], "/0"),
    "no object": (["z-score"], "/0"),
    "min equals max": ([{"type": "min-max", "minimum": 3, "maximum": 3}], "/0"),
    "stddev 0": ([{"type": "z-score", "mean": 0, "stddev": 0}], "/0"),
    "stddev below 0": ([{"type": "z-score", "mean": 0, "stddev": -1}], "/0"),
    "clip upside down": ([{"type": "clip", "minimum": 2, "maximum": 1}], "/0"),
    "scale 0": ([{"type": "scale", "value": 0}], "/0"),
    "a number missing": ([{"type": "z-score", "mean": 1}], "/0"),
    "a number as text": ([{"type": "scale", "value": "255"}], "/0/value"),
    "a number that is infinite": ([{"type": "scale", "value": float("inf")}], "/0/value"),
    "two for three channels": ([Z, Z], ""),
    "four for three channels": ([Z] * 4, ""),
    "python": ([{"type": "processing", "format": "python", "expression": "os:system"}], "/0"),
    "another channel": ([{"type": "processing", "format": "gdal-calc", "expression": "A - B"}], "/0"),
    "a flood": ([Z] * 5000, ""),
}


@pytest.mark.parametrize(("value", "where"), BAD_SCALINGS.values(), ids=BAD_SCALINGS.keys())
def test_scaling_that_cannot_be_computed_is_refused_unless_the_profile_says_another(value, where):
    item = with_input(value_scaling=value)
    found = problems(item)
    assert list(found) == [f"/properties/mlm:input/0/value_scaling{where}"]
    card = read_card(item, parse_profile('[input]\nscaling = "divide:255"'))
    assert card.inputs[0].scaling == ((Scale(value=255),),)
    assert remarks(card)["/properties/mlm:input/0/value_scaling"] is Severity.WARNING


LEGACY = {
    "min-max for all": (
        {"norm_type": "min-max", "norm_by_channel": False, "statistics": [{"minimum": 0, "maximum": 9}] * 3},
        ((MinMax(minimum=0, maximum=9),),),
    ),
    "z-score for each": (
        {
            "norm_type": "z-score",
            "norm_by_channel": True,
            "statistics": [{"mean": i, "stddev": 1} for i in range(3)],
        },
        ((ZScore(mean=0, stddev=1), ZScore(mean=1, stddev=1), ZScore(mean=2, stddev=1)),),
    ),
    "std": ({"norm_type": "z-score", "statistics": [{"mean": 1, "std": 2}]}, ((ZScore(mean=1, stddev=2),),)),
    "clip": ({"norm_type": "clip", "norm_clip": [255]}, ((Scale(value=255),), (Clip(minimum=0, maximum=1),))),
    "clip for each": (
        {"norm_type": "clip", "norm_clip": [1, 2, 4]},
        ((Scale(value=1), Scale(value=2), Scale(value=4)), (Clip(minimum=0, maximum=1),)),
    ),
    "statistics alone": ({"statistics": [{"mean": 1, "stddev": 2}]}, None),
    "norm_by_channel alone": ({"norm_by_channel": True}, None),
    "norm_clip alone": ({"norm_clip": [1]}, None),
}


@pytest.mark.parametrize(("fields", "steps"), LEGACY.values(), ids=LEGACY.keys())
def test_the_norm_fields_before_1_4_become_value_scaling_with_a_warning(fields, steps):
    card = read_card(with_input(value_scaling=..., **fields))
    assert card.inputs[0].scaling == steps
    assert Severity.WARNING in remarks(card).values()


@pytest.mark.parametrize(
    "kind", ["l1", "l2", "l2sqr", "hamming2", "type-mask", "relative", "inf", "standardization"]
)
def test_norms_of_opencv_are_refused_and_the_profile_may_override(kind):
    item = with_input(value_scaling=..., norm_type=kind, statistics=[{"mean": 1, "stddev": 2}])
    assert list(problems(item)) == ["/properties/mlm:input/0/norm_type"]
    assert read_card(item, parse_profile('[input]\nscaling = "none"')).inputs[0].scaling == ()


def test_incomplete_norm_fields_are_refused():
    for fields in ({"norm_type": "z-score"}, {"norm_type": "clip"}):
        assert list(problems(with_input(value_scaling=..., **fields))) == [
            "/properties/mlm:input/0/norm_type"
        ]
    statistics = {"norm_type": "z-score", "statistics": [{"mean": 1, "stddev": 0}]}
    assert list(problems(with_input(value_scaling=..., **statistics))) == [
        "/properties/mlm:input/0/statistics/0"
    ]


def test_value_scaling_wins_over_the_norm_fields():
    card = read_card(with_input(norm_type="z-score", statistics=[{"mean": 1, "stddev": 2}]))
    assert card.inputs[0].scaling == ((Scale(value=10000),),)
    assert remarks(card) == {"/properties/mlm:input/0/norm_type": Severity.WARNING}


def test_the_profiles_source_scaling_comes_before_the_items():
    card = read_card(make_item(), parse_profile('[input]\nsource_scaling = "offset:1000"'))
    assert card.inputs[0].scaling == ((Offset(value=1000),), (Scale(value=10000),))
    card = read_card(with_input(value_scaling=...), parse_profile('[input]\nsource_scaling = "divide:255"'))
    assert card.inputs[0].scaling == ((Scale(value=255),),)


# --- inputs: resize, processing


@pytest.mark.parametrize(
    "name",
    ["crop", "pad", *(f"interpolation-{k}" for k in ("nearest", "linear", "cubic", "area", "lanczos4"))],
)
def test_resize_types_that_resize_are_read(name):
    card = read_card(with_input(resize_type=name))
    assert card.inputs[0].resize == name
    assert card.diagnostics == ()


def test_flags_of_opencv_are_ignored_where_any_size_fits_and_refused_where_not():
    for name in ("interpolation-max", "wrap-fill-outliers", "wrap-inverse-map"):
        card = read_card(with_input(resize_type=name))
        assert card.inputs[0].resize is None
        assert remarks(card) == {"/properties/mlm:input/0/resize_type": Severity.WARNING}
        fixed = with_input(resize_type=name, shape=[-1, 3, 64, 64])
        assert list(problems(fixed)) == ["/properties/mlm:input/0/resize_type"]
        assert read_card(fixed, parse_profile('[input]\nresize = "pad"')).inputs[0].resize == "pad"


def test_an_unknown_resize_type_is_refused_and_the_profile_may_say_none():
    item = with_input(resize_type="stretch")
    assert list(problems(item)) == ["/properties/mlm:input/0/resize_type"]
    assert read_card(item, parse_profile('[input]\nresize = "none"')).inputs[0].resize is None


A = {"format": "gdal-calc", "expression": "A / 255"}
PRE = "/properties/mlm:input/0/pre_processing_function"


def test_processing_is_one_expression_or_several_in_order():
    one = read_card(with_input(pre_processing_function=A)).inputs[0].processing
    two = (
        read_card(with_input(pre_processing_function=[A, A | {"expression": "sqrt(A)"}])).inputs[0].processing
    )
    assert [e.expression for e in one] == ["A / 255"]
    assert [e.expression for e in two] == ["A / 255", "sqrt(A)"]


@pytest.mark.parametrize("value", [None, [], [None], {"format": None, "expression": None}])
def test_no_processing_is_none(value):
    assert read_card(with_input(pre_processing_function=value)).inputs[0].processing == ()


FUNCTIONS = {
    "python": ({"format": "python", "expression": "os:system"}, "Python code"),
    "a bare reference": ("pkg.mod:func", "Python code"),
    "docker": ({"format": "docker", "expression": "evil/image"}, "a container"),
    "uri": ({"format": "uri", "expression": {"href": "https://x/y.py", "type": "text/x-python"}}, "a script"),
    "openeo": ({"format": "openeo", "expression": {"process_graph": {}}}, "openEO process graph"),
    "documentation-link": ({"format": "documentation-link", "expression": "https://x/how"}, "https://x/how"),
    "stac-mlm": ({"format": "stac-mlm", "expression": "https://x/item"}, "provenance"),
    "another": ({"format": "ogc-api-processes", "expression": "x"}, "format that is not known"),
    "no format": ({"expression": "A"}, "without format"),
    "an expression that is none": ({"format": "gdal-calc", "expression": {"a": 1}}, "is not text"),
    "outside the whitelist": ({"format": "gdal-calc", "expression": "__import__('os')"}, "holds"),
    "s-expression": ({"format": "rio-calc", "expression": "(+ 2 (* 0.95 (read 1)))"}, "infix"),
    "a band that is not there": ({"format": "rio-calc", "expression": "B08 / B04"}, "B08"),
}


@pytest.mark.parametrize(("value", "words"), FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_processing_that_is_not_evaluated_is_refused_with_the_reason_unless_the_profile_replaces_it(
    value, words
):
    item = with_input(pre_processing_function=value)
    found = problems(item)
    assert list(found) == [PRE]
    assert words in found[PRE]
    assert "processing = []" in found[PRE]
    card = read_card(item, parse_profile("[input]\nprocessing = []"))
    assert card.inputs[0].processing == ()
    assert remarks(card)[PRE] is Severity.WARNING


def test_the_second_function_sees_one_channel_and_bands_may_be_another_number_than_channels():
    ndvi = {"format": "gdal-calc", "expression": "(A - B) / (A + B)"}
    spec = read_card(with_input(shape=[-1, 1, -1, -1], pre_processing_function=[ndvi, A])).inputs[0]
    assert (len(spec.bands), spec.size(C), len(spec.processing)) == (3, 1, 2)
    found = problems(with_input(shape=[-1, 1, -1, -1], pre_processing_function=[ndvi, ndvi]))
    assert list(found) == [f"{PRE}/1"]


def test_all_reasons_are_told_at_once():
    found = problems(
        with_input(
            shape=[-1, 3, 0, 64],
            resize_type="stretch",
            variables=["t"],
            pre_processing_function={"format": "python", "expression": "a:b"},
        )
    )
    assert set(found) == {
        "/properties/mlm:input/0/input/shape/2",
        "/properties/mlm:input/0/variables",
        PRE,
    }


# --- outputs

TASKS = {
    "classification": Task.CLASSIFICATION,
    "scene-classification": Task.CLASSIFICATION,
    "segmentation": Task.SEGMENTATION,
    "semantic-segmentation": Task.SEGMENTATION,
    "Semantic_Segmentation": Task.SEGMENTATION,
    "detection": Task.DETECTION,
    "object-detection": Task.DETECTION,
    "regression": Task.REGRESSION,
    "instance-segmentation": Task.RAW,
    "panoptic-segmentation": Task.RAW,
    "similarity-search": Task.RAW,
    "generative": Task.RAW,
    "image-captioning": Task.RAW,
    "super-resolution": Task.RAW,
    "divination": Task.RAW,
}


@pytest.mark.parametrize("word", TASKS)
def test_a_task_chooses_the_decoder_and_one_without_is_raw_with_a_warning(word):
    card = read_card(make_item(outputs=[make_output(tasks=[word])], tasks=[word]))
    assert card.task is TASKS[word]
    assert ("/properties/mlm:output/0/tasks" in remarks(card)) == (TASKS[word] is Task.RAW)


def test_the_first_task_with_a_decoder_counts():
    assert (
        read_card(
            make_item(outputs=[make_output(tasks=["downscaling", "regression"])], tasks=["regression"])
        ).task
        is Task.REGRESSION
    )


def test_the_output_wins_over_the_item_with_a_warning():
    card = read_card(make_item(tasks=["classification"]))
    assert card.task is Task.SEGMENTATION
    assert remarks(card) == {"/properties/mlm:output/0/tasks": Severity.WARNING}


@pytest.mark.parametrize("tasks", [..., None, []])
def test_an_output_without_a_task_takes_the_items_else_its_ranks(tasks):
    assert read_card(with_output(tasks=tasks)).task is Task.SEGMENTATION
    flat = make_output(tasks=tasks, shape=[-1, 2], dim_order=["batch", "classes"])
    assert read_card(make_item(outputs=[flat], tasks=...)).task is Task.CLASSIFICATION
    cube = make_output(tasks=tasks, shape=[-1, 2, 5], dim_order=["batch", "boxes", "values"])
    card = read_card(make_item(outputs=[cube], tasks=...))
    assert card.task is Task.RAW
    assert remarks(card)["/properties/mlm:output/0/tasks"] is Severity.WARNING


def test_the_profiles_task_wins_over_both():
    assert read_card(make_item(), parse_profile('[output]\ntask = "raw"')).task is Task.RAW


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": [-1, 2], "dim_order": ["batch", "classes"]},
        {"dim_order": ["batch", "classes", "height"]},
        {"shape": "any"},
        {"shape": [-1, 2, 0, 0]},
        {"dim_order": ["batch", "classes", "height", "depth"]},
        {"dim_order": None},
        {"result": None},
    ],
)
def test_a_result_that_makes_no_sense_is_dropped_with_a_warning(changes):
    card = read_card(with_output(**changes))
    assert (card.outputs[0].axes, card.outputs[0].shape) == ((), ())
    assert any(p.startswith("/properties/mlm:output/0") for p in remarks(card))


def test_a_strange_type_of_a_result_is_no_obstacle():
    assert read_card(with_output(data_type="other")).outputs[0].dtype == "float32"


@pytest.mark.parametrize("name", ["class", "classes", "num_classes", "channel", "bands", "score"])
def test_the_axis_of_classes_has_many_names(name):
    assert read_card(with_output(dim_order=["batch", name, "height", "width"])).outputs[0].axes == (
        B,
        C,
        H,
        W,
    )


LABEL = {"value": 3, "name": "road", "description": "A road", "color_hint": "ff8000", "nodata": False}
CLASSES = {
    "as the specification has it": ("classification:classes", [LABEL], [(3, "road", (255, 128, 0))]),
    "underscore": ("classification_classes", [LABEL], [(3, "road", (255, 128, 0))]),
    "bare": ("classes", [LABEL], [(3, "road", (255, 128, 0))]),
    "names": ("classes", ["no", "yes"], [(0, "no", None), (1, "yes", None)]),
    "color as numbers": ("classes", [LABEL | {"color_hint": [255, 128, 0]}], [(3, "road", (255, 128, 0))]),
    "color with a mark": ("classes", [LABEL | {"color_hint": "#FF8000"}], [(3, "road", (255, 128, 0))]),
    "color as nonsense": ("classes", [LABEL | {"color_hint": "orange"}], [(3, "road", None)]),
    "only a description": ("classes", [{"value": 3, "description": "A road"}], [(3, "A road", None)]),
    "only a title": ("classes", [{"value": 3, "title": "Road"}], [(3, "Road", None)]),
    "only a value": ("classes", [{"value": 3}], [(3, "3", None)]),
    "a value as a float": ("classes", [{"value": 3.0, "name": "x"}], [(3, "x", None)]),
    "no value": ("classes", [{"name": "a"}, {"name": "b"}], [(0, "a", None), (1, "b", None)]),
    "listed backwards": (
        "classes",
        [{"value": 1, "name": "b"}, {"value": 0, "name": "a"}],
        [(0, "a", None), (1, "b", None)],
    ),
    "values of their own": (
        "classes",
        [{"value": 20, "name": "b"}, {"value": 10, "name": "a"}],
        [(20, "b", None), (10, "a", None)],
    ),
    "none": ("classes", [], []),
}


@pytest.mark.parametrize(("key", "value", "expected"), CLASSES.values(), ids=CLASSES.keys())
def test_classes_are_read_in_every_spelling(key, value, expected):
    card = read_card(with_output(**{"classification:classes": ..., key: value}))
    assert [(c.value, c.name, c.color) for c in card.outputs[0].classes] == expected
    assert bool(card.diagnostics) == (key != "classification:classes")


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": 1}, ""),
        ([7], "/0"),
        ([{"value": "x", "name": "x"}], "/0/value"),
        ([{"value": 1.5, "name": "x"}], "/0/value"),
        ([{"value": 1, "name": "a"}, {"value": 1, "name": "b"}], ""),
        (["c"] * 20_000, ""),
    ],
)
def test_classes_that_name_nothing_are_refused_unless_the_profile_has_others(value, where):
    item = with_output(**{"classification:classes": value})
    assert list(problems(item)) == [f"/properties/mlm:output/0/classification:classes{where}"]
    assert [
        c.name for c in read_card(item, parse_profile('[output]\nclasses = ["a", "b"]')).outputs[0].classes
    ] == ["a", "b"]


def test_classes_given_twice_are_read_once():
    card = read_card(with_output(classes=["x", "y"]))
    assert [c.name for c in card.outputs[0].classes] == ["no", "yes"]
    assert remarks(card) == {"/properties/mlm:output/0/classes": Severity.WARNING}


def test_post_processing_is_read():
    function = {"format": "gdal-calc", "expression": "logical_not(A)"}
    assert read_card(with_output(post_processing_function=function)).outputs[0].processing == (
        Expression(format="gdal-calc", expression="logical_not(A)"),
    )


@pytest.mark.parametrize(("value", "words"), [f for f in FUNCTIONS.values() if "B08" not in f[1]])
def test_post_processing_that_is_not_evaluated_leaves_raw_tensors(value, words):
    item = with_output(post_processing_function=value)
    card = read_card(item)
    assert (card.task, card.outputs[0].processing) == (Task.RAW, ())
    (remark,) = [d for d in card.diagnostics if d.pointer.endswith("post_processing_function")]
    assert words in remark.message
    assert remark.severity is Severity.WARNING
    assert read_card(item, parse_profile("[output]\nprocessing = []")).task is Task.SEGMENTATION


def test_thresholds_among_the_hyperparameters_are_a_detectors_defaults():
    values = {"inference.confidence_threshold": 0.4, "nms_iou_threshold": 0.6, "nms_max_detections": 50.0}
    output = make_output(tasks=["object-detection"])
    card = read_card(make_item(outputs=[output], hyperparameters=values))
    assert card.outputs[0].boxes == BoxSpec(score_threshold=0.4, iou_threshold=0.6, max_detections=50)
    profile = parse_profile("[output.boxes]\nscore_threshold = 0.9")
    assert read_card(make_item(outputs=[output], hyperparameters=values), profile).outputs[
        0
    ].boxes == BoxSpec(score_threshold=0.9, iou_threshold=0.6, max_detections=50)


@pytest.mark.parametrize("value", [45, -1, float("inf"), "high", True])
def test_thresholds_that_are_none_are_ignored(value):
    output = make_output(tasks=["object-detection"])
    card = read_card(make_item(outputs=[output], hyperparameters={"iou_threshold": value}))
    assert card.outputs[0].boxes == BoxSpec()


# --- assets

ONNX = {"href": "a/b", "mlm:artifact_type": "ONNX"}
TORCH = {"href": "a/b", "mlm:artifact_type": "torch.save", "roles": ["mlm:model"]}
ASSETS = {
    "artifact type": ({"x": ONNX, "y": TORCH}, "x"),
    "media type": ({"x": {"type": "application/octet-stream; framework=onnx"}, "y": {}}, "x"),
    "role": ({"x": {"roles": ["mlm:model"]}, "y": {"roles": ["mlm:source_code"]}}, "x"),
    "the only one": ({"x": {}}, "x"),
    "the key": ({"model": {}, "y": {}}, "model"),
    "the address": ({"x": {"href": "https://h/a.ONNX?sig=1"}, "y": {"href": "b.txt"}}, "x"),
    "role but torch, and code": ({"x": TORCH, "y": {"roles": ["mlm:source_code"]}}, "x"),
    "two that could be": ({"x": ONNX, "y": ONNX}, None),
}


@pytest.mark.parametrize(("assets", "key"), ASSETS.values(), ids=ASSETS.keys())
def test_the_models_asset_is_told_by_type_role_key_or_address(assets, key):
    marked = {name: asset | {"mlm:accelerator": "xla"} for name, asset in assets.items() if name == key}
    card = read_card(make_item() | {"assets": assets | marked})
    assert card.accelerator == ("xla" if key else None)


def test_the_profile_chooses_the_asset():
    item = make_item() | {"assets": {"x": ONNX, "y": ONNX | {"mlm:accelerator": "xla"}}}
    assert read_card(item, parse_profile("asset = 'y'")).accelerator == "xla"
    assert list(problems(item, "asset = 'z'")) == ["profile:/asset"]


def test_a_torch_file_is_told_that_it_is_never_loaded():
    card = read_card(make_item() | {"assets": {"a/b~c": TORCH}})
    assert "never loaded" in next(
        d.message for d in card.diagnostics if d.pointer == "/assets/a~1b~0c/mlm:artifact_type"
    )


# --- the profile


def test_profile_tables_go_to_inputs_by_name_or_position_and_say_what_they_set():
    second = make_input(name="second")
    profile = parse_profile('[[input]]\nname = "second"\nsize_multiple = 8\n[output]\nactivation = "softmax"')
    card = read_card(make_item(inputs=[make_input(), second]), profile)
    assert [spec.size_multiple for spec in card.inputs] == [1, 8]
    assert card.outputs[0].activation == "softmax"
    assert remarks(card) == {
        "profile:/input/0/size_multiple": Severity.INFO,
        "profile:/output/0/activation": Severity.INFO,
    }


@pytest.mark.parametrize("text", ['[[input]]\nname = "nobody"', "[[input]]\n[[input]]"])
def test_a_profile_table_for_nothing_is_refused(text):
    assert next(iter(problems(make_item(), text))).startswith("profile:/input/")


def test_aliases_go_to_their_band_and_a_band_that_is_not_there_is_refused():
    card = read_card(make_item(), parse_profile('[input]\nband_aliases = { B04 = ["R"] }'))
    assert card.inputs[0].bands[0].aliases == ("R",)
    found = problems(make_item(), '[input]\nband_aliases = { "B/8" = ["N"] }')
    assert list(found) == ["profile:/input/0/band_aliases/B~18"]


def test_the_item_itself_is_never_changed():
    item = make_item(inputs=make_input(shape=[-1.0, 3, 64, 64]))
    before = json.dumps(item)
    read_card(item)
    assert json.dumps(item) == before
