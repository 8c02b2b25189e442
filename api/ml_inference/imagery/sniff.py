"""Which format the bytes are, by their first bytes and nothing else."""

from __future__ import annotations

from enum import StrEnum

from ml_inference.errors import Undecodable


class Format(StrEnum):
    """The formats that are read, by the names people know them by."""

    GEOTIFF = "GeoTIFF"
    JPEG2000 = "JPEG 2000"
    PNG = "PNG"
    JPEG = "JPEG"
    NPY = ".npy"


_MAGIC = (
    (b"II*\0", Format.GEOTIFF),
    (b"MM\0*", Format.GEOTIFF),
    (b"II+\0", Format.GEOTIFF),  # BigTIFF
    (b"MM\0+", Format.GEOTIFF),
    (b"\x89PNG\r\n\x1a\n", Format.PNG),
    (b"\xff\xd8\xff", Format.JPEG),
    (b"\0\0\0\x0cjP  \r\n\x87\n", Format.JPEG2000),
    (b"\xff\x4f\xff\x51", Format.JPEG2000),  # a bare codestream
    (b"\x93NUMPY", Format.NPY),
)


def sniff(content: bytes, media_type: str | None = None) -> Format:
    """Tell the format; `media_type`, as the client declared it, only makes the message clearer.

    Raises:
        Undecodable: none of the formats, or no bytes at all.
    """
    for magic, known in _MAGIC:
        if content.startswith(magic):
            return known
    accepted = ", ".join(Format)
    if not content:
        raise Undecodable(f"The image is empty: no bytes came. Accepted are {accepted}.")
    said = f", sent as {_printable(media_type)}," if media_type else ""
    raise Undecodable(
        f"The {len(content)} bytes{said} are not an image of a format read here. Accepted are {accepted}."
    )


def _printable(text: str) -> str:
    return "".join(c for c in text[:80] if c.isascii() and c.isprintable())
