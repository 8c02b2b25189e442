"""Messages to requests and answers to messages; raw contents without a copy of ours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from tritonclient.grpc.service_pb2 import InferParameter, ModelInferResponse

from ml_inference.errors import InvalidRequest
from ml_inference.protocol.datatypes import BYTES, NUMPY, WITHOUT_JSON
from ml_inference.protocol.parameters import refuse_shared_memory, requested_output, schedule_of
from ml_inference.protocol.tensors import (
    InferInput,
    InferRequest,
    checked_datatype,
    checked_shape,
    input_of_buffer,
    mismatch,
    raw_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message
    from numpy.typing import NDArray

    from ml_inference.protocol.tensors import InferResponse

_FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    "BOOL": ("bool_contents", "BOOL"),
    "INT8": ("int_contents", "INT32"),
    "INT16": ("int_contents", "INT32"),
    "INT32": ("int_contents", "INT32"),
    "INT64": ("int64_contents", "INT64"),
    "UINT8": ("uint_contents", "UINT32"),
    "UINT16": ("uint_contents", "UINT32"),
    "UINT32": ("uint_contents", "UINT32"),
    "UINT64": ("uint64_contents", "UINT64"),
    "FP32": ("fp32_contents", "FP32"),
    "FP64": ("fp64_contents", "FP64"),
    BYTES: ("bytes_contents", BYTES),
}
"""Where the values of a datatype stand in a tensor's contents, and as which type they travel there."""


def request_of(message: Message) -> InferRequest:
    """A `ModelInferRequest`, with its tensors in `raw_input_contents` or in the contents of each.

    Raises:
        ContractMismatch: a tensor is not what it says it is, or is said to lie in shared memory.
        InvalidRequest: contents of both kinds, too few or too many; parameters that are not legal.
    """
    parameters = _values(message.parameters)
    priority, timeout_us = schedule_of(parameters)
    return InferRequest(
        message.model_name,
        _inputs(message),
        message.model_version or None,
        message.id,
        tuple(requested_output(each.name, _values(each.parameters)) for each in message.outputs),
        priority,
        timeout_us,
        parameters,
    )


def message_of(answer: InferResponse) -> Message:
    """A `ModelInferResponse` whose tensors are all in `raw_output_contents`."""
    message = ModelInferResponse(
        model_name=answer.model_name, model_version=answer.model_version, id=answer.id
    )
    for name, value in answer.parameters.items():
        message.parameters[name].CopyFrom(_parameter(value))
    for output in answer.outputs:
        message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        message.raw_output_contents.append(bytes(raw_bytes(output)))
    return message


def _inputs(message: Message) -> tuple[InferInput, ...]:
    for tensor in message.inputs:
        refuse_shared_memory(tensor.name, _values(tensor.parameters))
    if not message.raw_input_contents:
        return tuple(_typed(tensor) for tensor in message.inputs)
    raw = tuple(message.raw_input_contents)
    if len(raw) != len(message.inputs):
        raise InvalidRequest(
            f"raw_input_contents has {len(raw)} entries for {len(message.inputs)} inputs: expected one for each"
        )
    return tuple(_raw(tensor, content) for tensor, content in zip(message.inputs, raw, strict=True))


def _raw(tensor: Message, content: bytes) -> InferInput:
    if tensor.HasField("contents"):
        what = "its data come twice, raw and typed"
        raise mismatch(tensor.name, what, expected="raw_input_contents alone", got="contents as well")
    return input_of_buffer(tensor.name, tensor.datatype, tensor.shape, memoryview(content))


def _typed(tensor: Message) -> InferInput:
    name, shape = tensor.name, checked_shape(tensor.name, tensor.shape)
    datatype = checked_datatype(name, tensor.datatype)
    if datatype in WITHOUT_JSON:
        raise mismatch(
            name, f"{datatype} has no typed contents", expected="raw_input_contents", got="contents"
        )
    field, wide = _FIELDS[datatype]
    used = [each.name for each, _ in tensor.contents.ListFields()]
    if not {field}.issuperset(used):
        raise mismatch(name, f"{datatype} travels in {field}", expected=field, got=used)
    values = getattr(tensor.contents, field)
    count = math.prod(shape)
    if len(values) != count:
        what = f"shape {list(shape)} takes {count} values and {len(values)} came"
        raise mismatch(name, what, expected=count, got=len(values))
    if datatype == BYTES:
        return InferInput(name, BYTES, shape, tuple(values))
    array = np.fromiter(values, NUMPY[wide], count)
    return InferInput(name, datatype, shape, _narrowed(name, datatype, array).reshape(shape))


def _narrowed(name: str, datatype: str, array: NDArray[Any]) -> NDArray[Any]:
    dtype = NUMPY[datatype]
    if array.dtype == dtype:
        return array
    bounds = np.iinfo(dtype)
    outside = array[(array < bounds.min) | (array > bounds.max)]
    if outside.size:
        expected = f"values from {bounds.min} to {bounds.max}"
        raise mismatch(name, f"a value does not fit {datatype}", expected=expected, got=int(outside[0]))
    return array.astype(dtype)


def _values(parameters: Mapping[str, Message]) -> dict[str, Any]:
    """Texts, numbers and booleans; a parameter without a value is none."""
    chosen = {name: (each, each.WhichOneof("parameter_choice")) for name, each in parameters.items()}
    return {name: getattr(each, kind) for name, (each, kind) in chosen.items() if kind is not None}


def _parameter(value: str | float) -> Message:
    if isinstance(value, bool):
        return InferParameter(bool_param=value)
    if isinstance(value, int):
        return InferParameter(int64_param=value)
    if isinstance(value, float):
        return InferParameter(double_param=value)
    return InferParameter(string_param=value)
