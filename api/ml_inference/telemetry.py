"""Every metric name on one page, and how the service logs.

Accounting of requests, so that dashboards can trust it: each inference request is counted once in
`model_counter_total` and ends as exactly one of: an answer, one `model_inference_errors_total` (by class of error,
rejections and time-outs included), or one `model_inference_rejected_total{reason="cancelled"}`.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter as Tally
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

Phase = Literal["decode", "prepare", "infer", "interpret", "encode"]
Reason = Literal["queue_full", "deadline", "quota", "too_large", "cancelled"]
Compat = Literal["", "triton"]

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LABELS: Final = ("model", "version")
TRITON_REASONS: Final = {
    "Overloaded": "REJECTED",
    "TooLarge": "REJECTED",
    "DeadlineExceeded": "REJECTED",
    "InferenceFailed": "BACKEND",
    "InternalError": "BACKEND",
}
"""Triton's reason of a failure by our class of error; any other is `OTHER`, and a client that left `CANCELED`."""


class Run(Protocol):
    """One run of a model on a batch."""

    @property
    def rows(self) -> int:
        """Rows of the batch."""

    @property
    def seconds(self) -> float:
        """Seconds that the graph took."""


class Duration(Protocol):
    """How often something happened, and for how many nanoseconds altogether."""

    @property
    def count(self) -> int: ...  # noqa: D102 - the class says it
    @property
    def ns(self) -> int: ...  # noqa: D102 - the class says it


class Statistics(Protocol):
    """What a model has done since it was loaded: rows, runs of the graph, and the time of requests."""

    @property
    def inference_count(self) -> int: ...  # noqa: D102 - the class says it
    @property
    def execution_count(self) -> int: ...  # noqa: D102 - the class says it
    @property
    def success(self) -> Duration: ...  # noqa: D102 - the class says it
    @property
    def queue(self) -> Duration: ...  # noqa: D102 - the class says it
    @property
    def compute_input(self) -> Duration: ...  # noqa: D102 - the class says it
    @property
    def compute_infer(self) -> Duration: ...  # noqa: D102 - the class says it
    @property
    def compute_output(self) -> Duration: ...  # noqa: D102 - the class says it


class Metrics:
    """The service's metrics on one registry. A model's name becomes a label only through `model()`, after it loaded.

    Args:
        registry: where they stand; a new one unless given.
        compat: `triton` adds the names that Triton gives to the same facts.
    """

    def __init__(self, registry: CollectorRegistry | None = None, compat: Compat = "") -> None:
        # A second series for each counter and histogram, which no dashboard reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry if registry is not None else CollectorRegistry()
        self._models: dict[tuple[str, str], ModelMetrics] = {}
        self.requests = self._counter("model_counter", "inference requests for a model")
        self.errors = self._counter(
            "model_inference_errors", "failed requests, by class of error", "error_type"
        )
        self.timeouts = self._counter("model_inference_timeout", "requests that passed their deadline")
        self.rejected = self._counter("model_inference_rejected", "requests turned away", "reason")
        self.restarts = self._counter("model_lane_restarts", "lanes replaced after they died or hung")
        self.duration = self._histogram(
            "model_inference_duration_seconds", "one run of the model on a batch", SECONDS
        )
        self.batch_size = self._histogram("model_inference_batch_size", "rows in a batch", ROWS)
        self.queue = self._histogram("model_inference_queue_seconds", "waiting for a batch", SECONDS)
        self.phases = self._histogram(
            "model_inference_request_seconds", "time of a request in each phase", SECONDS, "phase"
        )
        self.pending_requests = self._gauge("model_inference_pending_requests", "requests in the queue now")
        self.pending_bytes = self._gauge("model_inference_pending_bytes", "bytes of tensors in the queue now")
        self.predicted_wait = self._gauge(
            "model_inference_predicted_wait_seconds", "pending work divided by measured throughput"
        )
        self.busy = self._gauge("model_inference_busy_ratio", "share of lane time spent running")
        self.load_seconds = self._gauge("model_load_seconds", "seconds that fetching and loading took")
        self.ready = self._gauge("model_ready", "1 while the model answers")
        self.memory = self._gauge("model_memory_bytes", "resident memory that loading the model added")
        if compat == "triton":
            self.registry.register(TritonNames(self._models))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, [*LABELS, *labels], registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, LABELS, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, meaning, [*LABELS, *labels], registry=self.registry, buckets=buckets)

    def model(self, name: str, version: str) -> ModelMetrics:
        """The metrics of one loaded model, made on first use."""
        return self._models.setdefault((name, version), ModelMetrics(self, name, version))

    def render(self) -> tuple[bytes, str]:
        """The Prometheus text exposition and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class ModelMetrics:
    """`Metrics` with the labels of one model bound; what the engine reports to."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._metrics = metrics
        self._labels = (model, version)
        self._requests = metrics.requests.labels(*self._labels)
        self._timeouts = metrics.timeouts.labels(*self._labels)
        self._duration = metrics.duration.labels(*self._labels)
        self._batch_size = metrics.batch_size.labels(*self._labels)
        self._queue = metrics.queue.labels(*self._labels)
        self._ready = metrics.ready.labels(*self._labels)
        self.failures: Tally[str] = Tally()
        self.pending: Callable[[], float] = float
        self.statistics: Callable[[], Statistics] | None = None

    def requested(self) -> None:
        """One more inference request."""
        self._requests.inc()

    def failed(self, error_type: str) -> None:
        """A request failed with this class of error."""
        self.failures[TRITON_REASONS.get(error_type, "OTHER")] += 1
        self._metrics.errors.labels(*self._labels, error_type).inc()

    def timed_out(self) -> None:
        """A request passed its deadline."""
        self._timeouts.inc()

    def rejected(self, reason: Reason) -> None:
        """A request was turned away, or its caller left."""
        if reason == "cancelled":
            self.failures["CANCELED"] += 1
        self._metrics.rejected.labels(*self._labels, reason).inc()

    def ran(self, run: Run) -> None:
        """A batch ran."""
        self._batch_size.observe(run.rows)
        self._duration.observe(run.seconds)

    def queued(self, seconds: float) -> None:
        """A request waited so long for its batch."""
        self._queue.observe(seconds)

    def phase(self, name: Phase, seconds: float) -> None:
        """A request spent so long in this phase."""
        self._metrics.phases.labels(*self._labels, name).observe(seconds)

    def lane_restarted(self) -> None:
        """A lane died or hung and was replaced."""
        self._metrics.restarts.labels(*self._labels).inc()

    def loaded(self, seconds: float, memory_bytes: int) -> None:
        """The model answers from now on."""
        self._metrics.load_seconds.labels(*self._labels).set(seconds)
        self._metrics.memory.labels(*self._labels).set(memory_bytes)
        self._ready.set(1)

    def unloaded(self) -> None:
        """The model answers no more; nothing of it is held any longer."""
        self._ready.set(0)
        self.pending, self.statistics = float, None
        for gauge in (self._metrics.pending_requests, self._metrics.pending_bytes):
            gauge.labels(*self._labels).set_function(float)
        self._metrics.predicted_wait.labels(*self._labels).set_function(float)
        self._metrics.busy.labels(*self._labels).set_function(float)

    def watch(
        self,
        *,
        requests: Callable[[], float],
        size: Callable[[], float],
        wait: Callable[[], float],
        busy: Callable[[], float],
    ) -> None:
        """Read the queue's gauges from the queue itself, at each scrape, so that they cannot drift from it."""
        self.pending = requests
        self._metrics.pending_requests.labels(*self._labels).set_function(requests)
        self._metrics.pending_bytes.labels(*self._labels).set_function(size)
        self._metrics.predicted_wait.labels(*self._labels).set_function(wait)
        self._metrics.busy.labels(*self._labels).set_function(busy)

    def watch_statistics(self, statistics: Callable[[], Statistics]) -> None:
        """Where the other names of the same facts (`Compat`) are read from, at each scrape."""
        self.statistics = statistics


