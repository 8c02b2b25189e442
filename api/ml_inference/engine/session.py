"""The one home of ONNX Runtime: a file becomes something that runs."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final, Protocol, get_args

from ml_inference.contract.card import ANY, DataType, GraphSignature, TensorSpec
from ml_inference.engine.device import Device, parse_device
from ml_inference.errors import CardInvalid, ConfigurationInvalid, InferenceFailed

# By default ONNX Runtime's wheels report to their maker and keep a device id and a database in the cache folder of the
# user. It is read once, when the library loads; `disable_telemetry_events()` comes too late for the files.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    import onnxruntime as ort
except ImportError as exc:
    raise ConfigurationInvalid(
        "ONNX Runtime is not installed: pip install 'ml-inference-processor[cpu]', or [gpu] for CUDA"
    ) from exc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ml_inference.engine.abort import Abort

    type Arrays = Mapping[str, NDArray[np.generic]]

QUIET: Final = 4
"""ONNX Runtime's severity "fatal": what fails is told by the exception, and its lines are none of our log's."""

_NOISE: Final = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |/\S*/onnxruntime/\S+:\d+ [^(]*\([^)]*\)(?: const)?(?: \[with [^\]]*\])? ?"
)
"""What stands before the cause in ONNX Runtime's messages: codes, and its own source's paths and signatures."""

ELEMENT_TYPES: Final = {"float": "float32", "double": "float64"}
"""ONNX element types whose names differ from numpy's."""


class Session(Protocol):
    """What the engine asks of a runtime."""

    @property
    def signature(self) -> GraphSignature:
        """The graph's inputs, outputs and metadata."""

    @property
    def provider(self) -> str:
        """The execution provider that runs the graph."""

    def run(self, tensors: Arrays, abort: Abort) -> dict[str, NDArray[Any]]:
        """Run the graph on full input tensors; every output by name. Blocking; may be called from several threads."""


class OnnxSession:
    """An ONNX Runtime session on one device.

    Spinning is off: a spinning thread pool burns a core between requests, slows what shares the machine, and fakes
    load for an autoscaler that reads CPU.
    """

    def __init__(self, path: Path, device: Device, threads: int) -> None:
        self.device = device
        self.threads = threads
        try:
            self._session = ort.InferenceSession(
                str(path), sess_options=_options(threads), providers=_providers(device)
            )
        except Exception as exc:  # ONNX Runtime raises a dozen unrelated classes for an unusable graph
            raise CardInvalid(
                f"ONNX Runtime cannot load the graph: {_brief(exc, path)}", (("onnx:", _brief(exc, path)),)
            ) from exc
        self._check_provider()
        self._outputs = [output.name for output in self._session.get_outputs()]

    def _check_provider(self) -> None:
        if self.device.kind == "cuda" and self.provider != "CUDAExecutionProvider":
            raise CardInvalid(f"asked for {self.device}, but ONNX Runtime fell back to {self.provider}")

    @property
    def provider(self) -> str:
        """The execution provider that runs the graph."""
        return str(self._session.get_providers()[0])

    @property
    def signature(self) -> GraphSignature:
        """The graph's inputs, outputs and metadata."""
        meta = self._session.get_modelmeta()
        return GraphSignature(
            inputs=tuple(_tensor(node) for node in self._session.get_inputs()),
            outputs=tuple(_tensor(node) for node in self._session.get_outputs()),
            metadata={str(k): str(v) for k, v in meta.custom_metadata_map.items()},
        )

    def run(self, tensors: Arrays, abort: Abort) -> dict[str, NDArray[Any]]:
        """Run the graph.

        Raises:
            InferenceFailed: the runtime refused or failed; the message is ONNX Runtime's, shortened.
        """
        options = ort.RunOptions()
        options.log_severity_level = QUIET
        abort.bind(lambda: setattr(options, "terminate", True))
        try:
            values = self._session.run(self._outputs, dict(tensors), options)
        except Exception as exc:  # as above: no common base class
            raise InferenceFailed(f"the model failed: {_brief(exc)}") from exc
        return dict(zip(self._outputs, values, strict=True))


def cuda_available() -> bool:
    """Whether this ONNX Runtime was built with CUDA and its libraries load."""
    return "CUDAExecutionProvider" in ort.get_available_providers()


def resolve_device(text: str) -> Device:
    """`parse_device` with what this machine has."""
    return parse_device(text, cuda_available=cuda_available())


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = QUIET
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _providers(device: Device) -> list[Any]:
    if device.kind == "cpu":
        return ["CPUExecutionProvider"]
    cuda = {
        "device_id": device.index,
        "arena_extend_strategy": "kSameAsRequested",
        # EXHAUSTIVE benchmarks anew at every new image size.
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"]


def _tensor(node: Any) -> TensorSpec:
    return TensorSpec(
        name=node.name,
        dtype=_dtype(node.type),
        shape=tuple(d if isinstance(d, int) and d >= 0 else ANY for d in node.shape or ()),
    )


def _dtype(text: str) -> DataType | None:
    """`tensor(float)` → `float32`; None for strings, sequences and what numpy has no type for."""
    element = text.removeprefix("tensor(").removesuffix(")")
    name = ELEMENT_TYPES.get(element, element)
    legal: tuple[DataType, ...] = get_args(DataType)
    return next((dtype for dtype in legal if dtype == name), None)


def _brief(exc: Exception, path: Path | None = None) -> str:
    """ONNX Runtime's message on one line, without paths and at most 300 characters."""
    text = " ".join(str(exc).split()) or type(exc).__name__
    if path is not None:
        text = text.replace(str(path), path.name).replace(str(path.parent), "…")
    return _NOISE.sub("", text)[:300]
