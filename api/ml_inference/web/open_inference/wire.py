"""Bodies of the protocol: JSON, with tensors in it or behind it as bytes (Triton's binary tensor data extension)."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from ml_inference.contract.card import ANY
from ml_inference.errors import InvalidRequest, TooLarge
from ml_inference.protocol.checks import open_shape
from ml_inference.protocol.datatypes import NUMPY, WITHOUT_JSON, datatype_of
from ml_inference.protocol.parameters import refuse_shared_memory, requested_output, schedule_of
from ml_inference.protocol.tensors import (
    InferRequest,
    input_of_buffer,
    input_of_values,
    mismatch,
    quoted,
    raw_bytes,
)
from ml_inference.web.json import to_json

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from ml_inference.contract.card import ModelCard
    from ml_inference.protocol.datatypes import Buffer
    from ml_inference.protocol.tensors import (
        InferInput,
        InferOutput,
        InferResponse,
        Parameters,
        RequestedOutput,
    )

HEADER: Final = "Inference-Header-Content-Length"
MAX_JSON_BYTES: Final = 32 << 20
MAX_JSON_NESTS: Final = 1 << 20
"""Lists and objects in a document: each takes some twenty times its two characters in memory."""
_LENGTH: Final = re.compile(r"[0-9]{1,19}")


def header_length(headers: Headers) -> int | None:
    """How many bytes of the body are JSON; None when all of it is, 0 when none is.

    Raises:
        InvalidRequest: no number, or several.
    """
    given = headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or not _LENGTH.fullmatch(given[0]):
        raise InvalidRequest(f"{HEADER} is {quoted(', '.join(given))}: expected one number of bytes")
    return int(given[0])


def read_object(text: memoryview) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidRequest: no JSON (RFC 8259: neither NaN nor infinity, UTF-8), or no object.
        TooLarge: more than 32 MiB, or more lists and objects than anybody needs.
    """
    if len(text) > MAX_JSON_BYTES:
        raise TooLarge(f"the JSON has more than {MAX_JSON_BYTES} bytes: send large tensors as binary data")
    content = text.tobytes()
    if content.count(b"[") + content.count(b"{") > MAX_JSON_NESTS:
        raise TooLarge(
            f"the JSON has more than {MAX_JSON_NESTS} lists and objects: send tensors flat or as binary data"
        )
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest("the body is no JSON object")
    return document


def read_request(
    card: ModelCard, name: str, version: str | None, body: memoryview, json_bytes: int | None
) -> InferRequest:
    """An inference request from its body.

    Args:
        card: of the model; it tells what the bytes of a raw request are.
        name: of the model as the path has it.
        version: likewise.
        body: as it was before its encoding; tensors are views of it.
        json_bytes: from `header_length`.

    Raises:
        InvalidRequest: not well-formed; `ContractMismatch` where one tensor is to blame.
        TooLarge: see `read_object`.
    """
    if json_bytes == 0:
        return _raw_request(card, name, version, body)
    size = len(body) if json_bytes is None else json_bytes
    if size > len(body):
        raise InvalidRequest(f"{HEADER} says {size} bytes and the whole body has {len(body)}")
    document = read_object(body[:size])
    parameters = _parameters(document, "the request")
    priority, timeout = schedule_of(parameters)
    _flag("binary_data_output", parameters)
    return InferRequest(
        name,
        _inputs(document, body[size:]),
        version,
        _text(document, "id", "the request", default=""),
        tuple(_output(each) for each in _objects(document, "outputs")),
        priority,
        timeout,
        parameters,
    )


def write_response(response: InferResponse, request: InferRequest) -> tuple[list[Buffer], int | None]:
    """An answer as the request wants it.

    Returns:
        the parts of the body, and how many bytes of it are JSON; None when all of it is.

    Raises:
        ContractMismatch: an output has no JSON form (FP16, NaN, infinity) and was not asked for as bytes.
    """
    blobs: list[Buffer] = []
    outputs = [_written(each, blobs, binary=as_bytes(request, each.name)) for each in response.outputs]
    head = to_json(
        {
            **({"id": response.id} if response.id else {}),
            "model_name": response.model_name,
            "model_version": response.model_version,
            **({"parameters": response.parameters} if response.parameters else {}),
            "outputs": outputs,
        }
    )
    binary = any("data" not in each for each in outputs)
    return [head, *blobs], len(head) if binary else None


def as_bytes(request: InferRequest, name: str) -> bool:
    """Whether the request wants this output as bytes; what it says of the output itself counts most."""
    told = next((each.binary for each in request.outputs if each.name == name), None)
    return request.parameters.get("binary_data_output") is True if told is None else told


