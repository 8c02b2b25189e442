"""What the routes of the protocol share: reading a body, work in the pool, a request at its model."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from fastapi import Depends, Request

from ml_inference.errors import DeadlineExceeded
from ml_inference.web.body import read_body
from ml_inference.web.handling import services_of
from ml_inference.web.open_inference.wire import read_object
from ml_inference.web.query import parameters

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_inference.services import Services

LARGE: Final = 1 << 16
"""From so many bytes or values on, JSON is read and written in a thread."""


async def no_query(request: Request) -> None:
    """Refuse query parameters: none of these routes knows any.

    Raises:
        InvalidRequest: there is one.
    """
    parameters(request.scope["query_string"], ())


NO_QUERY: Final = Depends(no_query)


async def in_pool[Result](services: Services, work: Callable[[], Result], deadline: float) -> Result:
    """Do it in a thread of the pool.

    Raises:
        DeadlineExceeded: it did not end by `deadline`, in `time.monotonic()` seconds.
    """
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await asyncio.get_running_loop().run_in_executor(services.pool, work)
    except TimeoutError:
        raise DeadlineExceeded("the request's time passed while its body was read or written") from None


async def json_body(request: Request, deadline: float) -> dict[str, Any]:
    """The JSON object of a body; empty for an empty body.

    Raises:
        InvalidRequest: it is none.
        TooLarge, Overloaded, BodyTooSlow, UnsupportedEncoding, ClientGone: see `read_body`.
    """
    services = services_of(request)
    limit = services.settings.max_body_bytes
    with request.app.state.uploads.reservation() as room:
        body = await read_body(request.receive, request.headers, limit=limit, deadline=deadline, room=room)
        if not body.strip():
            return {}
        if len(body) < LARGE:
            return read_object(memoryview(body))
        return await in_pool(services, lambda: read_object(memoryview(body)), deadline)
