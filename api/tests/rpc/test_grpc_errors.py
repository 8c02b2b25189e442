"""Every status code for its reason, and nothing in a message that a stranger must not read."""

from __future__ import annotations

import asyncio
import re
import socket

import grpc
import numpy as np
import pytest
from rpc.conftest import failure, request, slow
from structlog.testing import capture_logs
from tritonclient.grpc import service_pb2 as pb
from web.slow_model import FOREVER

from ml_inference import errors
from ml_inference.rpc.errors import CODE_OF, NotOffered, failure_of

Code = grpc.StatusCode
pytestmark = pytest.mark.anyio


def classes(base=errors.ProcessorError):
    return [each for child in base.__subclasses__() for each in (child, *classes(child))]


def test_every_error_of_the_tree_has_its_code():
    tree = {each for each in classes() if each.__module__ == errors.__name__}
    assert set(CODE_OF) == tree - {errors.ConfigurationInvalid} | {errors.ProcessorError, NotOffered}


def test_a_class_that_is_not_in_the_table_gets_the_code_of_its_parent():
    class Odd(errors.InvalidRequest):
        pass

    assert failure_of(Odd("x")).code is Code.INVALID_ARGUMENT


def test_a_long_message_is_cut_to_what_a_header_holds():
    assert len(failure_of(errors.InvalidRequest("x\n" * 100_000)).details) <= 1000


def test_a_defect_tells_an_id_that_is_in_the_log_and_nothing_else():
    with capture_logs() as logs:
        told = failure_of(ZeroDivisionError("/srv/private"))
    assert told.code is Code.INTERNAL
    assert "private" not in told.details
    assert logs[0]["error_id"] in told.details


def test_when_to_come_back_is_in_the_metadata():
    assert failure_of(errors.Overloaded("full", retry_after=2.3)).trailing == (("retry-after", "3"),)
    assert failure_of(errors.NotReady("soon", retry_after=float("inf"))).trailing == (("retry-after", "1"),)


async def test_what_fits_no_model_is_not_found(service):
    async with service() as it:
        for name, version in (("nothing", ""), ("slow", "99"), ("", ""), ("../etc", "")):
            for call in (
                it.stub.ModelInfer(request(name, model_version=version)),
                it.stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version)),
                it.stub.ModelConfig(pb.ModelConfigRequest(name=name, version=version)),
            ):
                assert (await failure(call)).code() is Code.NOT_FOUND
        for call in (
            it.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="nothing")),
            it.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="nothing")),
            it.stub.ModelStatistics(pb.ModelStatisticsRequest(name="nothing")),
        ):
            assert (await failure(call)).code() is Code.NOT_FOUND


async def test_bytes_that_are_no_message_are_the_clients_mistake(service):
    async with service() as it:
        call = it.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        error = await failure(call(b"\xff\xff\xff\xff"))
        assert error.code() is Code.INVALID_ARGUMENT
        assert "inference.ModelInferRequest" in error.details()


async def test_a_call_that_does_not_exist_is_unimplemented(service):
    async with service() as it:
        error = await failure(it.channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b""))
        assert error.code() is Code.UNIMPLEMENTED


async def test_a_model_that_cannot_be_served_is_internal_and_tells_no_path(service, model_folder):
    async with service() as it:
        error = await failure(it.stub.ModelInfer(request("broken")))
    assert error.code() is Code.INTERNAL
    assert re.search(r"id [0-9a-f]{32}", error.details())
    assert str(model_folder) not in error.details()


async def test_a_hub_that_is_away_is_unavailable(service, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        async with service(
            model_sources=("eotdl:",), eotdl_api_url=address, eotdl_download_path=tmp_path
        ) as it:
            error = await failure(it.stub.ModelInfer(request("Anything")))
    assert error.code() is Code.UNAVAILABLE


async def test_a_message_over_the_limit_is_refused_in_either_direction(service):
    async with service(max_body_bytes=100_000) as it:
        ten = np.zeros((10, 100), np.float32)
        error = await failure(it.stub.ModelInfer(request("wide", {"x": ten})))
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert "MAX_BODY_BYTES" in error.details()
        large = np.zeros((300, 100), np.float32)
        error = await failure(it.stub.ModelInfer(request("wide", {"x": large})))
        assert error.code() is Code.RESOURCE_EXHAUSTED
        assert "100000" in error.details()
        assert await it.stub.ModelInfer(request("wide", {"x": ten[:1]}))


async def test_a_message_that_is_small_only_while_it_is_compressed_is_refused_too(service):
    async with service(max_body_bytes=100_000) as it:
        bomb = request("wide", {"x": np.zeros((100_000, 100), np.float32)})
        error = await failure(it.stub.ModelInfer(bomb, compression=grpc.Compression.Gzip))
        assert error.code() is Code.RESOURCE_EXHAUSTED


async def test_a_full_queue_says_when_to_come_back(service):
    """One request runs, one or two wait; of those that come at the same time every other one is turned away at once."""
    async with service(queue_size=1, batch_size=1) as it:
        await it.stub.ModelInfer(slow())
        calls = [it.stub.ModelInfer(slow(FOREVER)) for _ in range(8)]
        async with asyncio.timeout(10):
            while sum(call.done() for call in calls) < 5:
                await asyncio.sleep(0.01)
        for call in calls:
            if call.done():
                error = await failure(call)
                assert error.code() is Code.RESOURCE_EXHAUSTED
                assert int(dict(error.trailing_metadata())["retry-after"]) >= 1
            call.cancel()
        async with asyncio.timeout(10):
            while await _turned_away(it):
                await asyncio.sleep(0.02)


async def _turned_away(it):
    try:
        await it.stub.ModelInfer(slow())
    except grpc.aio.AioRpcError as error:
        return error.code() is Code.RESOURCE_EXHAUSTED
    return False


async def test_a_request_that_outlives_its_own_timeout_is_told_so(service):
    """The parameter `timeout` is in microseconds, of the request as a whole."""
    async with service() as it:
        await it.stub.ModelInfer(slow())
        made = slow(FOREVER)
        made.parameters["timeout"].int64_param = 200_000
        error = await failure(it.stub.ModelInfer(made))
        assert error.code() is Code.DEADLINE_EXCEEDED
        assert await it.stub.ModelInfer(slow())


async def test_the_services_own_limit_holds_where_a_call_has_none(service):
    async with service(request_timeout=0.3) as it:
        await it.stub.ModelInfer(slow())
        error = await failure(it.stub.ModelInfer(slow(FOREVER)))
        assert error.code() is Code.DEADLINE_EXCEEDED
