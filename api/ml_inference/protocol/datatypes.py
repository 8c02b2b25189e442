"""The protocol's element types, and what stands for each of them in memory."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import DTypeLike, NDArray

type Buffer = bytes | bytearray | memoryview

NUMPY: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Types that numpy has, little-endian as the protocol sends them."""

BYTES: Final = "BYTES"
"""Elements of any length."""
BF16: Final = "BF16"
"""The upper half of an FP32."""
DATATYPES: Final = (*NUMPY, BF16, BYTES)
WITHOUT_JSON: Final = frozenset({"FP16", BF16})
"""Types that travel as bytes only, as the protocol says."""

_NAMES: Final = {dtype.name: name for name, dtype in NUMPY.items()}
_LENGTH: Final = struct.Struct("<I")


def datatype_of(dtype: DTypeLike) -> str:
    """The protocol's word for a numpy type.

    Raises:
        KeyError: the protocol has none.
    """
    return _NAMES[np.dtype(dtype).name]


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """BF16 as FP32: the same values, for a BF16 is the upper 16 bits of an FP32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def split_elements(buffer: memoryview) -> Iterator[memoryview]:
    """The elements of a BYTES tensor, each behind its length (unsigned, 32 bits, little-endian); nothing is copied.

    Raises:
        ValueError: a length leads beyond the end.
    """
    at = 0
    while at < len(buffer):
        if len(buffer) - at < _LENGTH.size:
            raise ValueError(f"{len(buffer) - at} bytes are left where the 4 of a length should stand")
        (length,) = _LENGTH.unpack_from(buffer, at)
        at += _LENGTH.size
        if length > len(buffer) - at:
            raise ValueError(f"an element of {length} bytes is announced where {len(buffer) - at} are left")
        yield buffer[at : at + length]
        at += length


def join_elements(elements: Iterable[Buffer]) -> bytes:
    """A BYTES tensor as it travels."""
    return b"".join(part for each in elements for part in (_LENGTH.pack(len(each)), each))
