"""`serve`: HTTP and gRPC in one loop, from the first line on the terminal to a clean exit."""

from __future__ import annotations

import asyncio
import errno
import logging
import shlex
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import structlog
import uvicorn

from ml_inference.cli.connection import Connection
from ml_inference.errors import ConfigurationInvalid
from ml_inference.rpc import serve_grpc
from ml_inference.settings import Settings, load_settings
from ml_inference.telemetry import configure_logging, early_lines
from ml_inference.web.app import create_app

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_inference.rpc.server import RpcServer
    from ml_inference.services import Services

SAMPLE = Path("samples/sample.tif")
SAMPLE_MODEL = "landcover-share"


@click.command()
@click.option("--host", help="Address to listen on (HOST).")
@click.option("--port", help="Port to listen on, 0 for any free one (PORT).")
@click.option("--grpc-port", help="Port for gRPC, 0 for any free one, or off (GRPC_PORT).")
def serve(host: str | None, port: str | None, grpc_port: str | None) -> None:
    """Serve HTTP and gRPC until SIGTERM or Ctrl-C."""
    with early_lines():
        settings = load_settings(host=host, port=port, grpc_port=grpc_port)
        configure_logging(settings.log_format, settings.log_level)
    logging.captureWarnings(capture=True)
    with listen(settings.host, settings.port) as listener:
        if settings.grpc_port != "off":
            listen(
                settings.host, settings.grpc_port, "GRPC_PORT", "--grpc-port"
            ).close()  # gRPC binds it itself
        signal.signal(signal.SIGTERM, _stop)
        signal.signal(signal.SIGINT, _interrupt)
        app = create_app(settings)
        config = _config(app, settings)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(app, config, settings, listener))


def _stop(*_: object) -> NoReturn:
    # uvicorn raises the signal again once it has shut down; its default action would look like a crash.
    raise SystemExit(0)


def _interrupt(*_: object) -> NoReturn:
    # asyncio's own handler would cancel the clean-up that follows upon uvicorn's end.
    raise KeyboardInterrupt


def _config(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=Connection,
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        root_path=settings.root_path,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_grace,
    )


async def _serve(app: Any, config: uvicorn.Config, settings: Settings, listener: socket.socket) -> None:
    # The lifespan runs here and not in uvicorn, which would turn a refusal to start into a stack trace.
    async with app.router.lifespan_context(app):
        services = app.state.services
        async with serve_grpc(services, listener.getsockname()[0]) as rpc:
            address = None if rpc is None else _reachable(rpc.address)
            await Server(config, services, rpc, lambda: _announce(settings, listener, address)).serve(
                [listener]
            )


class Server(uvicorn.Server):
    """uvicorn's server, which says when it listens, and drains together with gRPC before it stops."""

    def __init__(
        self, config: uvicorn.Config, services: Services, rpc: RpcServer | None, announce: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._services = services
        self._rpc = rpc
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to accept, finish what was accepted for up to `SHUTDOWN_GRACE`, or until a second Ctrl-C."""
        self._services.registry.start_draining()
        drained = asyncio.create_task(self._drain_rpc(self._services.settings.shutdown_grace))
        await super().shutdown(sockets)
        while not drained.done():
            if self.force_exit:
                await self._drain_rpc(0)
            await asyncio.wait({drained}, timeout=0.1)
        await drained

    async def _drain_rpc(self, grace: float) -> None:
        if self._rpc is not None:
            await self._rpc.stop(grace)


def listen(host: str, port: int, name: str = "PORT", option: str = "--port") -> socket.socket:
    """Bind a TCP socket, so that the port is known, and refused in words, before anything is loaded.

    Args:
        host: name or address.
        port: 0 for any free one.
        name: of the port's setting, for the words.
        option: of the command line that sets it.

    Raises:
        ConfigurationInvalid: no such host, or the port is taken or not ours to take.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigurationInvalid(f"HOST={host!r} is no address of this machine: {error.strerror}") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigurationInvalid(_refused(host, port, error, (name, option))) from None
    return listener


def _refused(host: str, port: int, error: OSError, settable: tuple[str, str]) -> str:
    name, option = settable
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: stop what listens there, or choose another with {name} or {option}"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has: choose one from 1024 on with {name} or {option}"
    return f"cannot listen on HOST={host!r}, {name}={port}: {error.strerror}"


def _announce(settings: Settings, listener: socket.socket, rpc: str | None) -> None:
    if settings.log_format == "text":
        click.echo(greeting(settings, listener, rpc))
    else:  # every line is for a program then
        structlog.get_logger(__name__).info("listening", url=_url(listener), grpc=rpc)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{_reachable(f'{shown}:{port}')}"  # without ROOT_PATH, which is the proxy's to add and to take off


def _reachable(address: str) -> str:
    """`host:port` as someone on this machine can use it: every address is also this one."""
    host, _, port = address.rpartition(":")
    return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host) }:{port}"  # noqa: S104 - only shown


def greeting(settings: Settings, listener: socket.socket, rpc: str | None = None) -> str:
    """The lines for the person who started the service: where it answers, and a request that can be pasted."""
    url = _url(listener)
    lines = [f"ML Inference Processor answers at {url} (Ctrl-C stops it)"]
    if rpc is not None:
        lines.append(f"gRPC, for clients of the Open Inference Protocol: {rpc}")
    if "samples:" in settings.model_sources and SAMPLE.is_file():
        key = ' -H "X-API-Key: $API_KEY"' if settings.api_key else ""
        lines += ["Try it:", f"  curl{key} -F image=@{shlex.quote(str(SAMPLE))} {url}/{SAMPLE_MODEL}"]
    return "\n".join(lines)
