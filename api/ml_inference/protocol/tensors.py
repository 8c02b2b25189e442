"""Tensors, requests and answers as frozen values; and how bytes or numbers of a stranger become a tensor.

A shape is a claim until it has been held against the bytes: sizes are computed in Python's own integers, which do not
overflow, and every error names the tensor, what was expected and what came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml_inference.errors import ContractMismatch
from ml_inference.protocol.datatypes import (
    BF16,
    BYTES,
    DATATYPES,
    NUMPY,
    WITHOUT_JSON,
    join_elements,
    split_elements,
    widened,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from ml_inference.protocol.datatypes import Buffer

MAX_RANK: Final = 8
MAX_DIMENSION: Final = 2**31 - 1
MAX_ELEMENTS: Final = 2**59
"""What numpy can address, even of a tensor that has a dimension of 0 and so no elements at all."""
LONGEST_NAME: Final = 64
"""Characters of a stranger's name that are echoed."""

type Shape = tuple[int, ...]
type Parameters = Mapping[str, Any]
"""Values are texts, numbers or booleans."""


@dataclass(frozen=True, slots=True, eq=False)
class InferInput:
    """A tensor of a request.

    Attributes:
        datatype: as sent, one of `DATATYPES`; the data of BF16 is float32 already.
        data: an array of that type and shape, or the elements of a BYTES tensor in row-major order.
    """

    name: str
    datatype: str
    shape: Shape
    data: NDArray[Any] | Sequence[Buffer]


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """A tensor that a request wants back.

    Attributes:
        binary: REST: as bytes or in JSON; None leaves it to the request.
        classification: the so many highest values as `score:index:label`; 0 for the tensor itself.
    """

    name: str
    binary: bool | None = None
    classification: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """A request, well-formed; `checks` holds it against a card.

    Attributes:
        model_version: None is the newest.
        outputs: empty means all.
        priority: 1 is the highest; 0 is the model's default.
        timeout_us: microseconds that the whole request may take; None leaves it to the service.
    """

    model_name: str
    inputs: tuple[InferInput, ...]
    model_version: str | None = None
    id: str = ""
    outputs: tuple[RequestedOutput, ...] = ()
    priority: int = 0
    timeout_us: int | None = None
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class InferOutput:
    """A tensor of an answer; see `InferInput`."""

    name: str
    datatype: str
    shape: Shape
    data: NDArray[Any] | Sequence[Buffer]


@dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """An answer.

    Attributes:
        seconds: what it took, by phase.
    """

    model_name: str
    model_version: str
    outputs: tuple[InferOutput, ...]
    id: str = ""
    parameters: Parameters = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


def input_of_buffer(name: str, datatype: str, shape: Iterable[object], buffer: memoryview) -> InferInput:
    """A tensor from its bytes.

    Args:
        name: of the tensor.
        datatype: any text.
        shape: any objects.
        buffer: contiguous bytes; the tensor is a view of them.

    Raises:
        ContractMismatch: at `inputs.NAME`: no such type, no legal shape, or another number of bytes.
    """
    legal = checked_shape(name, shape)
    if checked_datatype(name, datatype) == BYTES:
        return InferInput(name, datatype, legal, _elements(name, legal, buffer))
    return InferInput(name, datatype, legal, array_of(name, datatype, legal, buffer))


def input_of_values(
    name: str, datatype: str, shape: Iterable[object], values: Sequence[object]
) -> InferInput:
    """A tensor from a list of values in row-major order, or from lists nested as its shape says.

    Raises:
        ContractMismatch: at `inputs.NAME`: as for bytes, or values of another type or beyond the type's range.
    """
    legal = checked_shape(name, shape)
    if checked_datatype(name, datatype) in WITHOUT_JSON:
        raise mismatch(name, f"{datatype} travels as bytes only", expected="binary data", got="values")
    flat = _flat(name, legal, values)
    if datatype == BYTES:
        return InferInput(name, datatype, legal, _texts(name, flat))
    return InferInput(name, datatype, legal, _numbers(name, datatype, flat).reshape(legal))


def array_of(name: str, datatype: str, shape: Shape, buffer: memoryview) -> NDArray[Any]:
    """An array of any type but BYTES: a view of the buffer, copied only where its elements would not be aligned.

    Raises:
        ContractMismatch: the buffer has not the bytes that the shape takes, or a BOOL is neither 0 nor 1.
    """
    dtype = NUMPY["UINT16" if datatype == BF16 else datatype]
    size = math.prod(shape) * dtype.itemsize
    if size != buffer.nbytes:
        what = f"shape {list(shape)} of {datatype} takes {size} bytes and {buffer.nbytes} came"
        raise mismatch(name, what, expected=f"{size} bytes", got=f"{buffer.nbytes} bytes")
    array = np.frombuffer(buffer, dtype).reshape(shape)
    if datatype == "BOOL" and array.view(np.uint8).max(initial=0) > 1:
        raise mismatch(name, "a BOOL is one byte, 0 or 1", expected="0 or 1", got="another byte")
    if datatype == BF16:
        return widened(array)
    return array if array.flags.aligned else array.copy()


