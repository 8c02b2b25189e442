"""Who may ask over HTTP: the one key, on every path that is not open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ml_inference.protocol.keys import KeyCheck

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PROBES: Final = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
"""What orchestrators ask every few seconds."""
OPEN: Final = frozenset({"/", "/docs", "/openapi.json", "/metrics", *PROBES})
"""Paths that need no key; every other one does, also one that does not exist."""


class KeyRequired:
    """Refuses requests without the key: `X-API-Key: KEY` or `Authorization: Bearer KEY`."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._check = KeyCheck(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request.

        Raises:
            Unauthorised: no key came.
            Forbidden: another key came.
        """
        if scope["type"] == "http" and route_path(scope) not in OPEN:
            self._check(scope["headers"])
        await self._app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """The path below the root path under which a proxy publishes the service: what routes are matched against."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path.removeprefix(root) if path == root or path.startswith(f"{root}/") else path
