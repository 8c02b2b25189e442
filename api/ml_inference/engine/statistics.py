"""What a model has done since it was loaded, counted where it happens; the Open Inference Protocol reports it."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ml_inference.engine.isolate import RunRecord

NANOSECONDS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Duration:
    """How often something happened, and how long it took altogether, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def plus(self, seconds: float, times: int = 1) -> Duration:
        """Something happened `times` more, each taking `seconds`."""
        return Duration(self.count + times, self.ns + times * round(seconds * NANOSECONDS))


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """Runs of one batch size: stacking inputs, running the graph, splitting outputs."""

    batch_size: int
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()


@dataclass(frozen=True, slots=True)
class StatisticsSnapshot:
    """Everything at one moment.

    Attributes:
        inference_count: rows; execution_count: runs of the graph. Their ratio is the mean batch.
        last_inference_ms: of the Unix epoch; 0 before the first.
        success, fail: requests, from their start to their end.
        queue, compute_input, compute_infer, compute_output: of requests; each counts its batch's time in full.
    """

    inference_count: int
    execution_count: int
    last_inference_ms: int
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    batches: tuple[BatchStatistics, ...]
    memory_bytes: int


class StatisticsRecorder:
    """Counts on the event loop; an observer of the batcher."""

    def __init__(self, memory_bytes: int = 0) -> None:
        self._memory_bytes = memory_bytes
        self._rows = 0
        self._runs = 0
        self._last_ms = 0
        self._times: dict[str, Duration] = defaultdict(Duration)
        self._batches: dict[int, BatchStatistics] = {}

    def ended(self, seconds: float, *, good: bool) -> None:
        """A request ended after so long."""
        self._add("success" if good else "fail", seconds)

    def queued(self, seconds: float) -> None:
        """A request left the queue."""
        self._add("queue", seconds)

    def ran(self, run: RunRecord) -> None:
        """A batch ran."""
        self._rows += run.rows
        self._runs += 1
        self._last_ms = time.time_ns() // 1_000_000
        self._add("input", run.stacking, run.members)
        self._add("infer", run.seconds, run.members)
        self._add("output", run.splitting, run.members)
        known = self._batches.get(run.rows, BatchStatistics(run.rows))
        self._batches[run.rows] = BatchStatistics(
            run.rows,
            known.compute_input.plus(run.stacking),
            known.compute_infer.plus(run.seconds),
            known.compute_output.plus(run.splitting),
        )

    def lane_restarted(self) -> None:
        """A lane was replaced; nothing here counts it."""

    def snapshot(self) -> StatisticsSnapshot:
        """Everything counted so far."""
        times = self._times
        return StatisticsSnapshot(
            inference_count=self._rows,
            execution_count=self._runs,
            last_inference_ms=self._last_ms,
            success=times["success"],
            fail=times["fail"],
            queue=times["queue"],
            compute_input=times["input"],
            compute_infer=times["infer"],
            compute_output=times["output"],
            batches=tuple(self._batches[size] for size in sorted(self._batches)),
            memory_bytes=self._memory_bytes,
        )

    def _add(self, what: str, seconds: float, times: int = 1) -> None:
        self._times[what] = self._times[what].plus(seconds, times)
