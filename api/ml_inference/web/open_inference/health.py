"""Whether the service, or one of its models, answers."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from ml_inference.protocol.readiness import why_not_ready
from ml_inference.web.handling import checked_name, services_of
from ml_inference.web.json import json_response
from ml_inference.web.open_inference.openapi import HEALTH, MODEL_READY

router = APIRouter(tags=["open inference"])


@router.get("/v2/health/live", openapi_extra=HEALTH)
async def live() -> Response:
    """Whether the process turns."""
    return json_response({"live": True})


@router.get("/v2/health/ready", openapi_extra=HEALTH)
async def ready(request: Request) -> Response:
    """Whether traffic should come here; `/health/ready` tells the reasons why not."""
    is_ready = not services_of(request).registry.unready()
    return json_response({"ready": is_ready}, 200 if is_ready else 503)


@router.get("/v2/models/{model}/versions/{version}/ready", openapi_extra=MODEL_READY)
@router.get("/v2/models/{model}/ready", openapi_extra=MODEL_READY)
@router.get("/v1/models/{model}", openapi_extra=MODEL_READY)
async def model_ready(request: Request, model: str, version: str | None = None) -> Response:
    """Whether a model is loaded and answers: 503 while it does not, and then its loading begins, so that waiting helps.

    404 for one that was unloaded by hand, or that no source has.
    """
    words = await why_not_ready(services_of(request).registry, checked_name(model), version)
    if words is None:
        return json_response({"name": model, "ready": True})
    return json_response({"name": model, "ready": False, "error": words}, 503)
