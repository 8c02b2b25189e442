"""The service behind every surface: one model that answers."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from ml_inference.contract.card import Severity, Task
from ml_inference.contract.interpret import interpret
from ml_inference.contract.prepare import prepare
from ml_inference.engine.batcher import Batcher
from ml_inference.engine.batches import BatchConfig, Batched
from ml_inference.engine.statistics import StatisticsRecorder, StatisticsSnapshot
from ml_inference.errors import (
    ContractMismatch,
    DeadlineExceeded,
    Overloaded,
    ProcessorError,
    TooLarge,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ml_inference.contract.card import ModelCard
    from ml_inference.contract.options import PredictOptions
    from ml_inference.contract.predictions import Prediction
    from ml_inference.contract.raster import Raster
    from ml_inference.engine.abort import Abort
    from ml_inference.engine.isolate import RunRecord
    from ml_inference.engine.loading import LoadedModel
    from ml_inference.sources.base import ModelBundle
    from ml_inference.telemetry import ModelMetrics

    type Arrays = Mapping[str, NDArray[np.generic]]

INLINE_VALUES: Final = 64 * 64 * 4
"""Up to so many pixel values, preparing on the event loop is cheaper than a trip to another thread and back."""

AUTO_BATCH: Final = {"cpu": 8, "cuda": 32}
"""`BATCH_SIZE=auto` where neither the model suggests a size nor anything was measured."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the operator chose, as plain values.

    Attributes:
        batch_size: None is `auto`.
        batch_timeout: seconds.
        threads: of ONNX Runtime in one run; None leaves one core to the event loop.
    """

    device: str = "auto"
    batch_size: int | None = None
    batch_timeout: float = 0.005
    batch_policy: Literal["adaptive", "fixed"] = "adaptive"
    queue_size: int = 1024
    queue_bytes: int = 1 << 30
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that a request spent in each part of the engine; `infer` is the run of its batch."""

    prepare: float
    queue: float
    infer: float
    interpret: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of an image, and how it came to say it.

    Attributes:
        applied: the chain of preprocessing in words, in order.
        warnings: doubts that the reader of the answer should know of.
    """

    model: str
    version: str
    task: Task
    prediction: Prediction
    applied: tuple[str, ...]
    warnings: tuple[str, ...]
    timing: Timing


class ServedModel:
    """A loaded model with its queue and lanes, on the running event loop."""

    def __init__(self, loaded: LoadedModel, config: EngineConfig, metrics: ModelMetrics) -> None:
        self._loaded = loaded
        self._metrics = metrics
        self._recorder = StatisticsRecorder(loaded.memory_bytes)
        self._leases = 0
        self._free = asyncio.Event()
        self._free.set()
        self.retired = False
        self._pool = ThreadPoolExecutor(loaded.cores, thread_name_prefix=f"{loaded.bundle.name}-prepare")
        self._batcher = Batcher(
            self._run, self._batch_config(config), _Both(metrics, self._recorder), loaded.bundle.name
        )
        metrics.watch(
            requests=lambda: float(self._batcher.pending_requests),
            size=lambda: float(self._batcher.pending_bytes),
            wait=self._batcher.predicted_wait,
            busy=self._batcher.busy_ratio,
        )
        metrics.watch_statistics(self.statistics)
        metrics.loaded(loaded.seconds, loaded.memory_bytes)

    def _batch_config(self, config: EngineConfig) -> BatchConfig:
        safety = self._loaded.safety
        usual = AUTO_BATCH[self._loaded.device.kind]
        size = config.batch_size or min(usual, self.card.batch_size or usual)
        return BatchConfig(
            size=min(size, safety.limit or size),
            timeout=config.batch_timeout,
            policy=config.batch_policy,
            batched=safety.batched,
            queue_requests=config.queue_size,
            queue_bytes=config.queue_bytes,
        )

    @property
    def name(self) -> str:
        """The registry's name of the model."""
        return self._loaded.bundle.name

    @property
    def version(self) -> str:
        """The version that is served."""
        return self._loaded.bundle.version

    @property
    def source(self) -> str:
        """Where the model came from, as `MODEL_SOURCES` spells it."""
        return self._loaded.bundle.source

    @property
    def card(self) -> ModelCard:
        """What the model promises."""
        return self._loaded.card

    @property
    def item(self) -> Mapping[str, Any] | None:
        """The STAC item as published; None for a bare ONNX file."""
        return self._loaded.bundle.item

    @property
    def notice(self) -> str | None:
        """What a reader should know of the copy that is served (the hub is away …)."""
        return self._loaded.bundle.notice

    def serves(self, bundle: ModelBundle) -> bool:
        """Whether this is what the bundle would give: the same graph, read by the same item and profile."""
        own = self._loaded.bundle
        return (own.sha256, own.item, own.profile) == (bundle.sha256, bundle.item, bundle.profile)

    @property
    def batching(self) -> BatchConfig:
        """How its batches are made."""
        return self._batcher.config

    def statistics(self) -> StatisticsSnapshot:
        """What it has done since it was loaded."""
        return self._recorder.snapshot()

    @property
    def healthy(self) -> bool:
        """Whether every lane lives."""
        return self._batcher.healthy

    @contextmanager
    def accounting(self) -> Iterator[ModelMetrics]:
        """Count one request: as asked for now, and by its end as answered, failed (by class) or cancelled."""
        metrics, started, good = self._metrics, time.perf_counter(), False
        metrics.requested()
        try:
            yield metrics
            good = True
        except asyncio.CancelledError:
            metrics.rejected("cancelled")
            raise
        except Exception as exc:
            _count_failure(metrics, exc)
            raise
        finally:
            self._recorder.ended(time.perf_counter() - started, good=good)

    @contextmanager
    def lease(self) -> Iterator[ServedModel]:
        """Keep the model until the block ends: `close()` waits for everyone who holds it."""
        self._leases += 1
        self._free.clear()
        try:
            yield self
        finally:
            self._leases -= 1
            if not self._leases:
                self._free.set()

    async def predict(self, raster: Raster, options: PredictOptions, deadline: float) -> Answer:
        """Prepare an image by the card, run it in some batch, and say what came out in the card's words.

        `deadline` is in monotonic seconds.

        Raises:
            ContractMismatch: the image or an option does not fit the card.
            Overloaded, TooLarge, DeadlineExceeded, InferenceFailed, NotReady: see `Batcher.submit`.
        """
        small = raster.pixels.size <= INLINE_VALUES
        with self._batcher.expect():
            prepared, prepare_seconds = await self._timed(
                small, deadline, lambda: prepare(raster, self.card, options)
            )
        batched = await self._batcher.submit(prepared.tensors, deadline)
        prediction, interpret_seconds = await self._timed(
            small, deadline, lambda: interpret(batched.outputs, self.card, prepared.frame, options)
        )
        timing = Timing(prepare_seconds, batched.queue_seconds, batched.run_seconds, interpret_seconds)
        self._observe(timing)
        return Answer(
            self.name, self.version, self.card.task, prediction, prepared.applied, prepared.warnings, timing
        )

    async def infer(self, tensors: Arrays, deadline: float, priority: int = 0) -> Batched:
        """Run tensors as they are; see `Batcher.submit`."""
        batched = await self._batcher.submit(tensors, deadline, priority)
        self._metrics.phase("infer", batched.run_seconds)
        return batched

    async def prepare_images(
        self, rasters: Sequence[Raster], options: PredictOptions, deadline: float
    ) -> dict[str, NDArray[Any]]:
        """Prepare images by the card and stack them along the batch axis: the tensors that `infer` takes.

        Raises:
            ContractMismatch: an image does not fit the card, or they give tensors that cannot be stacked.
        """
        with self._batcher.expect():
            prepared, seconds = await self._timed(
                False, deadline, lambda: [prepare(raster, self.card, options).tensors for raster in rasters]
            )
        self._metrics.phase("prepare", seconds)
        return _stacked(prepared, batched=self.batching.batched)

    def describe(self) -> dict[str, Any]:
        """The model as served, ready for JSON."""
        loaded, config = self._loaded, self._batcher.config
        card = self.card.model_dump(mode="json")
        diagnostics = card.pop("diagnostics")
        return {
            "name": self.name,
            "version": self.version,
            "state": "ready",
            "source": self.source,
            "notice": self.notice,
            "task": self.card.task.value,
            "card": card,
            "warnings": sum(d["severity"] == Severity.WARNING for d in diagnostics),
            "diagnostics": diagnostics,
            "device": {
                "device": str(loaded.device),
                "provider": loaded.session.provider,
                "threads": loaded.threads,
            },
            "batching": {
                "policy": config.policy,
                "size": config.size,
                "timeout": config.timeout,
                "lanes": config.lanes,
                "finding": loaded.safety.note,
            },
            "file": {"sha256": loaded.bundle.sha256, "verified": loaded.bundle.verified},
            "load_seconds": round(loaded.seconds, 3),
            "memory_bytes": loaded.memory_bytes,
        }

    async def close(self, *, replaced: bool = False) -> None:
        """Wait for those who hold a lease, answer what was accepted, then stop.

        `replaced`: another copy answers under the same name and version, and its metrics go on.
        """
        self.retired = True
        await self._free.wait()
        await self._batcher.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if not replaced:
            self._metrics.unloaded()

    def _run(self, tensors: Arrays, abort: Abort) -> Mapping[str, NDArray[Any]]:
        exact = self._loaded.safety.exact
        if exact is None:
            return self._loaded.session.run(tensors, abort)
        rows = next(iter(tensors.values())).shape[0]
        filled = {
            name: np.concatenate([array, np.zeros((exact - rows, *array.shape[1:]), array.dtype)])
            for name, array in tensors.items()
        }
        return {name: array[:rows] for name, array in self._loaded.session.run(filled, abort).items()}

    async def _timed[T](self, inline: bool, deadline: float, work: Callable[[], T]) -> tuple[T, float]:
        started = time.perf_counter()
        if inline:
            return work(), time.perf_counter() - started
        remaining = deadline - time.monotonic()
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            async with asyncio.timeout(remaining):
                return await future, time.perf_counter() - started
        except TimeoutError:
            raise DeadlineExceeded("the request's time passed while its image was prepared") from None

    def _observe(self, timing: Timing) -> None:
        self._metrics.phase("prepare", timing.prepare)
        self._metrics.phase("infer", timing.infer)
        self._metrics.phase("interpret", timing.interpret)