def json_values(output: InferOutput) -> Any:
    """A tensor's values in row-major order, for JSON.

    Raises:
        ContractMismatch: it has no JSON form.
    """
    data = output.data
    if not isinstance(data, np.ndarray):
        return [bytes(each).decode() for each in data]
    lost = output.datatype if output.datatype in WITHOUT_JSON else None
    if lost is None and data.dtype.kind == "f" and not np.isfinite(data).all():
        lost = "NaN or infinity"
    if lost is not None:
        what = f"{lost} has no form in JSON; ask for it with binary_data"
        raise mismatch(output.name, what, expected="binary_data: true", got="JSON", side="output")
    return np.ascontiguousarray(data).reshape(-1)


def _raw_request(card: ModelCard, name: str, version: str | None, body: memoryview) -> InferRequest:
    """The whole body is the model's one input, of one row; every output comes back as bytes."""
    if len(card.inputs) > 1:
        names = [spec.name for spec in card.inputs]
        raise InvalidRequest(f"the model has the inputs {', '.join(names)}; a raw request holds just one")
    spec = card.inputs[0]
    datatype = datatype_of(spec.dtype)
    shape = list(open_shape(spec))
    if shape != list(spec.shape) or shape[:1] == [ANY]:
        shape[0] = 1
    if shape.count(ANY) > 1:
        what = f"shape {shape} leaves more than one size open, which raw bytes do not tell"
        raise mismatch(spec.name, what, expected="one open size at most", got=shape.count(ANY))
    if ANY in shape:
        fixed = math.prod(each for each in shape if each != ANY) * NUMPY[datatype].itemsize
        shape[shape.index(ANY)] = len(body) // fixed
    tensor = input_of_buffer(spec.name, datatype, shape, body)
    return InferRequest(name, (tensor,), version, parameters={"binary_data_output": True})


def _inputs(document: dict[str, Any], rest: memoryview) -> tuple[InferInput, ...]:
    found: list[InferInput] = []
    entries = _objects(document, "inputs")
    if not entries:
        raise InvalidRequest("the request has no inputs: expected a list of tensors in `inputs`")
    last = None
    for entry in entries:
        tensor, rest, binary = _input(entry, rest)
        last = tensor.name if binary else last
        found.append(tensor)
    if len(rest) and last is None:
        raise InvalidRequest(f"{len(rest)} bytes follow the JSON, and no input says binary_data_size")
    if len(rest) and last is not None:
        what = f"{len(rest)} bytes are left behind the last binary input"
        raise mismatch(last, what, expected="binary_data_size of all of them", got="less")
    return tuple(found)


def _input(entry: dict[str, Any], rest: memoryview) -> tuple[InferInput, memoryview, bool]:
    """One input, what follows its bytes, and whether it has any."""
    name = _text(entry, "name", "an input")
    datatype = _text(entry, "datatype", f"input {quoted(name)}")
    shape = entry.get("shape")
    if not isinstance(shape, list):
        raise mismatch(name, "its shape is no list", expected="a list of sizes", got=type(shape).__name__)
    parameters = _parameters(entry, f"input {quoted(name)}")
    refuse_shared_memory(name, parameters)
    size = parameters.get("binary_data_size")
    if size is None:
        data = entry.get("data")
        if not isinstance(data, list):
            expected = "a list in `data`, or binary_data_size"
            raise mismatch(name, "it has no data", expected=expected, got=type(data).__name__)
        return input_of_values(name, datatype, shape, data), rest, False
    if "data" in entry:
        raise mismatch(name, "it has both data and binary_data_size", expected="one of them", got="both")
    if type(size) is not int or not 0 <= size <= len(rest):
        what = f"binary_data_size is {quoted(str(size))} and {len(rest)} bytes are left"
        raise mismatch(name, what, expected=f"0 to {len(rest)}", got=quoted(str(size)))
    return input_of_buffer(name, datatype, shape, rest[:size]), rest[size:], True


def _output(entry: dict[str, Any]) -> RequestedOutput:
    name = _text(entry, "name", "an output")
    return requested_output(name, _parameters(entry, f"output {quoted(name)}"))


def _written(output: InferOutput, blobs: list[Buffer], *, binary: bool) -> dict[str, Any]:
    """The JSON of an output; its bytes, where it goes as bytes, join the blobs."""
    head = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
    if not binary:
        return {**head, "data": json_values(output)}
    blob = raw_bytes(output)
    blobs.append(blob)
    return {**head, "parameters": {"binary_data_size": len(blob)}}


def _objects(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = document.get(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidRequest(f"`{key}` is no list of objects")
    return found


def _text(entry: dict[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where} has no text in `{key}`")
    return value


def _parameters(entry: dict[str, Any], where: str) -> Parameters:
    found = entry.get("parameters", {})
    if not isinstance(found, dict) or any(isinstance(each, list | dict) for each in found.values()):
        raise InvalidRequest(f"the parameters of {where} are no object of texts, numbers and booleans")
    return found


def _flag(name: str, parameters: Parameters) -> None:
    if not isinstance(parameters.get(name, False), bool):
        raise InvalidRequest(f"{name} is {quoted(str(parameters[name]))}: expected true or false")
