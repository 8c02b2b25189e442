"""The standard HTTP metrics, on the same registry as the service's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prometheus_fastapi_instrumentator.middleware import PrometheusInstrumentatorMiddleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

EXCLUDED: Final = ("^/metrics$", "^(/v2)?/health/")


class HttpMetrics:
    """prometheus-fastapi-instrumentator, put together once the registry is there (the parts open after the layers)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._registry: Any = None
        self._counting: ASGIApp = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        registry = scope["app"].state.services.metrics.registry
        if registry is not self._registry:
            self._registry = registry
            self._counting = PrometheusInstrumentatorMiddleware(
                self._app, registry=registry, excluded_handlers=EXCLUDED
            )
        await self._counting(scope, receive, send)
