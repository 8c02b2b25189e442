"""What a connection may cost before and after its request: a head without end, a head that never ends, an answer nobody takes."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn

from ml_inference.cli.connection import HEAD_BYTES, Connection

pytestmark = pytest.mark.anyio

LARGE = 64 << 20


class Hasty(Connection):
    """The same with less patience."""

    head_seconds = stall_seconds = 0.2


async def app(scope, receive, send):
    """Answers `/` with two bytes, `/slow` after half a second, `/large` with more than any socket buffers, `/wait` never."""
    while scope["path"] == "/wait" and (await receive())["type"] != "http.disconnect":
        pass
    await asyncio.sleep(0.5 if scope["path"] == "/slow" else 0)
    body = bytes(LARGE) if scope["path"] == "/large" else b"ok"
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(protocol):
    """A server on loopback: the server and its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield server, listener.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 20)


@asynccontextmanager
async def speaking(port):
    """A connection: reader and writer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_a_head_of_any_size_is_cut_at_its_bound():
    async with serving(Connection) as (_, port), speaking(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * HEAD_BYTES)
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.startswith(b"HTTP/1.1 400")
    assert str(HEAD_BYTES).encode() in answer


async def test_large_heads_within_the_bound_are_taken_one_after_the_other():
    """The count begins anew with each head."""
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * (HEAD_BYTES // 2) + b"\r\n\r\n"
    async with serving(Connection) as (_, port), speaking(port) as (reader, writer):
        for _ in range(5):
            writer.write(request[:1000])
            await asyncio.sleep(0.01)
            writer.write(request[1000:])
            assert (await asyncio.wait_for(reader.readuntil(b"ok"), 10)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: ", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /"]
)
async def test_a_head_that_does_not_end_ends_the_connection(said):
    async with serving(Hasty) as (_, port), speaking(port) as (reader, writer):
        writer.write(said)
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.count(b"HTTP/1.1 200") == said.count(b"\r\n\r\n")


async def test_an_answer_that_takes_longer_than_a_head_may_is_not_cut():
    async with serving(Hasty) as (_, port), speaking(port) as (reader, writer):
        writer.write(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\nGET /")
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.endswith(b"ok")


async def test_a_reader_that_takes_nothing_loses_its_connection_and_a_slow_one_does_not():
    async with serving(Hasty) as (server, port):
        request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
        async with speaking(port) as (_, still), speaking(port) as (reader, slow):
            still.transport.pause_reading()
            still.write(request)
            slow.write(request)
            received = 0
            while received < LARGE:
                received += len(await asyncio.wait_for(reader.read(8 << 20), 10))
                await asyncio.sleep(0.01)
            async with asyncio.timeout(5):
                while len(server.server_state.connections) > 1:
                    await asyncio.sleep(0.01)


async def test_of_requests_sent_ahead_the_first_one_learns_too_that_its_client_has_gone():
    async with serving(Connection) as (server, port), speaking(port) as (_, writer):
        writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        async with asyncio.timeout(10):
            while not server.server_state.tasks:
                await asyncio.sleep(0.01)
            writer.transport.abort()
            while server.server_state.tasks:
                await asyncio.sleep(0.01)
