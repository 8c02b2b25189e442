"""`value_scaling`, and the normalisation fields that stood in its place before MLM 1.4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml_inference.contract.card import (
    Clip,
    Expression,
    Identity,
    MinMax,
    Offset,
    Processing,
    Scale,
    ZScore,
)
from ml_inference.contract.mlm.processing import LETTERED, format_of, read_expression
from ml_inference.contract.mlm.values import build, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.card import Scaling, ScalingStep
    from ml_inference.contract.mlm.processing import Channels
    from ml_inference.contract.mlm.values import Cursor

MAX_CHANNELS = 1024

_FIELDS: dict[str, tuple[type[Scaling], dict[str, str]]] = {
    "min-max": (MinMax, {"minimum": "minimum", "maximum": "maximum"}),
    "z-score": (ZScore, {"mean": "mean", "stddev": "stddev"}),
    "clip": (Clip, {"minimum": "minimum", "maximum": "maximum"}),
    "clip-min": (Clip, {"minimum": "minimum"}),
    "clip-max": (Clip, {"maximum": "maximum"}),
    "offset": (Offset, {"value": "value"}),
    "scale": (Scale, {"value": "value"}),
}
_OVERRIDE = "set `scaling` in the profile"


def read_scaling(cursor: Cursor, channels: Channels) -> tuple[ScalingStep, ...] | None:
    """Read the scaling of one `mlm:input` entry.

    Returns:
        Steps in order; `()` for a declared identity; None when nothing is declared.
    """
    declared = cursor.get("value_scaling")
    legacy = _read_legacy(cursor, channels, apply=declared is None)
    if declared is None:
        return legacy
    if declared.value == []:
        declared.warn("value_scaling is empty, which declares nothing")
        return None
    if not isinstance(declared.value, list):
        declared.warn("value_scaling is one object instead of a list; read as a list of one")
    if len(declared.items()) > MAX_CHANNELS:
        declared.refuse(f"value_scaling has {len(declared.items())} entries, {MAX_CHANNELS} at most")
        return None
    operations = [
        _read_operation(entry, _own_name(channels, i, declared)) for i, entry in enumerate(declared.items())
    ]
    return _steps(declared, operations, channels)


def _steps(
    cursor: Cursor, operations: Sequence[Scaling | None], channels: Channels
) -> tuple[ScalingStep, ...] | None:
    good = tuple(operation for operation in operations if operation is not None)
    if len(good) != len(operations):
        return None
    if len(good) != 1 and channels.count not in {-1, len(good)}:
        cursor.refuse(
            f"{len(good)} scalings for {channels.count} channels: one for all or one for each is expected; {_OVERRIDE}"
        )
        return None
    return () if all(isinstance(operation, Identity) for operation in good) else (good,)


def _own_name(channels: Channels, index: int, declared: Cursor) -> tuple[str, ...]:
    """What an entry's channel is called, when the entry is for one channel only."""
    each = len(declared.items()) == len(channels.names)
    return channels.names[index : index + 1] if each else ()


def _read_operation(entry: Cursor, own: tuple[str, ...] = ()) -> Scaling | None:
    if entry.value is None or entry.value == {}:
        entry.info("a scaling of type null: nothing to do")
        return Identity()
    if not isinstance(entry.value, dict):
        entry.refuse(f"{show(entry.value)} is no scaling object; {_OVERRIDE}")
        return None
    kind = entry.text("type")
    name = kind.lower().replace("_", "-")
    if name == "processing":
        return _read_processing(entry, own)
    if name not in _FIELDS:
        entry.refuse(
            f"scaling type {show(kind)} is not known: legal are {', '.join(_FIELDS)}, processing; {_OVERRIDE}"
        )
        return None
    if name != kind:
        entry.info(f"scaling type {show(kind)} read as {name}")
    model, fields = _FIELDS[name]
    return _built(entry, model, fields)


