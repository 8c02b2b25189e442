"""A PNG's own promises: every chunk whole, every checksum right, an end where the file ends (PNG, 3rd ed., section 5)."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_inference.errors import CorruptImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ml_inference.imagery.limits import DecodeLimits

_SIGNATURE = 8
_HEADER = struct.Struct(">IIBB")
_FRAME = 12  # length, kind and checksum around each chunk's data
_GREY = 0
_CHANNELS = {_GREY: 1, 2: 3, 3: 4, 4: 2, 6: 4}  # by colour type; a palette is expanded to colour and alpha


@dataclass(frozen=True, slots=True)
class PngHeader:
    """What matters later of `IHDR`: bits per sample, and whether samples are plain greys."""

    depth: int
    grey: bool


def check_png(content: bytes, limits: DecodeLimits) -> PngHeader:
    """Check a PNG from its first byte to its last chunk.

    Raises:
        CorruptImage: cut off, or a checksum does not fit.
        ContractMismatch, TooLarge: by its declared size.
    """
    header: PngHeader | None = None
    pixels = False
    for kind, start, length in _chunks(content):
        if header is None:
            header = _read_header(content, kind, start, length, limits)
        pixels |= kind == b"IDAT"
        if kind == b"IEND":
            break
    if header is None or not pixels:
        raise CorruptImage("The PNG is damaged: it carries no pixels.")
    return header


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    view = memoryview(content)
    position = _SIGNATURE
    while position + _FRAME <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(content):
            break
        (expected,) = struct.unpack_from(">I", content, end)
        if zlib.crc32(view[position + 4 : end]) != expected:
            raise CorruptImage("The PNG is damaged: the checksum of a part does not fit its bytes.")
        kind = content[position + 4 : start]
        yield kind, start, length
        if kind == b"IEND":
            return
        position = end + 4
    raise CorruptImage("The PNG is cut off: its last bytes are missing.")


def _read_header(content: bytes, kind: bytes, start: int, length: int, limits: DecodeLimits) -> PngHeader:
    if kind != b"IHDR" or length < _HEADER.size:
        raise CorruptImage("The PNG is damaged: it does not begin with its header.")
    width, height, depth, colour = _HEADER.unpack_from(content, start)
    if colour not in _CHANNELS:
        raise CorruptImage("The PNG is damaged: its header names no known colour type.")
    limits.check(width, height, _CHANNELS[colour], 2 if depth > 8 else 1)  # noqa: PLR2004 - samples of 16 bits
    return PngHeader(depth, colour == _GREY)
