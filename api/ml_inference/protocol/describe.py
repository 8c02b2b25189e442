"""The service and its models as clients of the protocol read them, ready for JSON or a protobuf message.

Names and nesting are those of Triton's `ModelConfig` and `ModelStatistics`, whose readers take every key for granted.
Dimensions that are open are -1; versions are texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ml_inference import __version__
from ml_inference.contract.card import ANY, Axis
from ml_inference.engine.status import ModelState
from ml_inference.protocol.checks import open_shape
from ml_inference.protocol.datatypes import datatype_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ml_inference.contract.card import OutputSpec
    from ml_inference.engine.model import ServedModel
    from ml_inference.engine.statistics import BatchStatistics, Duration
    from ml_inference.engine.status import ModelStatus
    from ml_inference.protocol.tensors import Shape

type Json = dict[str, Any]

NAME: Final = "ml-inference-processor"
PLATFORM: Final = "onnxruntime_onnx"
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "statistics",
    "encoded_images",
)
"""What is implemented; the last one is this service's own."""

_STATES: Final = {
    ModelState.READY: ("READY", None),
    ModelState.LOADING: ("LOADING", None),
    ModelState.KNOWN: ("UNAVAILABLE", "not loaded yet: the first request loads it"),
}


def server_metadata() -> Json:
    """What this server is, and which extensions of the protocol it has."""
    return {"name": NAME, "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(model: ServedModel, versions: Iterable[str] = ()) -> Json:
    """A model's tensors, and under `parameters` what its card says of them.

    Args:
        model: one version.
        versions: every version that can be asked for; the model's own is always among them.
    """
    card = model.card
    return {
        "name": model.name,
        "versions": sorted({model.version, *versions}),
        "platform": PLATFORM,
        "inputs": [_tensor(spec.name, spec.dtype, open_shape(spec)) for spec in card.inputs],
        "outputs": [_tensor(spec.name, spec.dtype, _output_shape(model, spec)) for spec in card.outputs],
        "parameters": {
            "task": card.task.value,
            "bands": {spec.name: [band.name for band in spec.bands] for spec in card.inputs},
            "classes": {
                spec.name: [{"value": each.value, "name": each.name} for each in spec.classes]
                for spec in card.outputs
                if spec.classes
            },
            **({} if model.item is None else {"item": f"/{model.name}?version={model.version}"}),
        },
    }


def model_config(model: ServedModel) -> Json:
    """A model's configuration as `ModelConfig`; `dims` leave the rows out where `max_batch_size` is above 0."""
    card, batching = model.card, model.batching
    device = str(model.describe()["device"]["device"])
    kind, _, index = device.partition(":")
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": batching.rows if batching.batched else 0,
        "input": [
            {**_config_tensor(spec.name, spec.dtype, _dims(model, open_shape(spec))), "optional": False}
            for spec in card.inputs
        ],
        "output": [
            _config_tensor(spec.name, spec.dtype, _dims(model, _output_shape(model, spec)))
            for spec in card.outputs
        ],
        "instance_group": [
            {
                "name": f"{model.name}_0",
                "kind": "KIND_GPU" if kind == "cuda" else "KIND_CPU",
                "count": batching.lanes,
                "gpus": [int(index or 0)] if kind == "cuda" else [],
            }
        ],
        "default_model_filename": "model.onnx",
        "model_transaction_policy": {"decoupled": False},
        "parameters": {},
        **_dynamic_batching(model),
    }


def model_statistics(models: Iterable[ServedModel]) -> Json:
    """What models have done since they were loaded, as `ModelStatistics`; durations are nanoseconds."""
    return {"model_stats": [_statistics(model) for model in models]}


def repository_index(statuses: Sequence[ModelStatus], *, ready: bool = False) -> list[Json]:
    """Every model that is known, with its state and why it does not answer.

    Args:
        statuses: from `ModelRegistry.statuses`.
        ready: only those that answer.
    """
    return [_entry(each) for each in statuses if not ready or each.state is ModelState.READY]


def _entry(status: ModelStatus) -> Json:
    state, reason = _STATES.get(status.state, ("UNAVAILABLE", status.state.value))
    return {
        "name": status.name,
        "version": status.version or "",
        "state": state,
        "reason": status.reason or reason or "",
    }


def _tensor(name: str, dtype: str, shape: Shape) -> Json:
    return {"name": name, "datatype": datatype_of(dtype), "shape": list(shape)}


def _config_tensor(name: str, dtype: str, dims: Shape) -> Json:
    word = datatype_of(dtype)
    return {"name": name, "data_type": f"TYPE_{word}", "dims": list(dims), "is_shape_tensor": False}


def _output_shape(model: ServedModel, spec: OutputSpec) -> Shape:
    """As many rows come out as went in."""
    batched = model.batching.batched and (not spec.axes or spec.axes[0] is Axis.BATCH)
    return (ANY, *spec.shape[1:]) if batched and spec.shape else spec.shape


def _dims(model: ServedModel, shape: Shape) -> Shape:
    return shape[1:] if model.batching.batched else shape


def _dynamic_batching(model: ServedModel) -> Json:
    batching = model.batching
    if batching.rows == 1:
        return {}
    return {
        "dynamic_batching": {
            "preferred_batch_size": [batching.rows],
            "max_queue_delay_microseconds": round(batching.timeout * 1e6),
            "preserve_ordering": False,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": 0,
                "allow_timeout_override": True,
                "max_queue_size": batching.queue_requests,
            },
        }
    }


def _statistics(model: ServedModel) -> Json:
    told = model.statistics()
    never = {"count": 0, "ns": 0}
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": told.last_inference_ms,
        "inference_count": told.inference_count,
        "execution_count": told.execution_count,
        "inference_stats": {
            "success": _duration(told.success),
            "fail": _duration(told.fail),
            "queue": _duration(told.queue),
            "compute_input": _duration(told.compute_input),
            "compute_infer": _duration(told.compute_infer),
            "compute_output": _duration(told.compute_output),
            "cache_hit": never,
            "cache_miss": never,
        },
        "response_stats": {},
        "batch_stats": [_batch(each) for each in told.batches],
        "memory_usage": [{"type": "CPU", "id": 0, "byte_size": told.memory_bytes}],
    }


def _batch(batch: BatchStatistics) -> Json:
    return {
        "batch_size": batch.batch_size,
        "compute_input": _duration(batch.compute_input),
        "compute_infer": _duration(batch.compute_infer),
        "compute_output": _duration(batch.compute_output),
    }


def _duration(duration: Duration) -> Json:
    return {"count": duration.count, "ns": duration.ns}
