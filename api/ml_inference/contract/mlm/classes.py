"""Classes of an output, in the four spellings of published items, in the order of the model's channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_inference.contract.card import ClassLabel
from ml_inference.contract.mlm.values import build, show
from ml_inference.contract.profile import parse_color

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.mlm.values import Cursor

MAX_CLASSES = 10_000
_SPELLINGS = ("classification:classes", "classification_classes", "classes")


def read_classes(output: Cursor) -> tuple[ClassLabel, ...]:
    """Read the classes of one `mlm:output` entry; empty when it declares none.

    The result is in the order of the model's channels: by `value` when the values are 0…n-1, else as listed.
    """
    found = [cursor for key in _SPELLINGS if (cursor := output.get(key)) is not None]
    if not found:
        return ()
    cursor = found[0]
    if not cursor.pointer.endswith(_SPELLINGS[0]):
        cursor.info(f"read as {_SPELLINGS[0]}")
    for other in found[1:]:
        other.warn(f"classes are given twice; {cursor.pointer} is used")
    if not isinstance(cursor.value, list) or len(cursor.value) > MAX_CLASSES:
        cursor.refuse(
            f"classes is {show(cursor.value)}, expected a list of at most {MAX_CLASSES}; set `classes` in the profile"
        )
        return ()
    labels = [
        label
        for i, entry in enumerate(cursor.items())
        if (label := _read_class(entry, i, cursor)) is not None
    ]
    return _in_channel_order(labels, cursor)


def _in_channel_order(labels: Sequence[ClassLabel], cursor: Cursor) -> tuple[ClassLabel, ...]:
    values = [label.value for label in labels]
    if len(set(values)) < len(values):
        cursor.refuse(
            "two classes have the same value, so a number does not name one; set `classes` in the profile"
        )
        return ()
    ordered = channel_order(labels)
    if list(ordered) != list(labels):
        cursor.info("classes are listed in another order than their values; channel 0 is value 0")
    return ordered


def channel_order(labels: Sequence[ClassLabel]) -> tuple[ClassLabel, ...]:
    """Sort classes whose values are 0…n-1 by value: then the value is the channel. Any others stay as listed."""
    ordered = sorted(labels, key=lambda label: label.value)
    return tuple(ordered if [label.value for label in ordered] == list(range(len(ordered))) else labels)


def _read_class(entry: Cursor, index: int, listed: Cursor) -> ClassLabel | None:
    """One class; what the whole list has in common is remarked on once, at the list."""
    if isinstance(entry.value, str):
        listed.info("classes by their names alone; the value is the position")
        return build(entry, ClassLabel, value=index, name=entry.value.strip() or str(index))
    if not isinstance(entry.value, dict):
        entry.refuse(f"{show(entry.value)} is no class: an object with value and name is expected")
        return None
    value = _value(entry, index)
    description, title = entry.text("description"), entry.text("title")
    name = entry.text("name")
    if not name:
        listed.info("classes without a name are called by their title, description or value")
    return build(
        entry,
        ClassLabel,
        value=value,
        name=name or title or description or str(value),
        description=description or title,
        color=_color(entry, listed),
        nodata=entry.flag("nodata"),
    )


def _value(entry: Cursor, index: int) -> int:
    found = entry.get("value")
    value = found.integer() if found is not None else None
    if found is None:
        entry.warn(f"the class has no value; its position, {index}, is used")
    elif value is None:
        found.refuse(f"class value {show(found.value)} is no integer; set `classes` in the profile")
    return index if value is None else value


def _color(entry: Cursor, listed: Cursor) -> tuple[int, int, int] | None:
    found = entry.first("color_hint", "color")
    if found is None:
        return None
    color = parse_color(found.value)
    if color is None:
        found.warn(f"color {show(found.value)} is neither RRGGBB nor three numbers 0…255; ignored")
    elif not isinstance(found.value, str):
        listed.info("colors as three numbers instead of RRGGBB")
    return color
