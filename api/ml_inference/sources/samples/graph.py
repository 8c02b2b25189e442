"""A few lines over `onnx.helper`, so that a graph reads like the formula it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, DTypeLike

OPSET, IR_VERSION = 17, 8
"""Old enough for every ONNX Runtime since 1.12, and all that these graphs need."""

FLOAT, DOUBLE, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64

type Shape = Sequence[int | str]
"""Sizes, and names for those left open."""


class Tensor:
    """A named value of a graph; arithmetic and comparison add a node.

    An operand that is a plain number becomes a float32 constant.
    """

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph = graph
        self.name = name

    def __add__(self, other: Tensor | float) -> Tensor:
        return self.graph.op("Add", self, other)

    def __sub__(self, other: Tensor | float) -> Tensor:
        return self.graph.op("Sub", self, other)

    def __mul__(self, other: Tensor | float) -> Tensor:
        return self.graph.op("Mul", self, other)

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return self.graph.op("Div", self, other)

    def __rtruediv__(self, other: float) -> Tensor:
        return self.graph.op("Div", other, self)

    def __gt__(self, other: Tensor | float) -> Tensor:
        return self.graph.op("Greater", self, other)

    def __ge__(self, other: Tensor | float) -> Tensor:
        return self.graph.op("GreaterOrEqual", self, other)

    def __and__(self, other: Tensor) -> Tensor:
        return self.graph.op("And", self, other)

    def equals(self, other: Tensor | float) -> Tensor:
        """Element by element (`==` keeps its meaning: the same tensor)."""
        return self.graph.op("Equal", self, other)

    def cast(self, to: int) -> Tensor:
        """The same values as another element type (`FLOAT`, `DOUBLE`, `INT64`)."""
        return self.graph.op("Cast", self, to=to)


class Graph:
    """Collects nodes in the order they are called for; the same calls give the same bytes."""

    def __init__(self, name: str, doc: str) -> None:
        self._name = name
        self._doc = doc
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Shape, element: int = FLOAT) -> Tensor:
        """Declare an input."""
        self._inputs.append(helper.make_tensor_value_info(name, element, shape))
        return Tensor(self, name)

    def output(self, name: str, value: Tensor, shape: Shape, element: int = FLOAT) -> None:
        """Declare `value` an output under that name."""
        self._nodes.append(helper.make_node("Identity", [value.name], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, element, shape))

    def constant(self, value: ArrayLike, dtype: DTypeLike = np.float32) -> Tensor:
        """A constant; int64 where a node wants sizes or axes."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return Tensor(self, name)

    def op(self, kind: str, *operands: Tensor | float, **attributes: Any) -> Tensor:
        """Add a node of one output."""
        return self.ops(kind, 1, *operands, **attributes)[0]

    def ops(self, kind: str, count: int, *operands: Tensor | float, **attributes: Any) -> list[Tensor]:
        """Add a node of `count` outputs."""
        named = [each if isinstance(each, Tensor) else self.constant(each) for each in operands]
        outputs = [f"{kind.lower()}{len(self._nodes)}_{index}" for index in range(count)]
        self._nodes.append(helper.make_node(kind, [each.name for each in named], outputs, **attributes))
        return [Tensor(self, name) for name in outputs]

    def where(self, condition: Tensor, yes: Tensor | float, no: Tensor | float) -> Tensor:
        """`yes` where the condition holds, else `no`."""
        return self.op("Where", condition, yes, no)

    def int64(self, *values: int) -> Tensor:
        """A vector of sizes, axes or indices."""
        return self.constant(values, np.int64)

    def bands(self, tensor: Tensor, names: Sequence[str]) -> Mapping[str, Tensor]:
        """Split `[batch, bands, height, width]` into one `[batch, 1, height, width]` for each band."""
        parts = self.ops("Split", len(names), tensor, self.int64(*[1] * len(names)), axis=1)
        return dict(zip(names, parts, strict=True))

    def serialize(self) -> bytes:
        """The model as the bytes of an `.onnx` file."""
        return self._model().SerializeToString(deterministic=True)  # type: ignore[no-any-return]

    def _model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=self._constants
        )
        return helper.make_model(
            graph,
            doc_string=self._doc,
            producer_name="ml-inference-processor",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
