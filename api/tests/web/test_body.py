"""Bodies: the cap, the common bound, the deadline, framing that lies, clients that leave."""

from __future__ import annotations

import asyncio
import time

import pytest
from starlette.datastructures import Headers

from ml_inference.errors import ClientGone, InvalidRequest, Overloaded, TooLarge
from ml_inference.web.body import Uploads, read_body, until_done
from ml_inference.web.errors import BodyTooSlow, UnsupportedEncoding

pytestmark = pytest.mark.anyio


class Wire:
    """What a server hands an application: the given chunks, then silence or the end of the connection."""

    def __init__(self, *chunks, complete=True, then="silence"):
        last = len(chunks) - 1
        self.messages = [
            {"type": "http.request", "body": chunk, "more_body": not complete or number < last}
            for number, chunk in enumerate(chunks)
        ]
        self.then = then
        self.read = 0

    async def __call__(self):
        if self.messages:
            self.read += 1
            return self.messages.pop(0)
        if self.then == "silence":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}


async def read(wire, *, limit=100, seconds=5.0, uploads=None, encodings=(), lead=0, **headers):
    uploads = uploads or Uploads(1000)
    with uploads.reservation() as room:
        fields = Headers({name.replace("_", "-"): value for name, value in headers.items()})
        given = {"limit": limit, "deadline": time.monotonic() + seconds, "room": room}
        return bytes(await read_body(wire, fields, **given, encodings=encodings, lead=lead))


async def test_chunks_are_joined():
    assert await read(Wire(b"ab", b"", b"cd")) == b"abcd"
    assert await read(Wire(b"abcd"), content_length="4", content_encoding="identity") == b"abcd"


async def test_an_encoding_that_the_caller_undoes_is_left_to_it():
    assert await read(Wire(b"\x1f\x8b"), encodings=("gzip",), content_encoding=" GZip ") == b"\x1f\x8b"
    with pytest.raises(UnsupportedEncoding, match="gzip"):
        await read(Wire(b"x"), encodings=("gzip",), content_encoding="br")


async def test_room_before_the_body_counts_for_nothing():
    uploads = Uploads(4)
    assert (
        await read(Wire(b"ab", b"cd"), limit=4, lead=3, uploads=uploads, content_length="4") == b"\0\0\0abcd"
    )
    with pytest.raises(TooLarge):
        await read(Wire(b"ab", b"cde"), limit=4, lead=3)


async def test_a_declared_length_over_the_cap_is_refused_before_anything_is_read():
    wire = Wire(b"x" * 101)
    with pytest.raises(TooLarge, match="100 bytes"):
        await read(wire, content_length="101")
    assert wire.read == 0


async def test_a_declared_length_of_many_digits_is_too_large_like_any_other():
    with pytest.raises(TooLarge):
        await read(Wire(b""), content_length="9" * 5000)


async def test_a_chunked_body_is_refused_as_soon_as_it_passes_the_cap():
    wire = Wire(*[b"x" * 40] * 50)
    with pytest.raises(TooLarge):
        await read(wire)
    assert wire.read == 3


async def test_a_body_of_exactly_the_cap_is_read():
    assert len(await read(Wire(b"x" * 100))) == 100


async def test_a_slow_body_ends_at_the_deadline():
    started = time.monotonic()
    with pytest.raises(BodyTooSlow):
        await read(Wire(b"x", complete=False), seconds=0.05)
    assert time.monotonic() - started < 2


async def test_a_client_that_leaves_mid_body_is_gone():
    with pytest.raises(ClientGone):
        await read(Wire(b"x", complete=False, then="gone"))


@pytest.mark.parametrize("body", [b"", b"abc", b"abcde"])
async def test_a_content_length_that_lies_is_refused(body):
    with pytest.raises(InvalidRequest, match="4 bytes"):
        await read(Wire(body), content_length="4")


@pytest.mark.parametrize("length", ["-1", "1_0", "+4", "four", "\u00b2", ""])
async def test_a_content_length_that_is_no_number_is_refused(length):
    with pytest.raises(InvalidRequest, match="ambiguous"):
        await read(Wire(b"abcd"), content_length=length)


async def test_two_framings_at_once_are_refused():
    with pytest.raises(InvalidRequest, match="ambiguous"):
        await read(Wire(b"abcd"), content_length="4", transfer_encoding="chunked")


async def test_a_compressed_body_is_refused():
    with pytest.raises(UnsupportedEncoding):
        await read(Wire(b"\x1f\x8b"), content_encoding="gzip")


async def test_all_bodies_together_are_bounded_and_give_their_room_back():
    uploads = Uploads(100)
    with uploads.reservation() as first:
        first.grow_to(80)
        with pytest.raises(Overloaded):
            await read(Wire(b"x"), uploads=uploads, content_length="30")
        with pytest.raises(Overloaded):
            await read(Wire(b"x" * 15, b"x" * 15), uploads=uploads)
        assert await read(Wire(b"x" * 20), uploads=uploads) == b"x" * 20
        assert uploads.held == 80
    assert uploads.held == 0


async def test_a_client_that_only_announces_a_body_keeps_nobody_out():
    uploads = Uploads(100)
    silent = asyncio.create_task(read(Wire(b"x", complete=False), uploads=uploads, content_length="90"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await read(Wire(b"x" * 80), uploads=uploads, content_length="80") == b"x" * 80
    silent.cancel()


async def test_work_is_cancelled_when_its_client_leaves():
    cancelled = asyncio.Event()

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(ClientGone):
        await until_done(asyncio.create_task(work()), Wire(then="gone"))
    assert cancelled.is_set()


async def test_work_that_ends_first_gives_its_result_or_its_error():
    async def work(value):
        await asyncio.sleep(0)
        if isinstance(value, Exception):
            raise value
        return value

    assert await until_done(asyncio.create_task(work(7)), Wire()) == 7
    with pytest.raises(KeyError):
        await until_done(asyncio.create_task(work(KeyError("x"))), Wire())


async def test_cancelling_the_handler_cancels_its_work():
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def work():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def handler():
        await until_done(asyncio.create_task(work()), Wire())

    task = asyncio.create_task(handler())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
