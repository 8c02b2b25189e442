"""`serve`: the HTTP service, from the first line on the terminal to a clean exit."""

from __future__ import annotations

import asyncio
import errno
import shlex
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import structlog
import uvicorn

from ml_inference.errors import ConfigurationInvalid
from ml_inference.settings import Settings, load_settings
from ml_inference.telemetry import configure_logging
from ml_inference.web.app import create_app

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLE = Path("samples/sample.tif")
SAMPLE_MODEL = "landcover-share"


@click.command()
@click.option("--host", help="Address to listen on (HOST).")
@click.option("--port", help="Port to listen on, 0 for any free one (PORT).")
def serve(host: str | None, port: str | None) -> None:
    """Serve HTTP until SIGTERM or Ctrl-C."""
    settings = load_settings(host=host, port=port)
    with listen(settings.host, settings.port) as listener:
        signal.signal(signal.SIGTERM, _stop)
        configure_logging(settings.log_format, settings.log_level)
        app = create_app(settings)
        server = Server(_config(app, settings), app.state, lambda: _announce(settings, listener))
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_serve(app, server, listener))


def _stop(*_: object) -> NoReturn:
    # uvicorn raises the signal again once it has shut down; its default action would look like a crash.
    raise SystemExit(0)


def _config(app: Any, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        root_path=settings.root_path,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_grace,
    )


async def _serve(app: Any, server: Server, listener: socket.socket) -> None:
    # The lifespan runs here and not in uvicorn, which would turn a refusal to start into a stack trace.
    async with app.router.lifespan_context(app):
        await server.serve(sockets=[listener])


class Server(uvicorn.Server):
    """uvicorn's server, which says when it listens, and that it drains before it stops."""

    def __init__(self, config: uvicorn.Config, state: Any, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._state = state
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop to accept, finish what was accepted for up to `SHUTDOWN_GRACE`."""
        self._state.services.registry.start_draining()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Bind a TCP socket, so that the port is known, and refused in words, before anything is loaded.

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
        raise ConfigurationInvalid(_refused(host, port, error)) from None
    return listener


def _refused(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is in use: stop what listens there, or choose another with PORT or --port"
        )
    if error.errno == errno.EACCES:
        return (
            f"port {port} needs more rights than this user has: choose one from 1024 on with PORT or --port"
        )
    return f"cannot listen on HOST={host!r}, PORT={port}: {error.strerror}"


def _announce(settings: Settings, listener: socket.socket) -> None:
    if settings.log_format == "text":
        click.echo(greeting(settings, listener))
    else:  # every line is for a program then
        structlog.get_logger(__name__).info("listening", url=_url(settings, listener))


def _url(settings: Settings, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - only shown
    return f"http://{shown}:{port}{settings.root_path}"


def greeting(settings: Settings, listener: socket.socket) -> str:
    """The lines for the person who started the service: where it answers, and a request that can be pasted."""
    url = _url(settings, listener)
    lines = [f"ML Inference Processor answers at {url} (Ctrl-C stops it)"]
    if "samples:" in settings.model_sources and SAMPLE.is_file():
        key = ' -H "X-API-Key: $API_KEY"' if settings.api_key else ""
        lines += ["Try it:", f"  curl{key} -F image=@{shlex.quote(str(SAMPLE))} {url}/{SAMPLE_MODEL}"]
    return "\n".join(lines)
