"""Streams: one answer for each request in their order, whatever becomes of any of them."""

from __future__ import annotations

import asyncio
import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from rpc.conftest import reflectance, request, slow
from tritonclient.grpc import service_pb2 as pb
from web.slow_model import FOREVER

from ml_inference.rpc.stream import AT_ONCE, converse

pytestmark = pytest.mark.anyio


def test_a_stock_client_gets_a_bad_requests_error_and_all_other_answers(process, sample_session):
    session = sample_session("landcover-share")
    answers = queue.Queue()
    arrays = [reflectance(seed, (1, 5 if seed == 2 else 4, 8, 8)) for seed in range(5)]
    with triton.InferenceServerClient(process.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number, array in enumerate(arrays):
            tensor = triton.InferInput("reflectance", array.shape, "FP32")
            tensor.set_data_from_numpy(array)
            client.async_stream_infer("landcover-share", [tensor], request_id=str(number))
        got = [answers.get(timeout=30) for _ in arrays]
        client.stop_stream()
    for number, (array, (result, error)) in enumerate(zip(arrays, got, strict=True)):
        if number == 2:
            assert "another shape" in str(error)
        else:
            assert error is None
            assert result.get_response().id == str(number)
            (expected,) = session.run(None, {"reflectance": array})
            assert result.as_numpy("shares").tobytes() == expected.tobytes()


async def test_a_long_stream_is_answered_in_its_order(service):
    async def requests():
        for number in range(200):
            yield slow(float(number % 7)) if number % 3 else request("nothing", id=str(number))

    async with service() as it:
        answers = [answer async for answer in it.stub.ModelStreamInfer(requests())]
    assert len(answers) == 200
    for number, answer in enumerate(answers):
        if number % 3:
            values = np.frombuffer(answer.infer_response.raw_output_contents[0], np.float32)
            assert values.tolist() == [2.0 * (number % 7)]
        else:
            assert answer.error_message
            assert answer.infer_response.id == str(number)


async def test_bytes_that_are_no_message_fail_alone(service):
    async def requests():
        yield b"\xff\xff"
        yield slow().SerializeToString()

    async with service() as it:
        call = it.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        first, second = [pb.ModelStreamInferResponse.FromString(each) async for each in call(requests())]
    assert "inference.ModelInferRequest" in first.error_message
    assert second.infer_response.raw_output_contents


async def test_a_client_that_leaves_a_stream_takes_its_requests_with_it(service):
    async with service(batch_size=1) as it:
        await it.stub.ModelInfer(slow())
        call = it.stub.ModelStreamInfer()
        for _ in range(3):
            await call.write(slow(FOREVER))
        labels = {"model": "slow", "version": "2"}
        metrics = it.services.metrics.registry
        async with asyncio.timeout(10):
            while metrics.get_sample_value("model_counter_total", labels) < 4:
                await asyncio.sleep(0.01)
            call.cancel()
            while (
                metrics.get_sample_value("model_inference_rejected_total", {**labels, "reason": "cancelled"})
                != 3
            ):
                await asyncio.sleep(0.01)


async def test_an_empty_stream_ends(service):
    async def nothing():
        return
        yield

    async with service() as it:
        assert [answer async for answer in it.stub.ModelStreamInfer(nothing())] == []


async def test_an_idle_stream_does_not_hold_up_the_servers_end(service):
    async with service() as it:
        call = it.stub.ModelStreamInfer()
        await call.write(slow())
        assert (await call.read()).infer_response.raw_output_contents
        started = asyncio.get_running_loop().time()
        await it.server.stop(20)
        assert asyncio.get_running_loop().time() - started < 5
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_no_more_than_so_many_requests_of_a_stream_are_begun():
    """A client that sends faster than the model runs is held back, and every answer keeps its place."""
    begun, gate, written = [], asyncio.Event(), []

    async def requests():
        for number in range(100):
            yield number

    async def answer(number):
        begun.append(number)
        await gate.wait()
        return number

    async def write(number):
        written.append(number)

    task = asyncio.create_task(converse(requests(), answer, write, asyncio.Event()))
    await asyncio.sleep(0.1)
    assert len(begun) <= AT_ONCE + 2
    gate.set()
    await task
    assert written == list(range(100))
