"""The model repository: which models there are, and taking them into and out of service (Triton's extension)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from ml_inference.errors import InvalidRequest
from ml_inference.protocol.describe import repository_index
from ml_inference.web.handling import checked_name, deadline_for, services_of
from ml_inference.web.json import json_response
from ml_inference.web.open_inference.exchange import NO_QUERY, json_body
from ml_inference.web.open_inference.openapi import INDEX, LOAD, UNLOAD

router = APIRouter(tags=["open inference"], dependencies=[NO_QUERY])


@router.post("/v2/repository/index", openapi_extra=INDEX)
async def index(request: Request) -> Response:
    """Every model that is known, with its state and why it does not answer."""
    body = await json_body(request, deadline_for(request))
    ready = _flag(body, "ready")
    return json_response(repository_index(services_of(request).registry.statuses(), ready=ready))


@router.post("/v2/repository/models/{model}/load", openapi_extra=LOAD)
async def load(request: Request, model: str) -> Response:
    """Fetch the newest version anew, and serve it once it is open; until then, and if it fails, the present one answers."""
    deadline = deadline_for(request)
    overridden = sorted(_parameters(await json_body(request, deadline)))
    if overridden:
        raise InvalidRequest(
            f"loading with {', '.join(overridden[:3])!r} is not offered: a model is served as its source publishes it"
        )
    await services_of(request).registry.load(checked_name(model), deadline)
    return Response()


@router.post("/v2/repository/models/{model}/unload", openapi_extra=UNLOAD)
async def unload(request: Request, model: str) -> Response:
    """Take every version out of service, each after the requests that it has accepted."""
    body = await json_body(request, deadline_for(request))
    _flag(_parameters(body), "unload_dependents")  # nothing depends on a model here
    await services_of(request).registry.unload(checked_name(model))
    return Response()


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    found = body.get("parameters", {})
    if not isinstance(found, dict):
        raise InvalidRequest("`parameters` is no object")
    return found


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequest(f"`{name}` is neither true nor false")
    return value
