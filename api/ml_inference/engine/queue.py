"""What waits for a batch, and who goes in the next one: pure bookkeeping, no clock, no thread, no loop."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    type Arrays = Mapping[str, NDArray[np.generic]]

type Key = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Requests with equal keys may share a batch: every tensor's name, dtype and shape without the rows."""


@dataclass(eq=False, slots=True)
class Entry:
    """One request on its way: its tensors, its own reply, its own timings.

    Attributes:
        taken: rows already handed to a lane; finished: rows that came back, `parts` by their first row.
        enqueued, deadline: monotonic seconds.
    """

    tensors: Arrays
    key: Key
    rows: int
    size: int
    enqueued: float
    deadline: float
    future: asyncio.Future[Any]
    taken: int = 0
    finished: int = 0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    batch_rows: int = 0
    parts: dict[int, Mapping[str, NDArray[Any]]] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        """Rows not yet taken."""
        return self.rows - self.taken


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows `start … stop` of an entry, in one batch."""

    entry: Entry
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.start


def key_of(tensors: Arrays) -> Key:
    """The batch key of a request; the first dimension is rows and left out."""
    return tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(tensors.items()))


class BatchQueue:
    """Entries in order of arrival, one line per key, with exact totals.

    A foreign shape never closes or fragments a batch: it stands in a line of its own, and lines are served by the age
    of their first entry.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[Key, OrderedDict[Entry, None]] = OrderedDict()
        self._rows: dict[Key, int] = {}
        self.requests = 0
        self.size = 0

    def __len__(self) -> int:
        return self.requests

    def add(self, entry: Entry) -> None:
        """Stand at the end of its line."""
        self._lines.setdefault(entry.key, OrderedDict())[entry] = None
        self._rows[entry.key] = self._rows.get(entry.key, 0) + entry.waiting
        self.requests += 1
        self.size += entry.size

    def discard(self, entry: Entry) -> None:
        """Leave the line; nothing happens when it is in none."""
        line = self._lines.get(entry.key)
        if line is None or entry not in line:
            return
        del line[entry]
        self._rows[entry.key] -= entry.waiting
        self.requests -= 1
        self.size -= entry.size
        if not line:
            del self._lines[entry.key], self._rows[entry.key]

    def rows(self) -> Mapping[Key, int]:
        """Rows that wait, by key."""
        return self._rows

    def pick(self, cap: int, patience: float, now: float) -> Entry:
        """First entry of the line to serve next: the oldest, unless it may still wait and another line is full.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._lines:
            raise IndexError("the queue is empty")
        heads = [next(iter(line)) for line in self._lines.values()]
        oldest = min(heads, key=lambda entry: entry.enqueued)
        if now - oldest.enqueued < patience and self._rows[oldest.key] < cap:
            return next((head for head in heads if self._rows[head.key] >= cap), oldest)
        return oldest

    def take(self, key: Key, cap: int) -> list[Slice]:
        """Cut a batch of at most `cap` rows from one line.

        An entry is split only when it alone is larger than a batch; its rest stays first in line. Callers who have
        gone are left out, so that the batch may be empty.
        """
        slices: list[Slice] = []
        room = cap
        while room and (line := self._lines.get(key)):
            entry = next(iter(line))
            if entry.future.done():
                self.discard(entry)
                continue
            if entry.waiting > room and slices:
                break
            rows = min(entry.waiting, room)
            slices.append(Slice(entry, entry.taken, entry.taken + rows))
            self._advance(entry, rows)
            room -= rows
        return slices

    def _advance(self, entry: Entry, rows: int) -> None:
        if rows == entry.waiting:
            self.discard(entry)
        else:
            self._rows[entry.key] -= rows
        entry.taken += rows

    def drain(self) -> list[Entry]:
        """Take everyone out."""
        entries = [entry for line in self._lines.values() for entry in line]
        for entry in entries:
            self.discard(entry)
        return entries
