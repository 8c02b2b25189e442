"""Which models there are, and what each promises as it is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from ml_inference.errors import CardInvalid
from ml_inference.imagery.palette import class_colours
from ml_inference.web.handling import deadline_for, served_model, services_of
from ml_inference.web.json import json_response
from ml_inference.web.openapi import CARD, ITEMS, MODELS
from ml_inference.web.query import parameters

if TYPE_CHECKING:
    from ml_inference.engine.model import ServedModel
    from ml_inference.engine.status import ModelStatus
    from ml_inference.services import Services

router = APIRouter(tags=["models"])


@router.get("/models", openapi_extra=MODELS)
async def list_models(request: Request) -> Response:
    """Every model that the sources know without a network, and every one that was loaded or asked for."""
    parameters(request.scope["query_string"], ())
    services = services_of(request)
    return json_response({"models": [_entry(services, status) for status in services.registry.statuses()]})


@router.get("/models/{model}/versions/{version}", openapi_extra=CARD)
@router.get("/models/{model}", openapi_extra=CARD)
async def model_card(request: Request, model: str, version: str | None = None) -> Response:
    """The card as served. A model that is not loaded yet is loaded first; one that cannot be served says why."""
    parameters(request.scope["query_string"], () if "version" in request.path_params else ("version",))
    try:
        served = await served_model(request, model, version, deadline_for(request))
    except CardInvalid as error:
        return json_response(_refused(model, version, error))
    return json_response({**served.describe(), "legend": _legend(served)})


@router.get("/{model}", openapi_extra=ITEMS)
async def stac_items(request: Request, model: str, version: str | None = None) -> Response:
    """The STAC item of the model in a list, as published; the list is empty for a bare ONNX file."""
    parameters(request.scope["query_string"], ("version",))
    served = await served_model(request, model, version, deadline_for(request))
    return json_response([] if served.item is None else [served.item])


def _entry(services: Services, status: ModelStatus) -> dict[str, Any]:
    loaded = services.registry.loaded(status.name, status.version)
    return {
        "name": status.name,
        "version": status.version,
        "source": status.source,
        "state": status.state,
        "task": None if loaded is None else loaded.card.task,
        "reason": status.reason,
    }


def _legend(served: ServedModel) -> list[dict[str, Any]]:
    """The classes of the decoded output with the colours that pictures and GeoTIFFs give them."""
    classes = served.card.outputs[0].classes
    colours = class_colours(classes)
    return [
        {"name": each.name, "value": each.value, "color": "#{:02x}{:02x}{:02x}".format(*colours[each.value])}
        for each in classes
    ]


def _refused(name: str, version: str | None, error: CardInvalid) -> dict[str, Any]:
    problems = [{"pointer": pointer, "message": message} for pointer, message in error.problems]
    return {"name": name, "version": version, "state": "refused", "reason": str(error), "problems": problems}