class TritonNames(Collector):
    """The metrics of loaded models under Triton's names, in its units, for dashboards and rules that know those.

    Triton's counters do not end in `_total`, as this library's must: they are given without a type, and `rate()` asks none.
    """

    NAMES: Final[Mapping[str, tuple[str, Callable[[Statistics], int]]]] = {
        "nv_inference_request_success": ("requests answered", lambda s: s.success.count),
        "nv_inference_count": ("rows answered", lambda s: s.inference_count),
        "nv_inference_exec_count": ("runs of the graph", lambda s: s.execution_count),
        "nv_inference_request_duration_us": ("answered requests, whole", lambda s: s.success.ns // 1000),
        "nv_inference_queue_duration_us": ("requests in the queue", lambda s: s.queue.ns // 1000),
        "nv_inference_compute_input_duration_us": ("stacking inputs", lambda s: s.compute_input.ns // 1000),
        "nv_inference_compute_infer_duration_us": ("running the graph", lambda s: s.compute_infer.ns // 1000),
        "nv_inference_compute_output_duration_us": (
            "splitting outputs",
            lambda s: s.compute_output.ns // 1000,
        ),
    }
    REASONS: Final = ("REJECTED", "CANCELED", "BACKEND", "OTHER")

    def __init__(self, models: Mapping[tuple[str, str], ModelMetrics]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """One family for each name, a sample for each model that answers."""
        alive = [
            (dict(zip(LABELS, key, strict=True)), model, model.statistics())
            for key, model in self._models.items()
            if model.statistics is not None
        ]
        for name, (meaning, value) in self.NAMES.items():
            family = Metric(name, meaning, "unknown")
            for labels, _, statistics in alive:
                family.add_sample(name, labels, value(statistics))
            yield family
        failed = Metric("nv_inference_request_failure", "requests without an answer", "unknown")
        pending = Metric("nv_inference_pending_request_count", "requests in the queue now", "gauge")
        for labels, model, _ in alive:
            pending.add_sample(pending.name, labels, model.pending())
            for reason in self.REASONS:
                failed.add_sample(failed.name, {**labels, "reason": reason}, model.failures[reason])
        yield from (failed, pending)


@contextmanager
def early_lines() -> Iterator[None]:
    """Hold back what is logged before the settings have said how lines look; `configure_logging` belongs in here."""
    early = MemoryHandler(1000, flushLevel=logging.CRITICAL + 1)
    root = logging.getLogger()
    root.addHandler(early)
    try:
        yield
    finally:
        root.removeHandler(early)
        for record in early.buffer:
            if record.levelno >= root.level:
                root.handle(record)


def _one_line(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what an item or a hub wrote into a message: it can neither begin a line of its own nor steer a terminal."""
    text = str(event.get("event", ""))
    event["event"] = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return event


def configure_logging(style: Literal["text", "json"], level: str) -> None:
    """One line per event on stderr, from structlog and the standard library alike.

    A request's id is bound with `structlog.contextvars.bind_contextvars(request_id=…)` and appears on its lines.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if style == "json":
        # Local variables of a stack may hold secrets.
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        render: list[Any] = [
            structlog.processors.ExceptionRenderer(frames),
            structlog.processors.JSONRenderer(),
        ]
    else:
        render = [
            _one_line,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "multipart", "python_multipart"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # Of a damaged file it quotes what stands in it; the request's own error says enough.
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
