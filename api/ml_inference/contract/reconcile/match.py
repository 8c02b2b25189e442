"""Which declared tensor is which of the graph's, and how both are put in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_inference.contract.card import ANY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.card import Axis, InputSpec, OutputSpec, TensorSpec


def match(specs: Sequence[InputSpec | OutputSpec], tensors: Sequence[TensorSpec]) -> list[TensorSpec | None]:
    """Give each declared tensor its own of the graph: by equal name, the rest by position among the rest."""
    by_name = {tensor.name: tensor for tensor in tensors}
    found = [by_name.pop(spec.name, None) for spec in specs]
    rest = iter([tensor for tensor in tensors if tensor.name in by_name])
    return [tensor if tensor is not None else next(rest, None) for tensor in found]


def shape_words(shape: Sequence[int], axes: Sequence[Axis] = ()) -> str:
    """`[batch ?, channel 3]`, or `[?, 3]` where axes have no names."""
    sizes = ["?" if size == ANY else str(size) for size in shape]
    named = [f"{axis} {size}" for axis, size in zip(axes, sizes, strict=True)] if axes else sizes
    return f"[{', '.join(named)}]"
