"""Keys in metadata: who may ask what, and that a refusal comes before anything is read."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rpc.conftest import failure, request, slow
from tritonclient.grpc import service_pb2 as pb

pytestmark = pytest.mark.anyio

KEY = "s3cret"
GOOD = [
    (("x-api-key", KEY),),
    (("authorization", f"Bearer {KEY}"),),
    (("authorization", f"bearer  {KEY} "),),
    (("authorization", "Basic abc"), ("x-api-key", KEY)),
]
ABSENT = [
    (),
    (("x-api-key", ""),),
    (("authorization", "Basic abc"),),
    (("api-key", KEY),),
    (("authorization", "Bearer"),),
]
WRONG = [
    (("x-api-key", "s3cre"),),
    (("authorization", f"Bearer {KEY}{KEY}"),),
    (("x-api-key", "wrong"), ("authorization", f"Bearer {KEY}")),
]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        *((each, grpc.StatusCode.UNAUTHENTICATED) for each in ABSENT),
        *((each, grpc.StatusCode.PERMISSION_DENIED) for each in WRONG),
    ],
)
async def test_without_the_key_every_call_of_the_protocol_is_refused(service, given, code):
    async with service(api_key=KEY) as it:
        for call in (
            it.stub.ModelInfer(slow(), metadata=given),
            it.stub.ServerMetadata(pb.ServerMetadataRequest(), metadata=given),
            it.stub.RepositoryIndex(pb.RepositoryIndexRequest(), metadata=given),
            it.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="slow"), metadata=given),
            it.channel.unary_unary("/inference.GRPCInferenceService/Nothing")(b"", metadata=given),
        ):
            error = await failure(call)
            assert error.code() is code
            assert KEY not in error.details()
        stream = it.stub.ModelStreamInfer(metadata=given)
        assert await stream.code() is code


@pytest.mark.parametrize("given", GOOD)
async def test_the_key_is_taken_in_both_places(service, given):
    async with service(api_key=KEY) as it:
        assert (await it.stub.ModelInfer(slow(), metadata=given)).raw_output_contents


async def test_probes_and_the_interface_need_no_key(service):
    async with service(api_key=KEY) as it:
        assert (await it.stub.ServerLive(pb.ServerLiveRequest())).live
        assert (await it.stub.ServerReady(pb.ServerReadyRequest())).ready
        health = health_pb2_grpc.HealthStub(it.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status

        async def question():
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        reflection = reflection_pb2_grpc.ServerReflectionStub(it.channel)
        assert [answer async for answer in reflection.ServerReflectionInfo(question())]


async def test_a_stranger_is_refused_before_the_message_is_read(service):
    """A message over the limit would be RESOURCE_EXHAUSTED, if anyone had looked at it."""
    async with service(api_key=KEY, max_body_bytes=2048) as it:
        large = request("wide", {"x": np.zeros((100, 100), np.float32)})
        assert (await failure(it.stub.ModelInfer(large))).code() is grpc.StatusCode.UNAUTHENTICATED


async def test_without_a_key_in_the_settings_everyone_may_ask(service):
    async with service() as it:
        assert await it.stub.ModelInfer(slow(), metadata=(("x-api-key", "whatever"),))
