"""Who may ask: one key, compared in constant time, before anything else of a request is looked at."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from ml_inference.errors import Forbidden, Unauthorised

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN: Final = frozenset({"/", "/docs", "/openapi.json", "/metrics", "/health/live", "/health/ready"})
"""Paths that need no key; every other one does, also one that does not exist."""


class KeyRequired:
    """Refuses requests without the key: `X-API-Key: KEY` or `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._digest = None if key is None else _digest(key.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Unauthorised: no key came.
            Forbidden: another key came.
        """
        if scope["type"] == "http" and self._digest is not None and route_path(scope) not in OPEN:
            _check(scope["headers"], self._digest)
        await self._app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """The path below the root path under which a proxy publishes the service: what routes are matched against."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root) if path == root or path.startswith(f"{root}/") else path


def _check(headers: Iterable[tuple[bytes, bytes]], digest: bytes) -> None:
    given = _given_key(headers)
    if given is None:
        raise Unauthorised("this service needs a key: send it as X-API-Key or as Authorization: Bearer")
    if not hmac.compare_digest(_digest(given), digest):
        raise Forbidden("this is not the key of this service")


def _given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    bearer = None
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip() or None
        if name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            bearer = (token.strip() or None) if scheme.lower() == b"bearer" else None
    return bearer


def _digest(key: bytes) -> bytes:
    """Keys are compared by digest: of equal length, and as bytes, which may be any."""
    return hashlib.sha256(key).digest()
