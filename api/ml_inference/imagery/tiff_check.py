"""What a TIFF declares in all of its directories, read before anything is allocated for it (TIFF 6.0, section 2)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ml_inference.errors import CorruptImage, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ml_inference.imagery.limits import DecodeLimits

MAX_PAGES = 128
"""Directories in one file: the image, its overviews and their masks are some twenty."""

_WIDTH, _HEIGHT, _BITS, _SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 284, 322, 323
_GDAL_METADATA = 42112
_WANTED = frozenset({_WIDTH, _HEIGHT, _BITS, _SAMPLES, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _GDAL_METADATA})
_SEPARATE = 2
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Of one value, by its type; values of other types are ignored, as readers must."""

type _Tags = dict[int, int]
"""First value of each wanted tag; 0 for one that is no number."""


class _Layout:
    """How directories are laid out: by byte order, and for classic (32-bit) or big (64-bit) files."""

    def __init__(self, content: bytes) -> None:
        self.order = "<" if content[:2] == b"II" else ">"
        big = content[2:4] in {b"+\0", b"\0+"}
        self.first = 8 if big else 4
        self.count = struct.Struct(f"{self.order}{'Q' if big else 'H'}")
        self.entry = struct.Struct(f"{self.order}HH{'Q8s' if big else 'I4s'}")
        self.offset = struct.Struct(f"{self.order}{'Q' if big else 'I'}")


def check_tiff(content: bytes, limits: DecodeLimits) -> bool:
    """Check the declared size of every image in the file, and that everything said of it lies in the file.

    A reader that goes on without a value that is cut off would lose the file's place, band names or mask in silence.

    Returns:
        Whether the first image carries GDAL's metadata, where band descriptions are kept.

    Raises:
        CorruptImage: a directory, or a value of one, lies beyond the end of the file.
        ContractMismatch, TooLarge: by a declared size, or by the number of directories.
    """
    try:
        pages = list(_pages(content, limits))
    except (struct.error, OverflowError):
        raise _cut_off() from None
    if not pages:
        raise CorruptImage("The GeoTIFF is damaged: it holds no image.")
    return _GDAL_METADATA in pages[0]


def _cut_off() -> CorruptImage:
    return CorruptImage("The GeoTIFF is damaged or cut off: it refers to bytes beyond its end.")


def _pages(content: bytes, limits: DecodeLimits) -> Iterator[_Tags]:
    layout = _Layout(content)
    position = layout.first
    for _ in range(MAX_PAGES):
        (start,) = layout.offset.unpack_from(content, position)
        if not start:
            return
        (entries,) = layout.count.unpack_from(content, start)
        body = start + layout.count.size
        position = body + entries * layout.entry.size
        if position > len(content):
            raise _cut_off()
        tags = _tags(content, layout, memoryview(content)[body:position])
        _check_page(tags, limits)
        yield tags
    raise TooLarge(f"The GeoTIFF holds {MAX_PAGES} images or more in one file.")


def _tags(content: bytes, layout: _Layout, entries: memoryview) -> _Tags:
    tags: _Tags = {}
    for tag, kind, count, value in layout.entry.iter_unpack(entries):
        size = _BYTES.get(kind, 0) * count
        source, where = content, 0
        if size <= len(value):
            source = value
        else:
            (where,) = layout.offset.unpack(value)
            if where + size > len(content):
                raise _cut_off()
        if tag in _WANTED:
            number = _NUMBERS.get(kind) if count else None
            tags[tag] = struct.unpack_from(layout.order + number, source, where)[0] if number else 0
    return tags


def _check_page(tags: _Tags, limits: DecodeLimits) -> None:
    width, height = tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)
    samples, itemsize = tags.get(_SAMPLES, 1), (tags.get(_BITS, 1) + 7) // 8
    limits.check(width, height, samples, itemsize)
    tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0)
    together = 1 if tags.get(_PLANAR) == _SEPARATE else samples
    limits.check_block(tile * itemsize * together, width * height * itemsize * samples)
