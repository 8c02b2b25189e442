"""Small ONNX graphs, built on the spot."""

from __future__ import annotations

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper


def bias_model(bias: float = 0.0, padding: int = 0) -> bytes:
    """Give a model that adds `bias` to three numbers; `padding` makes it that many bytes longer."""
    tensor = numpy_helper.from_array(np.full(3, bias, np.float32), "bias")
    model = model_of([helper.make_node("Add", ["x", "bias"], ["y"], name="add")], [tensor])
    model.doc_string = "x" * padding
    return model.SerializeToString()


def model_of(
    nodes: list[NodeProto], tensors: list[TensorProto] | None = None, domains: tuple[str, ...] = ()
) -> ModelProto:
    graph = graph_of(nodes, tensors)
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def graph_of(nodes: list[NodeProto], tensors: list[TensorProto] | None = None) -> GraphProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])
    return helper.make_graph(nodes, "graph", [x], [y], initializer=tensors or [])


def external_tensor(name: str = "bias", **entries: str) -> TensorProto:
    """Give three floats whose bytes lie where the entries (`location`, `offset`, `length`) say."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def add_node() -> NodeProto:
    return helper.make_node("Add", ["x", "bias"], ["y"], name="add")


def external_model(**entries: str) -> ModelProto:
    return model_of([add_node()], [external_tensor(**entries)])
