"""One answer for each request of a stream, in their order, while several are worked on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ml_inference.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

AT_ONCE: Final = 16
"""Requests of one stream that are worked on at the same time: enough to fill a batch, few enough to bound memory."""


async def converse(
    requests: AsyncIterator[Any],
    answer: Callable[[Any], Awaitable[Any]],
    write: Callable[[Any], Awaitable[None]],
    stopping: asyncio.Event,
) -> None:
    """Answer a stream until it ends; whatever is left of it is cancelled with the task.

    Args:
        requests: of the client.
        answer: must not raise: an error is an answer here.
        write: sends one answer.
        stopping: when set, no further request is read.

    Raises:
        NotReady: the server is stopping; the requests that were read have been answered.
    """
    begun: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue(AT_ONCE)
    async with asyncio.TaskGroup() as tasks:

        async def read() -> None:
            async for request in _until(stopping, requests):
                await begun.put(tasks.create_task(_answered(answer, request)))
            await begun.put(None)

        tasks.create_task(read())
        while (task := await begun.get()) is not None:
            await write(await task)
    if stopping.is_set():
        raise NotReady("the service is stopping; the requests that it has read are answered")


async def _answered(answer: Callable[[Any], Awaitable[Any]], request: Any) -> Any:
    return await answer(request)


async def _until(stopping: asyncio.Event, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    stop = asyncio.create_task(stopping.wait())
    try:
        while not stop.done():
            following = asyncio.ensure_future(anext(requests))
            try:
                await asyncio.wait({stop, following}, return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    return
                yield following.result()
            except StopAsyncIteration:
                return
            finally:
                following.cancel()
    finally:
        stop.cancel()
        with suppress(asyncio.CancelledError):
            await stop
