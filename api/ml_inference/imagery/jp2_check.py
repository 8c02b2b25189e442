"""What a JPEG 2000 declares, read before its decoder makes room for it (ISO/IEC 15444-1, annexes A, B and I)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_inference.errors import CorruptImage, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ml_inference.imagery.limits import DecodeLimits

MAX_TILE_COMPONENTS = 1 << 14
"""Tiles times bands."""
MAX_CODE_BLOCKS = 1 << 19
"""A decoder makes room for each before it reads the first; 64 x 64 samples each are usual, 4 x 4 are legal."""
MAX_LAYERED = 1 << 25
"""Code blocks times quality layers."""
MAX_SEGMENTS = 1 << 16

_SIZE = struct.Struct(">4sHHIIIIIIIIH")
_BEGINNING = b"\xff\x4f\xff\x51"  # start of codestream, and the marker of the size that must follow
_COD, _COC, _TILE_PART, _DATA, _END = 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_LONG, _TO_THE_END = 1, 0
_LARGEST = 15  # exponent of the precinct that holds everything
_FEW = 257  # from so many bands on, a band's number takes two bytes


@dataclass(frozen=True, slots=True)
class _Grid:
    """The tiles of an image: how many, of what width and height, with how many bands."""

    tiles: int
    width: int
    height: int
    bands: int

    def code_blocks(self, style: bytes) -> int:
        """Count code blocks for a coding style: levels, block exponents, style, transform, maybe precincts (A.6.1)."""
        levels, across, down = style[0], style[1] + 2, style[2] + 2
        count = 0
        for resolution in range(levels + 1):
            precinct = style[5 + resolution] if len(style) > 5 + resolution else _LARGEST * 17
            smaller = levels - resolution
            columns = _ceil(_ceil(self.width, 1 << smaller), 1 << min(across, precinct & 15))
            rows = _ceil(_ceil(self.height, 1 << smaller), 1 << min(down, precinct >> 4))
            count += columns * rows
        return count * self.tiles * self.bands


def check_jp2(content: bytes, limits: DecodeLimits) -> None:
    """Check the declared size, number of bands, and into how many pieces the image is cut.

    Raises:
        CorruptImage: there is no codestream, or its headers cannot be read.
        ContractMismatch, TooLarge: by what is declared.
    """
    try:
        start = 0 if content.startswith(_BEGINNING) else _find_codestream(content)
        grid = _read_size(content, start, limits)
        layers = 1
        for marker, body in _segments(content, start + 4):
            if marker == _COD:
                layers = max(layers, int.from_bytes(body[2:4]))
                style = body[5:]
            elif marker == _COC:
                style = body[2 if grid.bands < _FEW else 3 :]
            else:
                continue
            count = grid.code_blocks(style)
            if count > MAX_CODE_BLOCKS or count * layers > MAX_LAYERED:
                raise TooLarge(
                    f"The JPEG 2000 is cut into {count} blocks in {layers} layers: more than accepted."
                )
    except (struct.error, IndexError):
        raise _damaged() from None


def _ceil(number: int, divisor: int) -> int:
    return -(-number // divisor)


def _find_codestream(content: bytes) -> int:
    position = 0
    while True:
        length, kind = struct.unpack_from(">I4s", content, position)
        head = 16 if length == _LONG else 8
        if kind == b"jp2c":
            return position + head
        if length == _LONG:
            (length,) = struct.unpack_from(">Q", content, position + 8)
        if length == _TO_THE_END or length < head:
            raise _damaged()
        position += length


def _read_size(content: bytes, start: int, limits: DecodeLimits) -> _Grid:
    marker, _, _, right, bottom, left, top, wide, high, tile_left, tile_top, bands = _SIZE.unpack_from(
        content, start
    )
    if marker != _BEGINNING or not wide or not high or right < left or bottom < top:
        raise _damaged()
    depth = content[start + _SIZE.size] & 0x7F  # less one; the bit above tells signed from unsigned
    limits.check(right - left, bottom - top, bands, (depth + 8) // 8)
    tiles = _ceil(right - tile_left, wide) * _ceil(bottom - tile_top, high)
    if tiles * bands > MAX_TILE_COMPONENTS:
        raise TooLarge(f"The JPEG 2000 has {tiles} tiles of {bands} bands: more than accepted.")
    return _Grid(tiles, min(wide, right - left), min(high, bottom - top), bands)


def _segments(content: bytes, position: int) -> Iterator[tuple[int, bytes]]:
    """Yield marker segments of the main header and of each tile part's; `position` is that of the size's length."""
    position += int.from_bytes(content[position : position + 2])
    following = 0
    for _ in range(MAX_SEGMENTS):
        if position + 4 > len(content):
            return
        marker, length = struct.unpack_from(">HH", content, position)
        if marker == _END or (marker == _DATA and following <= position):
            return
        if marker == _DATA:
            position = following
            continue
        if marker == _TILE_PART:
            (span,) = struct.unpack_from(">I", content, position + 6)
            following = position + span
        yield marker, content[position + 4 : position + 2 + length]
        position += 2 + length
    raise TooLarge(f"The JPEG 2000 has more than {MAX_SEGMENTS} parts.")


def _damaged() -> CorruptImage:
    return CorruptImage("The JPEG 2000 is damaged or cut off: its headers cannot be read.")
