"""A way to stop a run that nobody waits for any more."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Abort:
    """Connects those who may leave with what runs for them; safe from any thread, before, during and after the run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Callable[[], None] | None = None
        self.requested = False

    def bind(self, stop: Callable[[], None]) -> None:
        """Name what stops the run that begins now; called at once when the abort came first."""
        with self._lock:
            self._stop = stop
            if self.requested:
                stop()

    def abort(self) -> None:
        """Stop what is bound, now or when it is bound."""
        with self._lock:
            self.requested = True
            if self._stop is not None:
                self._stop()
