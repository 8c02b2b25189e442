"""The arithmetic of MLM `value_scaling`, done literally in the precision of the tensor it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, assert_never

import numpy as np

from ml_inference.contract.card import Clip, Identity, MinMax, Offset, Processing, Scale, ZScore
from ml_inference.contract.formulas import evaluate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ml_inference.contract.card import Scaling, ScalingStep
    from ml_inference.contract.resample import Planes

CHANNEL = "A"
"""How a per-channel expression calls its own channel (gdal-calc); rio-calc may use the band's name as well."""


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """One step as `clip((x - shift) / divisor, low, high)`, each of shape `(1 or channels, 1, 1)`; None does nothing."""

    shift: NDArray[np.floating] | None
    divisor: NDArray[np.floating] | None
    low: NDArray[np.floating] | None
    high: NDArray[np.floating] | None


def scale_values(values: Planes, step: ScalingStep, names: Sequence[str]) -> None:
    """Apply one step in place.

    Args:
        values: float, shape `(channels, height, width)`.
        step: one operation for all channels, or one for each.
        names: of the channels, for expressions.
    """
    plan = _plan(step, values.dtype.name)
    if plan.shift is not None:
        np.subtract(values, plan.shift, out=values)
    if plan.divisor is not None:
        np.divide(values, plan.divisor, out=values)
    if plan.low is not None:
        np.maximum(values, plan.low, out=values)
    if plan.high is not None:
        np.minimum(values, plan.high, out=values)
    for channel in range(len(values)):
        operation = step[channel % len(step)]
        if isinstance(operation, Processing):
            plane = values[channel]
            values[channel] = evaluate(operation.expression, {CHANNEL: plane, names[channel]: plane})


@lru_cache(maxsize=256)
def _plan(step: ScalingStep, dtype: str) -> _Plan:
    rows = np.array([_numbers(operation) for operation in step], dtype=dtype)
    shift, divisor, low, high = (column[:, None, None] for column in rows.T)
    return _Plan(
        shift if shift.any() else None,
        divisor if (divisor != 1).any() else None,
        low if np.isfinite(low).any() else None,
        high if np.isfinite(high).any() else None,
    )


def _numbers(operation: Scaling) -> tuple[float, float, float, float]:
    """Give shift, divisor, low and high of an operation."""
    match operation:
        case Identity() | Processing():
            return 0, 1, -np.inf, np.inf
        case MinMax():
            return operation.minimum, operation.maximum - operation.minimum, -np.inf, np.inf
        case ZScore():
            return operation.mean, operation.stddev, -np.inf, np.inf
        case Offset():
            return operation.value, 1, -np.inf, np.inf
        case Scale():
            return 0, operation.value, -np.inf, np.inf
        case Clip():
            low = -np.inf if operation.minimum is None else operation.minimum
            return 0, 1, low, np.inf if operation.maximum is None else operation.maximum
        case _:
            assert_never(operation)


@lru_cache(maxsize=256)
def scaling_words(step: ScalingStep) -> str:
    """Say what a step does."""
    said = [_words(operation) for operation in step]
    return said[0] if len(set(said)) == 1 else "per channel: " + "; ".join(said)


def _words(operation: Scaling) -> str:
    match operation:
        case Identity():
            said = "as it is"
        case MinMax():
            said = f"min-max {operation.minimum:g} to {operation.maximum:g}"
        case ZScore():
            said = f"z-score with mean {operation.mean:g}, stddev {operation.stddev:g}"
        case Offset():
            said = f"subtract {operation.value:g}"
        case Scale():
            said = f"divide by {operation.value:g}"
        case Clip():
            bounds = (("below", operation.minimum), ("above", operation.maximum))
            said = "clip " + " and ".join(f"{side} {value:g}" for side, value in bounds if value is not None)
        case Processing():
            said = f"A = {operation.expression.expression}"
        case _:
            assert_never(operation)
    return said
