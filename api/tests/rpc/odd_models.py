"""Bare ONNX files for tests: `kinds` gives every input of every type back, `wide` answers 64 times what it got."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
}


def write_odd_models(folder: Path) -> None:
    value = helper.make_tensor_value_info
    kinds = helper.make_graph(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in KINDS],
        "kinds",
        [value(f"in_{name}", kind, ["n", 3]) for name, (kind, _) in KINDS.items()],
        [value(f"out_{name}", kind, ["n", 3]) for name, (kind, _) in KINDS.items()],
    )
    wide = helper.make_graph(
        [helper.make_node("Concat", ["x"] * 64, ["y"], axis=1)],
        "wide",
        [value("x", TensorProto.FLOAT, ["n", 100])],
        [value("y", TensorProto.FLOAT, ["n", 6400])],
    )
    for graph in (kinds, wide):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, folder / f"{graph.name}.onnx")
