"""The health service, and reflection: what probes, load balancers and curious people ask."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rpc.conftest import failure
from tritonclient.grpc import service_pb2 as pb

pytestmark = pytest.mark.anyio

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVICE = "inference.GRPCInferenceService"


def check(it, name=""):
    return health_pb2_grpc.HealthStub(it.channel).Check(health_pb2.HealthCheckRequest(service=name))


async def test_the_service_as_a_whole_serves_until_it_drains(service):
    async with service() as it:
        for name in ("", SERVICE):
            assert (await check(it, name)).status == SERVING
        assert (await it.stub.ServerReady(pb.ServerReadyRequest())).ready
        it.services.registry.start_draining()
        for name in ("", SERVICE):
            assert (await check(it, name)).status == NOT_SERVING
        assert not (await it.stub.ServerReady(pb.ServerReadyRequest())).ready
        assert (await it.stub.ServerLive(pb.ServerLiveRequest())).live


async def test_a_model_serves_while_it_answers(service):
    async with service() as it:
        assert (await check(it, "slow")).status == NOT_SERVING
        await it.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="slow"))
        assert (await check(it, "slow")).status == SERVING
        await it.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="slow"))
        assert (await check(it, "slow")).status == NOT_SERVING
        error = await failure(check(it, "nothing"))
        assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_hears_of_every_change_and_does_not_hold_up_the_end(service):
    async with service() as it:
        watch = health_pb2_grpc.HealthStub(it.channel).Watch(health_pb2.HealthCheckRequest(service="slow"))
        strange = health_pb2_grpc.HealthStub(it.channel).Watch(health_pb2.HealthCheckRequest(service="x"))
        async with asyncio.timeout(20):
            assert (await strange.read()).status == UNKNOWN
            assert (await watch.read()).status == NOT_SERVING
            await it.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="slow"))
            assert (await watch.read()).status == SERVING
            started = asyncio.get_running_loop().time()
            await it.server.stop(20)
            assert asyncio.get_running_loop().time() - started < 5
            assert await watch.code() is grpc.StatusCode.OK


async def test_reflection_lists_the_services_and_describes_them(service):
    async with service() as it:
        stub = reflection_pb2_grpc.ServerReflectionStub(it.channel)
        ask = reflection_pb2.ServerReflectionRequest

        async def questions():
            yield ask(list_services="")
            yield ask(file_containing_symbol=SERVICE)

        listed, described = [answer async for answer in stub.ServerReflectionInfo(questions())]
        names = {each.name for each in listed.list_services_response.service}
        assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        (file,) = described.file_descriptor_response.file_descriptor_proto[:1]
        assert b"ModelInfer" in file
