"""A lane: one thread that runs batches, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class LaneDiedError(Exception):
    """The lane's thread ended under a batch."""


class LaneThread:
    """A daemon thread with an inbox.

    Not a `ThreadPoolExecutor`: a kernel that never returns must neither block the process's exit nor its own
    replacement, and a thread that dies must tell those who wait.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def run[T](self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do `work` in the thread; the future ends with its result, its exception, or `LaneDiedError`."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((work, future))
        return future

    def stop(self) -> None:
        """Let the thread end after what it has; a thread that hangs is left behind."""
        self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, future = job
            try:
                self._post(future.set_result, future, work())
            except Exception as exc:  # noqa: BLE001 - every failure of the work belongs to the one who waits for it
                self._post(future.set_exception, future, exc)
            except BaseException as exc:  # noqa: BLE001 - the thread ends here; those who wait must hear of it
                self._post(future.set_exception, future, LaneDiedError(type(exc).__name__))
                return
            del job, work, future

    def _post(self, settle: Callable[[Any], None], future: asyncio.Future[Any], value: Any) -> None:
        def deliver() -> None:
            if not future.done():
                settle(value)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(deliver)