def _built(entry: Cursor, model: type[Scaling], fields: dict[str, str]) -> Scaling | None:
    values: dict[str, float] = {}
    for field in fields:
        found = entry.get(field)
        if found is None and field == "stddev" and (found := entry.get("std")) is not None:
            found.info("`std` read as `stddev`")
        number = found.number() if found is not None else None
        if number is None:
            (found or entry).refuse(
                f"`{field}` is {show(found.value) if found else 'missing'}, a number is expected; {_OVERRIDE}"
            )
            continue
        values[field] = number
    if len(values) != len(fields):
        return None
    made: Any = build(entry, model, **values)
    return made  # type: ignore[no-any-return]  # one of the union's members, which the union type cannot say


def _read_processing(entry: Cursor, own: tuple[str, ...]) -> Scaling | None:
    # One channel at a time, called A; rio-calc may also use the band's own name.
    found = read_expression(entry, ("A",) if format_of(entry) == LETTERED else ("A", *own))
    if isinstance(found, Expression):
        return Processing(expression=found)
    entry.refuse(f"scaling by an expression: {found}; {_OVERRIDE}")
    return None


def _read_legacy(cursor: Cursor, channels: Channels, *, apply: bool) -> tuple[ScalingStep, ...] | None:
    """MLM 1.0 to 1.3: `norm_type`, `norm_clip`, `statistics`, `norm_by_channel`."""
    old = cursor.first("norm_type", "norm_clip", "statistics", "norm_by_channel")
    if old is None:
        return None
    if not apply:
        old.warn("normalisation of MLM before 1.4 stands beside `value_scaling`, which is used")
        return None
    kind = cursor.get("norm_type")
    statistics = cursor.get("statistics")
    if kind is None:
        if statistics is not None:
            statistics.warn("statistics without norm_type are informational; they are not applied")
        elif cursor.get("norm_clip") is not None:
            cursor.warn("norm_clip without norm_type; not applied")
        else:
            old.warn("norm_by_channel alone says nothing; ignored")
        return None
    return _read_norm(cursor, kind, statistics, channels)


def _read_norm(
    cursor: Cursor, kind: Cursor, statistics: Cursor | None, channels: Channels
) -> tuple[ScalingStep, ...] | None:
    name = str(kind.value).strip().lower().replace("_", "-")
    if name == "clip":
        return _read_norm_clip(cursor, kind, channels)
    if name not in {"min-max", "z-score"}:
        kind.refuse(f"norm_type {show(kind.value)} has no defined meaning here; {_OVERRIDE}")
        return None
    if statistics is None or not statistics.items() or len(statistics.items()) > MAX_CHANNELS:
        kind.refuse(f"norm_type {name} without `statistics`; {_OVERRIDE}")
        return None
    entries = statistics.items()
    if cursor.get("norm_by_channel") is not None and not cursor.flag("norm_by_channel"):
        entries = entries[:1]
    kind.warn(f"norm_type {name} of MLM before 1.4 read as value_scaling")
    model, fields = _FIELDS[name]
    return _steps(statistics, [_built(entry, model, fields) for entry in entries], channels)


def _read_norm_clip(cursor: Cursor, kind: Cursor, channels: Channels) -> tuple[ScalingStep, ...] | None:
    limits = cursor.get("norm_clip")
    if limits is None or not limits.items() or len(limits.items()) > MAX_CHANNELS:
        kind.refuse(f"norm_type clip without `norm_clip`; {_OVERRIDE}")
        return None
    scales: list[Scaling | None] = []
    for entry in limits.items():
        number = entry.number()
        if number is None:
            entry.refuse(f"norm_clip {show(entry.value)} is no number; {_OVERRIDE}")
        scales.append(None if number is None else build(entry, Scale, value=number))
    steps = _steps(limits, scales, channels)
    if steps is None:
        return None
    kind.warn("norm_type clip of MLM before 1.4 read as a division by norm_clip, then a clip to 0…1")
    return (*steps, (Clip(minimum=0, maximum=1),))
