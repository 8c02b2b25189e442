"""Walking somebody else's JSON: every step knows its JSON pointer, every remark is kept, and nothing is unbounded."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ml_inference.contract.card import Diagnostic, Frozen, Severity
from ml_inference.errors import CardInvalid

MAX_DEPTH = 24
MAX_VALUES = 200_000
MAX_TEXT = 20_000
MAX_REMARKS = 300
MAX_PROBLEMS = 100

# Null is a legal value of these, so it is nothing to remark on.
_NULLABLE = frozenset(
    (
        "datetime",
        "mlm:accelerator",
        "mlm:pretrained_source",
        "post_processing_function",
        "pre_processing_function",
        "resize_type",
        "value_scaling",
    )
)
_SHOW = reprlib.Repr(maxstring=60, maxother=60, maxdict=4, maxlist=6, maxlevel=3)


def show(value: Any) -> str:
    """Quote a foreign value in a message: short, on one line."""
    return _SHOW.repr(value)


def pointer_to(parent: str, key: str | int) -> str:
    """Append a step to an RFC 6901 JSON pointer."""
    return f"{parent}/{str(key)[:200].replace('~', '~0').replace('/', '~1')}"


@dataclass(slots=True)
class Report:
    """What was noticed on the way: remarks that stay with the card, and problems that prevent one."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    _said: set[tuple[str, str]] = field(default_factory=set)

    def note(self, severity: Severity, pointer: str, message: str) -> None:
        """Keep a remark, once; beyond `MAX_REMARKS` they are dropped, since nobody reads so many."""
        if len(self.diagnostics) < MAX_REMARKS and (pointer, message) not in self._said:
            self._said.add((pointer, message))
            self.diagnostics.append(Diagnostic(severity=severity, pointer=pointer, message=message))

    def refuse(self, pointer: str, message: str) -> None:
        """Keep a reason why the model cannot be served; the same reason at the same place once."""
        if len(self.problems) < MAX_PROBLEMS and (pointer, message) not in self.problems:
            self.problems.append((pointer, message))

    def raise_problems(self, subject: str) -> None:
        """Raise `CardInvalid` with every problem, if there is any."""
        if not self.problems:
            return
        pointer, message = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        raise CardInvalid(
            f"{subject} cannot be served: {pointer or '/'}: {message}{more}", tuple(self.problems)
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """A value, where it stands, and where remarks about it go.

    Attributes:
        value: what `plain` left of it.
        pointer: RFC 6901.
    """

    value: Any
    pointer: str
    report: Report

    def info(self, message: str) -> None:
        """Remark on a harmless coercion."""
        self.report.note(Severity.INFO, self.pointer, message)

    def warn(self, message: str) -> None:
        """Remark on something the publisher or the operator should look at."""
        self.report.note(Severity.WARNING, self.pointer, message)

    def refuse(self, message: str) -> None:
        """Record that the model cannot be served because of this value."""
        self.report.refuse(self.pointer, message)

    def complain(self, message: str, *, strict: bool) -> None:
        """Refuse, or only warn where a wrong value can be done without."""
        (self.refuse if strict else self.warn)(message)

    def at(self, key: str | int, value: Any) -> Cursor:
        """A cursor on a child whose value is known already."""
        return Cursor(value, pointer_to(self.pointer, key), self.report)

    def get(self, key: str) -> Cursor | None:
        """The member of an object; None when it is absent, or when this is no object."""
        if isinstance(self.value, dict) and self.value.get(key) is not None:
            return self.at(key, self.value[key])
        return None

    def first(self, *keys: str) -> Cursor | None:
        """The first of several spellings that is there."""
        return next((found for key in keys if (found := self.get(key)) is not None), None)

    def items(self) -> list[Cursor]:
        """The elements of a list; anything else stands for a list of itself."""
        if isinstance(self.value, list):
            return [self.at(i, value) for i, value in enumerate(self.value)]
        return [self]

    def text(self, key: str) -> str:
        """A member's text; `""` when absent or not text (with a warning)."""
        member = self.get(key)
        if member is None:
            return ""
        if not isinstance(member.value, str):
            member.warn(f"{show(member.value)} is not text; ignored")
            return ""
        return member.value.strip()

    def flag(self, key: str) -> bool:
        """A member's truth; False when absent or not a boolean (with a warning)."""
        member = self.get(key)
        if member is None:
            return False
        if not isinstance(member.value, bool):
            member.warn(f"{show(member.value)} is not true or false; read as false")
            return False
        return member.value

    def number(self) -> float | None:
        """This value as a finite number, else None."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            return None
        return float(self.value) if math.isfinite(self.value) else None

    def integer(self) -> int | None:
        """This value as an integer, also when a catalogue has made a float of it; else None."""
        number = self.number()
        return int(number) if number is not None and number == int(number) and abs(number) < 2**53 else None


def build[T: Frozen](cursor: Cursor, kind: type[T], **fields: Any) -> T | None:
    """Make a value of the contract; what its own validation rejects becomes a problem at the cursor."""
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        cursor.refuse(f"{where}: {first['msg']}" if where else first["msg"].removeprefix("Value error, "))
        return None


@dataclass(slots=True)
class _Budget:
    values: int = MAX_VALUES
    nulls: int = 0


def plain(value: Any, report: Report, pointer: str = "") -> Any:
    """Copy a foreign value into plain JSON types, without nulls.

    Catalogues in Parquet fill every missing member with null, make structs of null, hand out numpy arrays and turn
    integers into floats. Members that are null (or objects that hold nothing else) are dropped; `null` as an element
    of a list stays, since there it can mean something.

    Raises:
        CardInvalid: nested too deep, too many values, or a text beyond every use.
    """
    budget = _Budget()
    result = _plain(value, pointer, 0, budget)
    if budget.nulls:
        report.note(Severity.INFO, pointer, f"{budget.nulls} null members read as absent")
    return result


def _plain(value: Any, pointer: str, depth: int, budget: _Budget) -> Any:
    budget.values -= 1
    if budget.values < 0:
        raise _unbounded(pointer, f"the item holds more than {MAX_VALUES} values")
    if depth > MAX_DEPTH:
        raise _unbounded(pointer, f"the item is nested more than {MAX_DEPTH} deep")
    match value:
        case None | bool():
            return value
        case str():
            return _text(value, pointer)
        case int() | float():
            return _number(value)
        case Mapping():
            return _object(value, pointer, depth, budget)
        case list() | tuple():
            return [_plain(v, pointer_to(pointer, i), depth + 1, budget) for i, v in enumerate(value)]
        case _:
            return _foreign(value, pointer, depth, budget)


def _object(value: Mapping[Any, Any], pointer: str, depth: int, budget: _Budget) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, member in value.items():
        name = _text(str(key), pointer)
        kept = _plain(member, pointer_to(pointer, name), depth + 1, budget)
        if kept is None or (kept == {} and member):
            budget.nulls += name not in _NULLABLE
        else:
            result[name] = kept
    return result


def _foreign(value: Any, pointer: str, depth: int, budget: _Budget) -> Any:
    if hasattr(value, "tolist"):  # numpy's arrays and scalars, without importing numpy for them
        return _plain(value.tolist(), pointer, depth + 1, budget)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return None


def _text(value: str, pointer: str) -> str:
    if len(value) > MAX_TEXT:
        raise _unbounded(pointer, f"a text of {len(value)} characters, {MAX_TEXT} at most")
    return value.encode("utf-8", "replace").decode("utf-8")  # JSON may smuggle lone surrogates


def _number(value: Any) -> float | None:
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)  # NaN is how a column of floats spells null
    return int(value) if abs(value) < 2**63 else (math.inf if value > 0 else -math.inf)


def _unbounded(pointer: str, message: str) -> CardInvalid:
    return CardInvalid(f"the item cannot be read: {message}", ((pointer, message),))
