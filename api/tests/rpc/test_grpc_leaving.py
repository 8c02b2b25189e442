"""Clients that leave, and clients whose time is over: their work is dropped and counted for what it was."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import grpc
import pytest
from rpc.conftest import failure, reflectance, request, slow
from tritonclient.grpc import service_pb2_grpc
from web.slow_model import FOREVER

pytestmark = pytest.mark.anyio


def count(it, name, **labels):
    """A counter of model `slow`, by all its versions."""
    value = it.services.metrics.registry.get_sample_value(name, {"model": "slow", "version": "2", **labels})
    return value or 0.0


async def eventually(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def busy(it):
    """Start a run that lasts, and wait until it has begun."""
    before = count(it, "model_counter_total")
    call = it.stub.ModelInfer(slow(FOREVER))
    await eventually(lambda: count(it, "model_counter_total") == before + 1)
    await eventually(lambda: count(it, "model_inference_pending_requests") == 0)
    return call


async def test_a_client_that_leaves_while_its_model_runs_frees_the_lane(service):
    async with service(batch_size=1) as it:
        await it.stub.ModelInfer(slow())
        call = await busy(it)
        call.cancel()
        await eventually(lambda: count(it, "model_inference_rejected_total", reason="cancelled") == 1)
        started = time.monotonic()
        assert await it.stub.ModelInfer(slow())
        assert time.monotonic() - started < 5


async def test_a_client_that_leaves_while_it_waits_never_runs(service):
    async with service(batch_size=1) as it:
        await it.stub.ModelInfer(slow())
        first = await busy(it)
        runs = count(it, "model_inference_duration_seconds_count")
        waiting = [it.stub.ModelInfer(slow()) for _ in range(5)]
        await eventually(lambda: count(it, "model_inference_pending_requests") == 5)
        for each in waiting:
            each.cancel()
        await eventually(lambda: count(it, "model_inference_pending_requests") == 0)
        await eventually(lambda: count(it, "model_inference_rejected_total", reason="cancelled") == 5)
        first.cancel()
        await eventually(lambda: count(it, "model_inference_rejected_total", reason="cancelled") == 6)
        assert count(it, "model_inference_duration_seconds_count") <= runs + 1


async def test_a_connection_that_breaks_takes_its_calls_with_it(service):
    async with service(batch_size=1) as it:
        await it.stub.ModelInfer(slow())
        async with grpc.aio.insecure_channel(it.server.address) as other:
            stub = type(it.stub)(other)
            before = count(it, "model_counter_total")
            lost = stub.ModelInfer(slow(FOREVER))
            await eventually(lambda: count(it, "model_counter_total") == before + 1)
        assert lost.done()
        await eventually(lambda: count(it, "model_inference_rejected_total", reason="cancelled") == 1)


async def test_a_calls_deadline_reaches_the_batcher_and_is_counted_as_such(service):
    async with service(batch_size=1) as it:
        await it.stub.ModelInfer(slow())
        error = await failure(it.stub.ModelInfer(slow(FOREVER), timeout=0.3))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: count(it, "model_inference_timeout_total") == 1)
        assert count(it, "model_inference_rejected_total", reason="cancelled") == 0
        started = time.monotonic()
        assert await it.stub.ModelInfer(slow())
        assert time.monotonic() - started < 5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is read from /proc")
def test_messages_of_calls_that_were_late_are_freed(process):
    """Kept ones would be 1500 times 64 KiB."""

    def resident():
        status = Path(f"/proc/{process.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def ask(times):
        late = 0
        with grpc.insecure_channel(process.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            for number in range(times):
                try:
                    stub.ModelInfer(made, timeout=0.0002 * (number % 8))
                except grpc.RpcError as error:
                    late += error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        return late

    made = request(inputs={"reflectance": reflectance(shape=(1, 4, 64, 64))})
    ask(300)
    before = resident()
    assert ask(1500) > 500
    assert resident() - before < 30


async def test_a_message_that_does_not_come_in_full_is_given_up(service):
    """Headers and half a message, spoken as HTTP/2 by hand; the connection stays open, and the server ends the call."""
    async with service(request_timeout=1.0) as it:
        host, _, port = it.server.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        fields = {
            ":method": "POST", ":scheme": "http", ":path": "/inference.GRPCInferenceService/ModelInfer",
            ":authority": "x", "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        # HPACK, RFC 7541 section 6.2.2: literals without indexing, names and values as they are.
        block = b"".join(
            b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in fields.items()
        )
        half = b"\x00" + (1000).to_bytes(4, "big") + bytes(500)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        writer.write(frame(1, 4, 1, block) + frame(0, 0, 1, half))
        started, ended = time.monotonic(), 0.0
        async with asyncio.timeout(20):
            while not ended:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                if int.from_bytes(head[5:], "big") == 1 and (
                    head[3] == 3 or head[4] & 1
                ):  # RST_STREAM or END_STREAM
                    ended = time.monotonic() - started
        writer.close()
        await writer.wait_closed()
        assert 0.9 < ended < 10
        assert await it.stub.ModelInfer(slow())


def frame(kind, flags, stream, payload):
    """An HTTP/2 frame, RFC 9113 section 4.1."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


async def test_every_request_is_counted_once_however_it_ends(service):
    async with service(batch_size=1, request_timeout=20) as it:
        await it.stub.ModelInfer(slow())
        gone = await busy(it)
        gone.cancel()
        wrong = slow()
        wrong.raw_input_contents[0] = b"x"
        await failure(it.stub.ModelInfer(wrong))
        await failure(it.stub.ModelInfer(slow(FOREVER), timeout=0.2))
        await it.stub.ModelInfer(slow())
        await eventually(lambda: count(it, "model_inference_timeout_total") == 1)
        assert count(it, "model_counter_total") == 5
        assert count(it, "model_inference_errors_total", error_type="ContractMismatch") == 1
        assert count(it, "model_inference_errors_total", error_type="DeadlineExceeded") == 1
        assert count(it, "model_inference_rejected_total", reason="cancelled") == 1
