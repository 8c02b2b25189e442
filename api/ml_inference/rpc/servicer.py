"""`inference.GRPCInferenceService`: the calls of the Open Inference Protocol and of Triton's superset of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from tritonclient.grpc import service_pb2 as pb

from ml_inference.errors import DeadlineExceeded, InvalidRequest, ModelNotFound, TooLarge
from ml_inference.protocol import describe
from ml_inference.protocol.images import decoder
from ml_inference.protocol.infer import deadline_of as request_deadline
from ml_inference.protocol.infer import infer
from ml_inference.protocol.readiness import why_not_ready
from ml_inference.rpc.calls import read_message, streaming, unary
from ml_inference.rpc.errors import NotOffered, failure_of
from ml_inference.rpc.stream import converse
from ml_inference.rpc.tensors import message_of, request_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from google.protobuf.message import Message

    from ml_inference.engine.model import ServedModel
    from ml_inference.protocol.tensors import InferRequest
    from ml_inference.rpc.calls import Answer, Call
    from ml_inference.services import Services

SERVICE: Final = "inference.GRPCInferenceService"
STREAM: Final = "ModelStreamInfer"
QUIET: Final = frozenset({"ServerLive", "ServerReady", "ModelReady"})
LARGE: Final = 1 << 18
"""From so many bytes on, typed contents are read in a thread: every value is an object on the way."""


class Servicer:
    """Answers the calls; each is given its message and its call, and may raise any error of ours."""

    def __init__(self, services: Services, stopping: asyncio.Event) -> None:
        self._services = services
        self._registry = services.registry
        self._longest = services.settings.request_timeout
        self._stopping = stopping

    def handlers(self) -> dict[str, Any]:
        """The service's calls by name; those that are not offered say so."""
        offered: dict[str, Answer] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelInfer": self.model_infer,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.repository_load,
            "RepositoryModelUnload": self.repository_unload,
        }
        calls = {each.name: GetMessageClass(each.input_type) for each in _methods()}
        unaries = {
            name: unary(name, offered.get(name, _not_offered), request, self._longest, quiet=name in QUIET)
            for name, request in calls.items()
        }
        return {**unaries, STREAM: streaming(STREAM, self.model_stream_infer, self._longest)}

    async def server_live(self, _request: Message, _call: Call) -> Message:
        """Whether the process turns."""
        return pb.ServerLiveResponse(live=True)

    async def server_ready(self, _request: Message, _call: Call) -> Message:
        """Whether traffic should come here."""
        return pb.ServerReadyResponse(ready=not self._registry.unready())

    async def model_ready(self, request: Message, _call: Call) -> Message:
        """Whether a model is loaded and answers; where it does not yet, its loading begins."""
        try:
            words = await why_not_ready(self._registry, request.name, request.version or None)
        except ModelNotFound:
            words = "not found"
        return pb.ModelReadyResponse(ready=words is None)

    async def server_metadata(self, _request: Message, _call: Call) -> Message:
        """What this server is."""
        return _filled(pb.ServerMetadataResponse(), describe.server_metadata())

    async def model_metadata(self, request: Message, call: Call) -> Message:
        """A model's tensors."""
        model = await self._model(request.name, request.version, call)
        versions = [each.version for each in self._registry.versions(request.name)]
        return _filled(pb.ModelMetadataResponse(), describe.model_metadata(model, versions))

    async def model_config(self, request: Message, call: Call) -> Message:
        """A model's configuration."""
        model = await self._model(request.name, request.version, call)
        return _filled(pb.ModelConfigResponse(), {"config": describe.model_config(model)})

    async def model_statistics(self, request: Message, call: Call) -> Message:
        """What one model, or every loaded one, has done."""
        if not request.name:
            statuses = self._registry.statuses()
            found = (self._registry.loaded(each.name, each.version) for each in statuses if each.version)
            models = [model for model in found if model is not None]
        else:
            first = await self._model(request.name, request.version, call)
            models = [first] if request.version else self._registry.versions(request.name)
        return _filled(pb.ModelStatisticsResponse(), describe.model_statistics(models))

    async def repository_index(self, request: Message, _call: Call) -> Message:
        """Every model that is known, with its state."""
        models = describe.repository_index(self._registry.statuses(), ready=request.ready)
        return _filled(pb.RepositoryIndexResponse(), {"models": models})

    async def repository_load(self, request: Message, call: Call) -> Message:
        """Load a model, or its newest version beside the one that answers."""
        if request.parameters:
            raise InvalidRequest(
                "load takes no parameters here: a model's configuration and files come from its source"
            )
        await self._registry.load(request.model_name, call.deadline())
        return pb.RepositoryModelLoadResponse()

    async def repository_unload(self, request: Message, _call: Call) -> Message:
        """Take a model out of service after the requests that hold it."""
        await self._registry.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def model_infer(self, request: Message, call: Call) -> Message:
        """One request through a model."""
        return await self._infer(request, call, call.arrived)

    async def model_stream_infer(self, call: Call) -> None:
        """Requests in a stream, answered in their order; one that fails is answered in words, and the stream goes on."""

        async def answer(data: bytes) -> Message:
            request = pb.ModelInferRequest()
            try:
                request = read_message(pb.ModelInferRequest, data)
                reply = await self._infer(request, call, time.monotonic())
            except Exception as error:  # noqa: BLE001 - each request carries its own failure
                words = failure_of(error).details
                error.__traceback__ = None
                named = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
                return pb.ModelStreamInferResponse(error_message=words, infer_response=named)
            return pb.ModelStreamInferResponse(infer_response=reply)

        await converse(_messages(call), answer, call.context.write, self._stopping)

    async def _infer(self, message: Message, call: Call, arrived: float) -> Message:
        latest = call.deadline(arrived)
        name, version = _name(message.model_name), message.model_version or None
        async with self._registry.use(name, version, latest) as model:
            with model.accounting(), _counted_as_late(latest):
                request = await self._read(message)
                deadline = request_deadline(request, arrived, latest)
                answer = await infer(model, request, deadline, decoder(self._services, deadline))
                reply = message_of(answer)
                self._check_size(reply)
        return reply

    async def _read(self, message: Message) -> InferRequest:
        if message.raw_input_contents or message.ByteSize() < LARGE:
            return request_of(message)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._services.pool, request_of, message)

    def _check_size(self, reply: Message) -> None:
        size, limit = reply.ByteSize(), self._services.settings.max_body_bytes
        if size > limit:
            raise TooLarge(
                f"the answer has {size} bytes, more than the {limit} of a message (MAX_BODY_BYTES): ask for fewer "
                "rows or outputs"
            )

    async def _model(self, name: str, version: str, call: Call) -> ServedModel:
        return await self._registry.get(_name(name), version or None, call.deadline())


@contextmanager
def _counted_as_late(latest: float) -> Iterator[None]:
    """A call whose time is over is cancelled by the library, which is no client that has left."""
    try:
        yield
    except asyncio.CancelledError:
        if time.monotonic() < latest:
            raise
        raise DeadlineExceeded("the request's time passed before its answer was there") from None


async def _messages(call: Call) -> AsyncIterator[bytes]:
    while (data := await call.read()) is not grpc.aio.EOF:
        yield data


async def _not_offered(_request: Message, _call: Call) -> None:
    raise NotOffered(
        "this service has no shared memory, trace or log settings: tensors travel in the request, "
        "settings stand in the environment"
    )


def _name(name: str) -> str:
    if not name:
        raise ModelNotFound("no model is named: expected its name in the request")
    return name


def _filled(message: Message, values: dict[str, Any]) -> Message:
    """The message with the values of the same names; those that it has no field for stay behind."""
    return ParseDict(values, message, ignore_unknown_fields=True)


def _methods() -> Any:
    return pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
