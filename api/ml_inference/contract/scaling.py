"""The short spelling of scaling that requests and profiles share: `divide:10000`, `offset:1000+divide:10000`."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ml_inference.contract.card import Clip, MinMax, Offset, Scale, ScalingStep, ZScore
from ml_inference.errors import ContractMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_inference.contract.card import Scaling

LEGAL = "none | divide:V | offset:V | min-max:LOW,HIGH | z-score:MEAN,STDDEV | clip:LOW,HIGH, chained with +"
"""What may be written, for messages and help."""

MAX_LENGTH = 400
MAX_STEPS = 8

_OPERATIONS: dict[str, tuple[int, Callable[[Sequence[float]], Scaling]]] = {
    "divide": (1, lambda v: Scale(value=v[0])),
    "offset": (1, lambda v: Offset(value=v[0])),
    "min-max": (2, lambda v: MinMax(minimum=v[0], maximum=v[1])),
    "z-score": (2, lambda v: ZScore(mean=v[0], stddev=v[1])),
    "clip": (2, lambda v: Clip(minimum=v[0], maximum=v[1])),
}
# A `+` in a query string arrives as a space, and the `+` of 1e+4 separates nothing.
_SEPARATOR = re.compile(r"[+\s]+(?=[A-Za-z])")


def parse_scaling(text: str) -> tuple[ScalingStep, ...]:
    """Read scaling steps, in the order in which they are applied.

    Args:
        text: see `LEGAL`. `none` is the explicit "nothing to do".

    Returns:
        One step of one operation for all channels per part of the chain; `()` for `none`.

    Raises:
        ContractMismatch: with field `scaling`, saying what is legal.
    """
    if len(text) > MAX_LENGTH:
        raise _mismatch(f"scaling is {len(text)} characters long, {MAX_LENGTH} at most", text)
    parts = _SEPARATOR.split(text.strip())
    if parts == ["none"]:
        return ()
    if len(parts) > MAX_STEPS:
        raise _mismatch(f"scaling has {len(parts)} steps, {MAX_STEPS} at most", text)
    return tuple((_operation(part.strip(), text),) for part in parts)


def _operation(part: str, text: str) -> Scaling:
    name, _, arguments = part.partition(":")
    if name not in _OPERATIONS:
        raise _mismatch(f"scaling {part[:40]!r} is not known{_hint(name)}", text)
    count, build = _OPERATIONS[name]
    values = [_number(value, part, text) for value in arguments.split(",")]
    if len(values) != count:
        raise _mismatch(f"scaling {part[:40]!r} has {len(values)} numbers, {name} takes {count}", text)
    try:
        return build(values)
    except ValidationError as error:
        raise _mismatch(f"scaling {part[:40]!r}: {error.errors()[0]['msg']}", text) from None


def _hint(name: str) -> str:
    if name == "none":
        return " in a chain: `none` stands alone"
    near = difflib.get_close_matches(name[:40], _OPERATIONS, n=1)
    return f": did you mean {near[0]!r}?" if near else ""


def _number(value: str, part: str, text: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _mismatch(f"scaling {part[:40]!r}: {value[:20]!r} is not a finite number", text)
    return number


def _mismatch(message: str, text: str) -> ContractMismatch:
    return ContractMismatch(f"{message}; legal: {LEGAL}", field="scaling", expected=LEGAL, got=text[:80])
