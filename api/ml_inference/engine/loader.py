"""Fetches and opens models in threads of their own, a bounded number at a time."""

from __future__ import annotations

import asyncio
import difflib
from functools import partial
from typing import TYPE_CHECKING, Final

from ml_inference.engine.lane import LaneThread
from ml_inference.engine.loading import LoadedModel, load_model
from ml_inference.errors import ModelNotFound, SourceFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_inference.engine.device import Device
    from ml_inference.sources.base import ModelBundle, ModelReference, ModelSource

PARALLEL_LOADS: Final = 2
PARALLEL_FETCHES: Final = 8
"""Of each source: one that keeps its callers waiting must not keep them from the others."""


class Loader:
    """An ordered list of sources, and the device that their models run on."""

    def __init__(self, sources: Sequence[ModelSource], device: Device, threads: int | None) -> None:
        self._sources = tuple(sources)
        self._device = device
        self._threads = threads
        self._fetches = [asyncio.Semaphore(PARALLEL_FETCHES) for _ in self._sources]
        self._opens = asyncio.Semaphore(PARALLEL_LOADS)

    async def fetch(self, reference: ModelReference) -> ModelBundle:
        """Ask the sources in order; the first that knows the name serves it."""
        for source, slots in zip(self._sources, self._fetches, strict=True):
            bundle = await _in_thread(slots, partial(self._ask, source, reference))
            if bundle is not None:
                return bundle
        version = "" if reference.version is None else f" version {reference.version}"
        raise ModelNotFound(f"no source has a model {reference.name}{version}{self._hint(reference.name)}")

    def _hint(self, name: str) -> str:
        """The known name that was probably meant."""
        known = {each for source in self._sources for each in source.names()}
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        return f"; did you mean {near[0]}?" if near else ""

    def _ask(self, source: ModelSource, reference: ModelReference) -> ModelBundle | None:
        """What the source has; None when it does not know the name at all."""
        try:
            return source.fetch(reference)
        except ModelNotFound:
            if reference.name in source.names():  # it knows the model; only this version is missing
                raise
            return None
        except SourceFailed as exc:
            if reference.name in source.names():
                raise
            raise SourceFailed(
                f"no other source has a model {reference.name}, and {source.scheme} could not be asked: {exc}"
                f"{self._hint(reference.name)}"
            ) from exc

    async def open(self, bundle: ModelBundle) -> LoadedModel:
        """Open a bundle; see `load_model`."""
        return await _in_thread(self._opens, partial(load_model, bundle, self._device, self._threads))


async def _in_thread[T](slots: asyncio.Semaphore, work: Callable[[], T]) -> T:
    """Do blocking work in a daemon thread of its own: a hub that never answers must not hold up the exit."""
    async with slots:
        thread = LaneThread("model-loader")
        try:
            return await thread.run(work)
        finally:
            thread.stop()
