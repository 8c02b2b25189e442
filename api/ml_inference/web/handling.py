"""What the surfaces that name a model have in common: its name, its version, the request's deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ml_inference.errors import InvalidRequest, ModelNotFound
from ml_inference.web.query import TIMEOUT_HEADER, deadline_of

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from starlette.requests import Request

    from ml_inference.engine.model import ServedModel
    from ml_inference.services import Services

RESERVED: Final = frozenset(
    {
        "conformance",
        "docs",
        "health",
        "jobs",
        "metrics",
        "models",
        "openapi.json",
        "processes",
        "static",
        "v1",
        "v2",
    }
)
"""First words of this service's own paths, now or by design; no model is reached under them."""


def services_of(request: Request) -> Services:
    """The open parts of the service."""
    services: Services = request.app.state.services
    return services


def deadline_for(request: Request) -> float:
    """`time.monotonic()` seconds: `REQUEST_TIMEOUT` from now, or sooner by `X-Request-Timeout-Ms`."""
    return deadline_of(request.headers.get(TIMEOUT_HEADER), services_of(request).settings.request_timeout)


def checked_name(name: str) -> str:
    """The name, unless it is a word of ours; the registry judges the rest.

    Raises:
        ModelNotFound: a reserved word.
    """
    if name.lower() in RESERVED:
        raise ModelNotFound(f"{name} is a reserved word and names no model")
    return name


def one_version(*given: str | None) -> str | None:
    """The version that path, query and form agree on; None is the newest.

    Raises:
        InvalidRequest: they name several.
    """
    named = {each for each in given if each is not None}
    if len(named) > 1:
        raise InvalidRequest("path, query and form name different versions: expected one")
    return named.pop() if named else None


async def served_model(request: Request, name: str, version: str | None, deadline: float) -> ServedModel:
    """The model, loaded if need be; see `ModelRegistry.get`."""
    return await services_of(request).registry.get(checked_name(name), version, deadline)


def using_model(
    request: Request, name: str, version: str | None, deadline: float
) -> AbstractAsyncContextManager[ServedModel]:
    """The model for as long as a request works with it; see `ModelRegistry.use`."""
    return services_of(request).registry.use(checked_name(name), version, deadline)
