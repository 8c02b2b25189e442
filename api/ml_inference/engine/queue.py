"""What waits for a batch, and who goes in the next one: pure bookkeeping, no clock, no thread, no loop."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    type Arrays = Mapping[str, NDArray[np.generic]]

type Key = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Requests with equal keys may share a batch: every tensor's name, dtype and shape without the rows."""


type Line = tuple[int, Key]
"""Level of priority and key: where a request stands."""

DEFAULT_LEVEL: Final = 2
LOWEST_LEVEL: Final = 3
AGEING_SECONDS: Final = 1.0
"""Who has waited so long counts as of the highest level, so that nobody starves."""


@dataclass(eq=False, slots=True)
class Entry:
    """One request on its way: its tensors, its own reply, its own timings.

    Attributes:
        level: of priority, 1 first.
        taken: rows already handed to a lane; finished: rows that came back, `parts` by their first row.
        enqueued, deadline: monotonic seconds.
    """

    tensors: Arrays
    key: Key
    level: int
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

    @property
    def line(self) -> Line:
        """Where it stands."""
        return self.level, self.key


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


def level_of(priority: int) -> int:
    """Level of a request's priority: 1 is the highest, 0 the default, whatever is beyond the lowest is the lowest."""
    return min(priority, LOWEST_LEVEL) if priority > 0 else DEFAULT_LEVEL


class BatchQueue:
    """Entries in order of arrival, one line for each level and key, with exact totals.

    A foreign shape never closes or fragments a batch: it stands in a line of its own, and lines are served by level,
    then by the age of their first entry.
    """

    def __init__(self) -> None:
        self._lines: OrderedDict[Line, OrderedDict[Entry, None]] = OrderedDict()
        self._rows: dict[Line, int] = {}
        self.requests = 0
        self.size = 0

    def __len__(self) -> int:
        return self.requests

    def add(self, entry: Entry) -> None:
        """Stand at the end of its line."""
        self._lines.setdefault(entry.line, OrderedDict())[entry] = None
        self._rows[entry.line] = self._rows.get(entry.line, 0) + entry.waiting
        self.requests += 1
        self.size += entry.size

    def discard(self, entry: Entry) -> None:
        """Leave the line; nothing happens when it is in none."""
        line = self._lines.get(entry.line)
        if line is None or entry not in line:
            return
        del line[entry]
        self._rows[entry.line] -= entry.waiting
        self.requests -= 1
        self.size -= entry.size
        if not line:
            del self._lines[entry.line], self._rows[entry.line]

    def rows(self) -> Mapping[Key, int]:
        """Rows that wait, by key."""
        total = Counter[Key]()
        for (_, key), rows in self._rows.items():
            total[key] += rows
        return total

    def waiting(self, line: Line) -> int:
        """Rows that wait in one line."""
        return self._rows.get(line, 0)

    def pick(self, cap: int, patience: float, now: float) -> Entry:
        """First entry of the line to serve next: of the highest level the oldest.

        Unless that one may still wait and another line is full.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._lines:
            raise IndexError("the queue is empty")
        heads = [next(iter(line)) for line in self._lines.values()]
        first = min(heads, key=lambda entry: _rank(entry, now))
        if now - first.enqueued < patience and self._rows[first.line] < cap:
            return next((head for head in heads if self._rows[head.line] >= cap), first)
        return first

    def take(self, line: Line, cap: int) -> list[Slice]:
        """Cut a batch of at most `cap` rows from one line.

        An entry is split only when it alone is larger than a batch; its rest stays first in line. Callers who have
        gone are left out, so that the batch may be empty.
        """
        slices: list[Slice] = []
        room = cap
        while room and (entries := self._lines.get(line)):
            entry = next(iter(entries))
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
            self._rows[entry.line] -= rows
        entry.taken += rows


def _rank(entry: Entry, now: float) -> tuple[int, float]:
    aged = now - entry.enqueued >= AGEING_SECONDS
    return (1 if aged else entry.level), entry.enqueued
