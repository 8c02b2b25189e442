"""The ASGI application: layers in order, surfaces, lifespan."""

from __future__ import annotations

from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match

from ml_inference import __version__
from ml_inference.services import Services, open_services
from ml_inference.web import images, models, open_inference, operations, page
from ml_inference.web.access import KeyRequired
from ml_inference.web.body import Uploads
from ml_inference.web.context import Problems, RequestContext
from ml_inference.web.http_metrics import HttpMetrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from typing import NoReturn

    from starlette.requests import Request

    from ml_inference.settings import Settings

EXPOSED: Final = (
    *("X-Request-ID", "X-Model-Version", "X-Model-Warnings", "Server-Timing", "Retry-After"),
    "Inference-Header-Content-Length",
)
"""Headers of answers that a page of another origin may read."""


def create_app(
    settings: Settings,
    opener: Callable[[Settings], AbstractAsyncContextManager[Services]] = open_services,
) -> FastAPI:
    """The application; its parts open with its lifespan and close with it.

    Args:
        settings: of the service.
        opener: what opens the parts.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opener(settings) as services:
            app.state.services = services
            app.state.uploads = Uploads(max(settings.queue_bytes, settings.max_body_bytes))
            yield

    app = FastAPI(
        title="ML Inference Processor",
        version=__version__,
        lifespan=lifespan,
        middleware=_layers(settings),
        exception_handlers={HTTPException: _pass_on, RequestValidationError: _pass_on},
        redirect_slashes=False,  # a redirect would be counted under its raw path: a metric label of the client's choice
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    for surface in (
        page,
        operations,
        open_inference,
        models,
        images,
    ):  # `/{model}` last: it would take the others' words for names
        app.include_router(surface.router)
    return app


def _layers(settings: Settings) -> list[Middleware]:
    """Outermost first."""
    layers = [Middleware(RequestContext), Middleware(HttpMetrics)]
    if settings.cors_origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                expose_headers=EXPOSED,
            )
        )
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    return [*layers, Middleware(Problems), Middleware(KeyRequired, key=key)]


async def _pass_on(request: Request, error: Exception) -> NoReturn:
    """Leave the framework's own errors to `Problems`, which knows the one shape."""
    if isinstance(error, HTTPException) and error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        error.headers = {
            "Allow": ", ".join(_methods(request))
        }  # its own names one route's; a path may have two
    raise error


def _methods(request: Request) -> list[str]:
    """The methods that some route takes at this path."""
    tried = {method: {**request.scope, "method": method} for method in ("GET", "POST")}
    routes = request.app.router.routes
    found = [m for m, scope in tried.items() if any(each.matches(scope)[0] is Match.FULL for each in routes)]
    return [*found, "HEAD"] if "GET" in found else found
