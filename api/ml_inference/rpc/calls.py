"""What surrounds every call: its message, its id, its line in the log, its status, its deadline."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError

from ml_inference.errors import DeadlineExceeded, InvalidRequest
from ml_inference.rpc.errors import abort, failure_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from ml_inference.rpc.errors import Failure

REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A call under way.

    Attributes:
        context: the library's.
        arrived: when its headers came, `time.monotonic()` seconds.
        longest: seconds that a request may take, its message's way included.
    """

    context: grpc.aio.ServicerContext
    arrived: float
    longest: float

    def deadline(self, arrived: float | None = None) -> float:
        """When a request's time is over, `time.monotonic()` seconds: in `longest`, or sooner by the call's own deadline.

        `arrived` is for one of a stream; the others came with the call.
        """
        latest = (self.arrived if arrived is None else arrived) + self.longest
        remaining = self.context.time_remaining()
        return latest if remaining is None else min(latest, time.monotonic() + remaining)

    async def read(self) -> Any:
        """The next message's bytes, or `grpc.aio.EOF`."""
        # The library never frees a message whose reader was cancelled: the reading itself goes on, and ends with the call.
        reading = asyncio.ensure_future(self.context.read())
        reading.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # nobody may be left to hear
        return await asyncio.shield(reading)


type Answer = Callable[[Any, Call], Awaitable[Any]]
"""Takes a message and gives the answer; may raise anything."""
type Serve = Callable[[Call], Awaitable[Any]]


def unary(name: str, answer: Answer, request: type[Message], longest: float, *, quiet: bool = False) -> Any:
    """The handler of a call with one message and one answer.

    The library would read the message before it calls us, and wait for the rest of one for ever. On the wire one
    message is a stream of one.

    Args:
        name: of the call, for the log.
        answer: to the message.
        request: class of the message.
        longest: seconds that a request may take.
        quiet: whether machines ask it every few seconds; its lines are for debugging then.
    """
    serve = _surrounded(name, _answering(answer, request), longest, quiet=quiet)
    return grpc.stream_unary_rpc_method_handler(serve, None, _serialized)


def watching(name: str, answer: Answer, request: type[Message], longest: float) -> Any:
    """The handler of a call with one message and a stream of answers, which `answer` writes; see `unary`."""
    serve = _surrounded(name, _answering(answer, request), longest, quiet=True)
    return grpc.stream_stream_rpc_method_handler(serve, None, _serialized)


def streaming(name: str, serve: Serve, longest: float) -> Any:
    """The handler of a call that reads and writes for itself; see `unary`."""
    return grpc.stream_stream_rpc_method_handler(
        _surrounded(name, serve, longest, quiet=False), None, _serialized
    )


def read_message(request: type[Message], data: bytes) -> Message:
    """A message from its bytes. The library itself would call bytes of a stranger a failure of ours.

    Raises:
        InvalidRequest: they are none.
    """
    try:
        return request.FromString(data)
    except DecodeError:
        raise InvalidRequest(f"these {len(data)} bytes are no {request.DESCRIPTOR.full_name}") from None


def _answering(answer: Answer, request: type[Message]) -> Serve:
    async def serve(call: Call) -> Any:
        return await answer(read_message(request, await _first(call)), call)

    return serve


async def _first(call: Call) -> bytes:
    try:
        async with asyncio.timeout(call.deadline() - time.monotonic()):
            data = await call.read()
    except TimeoutError:
        raise DeadlineExceeded("the message had not come in full when the request's time was over") from None
    if data is grpc.aio.EOF:
        raise InvalidRequest("the call has no message: expected one")
    return data  # type: ignore[no-any-return]  # the library publishes no types


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()  # type: ignore[no-any-return]  # the library publishes no types


def _surrounded(name: str, serve: Serve, longest: float, *, quiet: bool) -> Any:
    write = _log.debug if quiet else _log.info

    async def surrounded(_requests: Any, context: grpc.aio.ServicerContext) -> Any:
        call, started = Call(context, time.monotonic(), longest), time.perf_counter()
        request_id = _request_id(context)
        context.set_trailing_metadata((("x-request-id", request_id),))
        failure: Failure | None = None
        code = "CANCELLED"
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                reply = await serve(call)
                code = "OK"
            except Exception as error:  # noqa: BLE001 - every call ends with a status of ours
                failure = failure_of(error)
                code = failure.code.name
                # A remembered failure is raised again and again; its frames must not pile up.
                error.__traceback__ = None
            finally:
                write("call", method=name, code=code, ms=round((time.perf_counter() - started) * 1000, 2))
        if failure is not None:
            await abort(context, failure, request_id)
        return reply

    return surrounded


def _request_id(context: grpc.aio.ServicerContext) -> str:
    given = next((value for name, value in context.invocation_metadata() if name == "x-request-id"), "")
    return given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
