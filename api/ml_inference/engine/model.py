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
from ml_inference.engine.batcher import BatchConfig, Batched, Batcher
from ml_inference.errors import DeadlineExceeded, Overloaded, ProcessorError, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from ml_inference.contract.card import ModelCard
    from ml_inference.contract.options import PredictOptions
    from ml_inference.contract.predictions import Prediction
    from ml_inference.contract.raster import Raster
    from ml_inference.engine.abort import Abort
    from ml_inference.engine.loading import LoadedModel
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
        self._pool = ThreadPoolExecutor(loaded.cores, thread_name_prefix=f"{loaded.bundle.name}-prepare")
        self._batcher = Batcher(self._run, self._batch_config(config), metrics, loaded.bundle.name)
        metrics.watch(
            requests=lambda: float(self._batcher.pending_requests),
            size=lambda: float(self._batcher.pending_bytes),
            wait=self._batcher.predicted_wait,
            busy=self._batcher.busy_ratio,
        )
        metrics.loaded(loaded.seconds, loaded.memory_bytes)

    def _batch_config(self, config: EngineConfig) -> BatchConfig:
        safety = self._loaded.safety
        size = config.batch_size or min(
            AUTO_BATCH[self._loaded.device.kind], self.card.batch_size or AUTO_BATCH["cuda"]
        )
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

    @property
    def healthy(self) -> bool:
        """Whether every lane lives."""
        return self._batcher.healthy

    @contextmanager
    def accounting(self) -> Iterator[ModelMetrics]:
        """Count one request: as asked for now, and by its end as answered, failed (by class) or cancelled."""
        metrics = self._metrics
        metrics.requested()
        try:
            yield metrics
        except asyncio.CancelledError:
            metrics.rejected("cancelled")
            raise
        except Exception as exc:
            _count_failure(metrics, exc)
            raise

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

    async def infer(self, tensors: Arrays, deadline: float) -> Batched:
        """Run tensors as they are; see `Batcher.submit`."""
        return await self._batcher.submit(tensors, deadline)

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

    async def close(self) -> None:
        """Answer what was accepted, then stop."""
        await self._batcher.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
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


def _count_failure(metrics: ModelMetrics, error: Exception) -> None:
    if isinstance(error, DeadlineExceeded):
        metrics.timed_out()
        metrics.rejected("deadline")
    elif isinstance(error, Overloaded):
        metrics.rejected(error.reason)
    elif isinstance(error, TooLarge):
        metrics.rejected("too_large")
    metrics.failed(type(error).__name__ if isinstance(error, ProcessorError) else "InternalError")
