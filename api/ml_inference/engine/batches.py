"""How batches are made, what comes of them, and who is told: the types that the batcher shares with its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ml_inference.engine.isolate import RunRecord

HANG_SECONDS: Final = 10.0
"""How long a run may go on after everyone in it has left and it was told to stop."""


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """How batches are made.

    Attributes:
        size: rows in a batch at most.
        timeout: seconds an incomplete batch may wait at most.
        policy: `adaptive` waits only for requests that are known to be arriving; `fixed` fills or times out.
        lanes: batches that run at the same time.
        batched: False when the graph has no batch axis; every request then runs alone.
        queue_requests, queue_bytes: what may wait at most.
        hang_seconds: see `HANG_SECONDS`.
    """

    size: int = 8
    timeout: float = 0.005
    policy: Literal["adaptive", "fixed"] = "adaptive"
    lanes: int = 1
    batched: bool = True
    queue_requests: int = 1024
    queue_bytes: int = 1 << 30
    hang_seconds: float = HANG_SECONDS

    @property
    def rows(self) -> int:
        """Rows of a batch at most: without a batch axis, one request."""
        return self.size if self.batched else 1


@dataclass(frozen=True, slots=True)
class Batched:
    """A request's share of what ran.

    Attributes:
        queue_seconds: from submission to the first lane; `run_seconds`: sum over the batches it took part in.
        batch_rows: rows of the largest of them.
    """

    outputs: Mapping[str, NDArray[Any]]
    queue_seconds: float
    run_seconds: float
    batch_rows: int


class Observer(Protocol):
    """Who counts (`telemetry.ModelMetrics` does)."""

    def ran(self, run: RunRecord) -> None:
        """A batch ran."""

    def queued(self, seconds: float) -> None:
        """A request left the queue."""

    def lane_restarted(self) -> None:
        """A lane was replaced."""
