"""KServe's older V1 protocol, which its users still send, as a translation of V2: instances become rows of tensors."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from ml_inference.errors import InvalidRequest
from ml_inference.protocol.datatypes import datatype_of
from ml_inference.protocol.images import decoder
from ml_inference.protocol.infer import infer
from ml_inference.protocol.tensors import InferRequest, input_of_values
from ml_inference.web.body import until_done
from ml_inference.web.handling import checked_name, deadline_for, services_of
from ml_inference.web.json import json_response
from ml_inference.web.open_inference.exchange import LARGE, NO_QUERY, in_pool, json_body
from ml_inference.web.open_inference.openapi import NAMES, PREDICT
from ml_inference.web.open_inference.wire import json_values

if TYPE_CHECKING:
    from ml_inference.contract.card import ModelCard
    from ml_inference.engine.model import ServedModel
    from ml_inference.protocol.tensors import InferInput, InferOutput, InferResponse
    from ml_inference.services import Services

router = APIRouter(tags=["open inference V1"], dependencies=[NO_QUERY])


@router.get("/v1/models", openapi_extra=NAMES)
async def names(request: Request) -> Response:
    """The names of the models that answer now."""
    statuses = services_of(request).registry.statuses()
    return json_response({"models": list(dict.fromkeys(each.name for each in statuses if each.version))})


@router.post("/v1/models/{model}:predict", openapi_extra=PREDICT)
async def predict(request: Request, model: str) -> Response:
    """Run the newest version of a model on `instances`; the answer has one of `predictions` for each."""
    deadline = deadline_for(request)
    services = services_of(request)
    async with services.registry.use(checked_name(model), None, deadline) as served:
        body = await json_body(request, deadline)
        return await until_done(
            asyncio.create_task(_answer(services, served, body, deadline)), request.receive
        )


async def _answer(services: Services, model: ServedModel, body: dict[str, Any], deadline: float) -> Response:
    with model.accounting():
        asked = await in_pool(services, lambda: translate(model.card, model.name, body), deadline)
        response = await infer(model, asked, deadline, decoder(services, deadline))
        told = {"predictions": predictions(response, batched=model.batching.batched)}
    if sum(math.prod(each.shape) for each in response.outputs) < LARGE:
        return json_response(told)
    return await in_pool(services, lambda: json_response(told), deadline)


def translate(card: ModelCard, name: str, body: dict[str, Any]) -> InferRequest:
    """A V1 body as a V2 request.

    Each of `instances` is the value of the model's one input, or an object with a value for each input by name.

    Raises:
        InvalidRequest: there are no instances, or they are not of one form.
        ContractMismatch: the values of an input are ragged, or of another type.
    """
    instances = body.get("instances")
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest("the body has no list of `instances`")
    named = [isinstance(each, dict) for each in instances]
    if all(named):
        keys = instances[0].keys()
        if any(each.keys() != keys for each in instances):
            raise InvalidRequest("the instances do not all name the same inputs")
        columns = {key: [each[key] for each in instances] for key in keys}
    elif any(named) or len(card.inputs) != 1:
        wanted = ", ".join(spec.name for spec in card.inputs)
        raise InvalidRequest(f"expected instances that are objects with a value for each input: {wanted}")
    else:
        columns = {card.inputs[0].name: instances}
    types = {spec.name: datatype_of(spec.dtype) for spec in card.inputs}
    return InferRequest(name, tuple(_input(key, types, values) for key, values in columns.items()))


def predictions(response: InferResponse, *, batched: bool) -> Any:
    """The outputs as V1 has them: one entry for each row; an object by names where there are several outputs."""
    values = {each.name: _nested(each) for each in response.outputs}
    if len(values) == 1:
        return next(iter(values.values()))
    if not batched:
        return values
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _input(name: str, types: dict[str, str], values: list[Any]) -> InferInput:
    shape: list[int] = []
    level: Any = values
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    return input_of_values(name, types.get(name, "FP32"), shape, values)


def _nested(output: InferOutput) -> Any:
    return json_values(output).reshape(output.shape)
