"""The gRPC server's life: built from the services, bound before it is announced, drained before it stops."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_reflection.v1alpha import reflection

from ml_inference.errors import ConfigurationInvalid
from ml_inference.rpc import health, servicer
from ml_inference.rpc.access import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ml_inference.services import Services
    from ml_inference.settings import Settings

LARGEST_MESSAGE: Final = 2**31 - 1
"""What protobuf can hold, whatever `MAX_BODY_BYTES` allows."""
LAME_SECONDS: Final = 0.1
"""How long new calls are refused in words. Once the library stops, it cancels those that cross its farewell on the way."""


class RpcServer:
    """A running server.

    Attributes:
        address: `host:port`, as clients write it.
    """

    def __init__(self, server: Any, address: str, stopping: asyncio.Event) -> None:
        self._server = server
        self._stopping = stopping
        self.address = address

    async def stop(self, grace: float) -> None:
        """Take no new call, finish those under way for up to `grace` seconds, cancel the rest.

        Streams end after the requests that they have brought. A second call may shorten the first one's grace.
        """
        if not self._stopping.is_set():
            self._stopping.set()
            await asyncio.sleep(min(grace, LAME_SECONDS))
        await self._server.stop(grace)


@asynccontextmanager
async def open_server(services: Services, host: str) -> AsyncIterator[RpcServer]:
    """See `ml_inference.rpc.serve_grpc`."""
    settings, stopping = services.settings, asyncio.Event()
    server = _server(services, stopping)
    running = RpcServer(server, _bind(server, host, int(settings.grpc_port)), stopping)
    await server.start()
    try:
        yield running
    finally:
        await running.stop(settings.shutdown_grace)


def _server(services: Services, stopping: asyncio.Event) -> Any:
    key = services.settings.api_key
    server = grpc.aio.server(
        interceptors=[Gate(None if key is None else key.get_secret_value(), stopping)],
        options=_options(services.settings),
    )
    calls = {
        servicer.SERVICE: servicer.Servicer(services, stopping).handlers(),
        health.SERVICE: health.Health(services, frozenset({servicer.SERVICE}), stopping).handlers(),
    }
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, handlers) for name, handlers in calls.items())
    )
    reflection.enable_server_reflection((*calls, reflection.SERVICE_NAME), server)
    return server


def _options(settings: Settings) -> list[tuple[str, int]]:
    size = min(settings.max_body_bytes, LARGEST_MESSAGE)
    return [
        ("grpc.max_receive_message_length", size),
        ("grpc.max_send_message_length", size),
        ("grpc.so_reuseport", 0),  # two services on one port would share its clients by chance
        # Clients may ping as often as they like; one that is gone without a word is noticed within 80 s.
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def _bind(server: Any, host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{shown}:{port}")
    except RuntimeError:
        raise ConfigurationInvalid(
            f"cannot listen on GRPC_PORT={port} of {host}: choose another port, or GRPC_PORT=off"
        ) from None
    return f"{shown}:{bound}"
