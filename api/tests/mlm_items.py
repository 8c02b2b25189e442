"""Small MLM items to vary: each maker gives a fresh, valid item of MLM 1.5.2 in plain JSON types."""

from __future__ import annotations

from typing import Any

from ml_inference.contract.card import GraphSignature, TensorSpec

SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"


def make_input(**changes: Any) -> dict[str, Any]:
    """Three bands, scaled, any size."""
    tensor = {
        "shape": [-1, 3, -1, -1],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "float32",
    }
    tensor |= {key: changes.pop(key) for key in list(changes) if key in tensor}
    entry = {
        "name": "chips",
        "bands": ["B04", "B03", "B02"],
        "input": tensor,
        "value_scaling": [{"type": "scale", "value": 10000}],
    }
    return {key: value for key, value in (entry | changes).items() if value is not ...}


def make_output(**changes: Any) -> dict[str, Any]:
    """Two classes for every pixel."""
    result = {
        "shape": [-1, 2, -1, -1],
        "dim_order": ["batch", "classes", "height", "width"],
        "data_type": "float32",
    }
    result |= {key: changes.pop(key) for key in list(changes) if key in result}
    entry = {
        "name": "mask",
        "tasks": ["semantic-segmentation"],
        "result": result,
        "classification:classes": [{"value": 0, "name": "no"}, {"value": 1, "name": "yes"}],
    }
    return {key: value for key, value in (entry | changes).items() if value is not ...}


def make_item(*, inputs: Any = None, outputs: Any = None, **changes: Any) -> dict[str, Any]:
    """An item; keyword arguments replace `mlm:` properties, `...` removes one."""
    properties = {
        "mlm:name": "tiny net",
        "mlm:architecture": "U-Net",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "ONNX",
        "mlm:input": [make_input()] if inputs is None else inputs,
        "mlm:output": [make_output()] if outputs is None else outputs,
    } | {f"mlm:{key}": value for key, value in changes.items()}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [SCHEMA],
        "id": "tiny",
        "geometry": None,
        "properties": {key: value for key, value in properties.items() if value is not ...},
        "assets": {"model": {"href": "model.onnx", "roles": ["mlm:model"], "mlm:artifact_type": "onnx"}},
        "links": [],
    }


def make_graph(
    inputs: list[tuple[Any, ...]] | None = None,
    outputs: list[tuple[Any, ...]] | None = None,
    metadata: dict[str, str] | None = None,
) -> GraphSignature:
    """A graph of `(name, shape, dtype = float32)` tensors; by default the one that `make_item` describes."""

    def tensors(listed: list[tuple[Any, ...]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name=n, shape=s, dtype=d[0] if d else "float32") for n, s, *d in listed)

    return GraphSignature(
        inputs=tensors(inputs if inputs is not None else [("x", (-1, 3, -1, -1))]),
        outputs=tensors(outputs if outputs is not None else [("y", (-1, 2, -1, -1))]),
        metadata=metadata or {},
    )
