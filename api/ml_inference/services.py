"""Builds every part from the settings, opens them in order and closes them in reverse; knows them all."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from ml_inference.contract.card import Diagnostic, Severity
from ml_inference.contract.mlm import read_card
from ml_inference.contract.profile import parse_profile
from ml_inference.contract.raster import Raster
from ml_inference.engine.device import usable_cores
from ml_inference.engine.model import EngineConfig
from ml_inference.engine.registry import ModelRegistry
from ml_inference.errors import CardInvalid
from ml_inference.imagery import DecodeLimits
from ml_inference.imagery.raster_file import write_raster
from ml_inference.sources import open_source
from ml_inference.sources.assets import choose_model_asset
from ml_inference.sources.base import SourceOptions
from ml_inference.sources.items import parse_item
from ml_inference.sources.samples import sample_tile
from ml_inference.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from ml_inference.settings import Settings
    from ml_inference.sources.base import Item, ModelBundle, ModelReference, ModelSource, Progress

DECODED_BYTES_PER_PIXEL = 32
"""Of `MAX_PIXELS`: sixteen bands of two bytes, or eight of four."""
MAX_BANDS = 256
SAMPLE_TILE = "sample.tif"


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a surface needs.

    Attributes:
        pool: threads for decoding and encoding, one for each usable core.
        limits: what an image may be, judged before it is decoded.
    """

    settings: Settings
    metrics: Metrics
    registry: ModelRegistry
    pool: ThreadPoolExecutor
    limits: DecodeLimits


@asynccontextmanager
async def open_services(
    settings: Settings, *, preload: bool = True, progress: Progress | None = None
) -> AsyncIterator[Services]:
    """Open every part, and begin to load `MODELS` in the background.

    Args:
        settings: all of them.
        preload: False where nobody asks whether the service is ready.
        progress: told of the bytes of every fetched model; called from other threads.

    Raises:
        ConfigurationInvalid: the settings ask for what this machine or package does not have.
    """
    metrics = Metrics(compat=settings.metrics_compat)
    async with AsyncExitStack() as stack:
        pool = ThreadPoolExecutor(usable_cores(), thread_name_prefix="pixels")
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        sources = [_open_source(url, settings, stack, progress) for url in settings.model_sources]
        registry = ModelRegistry(sources, engine_config(settings), metrics)
        stack.push_async_callback(registry.close)
        if preload:
            stack.push_async_callback(_cancel, asyncio.create_task(registry.preload(settings.models)))
        yield Services(settings, metrics, registry, pool, decode_limits(settings))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _open_source(
    url: str, settings: Settings, stack: AsyncExitStack, progress: Progress | None
) -> ModelSource:
    source = stack.enter_context(closing(open_source(url, source_options(settings))))
    return source if progress is None else _Watched(source, progress)


class _Watched:
    """A source whose fetches tell one more listener of their progress."""

    def __init__(self, source: ModelSource, progress: Progress) -> None:
        self._source = source
        self._progress = progress
        self.scheme = source.scheme
        self.names, self.versions, self.close = source.names, source.versions, source.close

    def fetch(self, reference: ModelReference, progress: Progress | None = None) -> ModelBundle:
        def both(done: int, total: int | None) -> None:
            self._progress(done, total)
            if progress is not None:
                progress(done, total)

        return self._source.fetch(reference, both)


def source_options(settings: Settings) -> SourceOptions:
    """What the sources are told."""
    key = settings.eotdl_api_key
    return SourceOptions(
        cache_dir=settings.eotdl_download_path,
        eotdl_url=settings.eotdl_api_url,
        eotdl_key=None if key is None else key.get_secret_value(),
        eotdl_shared_cache=settings.eotdl_cache_path,
        allowed_hosts=settings.eotdl_allowed_hosts,
    )


def engine_config(settings: Settings) -> EngineConfig:
    """What the engine is told."""
    return EngineConfig(
        device=settings.device,
        batch_size=None if settings.batch_size == "auto" else settings.batch_size,
        batch_timeout=settings.batch_timeout,
        batch_policy=settings.batch_policy,
        queue_size=settings.queue_size,
        queue_bytes=settings.queue_bytes,
    )


def decode_limits(settings: Settings) -> DecodeLimits:
    """What an image may be."""
    return DecodeLimits(settings.max_pixels, settings.max_pixels * DECODED_BYTES_PER_PIXEL, MAX_BANDS)


def lint_item(document: bytes, profile: str | None = None) -> tuple[Diagnostic, ...]:
    """What a server would say of an item that it finds beside a model, before it has looked at the ONNX file.

    Args:
        document: the item, JSON.
        profile: the text of its profile, TOML.

    Returns:
        Everything found, errors first; with an error among it the model would be refused.
    """
    found: list[Diagnostic] = []
    problems: dict[tuple[str, str], None] = {}

    def judged[Result](judge: Callable[[], Result]) -> Result | None:
        try:
            return judge()
        except CardInvalid as error:
            problems.update(dict.fromkeys(error.problems or (("", str(error)),)))
            return None

    item: Item | None = judged(lambda: parse_item(document))
    told = judged(lambda: parse_profile(profile)) if profile is not None else None
    if item is not None:
        card = judged(lambda: read_card(item, told))
        judged(lambda: choose_model_asset(item, told.asset if told else None))
        found = list(card.diagnostics) if card is not None else []
    errors = [Diagnostic(severity=Severity.ERROR, pointer=at, message=what) for at, what in problems]
    order = list(reversed(Severity))
    return (*errors, *sorted(found, key=lambda each: order.index(each.severity)))


def write_samples(folder: Path) -> Path:
    """Write the sample tile as GeoTIFF into a folder, made where needed; a file that is there already is replaced.

    Returns:
        the tile's path.
    """
    pixels, bands = sample_tile()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SAMPLE_TILE
    aside = folder / f".{SAMPLE_TILE}.{uuid4().hex}"
    aside.write_bytes(write_raster(Raster(pixels, bands=bands)))
    return aside.replace(path)
