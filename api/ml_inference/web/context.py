"""What surrounds every request: its id, its line in the log, and the one error shape."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.datastructures import Headers, MutableHeaders

from ml_inference.web.access import PROBES
from ml_inference.web.errors import MEDIA_TYPE, MethodUnknown, Problem, problem_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are refused before a metric could take them for a label."""
QUIET: Final = frozenset({*PROBES, "/metrics"})
"""Routes that machines ask for every few seconds; their lines are for debugging."""

_log = structlog.get_logger(__name__)


class RequestContext:
    """The outermost layer: gives the request its id, answers HEAD as GET without a body, writes one line at the end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        method = scope["method"]
        inner = {**scope, "method": "GET" if method == "HEAD" else method}
        inner["state"] = {**scope.get("state", {}), "request_id": request_id}
        reply = _Reply(send, request_id, bodiless=method == "HEAD")
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._serve(inner, receive, reply)
            finally:
                _write_line(inner, method, reply)

    async def _serve(self, scope: Scope, receive: Receive, reply: _Reply) -> None:
        if scope["method"] not in METHODS:
            error = MethodUnknown("this service knows no such method")
            await send_problem(reply.send, problem_of(error, scope["state"]["request_id"]))
            return
        await self._app(scope, receive, reply.send)


class Problems:
    """Turns what was raised further in into an answer. An answer that had begun is cut instead: it must not look whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            problem = problem_of(error, scope["state"]["request_id"])
            if begun:
                raise
            error.__traceback__ = (
                None  # a remembered failure is raised again and again; its frames must not pile up
            )
            await send_problem(send, problem)


async def send_problem(send: Send, problem: Problem) -> None:
    """Answer with a problem."""
    body = problem.encode()
    headers = MutableHeaders(
        {**problem.headers, "Content-Type": MEDIA_TYPE, "Content-Length": str(len(body))}
    )
    await send({"type": "http.response.start", "status": problem.status, "headers": headers.raw})
    await send({"type": "http.response.body", "body": body})


class _Reply:
    """The way out of one request: remembers the status, adds what every answer carries."""

    def __init__(self, send: Send, request_id: str, *, bodiless: bool) -> None:
        self._send = send
        self._request_id = request_id
        self._bodiless = bodiless
        self.status = 0
        self.started = time.perf_counter()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            mine = [
                (b"x-request-id", self._request_id.encode("ascii")),
                (b"x-content-type-options", b"nosniff"),
            ]
            message = {**message, "headers": [*message["headers"], *mine]}
        elif self._bodiless and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else str(uuid.uuid4())


def _write_line(scope: MutableMapping[str, Any], method: str, reply: _Reply) -> None:
    route = getattr(scope.get("route"), "path", "none")
    write = _log.debug if route in QUIET else _log.info
    elapsed = round((time.perf_counter() - reply.started) * 1000, 2)
    write(
        "request",
        method=method if method in METHODS else "other",
        route=route,
        status=reply.status or "cut",
        ms=elapsed,
    )
