"""Whether a model answers, which is asked before anything else of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ml_inference.errors import ModelNotFound, ProcessorError

if TYPE_CHECKING:
    from ml_inference.engine.registry import ModelRegistry

PATIENCE: Final = 1.0
"""Seconds that sources get to say whether they have a model that nobody has asked for before."""


async def why_not_ready(registry: ModelRegistry, name: str, version: str | None) -> str | None:
    """None when the model answers; otherwise why it does not, and its loading begins, so that waiting helps.

    Raises:
        ModelNotFound: no source has it, or it was unloaded by hand.
    """
    known = any(each.name == name for each in registry.statuses())
    deadline = time.monotonic() + (0 if known else PATIENCE)
    try:
        model = await registry.get(name, version, deadline)
    except ModelNotFound:
        raise
    except ProcessorError as error:
        return str(error)
    return None if model.healthy else f"a lane of model {name} is dead"
