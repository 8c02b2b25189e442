"""NumPy's `.npy` format, read by its published layout (NEP 1) without evaluating or unpickling anything foreign."""

from __future__ import annotations

import ast
import io
import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.raster import Raster
from ml_inference.errors import ContractMismatch, CorruptImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ml_inference.imagery.limits import DecodeLimits

_LENGTH = {1: struct.Struct("<H"), 2: struct.Struct("<I"), 3: struct.Struct("<I")}
_PREFIX = 8  # magic and version
_HEADER_BYTES = 1024  # a plain array's header takes 128
_NUMBER = re.compile(r"[<>|=]([iu][1248]|f[248])")


def decode_npy(content: bytes, limits: DecodeLimits) -> Raster:
    """Read an array `(height, width)` as one band, or `(bands, height, width)`; numbers of any byte order.

    Raises:
        CorruptImage: the header cannot be read, or the bytes are more or fewer than it says.
        ContractMismatch: other than two or three dimensions, or elements that are not plain numbers.
        TooLarge: by the declared size.
    """
    header, start = _header(content)
    dtype = _dtype(header["descr"])
    shape = _shape(header["shape"])
    bands, height, width = shape if len(shape) == 3 else (1, *shape)  # noqa: PLR2004 - two dimensions are one band
    limits.check(width, height, bands, dtype.itemsize)
    expected = bands * height * width * dtype.itemsize
    if len(content) - start != expected:
        raise CorruptImage(
            f"The .npy file carries {len(content) - start} bytes of pixels; its header says {expected}."
        )
    flat = np.frombuffer(content, dtype, offset=start)
    pixels = flat.reshape(shape, order="F" if header["fortran_order"] else "C").reshape(bands, height, width)
    native = np.ascontiguousarray(pixels, dtype.newbyteorder("="))
    return Raster(native, bands=("",) * bands)


def encode_npy(array: NDArray[Any]) -> bytes:
    """Write one array."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """Return the header and where the pixels start."""
    length = _LENGTH.get(content[6]) if len(content) >= _PREFIX else None
    if length is None or len(content) < _PREFIX + length.size:
        raise CorruptImage("The .npy file is damaged: its version is unknown or its header cut off.")
    (size,) = length.unpack_from(content, _PREFIX)
    start = _PREFIX + length.size + size
    text = content[start - size : start]
    if size > _HEADER_BYTES or b"\\" in text:
        raise CorruptImage(
            "The .npy file's header is longer or stranger than that of a plain array of numbers."
        )
    try:
        header = ast.literal_eval(text.decode("ascii"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise CorruptImage("The .npy file is damaged: its header cannot be read.") from error
    fields = {"descr", "fortran_order", "shape"}
    if not isinstance(header, dict) or set(header) != fields or not isinstance(header["fortran_order"], bool):
        raise CorruptImage("The .npy file is damaged: its header lacks descr, fortran_order or shape.")
    return header, start


def _dtype(described: object) -> np.dtype[Any]:
    if isinstance(described, str) and _NUMBER.fullmatch(described):
        return np.dtype(described)
    raise ContractMismatch(
        "The .npy array's elements are not plain integer or floating-point numbers.",
        field="image.dtype",
        expected="integers or floats of 8 to 64 bits",
        got=str(described)[:80],
    )


def _shape(declared: object) -> tuple[int, ...]:
    if not isinstance(declared, tuple) or not all(type(n) is int and n >= 0 for n in declared):
        raise CorruptImage("The .npy file is damaged: its shape is not a list of sizes.")
    if len(declared) in {2, 3}:
        return declared
    raise ContractMismatch(
        f"The .npy array has {len(declared)} dimensions; an image has (height, width) or (bands, height, width).",
        field="image.shape",
        expected="(height, width) or (bands, height, width)",
        got=list(declared[:8]),
    )
