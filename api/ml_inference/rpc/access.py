"""Who may ask over gRPC, and when: the service's one key, in the metadata of every call but a few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from ml_inference.errors import NotReady, ProcessorError
from ml_inference.protocol.keys import KeyCheck
from ml_inference.rpc.errors import abort, failure_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

OPEN: Final = (
    "/grpc.health.v1.Health/",
    "/grpc.reflection.",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
"""Beginnings of calls that need no key: what probes ask, and what the interface looks like."""


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # the library publishes no types
    """Refuses calls before their message is read: without the key (see `KeyCheck`), or while the server stops.

    Args:
        key: None lets everyone in.
        stopping: set when no new call is to be taken.
    """

    def __init__(self, key: str | None, stopping: asyncio.Event) -> None:
        self._check = KeyCheck(key)
        self._stopping = stopping

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], call: Any) -> Any:
        """The handler of a call, or one that refuses it."""
        if not call.method.startswith(OPEN):
            try:
                self._check((name.encode(), _bytes(value)) for name, value in call.invocation_metadata)
                if self._stopping.is_set():
                    raise NotReady("the service is stopping")
            except ProcessorError as error:
                return _refusal(error)
        return await continuation(call)


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _refusal(error: ProcessorError) -> Any:
    failure = failure_of(error)

    async def refuse(_requests: Any, context: Any) -> None:
        await abort(context, failure)

    # Of all kinds of handlers this one waits for no message.
    return grpc.stream_stream_rpc_method_handler(refuse)
