"""What orchestrators and monitoring ask: alive, ready, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from ml_inference.web.handling import services_of
from ml_inference.web.json import json_response
from ml_inference.web.openapi import LIVE, METRICS, READY

router = APIRouter(tags=["operations"])


@router.get("/health/live", openapi_extra=LIVE)
async def live() -> Response:
    """Whether the process turns: 200 as long as it can answer at all, whatever its models do."""
    return json_response({"status": "live"})


@router.get("/health/ready", openapi_extra=READY)
async def ready(request: Request) -> Response:
    """Whether traffic should come here: 200, or 503 with the reasons."""
    reasons = services_of(request).registry.unready()
    if reasons:
        return json_response({"status": "not ready", "reasons": reasons}, 503)
    return json_response({"status": "ready", "reasons": []})


@router.get("/metrics", openapi_extra=METRICS)
async def metrics(request: Request) -> Response:
    """Prometheus text; 404 where `METRICS` is off."""
    services = services_of(request)
    if not services.settings.metrics:
        raise HTTPException(404)
    body, media_type = services.metrics.render()
    return Response(body, media_type=media_type)