@dataclass(frozen=True, slots=True)
class _Both:
    """Tells the metrics and the statistics what the batcher saw."""

    metrics: ModelMetrics
    recorder: StatisticsRecorder

    def ran(self, run: RunRecord) -> None:
        self.metrics.ran(run)
        self.recorder.ran(run)

    def queued(self, seconds: float) -> None:
        self.metrics.queued(seconds)
        self.recorder.queued(seconds)

    def lane_restarted(self) -> None:
        self.metrics.lane_restarted()


def _stacked(prepared: Sequence[Arrays], *, batched: bool) -> dict[str, NDArray[Any]]:
    if len(prepared) == 1:
        return dict(prepared[0])
    shapes = [{name: array.shape for name, array in tensors.items()} for tensors in prepared]
    different = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if different is not None or not batched:
        raise ContractMismatch(
            "the images of one request become one batch, so they must give tensors of one shape, "
            "and the model must have a batch axis; send the others in requests of their own",
            field="image.size",
            expected=[list(shape) for shape in shapes[0].values()],
            got=[list(shape) for shape in shapes[different or 0].values()],
        )
    return {name: np.concatenate([tensors[name] for tensors in prepared]) for name in prepared[0]}


def _count_failure(metrics: ModelMetrics, error: Exception) -> None:
    if isinstance(error, DeadlineExceeded):
        metrics.timed_out()
        metrics.rejected("deadline")
    elif isinstance(error, Overloaded):
        metrics.rejected(error.reason)
    elif isinstance(error, TooLarge):
        metrics.rejected("too_large")
    metrics.failed(type(error).__name__ if isinstance(error, ProcessorError) else "InternalError")
