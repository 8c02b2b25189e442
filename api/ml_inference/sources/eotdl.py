"""Models published on EOTDL: found by name, fetched once, checked, and served from the cache when the hub is away."""

from __future__ import annotations

import logging
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from threading import Event
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, urlsplit

from ml_inference.errors import CardInvalid, ProcessorError, SourceFailed
from ml_inference.sources.addresses import HostPolicy, parse
from ml_inference.sources.assets import Mismatch, ModelAsset, choose_model_asset, pointer
from ml_inference.sources.base import (
    ModelBundle,
    ModelReference,
    Progress,
    SourceOptions,
    Unreachable,
    choose_version,
)
from ml_inference.sources.cache import CachedModel, ModelCache
from ml_inference.sources.catalog import MAX_CATALOG_BYTES, read_catalog
from ml_inference.sources.download import Downloader, Order, discard
from ml_inference.sources.eotdl_api import EotdlApi, HubModel
from ml_inference.sources.http import Outbound
from ml_inference.sources.items import asset_key, read_profile
from ml_inference.sources.onnx_check import check_onnx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = logging.getLogger(__name__)

PUBLISHED_AT = "https://api.eotdl.com"
"""Where items published on EOTDL say that their files are, whatever address this service reaches the hub by."""

_NO_DISK = "the folder for downloaded models cannot be used"
_HUB_FILE = re.compile(r"/(models|datasets)/([A-Za-z0-9_-]{1,64})/(?:stage|download)/(.+)")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file that the hub itself keeps."""

    endpoint: str
    model_id: str
    path: str


class EotdlSource:
    """`eotdl:`, the newest version of a model, or the one that is asked for.

    Args:
        options: where the hub and the cache are, and all limits.
        free_bytes: room left where a path lies; for tests.
    """

    scheme = "eotdl:"

    def __init__(self, options: SourceOptions, *, free_bytes: Callable[[Path], int] | None = None) -> None:
        self._options = options
        policy = HostPolicy(options.eotdl_url, options.allowed_hosts)
        web = Outbound(policy, connect_seconds=options.connect_seconds, read_seconds=options.read_seconds)
        self._stop = Event()
        self._api = EotdlApi(web, options, self._stop)
        self._downloader = Downloader(web, options, self._stop, free_bytes=free_bytes)
        self._cache = ModelCache(options.cache_dir, self._stop)
        self._origins = (options.eotdl_url.rstrip("/"), PUBLISHED_AT)

    def names(self) -> list[str]:
        """List the models in the cache: the hub is not asked."""
        return self._cache.names()

    def versions(self, name: str) -> list[str]:
        """List a model's versions in the cache, oldest first: the hub is not asked."""
        return self._cache.versions(name)

    def close(self) -> None:
        """Break off what is under way; what has come is resumed by the next fetch."""
        self._stop.set()

    def fetch(self, reference: ModelReference, progress: Progress | None = None) -> ModelBundle:
        """Give the asked version, or the hub's newest; a cached one, with a notice, where the hub fails.

        A version that is asked for by number and cached is served without asking the hub: versions do not change.
        """
        cached = self._cached(reference)
        if cached is not None and reference.version is not None:
            return self._bundle(cached)
        try:
            model = self._api.find(reference.name, patient=cached is None)
            version = choose_version(reference.name, [str(v) for v in model.versions], reference.version)
            if cached is not None and cached.version == version:
                return self._bundle(cached)
            return self._bundle(self._fetch(model, reference.name, version, progress))
        except (ProcessorError, OSError) as error:
            if cached is not None:
                log.warning(
                    "eotdl: %s: %s; serving the cached version %s", reference.name, error, cached.version
                )
                return self._bundle(cached, _notice(cached, error))
            if isinstance(error, OSError):
                raise SourceFailed(_NO_DISK) from error
            raise

    def _cached(self, reference: ModelReference) -> CachedModel | None:
        """Give the asked version from the cache, or its newest that is whole."""
        there = self._cache.versions(reference.name)
        wanted = reversed(there) if reference.version is None else [reference.version]
        return next(filter(None, (self._cache.load(reference.name, version) for version in wanted)), None)

    def _bundle(self, cached: CachedModel, notice: str | None = None) -> ModelBundle:
        return ModelBundle(
            name=cached.name,
            version=cached.version,
            source=self.scheme,
            item=cached.item,
            model_path=cached.model_path,
            profile=cached.profile or packaged_profile(cached.name),
            sha256=cached.sha256,
            verified=cached.verified,
            notice=notice,
        )

    def _fetch(self, model: HubModel, name: str, version: str, progress: Progress | None) -> CachedModel:
        """Put a version into the cache unless it is there; whoever comes second waits, and finds it."""
        found = self._cache.load(name, version)
        if found is not None:
            return found
        with self._cache.locked(name, self._options.lock_seconds):
            found = self._cache.load(name, version)
            return found or self._download(model, name, version, progress)

    def _download(self, model: HubModel, name: str, version: str, progress: Progress | None) -> CachedModel:
        folder = self._cache.folder(name, version)
        label = f"EOTDL model {name} v{version}"
        item = self._item(model, folder, name, version)
        asset = choose_model_asset(item, self._asset_key(folder, name))
        part = folder / "model.part"
        order = Order(self._sign(asset), part, label, asset.size, self._options.max_model_bytes, progress)
        sha256, verified = self._checked(order, asset)
        log.info("%s has come: %d bytes, checked by %s", label, part.stat().st_size, verified)
        cached = self._cache.commit(name, version, part, item=item, sha256=sha256, verified=verified)
        discard(part)
        return cached

    def _item(self, model: HubModel, folder: Path, name: str, version: str) -> dict[str, Any]:
        path = folder / "catalog.part"
        file = f"catalog.v{version}.parquet"
        label = f"the catalogue of EOTDL model {name} v{version}"
        order = Order(lambda: self._api.presign(model.id, file), path, label, None, MAX_CATALOG_BYTES)
        try:
            self._downloader.fetch(order)
            return read_catalog(path, self._asset_key(folder, name))
        finally:
            discard(path)

    def _asset_key(self, folder: Path, name: str) -> str | None:
        profile = read_profile(folder / "profile.toml") or read_profile(folder.parent / "profile.toml")
        return asset_key(profile or packaged_profile(name))

    def _sign(self, asset: ModelAsset) -> Callable[[], str]:
        """Give the asset's address: a link signed by the hub for its own files, else the href as it stands, without key."""
        file = hub_file(asset, self._origins)
        if file is not None:
            return lambda: self._api.presign(file.model_id, file.path, file.endpoint)
        try:
            parse(asset.href)
        except SourceFailed as error:
            _invalid(
                asset, f"asset `{asset.key}`: its href is no address that a file could be fetched from", error
            )
        return lambda: asset.href

    def _checked(self, order: Order, asset: ModelAsset) -> tuple[str, str]:
        """Bring the file and hold it against its item; once more from the start where it differs, then refuse."""
        for last in (False, True):
            if not self._from_shared(asset, order.into):
                self._downloader.fetch(order)
            try:
                kept = asset.verify(order.into)
                check_onnx(order.into, external_data=False)
            except Mismatch as error:
                discard(order.into)
                if last:
                    raise SourceFailed(f"{order.label}: {error}") from error
                log.warning("%s: %s; fetching it again", order.label, error)
            except CardInvalid:
                discard(order.into)
                raise
            else:
                return kept
        raise AssertionError  # the loop returns or raises

    def _from_shared(self, asset: ModelAsset, part: Path) -> bool:
        """Copy the file out of the shared folder, if it lies there and fits what size or checksum promise."""
        shared, file = self._options.eotdl_shared_cache, hub_file(asset, self._origins)
        if shared is None or file is None or (asset.size is None and not asset.checksums):
            return False
        with suppress(OSError, Mismatch):
            root = shared.resolve()
            path = (root / file.model_id / file.path).resolve(strict=True)
            if path.is_file() and path.is_relative_to(root):
                asset.verify(path)
                shutil.copyfile(path, part)
                return True
        return False


