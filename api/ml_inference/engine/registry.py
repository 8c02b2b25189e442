"""Every model is loaded once, in the background, and everybody waits for that same load."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from ml_inference.engine.lane import LaneThread
from ml_inference.engine.loading import LoadedModel, load_model
from ml_inference.engine.memory import release_memory
from ml_inference.engine.model import EngineConfig, ServedModel
from ml_inference.engine.session import resolve_device
from ml_inference.errors import (
    CardInvalid,
    Forbidden,
    ModelNotFound,
    NotReady,
    ProcessorError,
    SourceFailed,
    Unauthorised,
)
from ml_inference.sources.base import ModelReference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from ml_inference.sources.base import ModelBundle, ModelSource
    from ml_inference.telemetry import Metrics

log = structlog.get_logger(__name__)

PARALLEL_LOADS: Final = 2
REMEMBER_SECONDS: Final = 10.0
"""How long a failure answers for itself before the source is asked again."""
REMEMBER_NAMES: Final = 1024


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


@dataclass(frozen=True, slots=True)
class _Failure:
    error: ProcessorError
    until: float


class ModelRegistry:
    """Models by name and version, over an ordered list of sources. Lives on one event loop."""

    def __init__(self, sources: Sequence[ModelSource], config: EngineConfig, metrics: Metrics) -> None:
        self._sources = tuple(sources)
        self._config = config
        self._metrics = metrics
        self.device = resolve_device(config.device)
        self._models: dict[tuple[str, str], ServedModel] = {}
        self._latest: dict[str, str] = {}
        self._loads: dict[ModelReference, asyncio.Task[ServedModel]] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[ServedModel]] = {}
        self._failures: OrderedDict[ModelReference, _Failure] = OrderedDict()
        self._slots = asyncio.Semaphore(PARALLEL_LOADS)
        self._preloading = False
        self._draining = False
        self._unloaded: set[str] = set()
        self._retiring: set[asyncio.Task[None]] = set()
        self.preload_failures: dict[str, str] = {}

    async def get(self, name: str, version: str | None, deadline: float) -> ServedModel:
        """A model that answers; the first caller loads it, the others await that same load.

        `version` None is the latest. `deadline` is in monotonic seconds; the load itself goes on after it.

        Raises:
            ModelNotFound, CardInvalid, SourceFailed, Unauthorised, Forbidden: as the source or the load says.
            NotReady: still loading when the deadline passed.
        """
        model = self.loaded(name, version)
        if model is not None:
            return model
        wanted = ModelReference(name, version)
        if name in self._unloaded:
            raise ModelNotFound(f"model {name} was unloaded; load it to have it back")
        task = self._load_task(wanted)
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await asyncio.shield(task)
        except TimeoutError:
            raise NotReady(f"model {name} is still being loaded", retry_after=2.0) from None

    @asynccontextmanager
    async def use(self, name: str, version: str | None, deadline: float) -> AsyncIterator[ServedModel]:
        """`get()`, and keep the model for as long as the block lasts: neither a newer version nor an unload ends it."""
        model = await self.get(name, version, deadline)
        while model.retired:
            model = await self.get(name, version, deadline)
        with model.lease():
            yield model

    async def load(self, name: str, deadline: float) -> ServedModel:
        """Fetch the newest version anew and open it while the present one answers; a failure keeps the present one.

        Raises:
            ModelNotFound, CardInvalid, SourceFailed, Unauthorised, Forbidden, NotReady: as for `get()`.
        """
        wanted = ModelReference(name)
        self._failures.pop(wanted, None)
        task = self._load_task(wanted)
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                model = await asyncio.shield(task)
        except TimeoutError:
            raise NotReady(f"model {name} is still being loaded", retry_after=2.0) from None
        self._unloaded.discard(name)
        return model

    async def unload(self, name: str) -> None:
        """Take every version out of service, each after the requests that hold it, and give its memory back.

        Raises:
            ModelNotFound: no source has it and it is not loaded.
        """
        wanted = ModelReference(name)
        models = self.versions(name)
        if not models and not any(name in source.names() for source in self._sources):
            raise ModelNotFound(f"no source has a model {wanted.name}")
        self._unloaded.add(name)
        self._latest.pop(name, None)
        for model in models:
            del self._models[model.name, model.version]
        await asyncio.gather(*(model.close() for model in models))
        models.clear()
        release_memory()

    def loaded(self, name: str, version: str | None = None) -> ServedModel | None:
        """The model if it answers already; never loads."""
        wanted = self._latest.get(name) if version is None else version
        return None if wanted is None else self._models.get((name, wanted))

    def versions(self, name: str) -> list[ServedModel]:
        """Every loaded version of a model."""
        return [model for (known, _), model in self._models.items() if known == name]

    def statuses(self) -> list[ModelStatus]:
        """Every model that the sources know without a network, and every one that was loaded or tried."""
        found: dict[str, ModelStatus] = {}
        for source in self._sources:
            for name in source.names():
                found.setdefault(name, ModelStatus(name, None, source.scheme, ModelState.KNOWN))
        for wanted, failure in self._failures.items():
            status = _failed_status(wanted, failure.error)
            if status is not None:
                origin = found[wanted.name].source if wanted.name in found else ""
                found[wanted.name] = replace(status, source=origin)
        for wanted in self._loads:
            origin = found[wanted.name].source if wanted.name in found else ""
            found[wanted.name] = ModelStatus(wanted.name, wanted.version, origin, ModelState.LOADING)
        for name in self._unloaded:
            origin = found[name].source if name in found else ""
            found[name] = ModelStatus(name, None, origin, ModelState.UNLOADED, "unloaded by hand")
        result = {(status.name, status.version): status for status in found.values()}
        for model in self._models.values():
            result.pop((model.name, None), None)
            result[model.name, model.version] = ModelStatus(
                model.name, model.version, model.source, ModelState.READY, model.notice
            )
        return sorted(result.values(), key=lambda status: (status.name, status.version or ""))

    def preload(self, names: Sequence[str]) -> Coroutine[Any, Any, None]:
        """Load these before the service calls itself ready, which it is not from this call on.

        Failures are kept as reasons.
        """
        self._preloading = bool(names)
        return self._preload_all(names)

    async def _preload_all(self, names: Sequence[str]) -> None:
        try:
            await asyncio.gather(*(self._preload(name) for name in names))
        finally:
            self._preloading = False

    async def _preload(self, name: str) -> None:
        try:
            await self.get(name, None, float("inf"))
        except ProcessorError as exc:
            self.preload_failures[name] = str(exc)
            log.error("preload failed", model=name, reason=str(exc))  # noqa: TRY400 - a sentence, not a stack

    def unready(self) -> list[str]:
        """Reasons why traffic should go elsewhere; empty when ready."""
        reasons = [f"model {name}: {reason}" for name, reason in self.preload_failures.items()]
        if self._draining:
            reasons.append("draining")
        if self._preloading:
            reasons.append("loading the models named in MODELS")
        reasons += [f"model {m.name}: a lane is dead" for m in self._models.values() if not m.healthy]
        return reasons

    def start_draining(self) -> None:
        """Tell the load balancer to go elsewhere; requests are still answered."""
        self._draining = True

    async def close(self) -> None:
        """Answer what was accepted, then let go of the models; the sources belong to who opened them."""
        self._draining = True
        loads = [*self._loads.values(), *self._opening.values()]
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        await asyncio.gather(*(model.close() for model in self._models.values()), *self._retiring)

    # ---- loading

    def _load_task(self, wanted: ModelReference) -> asyncio.Task[ServedModel]:
        failure = self._failures.get(wanted)
        if failure is not None and time.monotonic() < failure.until:
            raise failure.error.with_traceback(None)
        task = self._loads.get(wanted)
        if task is None:
            task = asyncio.create_task(self._load(wanted), name=f"load {wanted.name}")
            self._loads[wanted] = task
            task.add_done_callback(lambda done: self._loaded(wanted, done))
        return task

    def _loaded(self, wanted: ModelReference, task: asyncio.Task[ServedModel]) -> None:
        self._loads.pop(wanted, None)
        self._failures.pop(wanted, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ProcessorError):
            self._failures[wanted] = _Failure(error, time.monotonic() + REMEMBER_SECONDS)
            while len(self._failures) > REMEMBER_NAMES:
                self._failures.popitem(last=False)
            if not isinstance(error, ModelNotFound):
                log.warning("model not loaded", model=wanted.name, version=wanted.version, reason=str(error))

    async def _load(self, wanted: ModelReference) -> ServedModel:
        started = time.perf_counter()
        bundle = await self._in_thread(partial(self._fetch, wanted))
        key = (bundle.name, bundle.version)
        known = self._models.get(key)
        if known is None or known.sha256 != bundle.sha256:
            opening = self._opening.get(key)
            if opening is None:
                opening = asyncio.create_task(self._open(bundle, started))
                self._opening[key] = opening
                opening.add_done_callback(lambda _: self._opening.pop(key, None))
            await asyncio.shield(opening)
        if wanted.version is None:
            self._supersede(wanted.name, bundle.version)
        return self._models[key]

    def _supersede(self, name: str, version: str) -> None:
        """Let `version` be the newest from now on; the one before ends after the requests that hold it."""
        before = self._latest.get(name)
        self._latest[name] = version
        if before is not None and before != version:
            self._retire(self._models.pop((name, before)), replaced=False)

    def _retire(self, model: ServedModel, *, replaced: bool) -> None:
        task = asyncio.create_task(self._end(model, replaced=replaced), name=f"retire {model.name}")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _end(self, model: ServedModel, *, replaced: bool) -> None:
        await model.close(replaced=replaced)
        del model
        release_memory()

    async def _open(self, bundle: ModelBundle, started: float) -> ServedModel:
        loaded: LoadedModel = await self._in_thread(
            partial(load_model, bundle, self.device, self._config.threads)
        )
        loaded = replace(loaded, seconds=time.perf_counter() - started)
        model = ServedModel(loaded, self._config, self._metrics.model(bundle.name, bundle.version))
        before = self._models.get((bundle.name, bundle.version))
        self._models[bundle.name, bundle.version] = model
        if before is not None:
            self._retire(before, replaced=True)
        log.info(
            "model ready",
            model=model.name,
            version=model.version,
            source=model.source,
            device=str(self.device),
            threads=loaded.threads,
            seconds=round(loaded.seconds, 3),
            batching=loaded.safety.note,
        )
        return model

    def _fetch(self, reference: ModelReference) -> ModelBundle:
        """Ask the sources in order; the first that knows the name serves it."""
        for source in self._sources:
            try:
                return source.fetch(reference)
            except ModelNotFound:
                if reference.name in source.names():  # it knows the model; only this version is missing
                    raise
        version = "" if reference.version is None else f" version {reference.version}"
        raise ModelNotFound(f"no source has a model {reference.name}{version}")

    async def _in_thread[T](self, work: Callable[[], T]) -> T:
        """Do blocking work in a daemon thread of its own: a hub that never answers must not hold up the exit."""
        async with self._slots:
            thread = LaneThread("model-loader")
            try:
                return await thread.run(work)
            finally:
                thread.stop()


def _failed_status(wanted: ModelReference, error: ProcessorError) -> ModelStatus | None:
    if isinstance(error, CardInvalid):
        return ModelStatus(wanted.name, wanted.version, "", ModelState.REFUSED, str(error), error.problems)
    if isinstance(error, SourceFailed | Unauthorised | Forbidden):
        return ModelStatus(wanted.name, wanted.version, "", ModelState.FAILED, str(error))
    return None
