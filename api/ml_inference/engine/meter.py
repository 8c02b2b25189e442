"""What the batcher knows of its own speed: seconds per row, and how busy its lanes are."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_inference.engine.queue import Key

SMOOTHING: Final = 0.2
"""Weight of the newest run in the moving average."""

MAX_KEYS: Final = 256
"""Shapes remembered; the least recently seen is forgotten first."""


class CostModel:
    """Seconds per row of each key, as an exponentially weighted moving average."""

    def __init__(self) -> None:
        self._seconds: OrderedDict[Key, float] = OrderedDict()

    def observe(self, key: Key, rows: int, seconds: float) -> None:
        """A batch of `rows` took `seconds`."""
        each = seconds / rows
        known = self._seconds.get(key)
        self._seconds[key] = each if known is None else known + SMOOTHING * (each - known)
        self._seconds.move_to_end(key)
        if len(self._seconds) > MAX_KEYS:
            self._seconds.popitem(last=False)

    def seconds(self, rows: Mapping[Key, int]) -> float:
        """Lane time that these rows will take; a key never seen counts as nothing, so that it is let in."""
        return sum(count * self._seconds.get(key, 0.0) for key, count in rows.items())


class BusyMeter:
    """Share of lane time spent running, over the last `window` seconds."""

    def __init__(self, lanes: int, window: float = 10.0) -> None:
        self._lanes = lanes
        self._window = window
        self._runs: deque[tuple[float, float]] = deque()

    def record(self, started: float, ended: float) -> None:
        """A lane ran from `started` to `ended` (monotonic seconds)."""
        self._runs.append((started, ended))
        self._forget(ended)

    def ratio(self, now: float, running: tuple[float, ...] = ()) -> float:
        """0 … 1; `running` are the start times of runs that have not ended."""
        self._forget(now)
        since = now - self._window
        busy = sum(end - max(start, since) for start, end in self._runs)
        busy += sum(now - max(start, since) for start in running)
        return min(1.0, max(0.0, busy / (self._window * self._lanes)))

    def _forget(self, now: float) -> None:
        while self._runs and self._runs[0][1] < now - self._window:
            self._runs.popleft()
