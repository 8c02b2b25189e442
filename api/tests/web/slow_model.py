"""A model folder for tests: `slow` takes as long as an image asks for, `broken` cannot be served."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from pathlib import Path

FOREVER = 1e9
"""A pixel value with which `slow` runs for minutes unless it is told to stop."""


def image(value: float = 1.0, size: int = 4) -> bytes:
    """A float32 `.npy` image of one band, all of one value."""
    buffer = io.BytesIO()
    np.save(buffer, np.full((1, size, size), value, np.float32))
    return buffer.getvalue()


def write_models(folder: Path) -> Path:
    """`slow` in versions 1 and 2 (each answers mean times version after as many turns as its greatest pixel) and `broken`."""
    for version in (1, 2):
        place = folder / "slow" / str(version)
        place.mkdir(parents=True)
        onnx.save(_graph(float(version)), place / "model.onnx")
        (place / "item.json").write_text(json.dumps(_item()))
    (folder / "broken").mkdir()
    onnx.save(_graph(1.0), folder / "broken" / "model.onnx")
    item = _item()
    item["properties"]["mlm:input"][0]["input"]["shape"] = [-1, 7, 3, 3]
    (folder / "broken" / "item.json").write_text(json.dumps(item))
    return folder


def _graph(factor: float) -> onnx.ModelProto:
    scalar = helper.make_tensor_value_info
    turn = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["count", "one"], ["counted"]),
        ],
        "turn",
        [
            scalar("index", TensorProto.INT64, []),
            scalar("go", TensorProto.BOOL, []),
            scalar("count", TensorProto.FLOAT, []),
        ],
        [scalar("on", TensorProto.BOOL, []), scalar("counted", TensorProto.FLOAT, [])],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["image"], ["peak"], keepdims=0),
            helper.make_node("Cast", ["peak"], ["turns"], to=TensorProto.INT64),
            helper.make_node("Loop", ["turns", "yes", "zero"], ["done"], body=turn),
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Mul", ["mean", "factor"], ["scaled"]),
            helper.make_node("Mul", ["done", "zero"], ["nothing"]),
            helper.make_node("Add", ["scaled", "nothing"], ["value"]),
        ],
        "slow",
        [scalar("image", TensorProto.FLOAT, ["n", 1, "height", "width"])],
        [scalar("value", TensorProto.FLOAT, ["n", 1])],
        [
            helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("factor", TensorProto.FLOAT, [], [factor]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _item() -> dict[str, object]:
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/mlm/v1.5.1/schema.json"],
        "id": "slow",
        "geometry": None,
        "links": [],
        "properties": {
            "datetime": None,
            "mlm:name": "slow",
            "mlm:architecture": "loop",
            "mlm:framework": "ONNX",
            "mlm:tasks": ["regression"],
            "mlm:input": [
                {
                    "name": "image",
                    "bands": ["grey"],
                    "input": {
                        "shape": [-1, 1, -1, -1],
                        "dim_order": ["batch", "bands", "height", "width"],
                        "data_type": "float32",
                    },
                    "value_scaling": [],
                }
            ],
            "mlm:output": [
                {
                    "name": "value",
                    "tasks": ["regression"],
                    "bands": ["mean"],
                    "result": {
                        "shape": [-1, 1],
                        "dim_order": ["batch", "value"],
                        "data_type": "float32",
                    },
                }
            ],
        },
        "assets": {
            "model": {"href": "./model.onnx", "type": "application/octet-stream", "roles": ["mlm:model"]}
        },
    }
