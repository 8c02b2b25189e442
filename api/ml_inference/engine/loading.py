"""From a source to a model that has proved it runs: everything that may refuse a model, in one place.

Fetching and opening block, so they are done in threads of their own, a bounded number at a time.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from ml_inference.contract.mlm import read_card
from ml_inference.contract.profile import parse_profile
from ml_inference.contract.reconcile import card_of_graph, reconcile
from ml_inference.engine.device import usable_cores
from ml_inference.engine.lane import LaneThread
from ml_inference.engine.memory import resident_bytes
from ml_inference.engine.session import OnnxSession
from ml_inference.engine.warmup import BatchSafety, warm_up
from ml_inference.errors import CardInvalid, ModelNotFound, SourceFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_inference.contract.card import GraphSignature, ModelCard
    from ml_inference.engine.device import Device
    from ml_inference.engine.session import Session
    from ml_inference.sources.base import ModelBundle, ModelReference, ModelSource


PARALLEL_LOADS: Final = 2
PARALLEL_FETCHES: Final = 8
"""Of each source: one that keeps its callers waiting must not keep them from the others."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to be served.

    Attributes:
        threads: of one run; cores: what the process may use.
        seconds: that fetching and loading took; memory_bytes: resident memory that loading added, at least the file.
    """

    bundle: ModelBundle
    card: ModelCard
    session: Session
    device: Device
    safety: BatchSafety
    threads: int
    cores: int
    seconds: float
    memory_bytes: int


def load_model(bundle: ModelBundle, device: Device, threads: int | None, started: float) -> LoadedModel:
    """Read the card, open the session, make both agree, warm up. Blocking.

    `started` is when its fetching began, in `time.perf_counter()` seconds.

    Raises:
        CardInvalid: with every reason, when the model cannot be served.
    """
    before = resident_bytes()
    cores = usable_cores()
    threads = threads or (max(1, cores - 1) if device.kind == "cpu" else 1)
    session = OnnxSession(bundle.model_path, device, threads)
    card = _card(bundle, session.signature)
    _check_device(card, device)
    safety = warm_up(session, card)
    memory = max(resident_bytes() - before, bundle.model_path.stat().st_size)
    return LoadedModel(
        bundle, card, session, device, safety, threads, cores, time.perf_counter() - started, memory
    )


def _card(bundle: ModelBundle, signature: GraphSignature) -> ModelCard:
    if bundle.item is None:
        return card_of_graph(bundle.name, signature)
    profile = None if bundle.profile is None else parse_profile(bundle.profile)
    return reconcile(read_card(bundle.item, profile), signature)


def _check_device(card: ModelCard, device: Device) -> None:
    wanted = card.accelerator
    if card.accelerator_constrained and wanted == "cuda" and device.kind != "cuda":
        pointer = "/properties/mlm:accelerator_constrained"
        message = f"the model runs on {wanted} only, and this service runs on {device}"
        raise CardInvalid(message, ((pointer, message),))


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

    async def open(self, bundle: ModelBundle, started: float) -> LoadedModel:
        """Open a bundle; see `load_model`."""
        return await _in_thread(
            self._opens, partial(load_model, bundle, self._device, self._threads, started)
        )


async def _in_thread[T](slots: asyncio.Semaphore, work: Callable[[], T]) -> T:
    """Do blocking work in a daemon thread of its own: a hub that never answers must not hold up the exit."""
    async with slots:
        thread = LaneThread("model-loader")
        try:
            return await thread.run(work)
        finally:
            thread.stop()
