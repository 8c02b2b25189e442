"""Who goes in the next batch: arrays in, arrays out.

A lane takes its batch at the instant it becomes free, so a batch forms while the previous one runs, and a lone request
waits for nothing. What is bounded, refused, withdrawn, isolated and restarted is told at each method.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog

from ml_inference.engine.abort import Abort
from ml_inference.engine.batches import Batched
from ml_inference.engine.isolate import BatchReport, run_isolated
from ml_inference.engine.lane import LaneThread
from ml_inference.engine.meter import BusyMeter, CostModel
from ml_inference.engine.queue import BatchQueue, Entry, key_of, level_of
from ml_inference.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    ProcessorError,
    TooLarge,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ml_inference.engine.batches import BatchConfig, Observer
    from ml_inference.engine.isolate import Outcome, Run
    from ml_inference.engine.queue import Arrays, Slice

log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class _Batch:
    slices: list[Slice]
    started: float
    hung: asyncio.Future[None]
    abort: Abort = field(default_factory=Abort)
    absent: int = 0


class Batcher:
    """One model's queue and lanes, on one event loop."""

    def __init__(self, run: Run, config: BatchConfig, observer: Observer, name: str = "model") -> None:
        self.config = config
        self._run = run
        self._observer = observer
        self._name = name
        self._queue = BatchQueue()
        self._costs = CostModel()
        self._meter = BusyMeter(config.lanes)
        self._arriving = 0
        self._changed = asyncio.Event()
        self._running: dict[_Batch, None] = {}
        self._closed = False
        self._lanes = [
            asyncio.create_task(self._lane(index), name=f"{name} lane {index}")
            for index in range(config.lanes)
        ]

    async def submit(self, tensors: Arrays, deadline: float, priority: int = 0) -> Batched:
        """Run a request in some batch.

        Args:
            tensors: every input of the graph; the first dimension of each is rows.
            deadline: monotonic seconds; passed, the request ends on time even if its lane is stuck.
            priority: 1 goes before the default (0), 3 and above after it.

        Raises:
            Overloaded: the queue is full, or predicted not to reach the request before its deadline.
            TooLarge: the request alone is larger than the queue.
            DeadlineExceeded: the deadline passed.
            InferenceFailed: the model failed on this request (never because of a neighbour).
            NotReady: the model is being unloaded.

        Cancelling the caller withdraws the request; a run that nobody waits for is told to stop.
        """
        entry = self._admit(tensors, deadline, priority)
        timer = asyncio.get_running_loop().call_later(
            max(0.0, deadline - time.monotonic()), self._expire, entry
        )
        try:
            batched: Batched = await entry.future
        finally:
            timer.cancel()
            self._leave(entry)
        return batched

    def expect(self) -> Arrival:
        """Announce a request that is being decoded or prepared: `with batcher.expect(): …`."""
        return Arrival(self)

    @property
    def pending_requests(self) -> int:
        """Requests in the queue now."""
        return self._queue.requests

    @property
    def pending_bytes(self) -> int:
        """Bytes of tensors in the queue now."""
        return self._queue.size

    def predicted_wait(self) -> float:
        """Seconds until a request that came now would run: pending work ÷ measured throughput."""
        now = time.monotonic()
        running = sum(self._rest(batch, now) for batch in self._running)
        return (self._costs.seconds(self._queue.rows()) + running) / self.config.lanes

    def busy_ratio(self) -> float:
        """Share of lane time spent running, over the last ten seconds."""
        return self._meter.ratio(time.monotonic(), tuple(batch.started for batch in self._running))

    @property
    def healthy(self) -> bool:
        """Whether every lane lives."""
        return not self._closed and not any(task.done() for task in self._lanes)

    async def close(self) -> None:
        """Refuse new requests, finish those that were accepted (each ends by its deadline), end the lanes."""
        self._closed = True
        self._changed.set()
        await asyncio.gather(*self._lanes)

    # ---- at the door

    def _admit(self, tensors: Arrays, deadline: float, priority: int) -> Entry:
        entry = self._entry(tensors, deadline, priority)
        if self._closed:
            raise NotReady("the model is being unloaded")
        if entry.size > self.config.queue_bytes:
            raise TooLarge(
                f"the request's tensors take {entry.size} bytes; the queue holds {self.config.queue_bytes}"
            )
        wait = self.predicted_wait()
        self._refuse_when_full(entry, wait)
        if entry.enqueued + wait > deadline:
            raise Overloaded(
                f"the queue needs about {wait:.1f} s, longer than this request may wait",
                retry_after=wait,
                reason="deadline",
            )
        self._queue.add(entry)
        self._changed.set()
        return entry

    def _entry(self, tensors: Arrays, deadline: float, priority: int) -> Entry:
        rows = {array.shape[0] for array in tensors.values()} if self.config.batched else {1}
        if len(rows) != 1 or 0 in rows:
            raise InferenceFailed(f"the inputs disagree on their rows, or have none: {sorted(rows)}")
        return Entry(
            tensors=tensors,
            key=key_of(tensors),
            level=level_of(priority),
            rows=rows.pop(),
            size=sum(array.nbytes for array in tensors.values()),
            enqueued=time.monotonic(),
            deadline=deadline,
            future=asyncio.get_running_loop().create_future(),
        )

    def _refuse_when_full(self, entry: Entry, wait: float) -> None:
        config, queue = self.config, self._queue
        if queue.requests >= config.queue_requests:
            raise Overloaded(f"the queue is full: {queue.requests} requests wait", retry_after=max(1.0, wait))
        if queue.size + entry.size > config.queue_bytes:
            raise Overloaded(f"the queue is full: {queue.size} bytes wait", retry_after=max(1.0, wait))

    def _leave(self, entry: Entry) -> None:
        """The caller has its answer, or has gone: take the rest out of the queue and stop what runs for nobody."""
        self._queue.discard(entry)
        for batch in list(self._running):
            batch.absent += sum(1 for part in batch.slices if part.entry is entry)
            if batch.absent == len(batch.slices) and not batch.abort.requested:
                batch.abort.abort()
                asyncio.get_running_loop().call_later(self.config.hang_seconds, _settle, batch.hung)

    def _expire(self, entry: Entry) -> None:
        self._fail(entry, DeadlineExceeded("the request's time passed before its answer was there"))

    def _fail(self, entry: Entry, error: Exception) -> None:
        self._queue.discard(entry)
        if not entry.future.done():
            entry.future.set_exception(error)

    # ---- in the lane

    async def _lane(self, index: int) -> None:
        thread = LaneThread(f"{self._name}-lane-{index}")
        while (slices := await self._next_batch()) is not None:
            batch = _Batch(slices, time.monotonic(), asyncio.get_running_loop().create_future())
            healthy = await self._supervise(thread, batch)
            del slices, batch  # an idle lane holds nobody's tensors
            if not healthy:
                self._observer.lane_restarted()
                thread.stop()
                thread = LaneThread(f"{self._name}-lane-{index}")
        # By its end the thread has let go of the last batch, and so of the model.
        await thread.run(lambda: None)
        thread.stop()

    async def _supervise(self, thread: LaneThread, batch: _Batch) -> bool:
        """Run a batch whatever happens; False when the thread is not to be used again."""
        self._running[batch] = None
        try:
            return await self._execute(thread, batch)
        except Exception:
            log.exception("lane failed", model=self._name)
            for part in batch.slices:
                self._fail(part.entry, InferenceFailed("the lane that ran this request failed"))
            return False
        finally:
            del self._running[batch]

    async def _next_batch(self) -> list[Slice] | None:
        """Wait for work, then for as long as the policy allows, then cut the batch; None when all is done."""
        while True:
            if not self._queue:
                if self._closed:
                    return None
                await self._change(None)
                continue
            patience = 0.0 if self._closed else self.config.timeout
            now = time.monotonic()
            head = self._queue.pick(self.config.rows, patience, now)
            hold = patience - (now - head.enqueued)
            if hold > 0 and self._worth_waiting(head):
                await self._change(hold)
            elif slices := self._queue.take(head.line, self.config.rows):
                return slices

    def _worth_waiting(self, head: Entry) -> bool:
        if self._queue.waiting(head.line) >= self.config.rows:
            return False
        return self.config.policy == "fixed" or self._arriving > 0

    async def _change(self, seconds: float | None) -> None:
        self._changed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _execute(self, thread: LaneThread, batch: _Batch) -> bool:
        """Run a batch and hand out what came of it; False when the lane is not to be used again."""
        self._note_queued(batch)
        members = [_rows_of(part) for part in batch.slices]
        rows = [part.rows if self.config.batched else 0 for part in batch.slices]
        work = thread.run(lambda: run_isolated(self._run, members, rows, batch.abort))
        either: set[asyncio.Future[Any]] = {work, batch.hung}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        ended = time.monotonic()
        self._meter.record(batch.started, ended)
        if not work.done():
            log.error("lane hangs", model=self._name, seconds=ended - batch.started)
            return False
        report, healthy = self._report(work, batch)
        self._account(batch, report)
        for part, outcome in zip(batch.slices, report.outcomes, strict=True):
            self._deliver(part, outcome, ended - batch.started, sum(rows) or 1)
        return healthy

    def _report(self, work: asyncio.Future[BatchReport], batch: _Batch) -> tuple[BatchReport, bool]:
        try:
            return work.result(), True
        except Exception as exc:
            log.exception("lane died", model=self._name, cause=repr(exc))
            lost: Outcome = InferenceFailed("the lane that ran this request died; it was restarted")
            return BatchReport(outcomes=[lost] * len(batch.slices)), False

    def _note_queued(self, batch: _Batch) -> None:
        for part in batch.slices:
            if part.start == 0:
                part.entry.queue_seconds = batch.started - part.entry.enqueued
                self._observer.queued(part.entry.queue_seconds)

    def _account(self, batch: _Batch, report: BatchReport) -> None:
        for run in report.runs:
            self._observer.ran(run)
            self._costs.observe(
                batch.slices[0].entry.key, run.rows, run.stacking + run.seconds + run.splitting
            )

    def _deliver(self, part: Slice, outcome: Outcome, seconds: float, batch_rows: int) -> None:
        entry = part.entry
        if isinstance(outcome, ProcessorError):
            self._fail(entry, outcome)
        elif isinstance(outcome, Exception):
            self._fail(entry, InferenceFailed(f"the model failed: {type(outcome).__name__}"))
        elif not entry.future.done():
            entry.run_seconds += seconds
            entry.batch_rows = max(entry.batch_rows, batch_rows)
            entry.parts[part.start] = outcome
            entry.finished += part.rows
            if entry.finished == entry.rows:
                outputs = _join(entry.parts)
                entry.future.set_result(
                    Batched(outputs, entry.queue_seconds, entry.run_seconds, entry.batch_rows)
                )

    def _rest(self, batch: _Batch, now: float) -> float:
        rows = Counter[Any]()
        for part in batch.slices:
            rows[part.entry.key] += part.rows
        return max(0.0, self._costs.seconds(rows) - (now - batch.started))


class Arrival:
    """A request that will come to the queue soon; `adaptive` may wait for it, never longer than the timeout."""

    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    def __enter__(self) -> None:
        self._batcher._arriving += 1  # noqa: SLF001 - a part of the batcher, apart only to be a context manager

    def __exit__(self, *_: object) -> None:
        self._batcher._arriving -= 1  # noqa: SLF001
        self._batcher._changed.set()  # noqa: SLF001


def _rows_of(part: Slice) -> Arrays:
    if part.rows == part.entry.rows:
        return part.entry.tensors
    return {name: array[part.start : part.stop] for name, array in part.entry.tensors.items()}


def _join(parts: Mapping[int, Mapping[str, NDArray[Any]]]) -> Mapping[str, NDArray[Any]]:
    ordered = [parts[start] for start in sorted(parts)]
    if len(ordered) == 1:
        return ordered[0]
    return {name: np.concatenate([part[name] for part in ordered]) for name in ordered[0]}


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