def checked_shape(name: str, shape: Iterable[object]) -> Shape:
    """The shape, if it can be one.

    Raises:
        ContractMismatch: more than 8 dimensions, or one that is no whole number from 0 to 2³¹-1.
    """
    dimensions = tuple(shape)
    if len(dimensions) > MAX_RANK:
        raise mismatch(
            name,
            f"its shape has {len(dimensions)} dimensions",
            expected=f"{MAX_RANK} at most",
            got=len(dimensions),
        )
    legal = tuple(each for each in dimensions if type(each) is int and 0 <= each <= MAX_DIMENSION)
    if len(legal) != len(dimensions):
        got = [each if isinstance(each, int | float) else str(each)[:LONGEST_NAME] for each in dimensions]
        expected = f"whole numbers from 0 to {MAX_DIMENSION}"
        raise mismatch(name, f"its shape {_brief(got)} is no shape", expected=expected, got=_brief(got))
    if math.prod(each or 1 for each in legal) > MAX_ELEMENTS:
        what = f"its shape {list(legal)} is larger than memory can be"
        raise mismatch(name, what, expected=f"{MAX_ELEMENTS} elements at most", got=math.prod(legal))
    return legal


def checked_datatype(name: str, datatype: str) -> str:
    """The datatype, if there is such a one.

    Raises:
        ContractMismatch: there is none.
    """
    if datatype not in DATATYPES:
        raise mismatch(
            name, f"there is no datatype {quoted(datatype)}", expected=list(DATATYPES), got=datatype
        )
    return datatype


def raw_bytes(output: InferOutput) -> memoryview:
    """A tensor as it travels: little-endian, row-major; a view of the array where it lies so already."""
    if not isinstance(output.data, np.ndarray):
        return memoryview(join_elements(output.data))
    array = np.ascontiguousarray(output.data, output.data.dtype.newbyteorder("<"))
    return memoryview(array.reshape(-1).view(np.uint8)).cast("B")


def mismatch(name: str, what: str, *, expected: Any, got: Any, side: str = "input") -> ContractMismatch:
    """The error that names a tensor."""
    short = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…"
    message = f"{side} {quoted(name)}: {what}: expected {_said(expected)}, got {_said(got)}"
    return ContractMismatch(message, field=f"{side}s.{short}", expected=expected, got=got)


def quoted(name: str) -> str:
    """A stranger's word in a sentence of ours."""
    return repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…")


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)[:200]


def _brief(values: Sequence[object]) -> str:
    return str([str(each)[:24] if isinstance(each, str) else each for each in values])[:200]


def _elements(name: str, shape: Shape, buffer: memoryview) -> tuple[memoryview, ...]:
    try:
        elements = tuple(split_elements(buffer))
    except ValueError as error:
        raise mismatch(name, str(error), expected="elements behind their lengths", got="others") from None
    if len(elements) != math.prod(shape):
        what = f"shape {list(shape)} has another number of elements than the data"
        raise mismatch(name, what, expected=math.prod(shape), got=len(elements))
    return elements


def _flat(name: str, shape: Shape, values: Sequence[object]) -> Sequence[object]:
    """Values in row-major order; nested ones must be nested exactly as the shape says."""
    count = math.prod(shape)
    if not any(type(each) is list for each in values[:1]):
        if len(values) != count:
            what = f"shape {list(shape)} takes {count} values and {len(values)} came"
            raise mismatch(name, what, expected=count, got=len(values))
        return values
    level: list[Any] = [values]
    for length in shape:
        if not all(type(each) is list and len(each) == length for each in level):
            what = f"its lists are not nested as shape {list(shape)} says"
            raise mismatch(name, what, expected=f"lists of {length}", got="others (ragged?)")
        level = list(chain.from_iterable(level))
    return level


def _texts(name: str, values: Sequence[object]) -> tuple[bytes, ...]:
    if not set(map(type, values)) <= {str, bytes}:
        raise mismatch(name, "an element is no text", expected="texts", got=_kinds(values))
    return tuple(each.encode() if isinstance(each, str) else each for each in values)  # type: ignore[misc]


def _numbers(name: str, datatype: str, values: Sequence[Any]) -> NDArray[Any]:
    dtype = NUMPY[datatype]
    kinds: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}
    legal = kinds.get(dtype.kind, {int})
    if not set(map(type, values)) <= legal:
        raise mismatch(name, "a value has another type", expected=datatype, got=_kinds(values))
    if dtype.kind in "iu" and values:
        bounds = np.iinfo(dtype)
        if min(values) < bounds.min or max(values) > bounds.max:
            raise _out_of_range(name, datatype)
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype)
    except OverflowError:
        raise _out_of_range(name, datatype) from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise _out_of_range(name, datatype)
    return array


def _out_of_range(name: str, datatype: str) -> ContractMismatch:
    return mismatch(
        name, f"a value does not fit {datatype}", expected=datatype, got="a value beyond its range"
    )


def _kinds(values: Sequence[object]) -> list[str]:
    words = {list: "list", dict: "object", str: "text", bytes: "bytes", bool: "boolean", int: "integer"}
    words |= {float: "fraction", type(None): "null"}
    return sorted({words.get(each, "other") for each in set(map(type, values))})
