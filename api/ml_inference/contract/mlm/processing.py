"""Processing expressions (`format`, `expression`): what is evaluated here, and why everything else is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_inference.contract.card import Expression
from ml_inference.contract.expression import LETTERS, compile_expression
from ml_inference.contract.mlm.values import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.mlm.values import Cursor

MAX_FUNCTIONS = 16
LETTERED = "gdal-calc"

_UNSUPPORTED = {
    "python": "is Python code to import, and nothing from a model's metadata is ever run",
    "docker": "is a container to start, and nothing from a model's metadata is ever run",
    "uri": "is a script to fetch, and nothing from a model's metadata is ever fetched or run",
    "openeo": "is an openEO process graph, which this service does not evaluate",
    "documentation-link": "is preprocessing to be done by hand, as described there",
    "stac-mlm": "is provenance of a result, not a function",
}


@dataclass(frozen=True, slots=True)
class Channels:
    """What is known of the channels that an operation meets.

    Attributes:
        names: of the bands; empty where they have none.
        count: -1 when open.
    """

    names: tuple[str, ...]
    count: int

    def usable(self, format_: str) -> tuple[str, ...] | None:
        """What an expression over these channels may use; None when only the image or the graph tells."""
        if self.names:
            return self.names
        return tuple(LETTERS[: self.count]) if self.count > 0 and format_ == LETTERED else None

    def after(self, expression: Expression) -> Channels:
        """The channels that an expression leaves: as many where it is arithmetic on `A` alone, else one."""
        kept = expression.format == LETTERED and compile_expression(expression).names == (LETTERS[0],)
        return self if kept else Channels((), 1)


def chain(functions: Sequence[Expression], channels: Channels) -> Channels:
    """Follow channels through functions.

    Raises:
        ValueError: a function uses a channel that is not there.
    """
    for function in functions:
        compile_expression(function, channels.usable(function.format))
        channels = channels.after(function)
    return channels


def read_expression(cursor: Cursor, names: Sequence[str] | None) -> Expression | str:
    """Read one expression.

    Args:
        cursor: an object with `format` and `expression`.
        names: what the expression may use (see `compile_expression`).

    Returns:
        The expression, checked against the whitelist, or the reason in words why it cannot be served.
    """
    if isinstance(cursor.value, str):  # before MLM 1.1 the bare reference to a Python function
        return f"{show(cursor.value)} {_UNSUPPORTED['python']}"
    format_ = cursor.text("format").lower()
    body = cursor.get("expression")
    what = f"{format_ or 'an expression without format'} {show(body.value if body else None)}"
    if format_ not in {"gdal-calc", "rio-calc"}:
        return f"{what} {_UNSUPPORTED.get(format_, 'has a format that is not known; served are gdal-calc and rio-calc')}"
    if body is None or not isinstance(body.value, str):
        return f"{what} is not text"
    if format_ != cursor.value["format"]:
        cursor.info(f"format {show(cursor.value['format'])} read as {format_}")
    expression = Expression(
        format="gdal-calc" if format_ == "gdal-calc" else "rio-calc", expression=body.value
    )
    try:
        compile_expression(expression, names)
    except ValueError as error:
        return str(error)
    return expression


def read_functions(
    cursor: Cursor | None, channels: Channels
) -> tuple[tuple[Expression, ...], list[tuple[Cursor, str]]]:
    """Read a `pre_processing_function` or `post_processing_function`: absent, one, or several in order.

    Returns:
        The expressions, and each function that cannot be served with the reason.
    """
    if cursor is None:
        return (), []
    entries = [entry for entry in cursor.items() if entry.value not in (None, {})]
    if len(entries) > MAX_FUNCTIONS:
        return (), [(cursor, f"{len(entries)} functions, {MAX_FUNCTIONS} at most")]
    good: list[Expression] = []
    bad: list[tuple[Cursor, str]] = []
    for entry in entries:
        found = read_expression(entry, channels.usable(format_of(entry)))
        if isinstance(found, str):
            bad.append((entry, found))
            continue
        good.append(found)
        channels = channels.after(found)
    return tuple(good), bad


def format_of(entry: Cursor) -> str:
    """The expression's format in lower case; `""` where there is none."""
    return entry.text("format").lower() if isinstance(entry.value, dict) else ""
