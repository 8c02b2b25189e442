"""Where a model stands, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from ml_inference.errors import CardInvalid, Forbidden, ProcessorError, SourceFailed, Unauthorised

if TYPE_CHECKING:
    from ml_inference.sources.base import ModelReference


class ModelState(StrEnum):
    """Where a model stands."""

    KNOWN = "known"
    """A source has it; nobody asked for it yet."""
    LOADING = "loading"
    READY = "ready"
    REFUSED = "refused"
    """Its card, profile or graph cannot be served."""
    FAILED = "failed"
    """Its source failed; it will be tried again."""
    UNLOADED = "unloaded"
    """Taken out of service by hand, until it is loaded by hand."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model's state, with reasons.

    Attributes:
        version: None while unknown.
        problems: `(pointer, message)` pairs of a refused model.
    """

    name: str
    version: str | None
    source: str
    state: ModelState
    reason: str | None = None
    problems: tuple[tuple[str, str], ...] = ()


def failed_status(wanted: ModelReference, error: ProcessorError) -> ModelStatus | None:
    """What a failed load leaves behind; None where the name is nobody's."""
    if isinstance(error, CardInvalid):
        return ModelStatus(wanted.name, wanted.version, "", ModelState.REFUSED, str(error), error.problems)
    if isinstance(error, SourceFailed | Unauthorised | Forbidden):
        return ModelStatus(wanted.name, wanted.version, "", ModelState.FAILED, str(error))
    return None
