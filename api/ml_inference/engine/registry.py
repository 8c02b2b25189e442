"""Every model is loaded once, in the background, and everybody waits for that same load."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import structlog

from ml_inference.engine.loading import Loader
from ml_inference.engine.memory import release_memory
from ml_inference.engine.model import EngineConfig, ServedModel
from ml_inference.engine.session import resolve_device
from ml_inference.engine.status import ModelState, ModelStatus, failed_status
from ml_inference.errors import (
    ModelNotFound,
    NotReady,
    ProcessorError,
    SourceFailed,
)
from ml_inference.sources.base import ModelReference

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from ml_inference.sources.base import ModelBundle, ModelSource
    from ml_inference.telemetry import Metrics

log = structlog.get_logger(__name__)

REMEMBER_SECONDS: Final = 10.0
"""How long a failure answers for itself before the source is asked again."""
REMEMBER_NAMES: Final = 1024


@dataclass(frozen=True, slots=True)
class _Failure:
    error: ProcessorError
    until: float


class ModelRegistry:
    """Models by name and version, over an ordered list of sources. Lives on one event loop."""

    def __init__(
        self,
        sources: Sequence[ModelSource],
        config: EngineConfig,
        metrics: Metrics,
        *,
        remember_seconds: float = REMEMBER_SECONDS,
    ) -> None:
        self._sources = tuple(sources)
        self._remember_seconds = remember_seconds
        self._config = config
        self._metrics = metrics
        self.device = resolve_device(config.device)
        self._loader = Loader(self._sources, self.device, config.threads)
        self._models: dict[tuple[str, str], ServedModel] = {}
        self._latest: dict[str, str] = {}
        self._loads: dict[ModelReference, asyncio.Task[ServedModel]] = {}
        self._opening: dict[tuple[str, str], asyncio.Task[ServedModel]] = {}
        self._failures: OrderedDict[ModelReference, _Failure] = OrderedDict()
        self._preloading: set[str] = set()
        self._draining = False
        self._unloaded: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
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
        return await _awaited(self._load_task(wanted), name, deadline)

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
        model = await _awaited(self._load_task(wanted), name, deadline)
        self._unloaded.discard(name)
        return model

    async def unload(self, name: str) -> None:
        """Take every version out of service, each after the requests that hold it, and give its memory back.

        Raises:
            ModelNotFound: no source has it and it is not loaded.
        """
        wanted = ModelReference(name)
        if not self.versions(name) and not any(name in source.names() for source in self._sources):
            raise ModelNotFound(f"no source has a model {wanted.name}")
        self._unloaded.add(name)
        # Begun is done: who asked for it may leave.
        await asyncio.shield(self._background(self._unload(name), f"unload {name}"))

    async def _unload(self, name: str) -> None:
        await self._give_up(name)
        models = [self._models.pop(key) for key in list(self._models) if key[0] == name]
        self._latest.pop(name, None)
        self.preload_failures.pop(name, None)
        await asyncio.gather(*(model.close() for model in models))
        models.clear()  # no name may hold one when memory is released
        await asyncio.to_thread(release_memory)

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
        now = time.monotonic()
        for wanted, failure in self._failures.items():
            if failure.until < now and wanted.name not in found:
                continue  # of a name that only a stranger knew
            status = failed_status(wanted, failure.error)
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

        Failures are kept as reasons. What may pass by itself is tried again until it has: nobody else would ask for a
        model of a service that takes no traffic.
        """
        self._preloading = set(names)
        return self._preload_all(names)

    async def _preload_all(self, names: Sequence[str]) -> None:
        await asyncio.gather(*(self._preload(name) for name in self._preloading.intersection(names)))

    async def _preload(self, name: str) -> None:
        while name not in self._unloaded and not await self._preloaded(name):  # noqa: ASYNC110 - a pause, no event
            await asyncio.sleep(self._remember_seconds)

    async def _preloaded(self, name: str) -> bool:
        """Try once; False when another try makes sense."""
        reason, lasting = "", True
        try:
            await self.get(name, None, float("inf"))
        except ProcessorError as exc:
            reason, lasting = str(exc), not isinstance(exc, SourceFailed)
        except Exception as exc:  # whatever it is, the service is not ready without this model
            reason, lasting = f"it could not be loaded ({type(exc).__name__}); the log tells more", False
            log.exception("load failed", model=name)
        self._preloading.discard(name)
        if reason and reason != self.preload_failures.get(name):
            log.error("preload failed", model=name, reason=reason)
        if reason:
            self.preload_failures[name] = reason
        return lasting

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
        await asyncio.gather(*(model.close() for model in self._models.values()), *self._tasks)

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
            self._failures[wanted] = _Failure(error, time.monotonic() + self._remember_seconds)
            while len(self._failures) > REMEMBER_NAMES:
                self._failures.popitem(last=False)
            if not isinstance(error, ModelNotFound):
                log.warning("model not loaded", model=wanted.name, version=wanted.version, reason=str(error))

    async def _load(self, wanted: ModelReference) -> ServedModel:
        started = time.perf_counter()
        bundle = await self._loader.fetch(wanted)
        key = (bundle.name, bundle.version)
        known = self._models.get(key)
        if known is None or not known.serves(bundle):
            opening = self._opening.get(key)
            if opening is None:
                opening = asyncio.create_task(self._open(bundle, started))
                self._opening[key] = opening
                opening.add_done_callback(lambda _: self._opening.pop(key, None))
            await asyncio.shield(opening)
        if wanted.version is None:
            self._supersede(wanted.name, bundle.version)
        return self._models[key]

    async def _give_up(self, name: str) -> None:
        """End every load of a model that is under way; who waits for it learns that it is gone."""
        loads = [task for wanted, task in self._loads.items() if wanted.name == name]
        loads += [task for (model, _), task in self._opening.items() if model == name]
        for task in loads:
            task.cancel()
        await asyncio.gather(*loads, return_exceptions=True)

    def _supersede(self, name: str, version: str) -> None:
        """Let `version` be the newest from now on; the one before ends after the requests that hold it."""
        before = self._latest.get(name)
        self._latest[name] = version
        self.preload_failures.pop(name, None)
        if before is not None and before != version:
            old = self._models.pop((name, before), None)
            if old is not None:
                self._retire(old, replaced=False)

    def _retire(self, model: ServedModel, *, replaced: bool) -> None:
        self._background(self._end(model, replaced=replaced), f"retire {model.name}")

    def _background(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Work that outlives who asked for it, and that `close()` waits for."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end(self, model: ServedModel, *, replaced: bool) -> None:
        await model.close(replaced=replaced)
        del model
        await asyncio.to_thread(release_memory)

    async def _open(self, bundle: ModelBundle, started: float) -> ServedModel:
        loaded = await self._loader.open(bundle, started)
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


async def _awaited(task: asyncio.Task[ServedModel], name: str, deadline: float) -> ServedModel:
    """Wait for a load that others may wait for too, until the deadline."""
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())) as limit:
            return await asyncio.shield(task)
    except TimeoutError:
        if not limit.expired():  # the load itself ran into one
            raise
        raise NotReady(f"model {name} is still being loaded", retry_after=2.0) from None
    except asyncio.CancelledError:
        if task.cancelled():
            raise ModelNotFound(f"model {name} was unloaded while it was being loaded") from None
        raise
