"""What the service and its models are, how they are configured, what they have done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from ml_inference.protocol.describe import (
    model_config,
    model_metadata,
    model_statistics,
    server_metadata,
)
from ml_inference.web.handling import deadline_for, served_model, services_of
from ml_inference.web.json import json_response
from ml_inference.web.open_inference.exchange import NO_QUERY
from ml_inference.web.open_inference.openapi import (
    CONFIG,
    METADATA,
    NAMES,
    SERVER,
    STATISTICS,
)

if TYPE_CHECKING:
    from ml_inference.engine.model import ServedModel

router = APIRouter(tags=["open inference"], dependencies=[NO_QUERY])


@router.get("/v2/", include_in_schema=False)
@router.get("/v2", openapi_extra=SERVER)
async def server() -> Response:
    """Name, version and extensions of this server."""
    return json_response(server_metadata())


@router.get("/v2/models", openapi_extra=NAMES)
async def names(request: Request) -> Response:
    """The names of all models, loaded or not."""
    return json_response(
        {"models": list(dict.fromkeys(each.name for each in services_of(request).registry.statuses()))}
    )


@router.get("/v2/models/stats", openapi_extra=STATISTICS)
async def all_statistics(request: Request) -> Response:
    """What every loaded model has done since it was loaded."""
    registry = services_of(request).registry
    found = (registry.loaded(each.name, each.version) for each in registry.statuses() if each.version)
    return json_response(model_statistics(model for model in found if model is not None))


@router.get("/v2/models/{model}/versions/{version}/config", openapi_extra=CONFIG)
@router.get("/v2/models/{model}/config", openapi_extra=CONFIG)
async def config(request: Request, model: str, version: str | None = None) -> Response:
    """How a model is served, as Triton's `ModelConfig`; loads it where needed."""
    return json_response(model_config(await _served(request, model, version)))


@router.get("/v2/models/{model}/versions/{version}/stats", openapi_extra=STATISTICS)
@router.get("/v2/models/{model}/stats", openapi_extra=STATISTICS)
async def statistics(request: Request, model: str, version: str | None = None) -> Response:
    """What a model, or one version of it, has done since it was loaded; loads it where needed."""
    served = await _served(request, model, version)
    models = [served] if version is not None else services_of(request).registry.versions(model)
    return json_response(model_statistics(models))


@router.get("/v2/models/{model}/versions/{version}", openapi_extra=METADATA)
@router.get("/v2/models/{model}", openapi_extra=METADATA)
async def metadata(request: Request, model: str, version: str | None = None) -> Response:
    """A model's tensors, and what its card says of them; loads it where needed."""
    served = await _served(request, model, version)
    versions = [each.version for each in services_of(request).registry.versions(model)]
    return json_response(model_metadata(served, versions))


async def _served(request: Request, model: str, version: str | None) -> ServedModel:
    return await served_model(request, model, version, deadline_for(request))
