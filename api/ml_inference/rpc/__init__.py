"""The gRPC surface of the Open Inference Protocol, beside HTTP and in the same loop.

The libraries it needs come with the extra `grpc`; they are imported when the first server is started.

::

    server                        opens, binds, drains
     │
    servicer · health             the protocol's calls · grpc.health.v1
     │
    tensors · stream              messages ↔ requests · many requests on one stream
    calls · access                what surrounds every call · keys in metadata
     │
    errors                        the one table from error class to status
"""

from __future__ import annotations

import importlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from ml_inference.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import ModuleType

    from ml_inference.rpc.server import RpcServer
    from ml_inference.services import Services

INSTALL = "pip install 'ml-inference-processor[grpc]'"
_EXTRA = frozenset({"google", "grpc", "grpc_health", "grpc_reflection", "tritonclient"})


@asynccontextmanager
async def serve_grpc(services: Services, host: str) -> AsyncIterator[RpcServer | None]:
    """Serve gRPC on `GRPC_PORT` for as long as the block lasts.

    Args:
        services: open; they are closed by who opened them.
        host: name or address to listen on.

    Yields:
        The running server; None where `GRPC_PORT` is off, or was left at its default without the extra `grpc`.

    Raises:
        ConfigurationInvalid: the port cannot be had, or was asked for without the extra.
    """
    settings = services.settings
    off = settings.grpc_port == "off"
    surface = None if off else _surface(asked="grpc_port" in settings.model_fields_set)
    if surface is None:
        yield None
        return
    async with surface.open_server(services, host) as server:
        yield server


def _surface(*, asked: bool) -> ModuleType | None:
    try:
        return importlib.import_module("ml_inference.rpc.server")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
    if asked:
        raise ConfigurationInvalid(
            f"GRPC_PORT is set, but gRPC is not installed: {INSTALL}, or GRPC_PORT=off"
        )
    structlog.get_logger(__name__).info("gRPC is off: its libraries are not installed", install=INSTALL)
    return None
