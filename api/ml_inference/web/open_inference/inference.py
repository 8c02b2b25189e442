"""Inference: tensors in, tensors out."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from fastapi import APIRouter, Request, Response

from ml_inference.errors import TooLarge
from ml_inference.protocol.images import decoder
from ml_inference.protocol.infer import deadline_of, infer
from ml_inference.web.body import content_encoding, read_body, until_done
from ml_inference.web.handling import checked_name, deadline_for, services_of
from ml_inference.web.open_inference.exchange import LARGE, NO_QUERY, in_pool
from ml_inference.web.open_inference.inflate import ENCODINGS, inflate
from ml_inference.web.open_inference.openapi import INFER
from ml_inference.web.open_inference.wire import HEADER, as_bytes, header_length, read_request, write_response

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from ml_inference.engine.model import ServedModel
    from ml_inference.protocol.datatypes import Buffer
    from ml_inference.protocol.tensors import InferRequest, InferResponse
    from ml_inference.services import Services
    from ml_inference.web.body import Reservation

router = APIRouter(tags=["open inference"], dependencies=[NO_QUERY])

ALIGNMENT: Final = 16
"""Bytes to which the allocator aligns a body; what lies in it at a multiple of them is aligned too."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One inference request, once its model is there and its body has come."""

    services: Services
    model: ServedModel
    version: str | None
    body: memoryview
    encoding: str
    json_bytes: int | None
    arrived: float
    deadline: float
    room: Reservation


class TensorResponse(Response):
    """A body in parts, so that tensors are not copied into one; never compressed."""

    media_type = "application/octet-stream"

    def __init__(self, parts: Sequence[Buffer], headers: Mapping[str, str]) -> None:
        super().__init__(headers={**headers, "Content-Length": str(sum(map(len, parts)))})
        self.parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self.parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})


@router.post("/v2/models/{model}/versions/{version}/infer", openapi_extra=INFER)
@router.post("/v2/models/{model}/infer", openapi_extra=INFER)
async def run(request: Request, model: str, version: str | None = None) -> Response:
    """Run a model on tensors, in JSON or as bytes behind it, or on encoded images."""
    arrived = time.monotonic()
    latest = deadline_for(request)
    json_bytes = header_length(request.headers)
    services = services_of(request)
    async with services.registry.use(checked_name(model), version, latest) as served:
        with request.app.state.uploads.reservation() as room:
            encoding = content_encoding(request.headers)
            # What lies behind the JSON is aligned where it lies, so that no tensor need be copied.
            lead = 0 if encoding else -(json_bytes or 0) % ALIGNMENT
            body = await _read(request, served, latest, room, lead)
            view = memoryview(body).toreadonly()[lead:]
            call = _Call(services, served, version, view, encoding, json_bytes, arrived, latest, room)
            return await until_done(asyncio.create_task(_answer(call)), request.receive)


async def _read(
    request: Request, served: ServedModel, deadline: float, room: Reservation, lead: int
) -> bytearray:
    limit = services_of(request).settings.max_body_bytes
    try:
        return await read_body(
            request.receive,
            request.headers,
            limit=limit,
            deadline=deadline,
            room=room,
            encodings=ENCODINGS,
            lead=lead,
        )
    except TooLarge:
        with served.accounting():  # refused, but asked for
            raise


async def _answer(call: _Call) -> Response:
    """The request through its model; counted once, however it ends."""
    with call.model.accounting() as metrics:
        started = time.perf_counter()
        request = await _parse(call)
        decoded = time.perf_counter()
        metrics.phase("decode", decoded - started)
        deadline = deadline_of(request, call.arrived, call.deadline)
        response = await infer(call.model, request, deadline, decoder(call.services, deadline))
        inferred = time.perf_counter()
        parts, json_bytes = await _write(call, response, request)
        written = time.perf_counter()
        metrics.phase("encode", written - inferred)
    seconds = {"decode": decoded - started, **response.seconds, "encode": written - inferred}
    headers = {
        "X-Model-Version": call.model.version,
        "Server-Timing": ", ".join(f"{phase};dur={took * 1000:.3f}" for phase, took in seconds.items()),
    }
    if json_bytes is None:
        return Response(parts[0], headers=headers, media_type="application/json")
    return TensorResponse(parts, {**headers, HEADER: str(json_bytes)})


async def _parse(call: _Call) -> InferRequest:
    body = call.body
    if call.encoding:
        limit = call.services.settings.max_body_bytes
        content = await in_pool(call.services, partial(inflate, body, call.encoding, limit), call.deadline)
        call.room.grow_to(len(body) + len(content))
        body = memoryview(content)
    read = partial(read_request, call.model.card, call.model.name, call.version, body, call.json_bytes)
    if (len(body) if call.json_bytes is None else call.json_bytes) < LARGE:
        return read()
    return await in_pool(call.services, read, call.deadline)


async def _write(
    call: _Call, response: InferResponse, request: InferRequest
) -> tuple[Sequence[Buffer], int | None]:
    values = sum(math.prod(each.shape) for each in response.outputs if not as_bytes(request, each.name))
    if values < LARGE:
        return write_response(response, request)
    return await in_pool(call.services, partial(write_response, response, request), call.deadline)
