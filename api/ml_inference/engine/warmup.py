"""First runs of a model: does it run at all, and may its requests share a batch?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml_inference.contract.card import ANY, Axis
from ml_inference.engine.abort import Abort
from ml_inference.errors import CardInvalid, InferenceFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ml_inference.contract.card import InputSpec, ModelCard
    from ml_inference.engine.session import Session

    type Arrays = Mapping[str, NDArray[np.generic]]

SIZES: Final = (64, 256, 224, 512, 32)
"""Image sizes to try on a model that leaves its size open."""

PROBE_ROWS: Final = 3

RELATIVE: Final = 1e-3
"""How far a row may differ between alone and in a batch; kernels round differently for different shapes."""


@dataclass(frozen=True, slots=True)
class BatchSafety:
    """What the probe found.

    Attributes:
        batched: False when the graph has no leading batch axis: tensors go in as they are, one request at a time.
        limit: rows in a batch at most; None when the graph sets none.
        exact: the graph takes exactly this many rows: shorter batches are filled up and cut again.
        note: the finding in words.
    """

    batched: bool
    limit: int | None
    exact: int | None
    note: str


def warm_up(session: Session, card: ModelCard) -> BatchSafety:
    """Run the model alone and in a batch of different rows, and compare.

    Raises:
        CardInvalid: the model fails on the very shape that it declares.
    """
    rows = _declared_rows(card)
    if rows is None:
        _first_run(session, card, 1)
        return BatchSafety(batched=False, limit=1, exact=None, note="the graph has no leading batch axis")
    if rows != ANY:
        _first_run(session, card, rows)
        exact = None if rows == 1 else rows
        return BatchSafety(
            batched=True, limit=rows, exact=exact, note=f"the graph's batch is fixed at {rows}"
        )
    size = _first_run(session, card, 1)
    if size is None:
        return BatchSafety(
            batched=True, limit=1, exact=None, note="no probe size ran, so rows run one by one"
        )
    unsafe = _compare(session, card, size)
    if unsafe:
        return BatchSafety(batched=True, limit=1, exact=None, note=unsafe)
    return BatchSafety(batched=True, limit=None, exact=None, note="rows are independent of their batch")


def _declared_rows(card: ModelCard) -> int | None:
    """Length of the common leading batch axis; None when there is none."""
    if any(spec.axes[:1] != (Axis.BATCH,) for spec in card.inputs):
        return None
    fixed = {spec.shape[0] for spec in card.inputs} - {ANY}
    return fixed.pop() if fixed else ANY


def _first_run(session: Session, card: ModelCard, rows: int) -> int | None:
    """Run once; the image size that worked, None when the size is open and none of the usual ones did."""
    is_open = any(ANY in (spec.size(Axis.HEIGHT), spec.size(Axis.WIDTH)) for spec in card.inputs)
    cause: InferenceFailed | None = None
    for size in SIZES if is_open else SIZES[:1]:
        try:
            session.run(_random(card, rows, size), Abort())
        except InferenceFailed as exc:
            cause = exc
        else:
            return size
    if is_open:
        return None
    raise CardInvalid(f"the model fails on the shape it declares: {cause}", (("onnx:", str(cause)),))


def _compare(session: Session, card: ModelCard, size: int) -> str:
    """Why rows may not share a batch; empty when they may."""
    together = _random(card, PROBE_ROWS, size)
    alone = {name: array[:1] for name, array in together.items()}
    try:
        batch, single = session.run(together, Abort()), session.run(alone, Abort())
    except InferenceFailed as exc:
        return f"the model runs alone but not in a batch ({exc}), so rows run one by one"
    for name, array in batch.items():
        if array.ndim == 0 or array.shape[0] != PROBE_ROWS:
            return f"output {name!r} answers {array.shape} for {PROBE_ROWS} rows, so rows run one by one"
        if not _alike(array[:1], single[name]):
            return f"output {name!r} of a row depends on its batch, so rows run one by one"
    return ""


def _alike(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.shape != second.shape:
        return False
    if first.dtype.kind != "f":
        return bool(np.mean(first != second) <= RELATIVE)
    scale = float(np.nanmax(np.abs(second), initial=0.0)) if second.size else 0.0
    return bool(np.allclose(first, second, rtol=RELATIVE, atol=RELATIVE * max(scale, 1e-6), equal_nan=True))


def _random(card: ModelCard, rows: int, size: int) -> Arrays:
    random = np.random.default_rng(0)
    tensors: dict[str, NDArray[np.generic]] = {}
    for spec in card.inputs:
        values = random.random(_concrete(spec, rows, size), dtype=np.float32)
        tensors[spec.name] = (values if spec.dtype.startswith("float") else values * 100).astype(spec.dtype)
    return tensors


def _concrete(spec: InputSpec, rows: int, size: int) -> tuple[int, ...]:
    rounded = -(-size // spec.size_multiple) * spec.size_multiple
    stand_in = {
        Axis.BATCH: rows,
        Axis.HEIGHT: rounded,
        Axis.WIDTH: rounded,
        Axis.CHANNEL: max(1, len(spec.bands)),
    }
    return tuple(
        dim if dim != ANY else stand_in.get(axis, 1) for axis, dim in zip(spec.axes, spec.shape, strict=True)
    )
