"""One bad item never hurts its neighbours: run a batch, and when it fails, halve it until only culprits are left."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ml_inference.errors import InferenceFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ml_inference.engine.abort import Abort

    type Arrays = Mapping[str, NDArray[np.generic]]
    type Run = Callable[[Arrays, Abort], Mapping[str, NDArray[Any]]]

type Outcome = Mapping[str, NDArray[Any]] | Exception


class RunRecord(NamedTuple):
    """One run of the graph: how much went through it, and the seconds of stacking, running and splitting."""

    rows: int
    members: int
    stacking: float
    seconds: float
    splitting: float


@dataclass(slots=True)
class BatchReport:
    """What became of a batch.

    Attributes:
        outcomes: in the order of the members: outputs, or the exception that is the member's alone.
        runs: each run that it took.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)


def run_isolated(run: Run, members: Sequence[Arrays], rows: Sequence[int], abort: Abort) -> BatchReport:
    """Run members as one batch; on failure run each half, down to single members.

    Args:
        run: takes stacked tensors.
        members: tensors of each member; all share names, dtypes and shapes but for the rows.
        rows: of each member; 0 for a tensor without a batch axis, which then must be alone.
        abort: once requested, a failure is not looked into.
    """
    report = BatchReport()
    _attempt(run, members, rows, abort, report)
    return report


def _attempt(
    run: Run, members: Sequence[Arrays], rows: Sequence[int], abort: Abort, report: BatchReport
) -> None:
    started = time.perf_counter()
    try:
        tensors = _stack(members)
        stacked = time.perf_counter()
        outputs = run(tensors, abort)
        ran = time.perf_counter()
        parts = _split(outputs, rows)
    except Exception as exc:  # noqa: BLE001 - whatever a runtime raises is the outcome of its members
        if len(members) == 1 or abort.requested:
            report.outcomes += [exc] * len(members)
            return
        half = len(members) // 2
        _attempt(run, members[:half], rows[:half], abort, report)
        _attempt(run, members[half:], rows[half:], abort, report)
        return
    times = stacked - started, ran - stacked, time.perf_counter() - ran
    report.runs.append(RunRecord(max(1, sum(rows)), len(members), *times))
    report.outcomes += parts


def _stack(members: Sequence[Arrays]) -> Arrays:
    if len(members) == 1:
        return members[0]
    return {name: np.concatenate([member[name] for member in members]) for name in members[0]}


def _split(outputs: Mapping[str, NDArray[Any]], rows: Sequence[int]) -> list[Outcome]:
    """Each member its own rows, as views."""
    if rows[0] == 0:
        return [outputs]
    total = sum(rows)
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != total:
            raise InferenceFailed(
                f"output {name!r} has shape {array.shape}: {total} rows went in, as many must come back"
            )
    if len(rows) == 1:
        return [outputs]
    bounds = np.cumsum([0, *rows])
    return [
        {name: array[first:last] for name, array in outputs.items()}
        for first, last in itertools.pairwise(bounds)
    ]
