"""A request's body, read with a cap on its size, a bound on all bodies together, and a deadline."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ml_inference.errors import ClientGone, InvalidRequest, Overloaded, TooLarge
from ml_inference.web.errors import BodyTooSlow, UnsupportedEncoding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from starlette.datastructures import Headers
    from starlette.types import Receive


MOST_DIGITS: Final = 19
"""Of a `Content-Length`; the first so many are over any cap already."""


class Uploads:
    """Bytes of bodies that are held now, of all requests together; never more than `limit`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    @contextmanager
    def reservation(self) -> Iterator[Reservation]:
        """Room for one body, given back at the end."""
        mine = Reservation(self)
        try:
            yield mine
        finally:
            self.held -= mine.size


class Reservation:
    """What one body holds of the common room."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self.size = 0

    def expect(self, size: int) -> None:
        """Ask for room without holding it: what is only announced must not keep others out.

        Raises:
            Overloaded: the bodies of other requests leave no room.
        """
        if self._uploads.held + size - self.size > self._uploads.limit:
            raise Overloaded("uploads of other requests fill the memory set aside for bodies; try again soon")

    def grow_to(self, size: int) -> None:
        """Hold `size` bytes.

        Raises:
            Overloaded: as `expect` says.
        """
        self.expect(size)
        self._uploads.held += size - self.size
        self.size = size


async def read_body(
    receive: Receive,
    headers: Headers,
    *,
    limit: int,
    deadline: float,
    room: Reservation,
    encodings: Collection[str] = (),
    lead: int = 0,
) -> bytearray:
    """The whole body, still in its `Content-Encoding`.

    Args:
        receive: the request's; untouched while a `Content-Length` alone is reason to refuse.
        headers: of the request.
        limit: bytes at most.
        deadline: `time.monotonic()` seconds.
        room: of the common bound.
        encodings: of the content that the caller undoes.
        lead: empty bytes before the body, for what lies further on in it to be aligned in memory.

    Raises:
        TooLarge: more than `limit`, known from `Content-Length` or as soon as it is passed.
        Overloaded: no room among the bodies of other requests.
        BodyTooSlow: not complete at the deadline.
        InvalidRequest, UnsupportedEncoding: framing that cannot be trusted, or another `Content-Encoding`.
        ClientGone: the connection ended first.
    """
    _refuse_encoding(headers, encodings)
    declared = _declared(headers)
    if declared is not None:
        _cap(declared, limit)
        room.expect(declared)
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            body = await _collect(receive, limit, room, lead)
    except TimeoutError:
        raise BodyTooSlow("the body had not come in full when the request's time was over") from None
    if declared is not None and len(body) - lead != declared:
        raise InvalidRequest(f"Content-Length says {declared} bytes, but {len(body) - lead} came")
    return body


async def until_done[Result](work: asyncio.Task[Result], receive: Receive) -> Result:
    """Await the work while watching the client; the work is cancelled when the client leaves.

    Raises:
        ClientGone: the client left first.
    """
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientGone("the client left before its answer was there")
        return work.result()
    finally:
        work.cancel()
        watcher.cancel()
        await asyncio.gather(work, watcher, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def content_encoding(headers: Headers) -> str:
    """How the body is encoded; empty when it is not."""
    encoding = headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


async def _collect(receive: Receive, limit: int, room: Reservation, lead: int) -> bytearray:
    body = bytearray(lead)
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the connection ended before the body did")
        body += message.get("body", b"")
        _cap(len(body) - lead, limit)
        room.grow_to(len(body) - lead)
        more = message.get("more_body", False)
    return body


def _cap(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(
            f"the body has more than {limit} bytes, the most this service accepts (MAX_BODY_BYTES)"
        )


def _refuse_encoding(headers: Headers, encodings: Collection[str]) -> None:
    if content_encoding(headers) not in {"", *encodings}:
        taken = f"expected none, or {' or '.join(encodings)}" if encodings else "send the image's own bytes"
        raise UnsupportedEncoding(f"this Content-Encoding is not undone here: {taken}")


def _declared(headers: Headers) -> int | None:
    """The body's length as declared; None for a chunked body."""
    length = headers.get("content-length")
    if length is None:
        return None
    if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
        raise InvalidRequest("the length of the body is ambiguous: expected one Content-Length, or chunks")
    return int(length[:MOST_DIGITS])
