"""One client's connection, with the bounds that uvicorn leaves out: on a request's head, and on a reader that stalls.

What follows the head has its own bounds in `web/body.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

HEAD_BYTES: Final = 64 * 1024
"""Of request line and headers, give or take one read from the socket."""
HEAD_SECONDS: Final = 30.0
"""From the connection, or a head's first byte, to the head's end."""
STALL_SECONDS: Final = 60.0
"""How long an answer may wait for a reader who takes nothing of it."""


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 over httptools, which by itself waits for ever and collects a head of any size."""

    head_seconds = HEAD_SECONDS
    stall_seconds = STALL_SECONDS

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        self._cycles: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._head_timer = self._later(self.head_seconds, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more, and tell every request: uvicorn tells the last of those sent ahead alone."""
        self._stop(self._head_timer, self._stall_timer)
        for cycle in self._cycles:
            cycle.disconnected = cycle.disconnected or not cycle.response_complete
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it makes the head too large."""
        super().data_received(data)
        if self.transport.is_closing() or not self._in_head:
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES:
            self.logger.warning("Request head too large.")
            self.send_400_response(f"The request's head has more than {HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self._stop(self._head_timer)
        self._head_timer = self._later(self.head_seconds, self._head_is_late)

    def on_headers_complete(self) -> None:
        """The head is there; what follows is the application's to wait for."""
        self._in_head = False
        self._stop(self._head_timer)
        super().on_headers_complete()
        self._cycles = [cycle for cycle in self._cycles if not cycle.response_complete]
        if self.cycle is not None:
            self._cycles.append(self.cycle)

    def pause_writing(self) -> None:
        """The answer comes faster than it is taken."""
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        self._stop(self._stall_timer)
        self._stall_timer = self._later(self.stall_seconds, self._reader_is_slow)

    def resume_writing(self) -> None:
        """The reader has caught up."""
        self._stop(self._stall_timer)
        super().resume_writing()

    def _head_is_late(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:  # the head of a request that was sent ahead, behind one that is being answered
            self._head_timer = self._later(self.head_seconds, self._head_is_late)

    def _reader_is_slow(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self._unsent:
            self.logger.warning("A client stopped reading its answer.")
            self.transport.abort()
            return
        self._unsent = unsent
        self._stall_timer = self._later(self.stall_seconds, self._reader_is_slow)

    def _later(self, seconds: float, work: Callable[[], None]) -> asyncio.TimerHandle:
        return self.loop.call_later(seconds, work)

    @staticmethod
    def _stop(*timers: asyncio.TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()
