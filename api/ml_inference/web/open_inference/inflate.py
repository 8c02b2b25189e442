"""Compressed bodies, inflated within bounds."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from ml_inference.errors import InvalidRequest, TooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

_WINDOWS: Final[Mapping[str, int]] = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
ENCODINGS: Final = tuple(_WINDOWS)
"""Content codings that are undone (RFC 9110 §8.4.1); `deflate` is the zlib format, as it says there."""


def inflate(body: bytes | bytearray | memoryview, encoding: str, limit: int) -> bytes:
    """The body as it was before its encoding.

    Args:
        body: one whole stream.
        encoding: one of `ENCODINGS`.
        limit: bytes of the result at most; no more are ever made.

    Raises:
        TooLarge: the result would be longer.
        InvalidRequest: the stream is damaged, cut off, or has something behind it.
    """
    engine = zlib.decompressobj(_WINDOWS[encoding])
    try:
        content = engine.decompress(body, limit + 1)
    except zlib.error:
        raise InvalidRequest(
            f"the body says Content-Encoding: {encoding} and is damaged or not that"
        ) from None
    if len(content) > limit:
        raise TooLarge(
            f"the body inflates to more than {limit} bytes, the most this service accepts (MAX_BODY_BYTES)"
        )
    if not engine.eof or engine.unused_data:
        raise InvalidRequest(
            f"the body is not one whole {encoding} stream: it is cut off, or something follows it"
        )
    return content
