"""What every surface does with an error before its own table gives it a status."""

from __future__ import annotations

import uuid
from typing import Final

import structlog

from ml_inference.errors import CardInvalid

LONGEST: Final = 1000
"""Characters of a message; what a client sent is echoed for orientation, not in full."""


def clean(text: str, longest: int = LONGEST) -> str:
    """Printable and bounded: what is echoed can neither break a log line nor fill a screen."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(
        each if each.isprintable() else " " if each.isspace() else "\N{REPLACEMENT CHARACTER}"
        for each in short
    )


def log_failure(error: Exception) -> str:
    """Write what is ours to mend to the log, with its traceback; returns the id under which it stands there."""
    error_id = uuid.uuid4().hex
    structlog.get_logger(__name__).error(
        "request failed",
        error_id=error_id,
        error_type=type(error).__name__,
        reason=clean(str(error)),
        # What is wrong with a card stands in its problems; where it was noticed helps nobody.
        exc_info=None if isinstance(error, CardInvalid) else error,
    )
    return error_id
