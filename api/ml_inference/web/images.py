"""Inference on images: bytes in, the model's answer out in the form that `Accept` asks for."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request, Response

from ml_inference.contract.predictions import Classification
from ml_inference.errors import DeadlineExceeded, InvalidRequest, TooLarge
from ml_inference.imagery import decode, offered
from ml_inference.web.answers import POSSIBLE, Reply, list_response, make_body, problem_entry, response
from ml_inference.web.body import read_body, until_done
from ml_inference.web.errors import problem_of
from ml_inference.web.handling import deadline_for, one_version, services_of, using_model
from ml_inference.web.multipart import Form, Image, parse_form
from ml_inference.web.negotiate import choose
from ml_inference.web.openapi import PREDICT
from ml_inference.web.query import parse_query

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_inference.contract.options import PredictOptions
    from ml_inference.contract.raster import Raster
    from ml_inference.engine.model import ServedModel
    from ml_inference.services import Services
    from ml_inference.web.body import Reservation

router = APIRouter(tags=["inference"])

AT_ONCE: Final = 16
"""Images of one request that are worked on at the same time: enough to fill a batch, few enough to bound memory."""
LARGE_FORM: Final = 1 << 20
"""From so many bytes on, a form is searched for its boundaries in a thread."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One inference request, once its model is there."""

    services: Services
    model: ServedModel
    options: PredictOptions
    accept: str
    deadline: float
    request_id: str


@router.post("/models/{model}/versions/{version}/predict", openapi_extra=PREDICT)
@router.post("/models/{model}/predict", openapi_extra=PREDICT)
@router.post("/{model}", openapi_extra=PREDICT)
async def predict(request: Request, model: str, version: str | None = None) -> Response:
    """Run a model on one or more images."""
    deadline = deadline_for(request)
    query = parse_query(request.scope["query_string"])
    accept = ",".join(request.headers.getlist("accept"))
    choose(accept, POSSIBLE)  # what can fit no answer at all is refused before any work
    version = one_version(version, query.version)
    async with AsyncExitStack() as held:
        room = held.enter_context(request.app.state.uploads.reservation())
        # A form may name the version further on; every other request learns here that its model is missing.
        form_first = _is_form(request) and version is None
        if not form_first:
            served = await held.enter_async_context(using_model(request, model, version, deadline))
        form = await _read(request, deadline, room)
        version = one_version(version, form.version)
        if form_first:
            served = await held.enter_async_context(using_model(request, model, version, deadline))
        call = _Call(services_of(request), served, query.options, accept, deadline, request.state.request_id)
        return await until_done(asyncio.create_task(_answer(call, form.images)), request.receive)


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "multipart/form-data"


async def _read(request: Request, deadline: float, room: Reservation) -> Form:
    """The request's images."""
    services = services_of(request)
    limit = services.settings.max_body_bytes
    try:
        body = await read_body(request.receive, request.headers, limit=limit, deadline=deadline, room=room)
    except TooLarge:
        served = services.registry.loaded(request.path_params["model"], request.path_params.get("version"))
        with nullcontext() if served is None else served.accounting():  # refused, but asked for
            raise
    if not body:
        raise InvalidRequest(
            "the body is empty: expected an image, or a form with files in the field 'image'"
        )
    if not _is_form(request):
        return Form((Image("image 1", memoryview(body).toreadonly(), request.headers.get("content-type")),))
    kind = request.headers["content-type"]
    if len(body) < LARGE_FORM:
        return parse_form(body, kind)
    return await _in_pool(services, lambda: parse_form(body, kind))


async def _answer(call: _Call, images: tuple[Image, ...]) -> Response:
    if len(images) == 1:
        return response(call.model, await _infer(call, images[0], listed=False))
    room = asyncio.Semaphore(AT_ONCE)

    async def entry(image: Image) -> Reply:
        async with room:
            try:
                return await _infer(call, image, listed=True)
            except Exception as error:  # noqa: BLE001 - each image carries its own problem
                return problem_entry(problem_of(error, call.request_id), image.label)

    return list_response(call.model, await asyncio.gather(*(entry(image) for image in images)))


async def _infer(call: _Call, image: Image, *, listed: bool) -> Reply:
    """One image through decode, predict and encode; counted once, however it ends."""
    with call.model.accounting() as metrics:
        raster, decode_seconds = await _decode(call, image)
        metrics.phase("decode", decode_seconds)
        answer = await call.model.predict(raster, call.options, call.deadline)
        media_type = choose(call.accept, offered(answer.prediction))
        started = time.perf_counter()
        label = image.label if listed else None
        # A few numbers are not worth the trip to another thread.
        if isinstance(answer.prediction, Classification):
            body = make_body(answer, media_type, label)
        else:
            body = await _in_pool(call.services, lambda: make_body(answer, media_type, label))
        encode_seconds = time.perf_counter() - started
        metrics.phase("encode", encode_seconds)
    timing = answer.timing
    seconds = {
        "decode": decode_seconds,
        "prepare": timing.prepare,
        "queue": timing.queue,
        "infer": timing.infer,
        "interpret": timing.interpret,
        "encode": encode_seconds,
    }
    return Reply(media_type, body, seconds, answer.warnings)


async def _decode(call: _Call, image: Image) -> tuple[Raster, float]:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(call.deadline - time.monotonic()):
            work = partial(
                decode, image.data, call.services.limits, image.media_type, call.options.named_bands
            )
            raster = await _in_pool(call.services, work)
    except TimeoutError:
        raise DeadlineExceeded("the request's time passed while its image was decoded") from None
    return raster, time.perf_counter() - started


async def _in_pool[Result](services: Services, work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(services.pool, work)