def hub_file(asset: ModelAsset, origins: tuple[str, ...]) -> HubFile | None:
    """Read an asset's href as a file of the hub (`/stage/`, or `/download/` as older items have it); None for any other.

    Raises:
        CardInvalid: it is the hub's, and its path leads out of the model.
    """
    if not any(asset.href.startswith(origin + "/") for origin in origins):
        return None
    base = next(origin for origin in origins if asset.href.startswith(origin + "/"))
    match = _HUB_FILE.fullmatch(urlsplit(asset.href[len(base) :]).path)
    if match is None:
        return None
    path = unquote(match[3])
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or any(part in {"", ".", ".."} for part in parts):
        _invalid(asset, f"asset `{asset.key}`: its href leads out of the model")
    return HubFile(match[1], match[2], path)


def packaged_profile(name: str) -> str | None:
    """Give the profile that ships with this package for a published model, or None."""
    file = resources.files("ml_inference") / "profiles" / f"{name}.toml"
    return file.read_text("utf-8") if file.is_file() else None


def _notice(cached: CachedModel, error: Exception) -> str:
    reason = _NO_DISK if isinstance(error, OSError) else str(error)
    reason = f"EOTDL could not be reached ({reason})" if isinstance(error, Unreachable) else reason
    return f"{reason}; serving version {cached.version} as cached on {cached.fetched_at[:10]}"


def _invalid(asset: ModelAsset, problem: str, cause: Exception | None = None) -> NoReturn:
    raise CardInvalid(problem, ((pointer(asset.key, "href"), problem),)) from cause
