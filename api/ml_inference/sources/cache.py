"""Downloaded models on disk: `ROOT/NAME/vVERSION/SHA256.onnx`, and beside it `bundle.json`, which is the switch.

A model exists when its `bundle.json` does, which is renamed into place last; what that names is hashed at every load. So
a reader sees the old model, or the new one, or none: never half of one. Writers exclude each other, threads and
processes alike, by a lock on a file (`flock`), which the system takes back from whoever dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_inference.errors import NotReady, SourceFailed
from ml_inference.sources.base import check_name, check_version, version_key
from ml_inference.sources.checksums import hash_file
from ml_inference.sources.items import read_profile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from threading import Event

log = logging.getLogger(__name__)

_RECORD = "bundle.json"
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model in the cache, its bytes just compared with the sum of the day they came."""

    name: str
    version: str
    item: dict[str, Any]
    model_path: Path
    sha256: str
    verified: str
    fetched_at: str
    profile: str | None


class ModelCache:
    """Models in a folder that is ours; made when first written to. Once `stop` is set, nobody waits for a lock."""

    def __init__(self, root: Path, stop: Event) -> None:
        self._root = root
        self._stop = stop

    def names(self) -> list[str]:
        """List the models with at least one version here."""
        return sorted({record.parent.parent.name for record in self._root.glob(f"*/v*/{_RECORD}")})

    def versions(self, name: str) -> list[str]:
        """List a model's versions here, oldest first; by their records alone, their bytes are not read."""
        records = (self._root / check_name(name)).glob(f"v*/{_RECORD}")
        return sorted((record.parent.name[1:] for record in records), key=version_key)

    def load(self, name: str, version: str) -> CachedModel | None:
        """Give a model whose bytes are what they were when they came; None where there is none, or it is damaged."""
        folder = self._folder(name, version)
        try:
            record = _read_record(folder / _RECORD)
            path = folder / f"{record['sha256']}.onnx"
            found = CachedModel(name, version, model_path=path, profile=_profile(folder), **record)
            damaged = hash_file(path)["sha256"] != found.sha256
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.warning(
                "cached model %s v%s cannot be read (%s); it will be fetched again", name, version, error
            )
            return None
        if damaged:
            log.warning("cached model %s v%s has changed on disk; it will be fetched again", name, version)
            return None
        return found

    @contextmanager
    def locked(self, name: str, seconds: float) -> Iterator[None]:
        """Keep every other writer of this model out; `NotReady` after `seconds` of waiting for one."""
        with (self._make(self._root / check_name(name)) / ".lock").open("ab") as file:
            end = time.monotonic() + seconds
            while not _try_lock(file.fileno()):
                if time.monotonic() > end:
                    raise NotReady(f"another process is still fetching model `{name}`", retry_after=10.0)
                if self._stop.wait(_POLL_SECONDS):
                    raise NotReady("the service is shutting down")
            yield  # closing the file unlocks it

    def folder(self, name: str, version: str) -> Path:
        """Give the folder in which a version is put together, made if need be; for the holder of the lock."""
        return self._make(self._folder(name, version))

    def commit(
        self, name: str, version: str, part: Path, *, item: dict[str, Any], sha256: str, verified: str
    ) -> CachedModel:
        """Make a whole, checked file the model of this version; for the holder of the lock."""
        folder = part.parent
        path = folder / f"{sha256}.onnx"
        part.replace(path)
        fetched_at = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"item": item, "sha256": sha256, "verified": verified, "fetched_at": fetched_at}
        _write_record(folder / _RECORD, record)
        for old in set(folder.glob("*.onnx")) - {path}:
            old.unlink(missing_ok=True)
        loaded = self.load(name, version)
        if loaded is None:
            raise SourceFailed("the disk for models does not give back what was written to it")
        return loaded

    def _folder(self, name: str, version: str) -> Path:
        return self._root / check_name(name) / f"v{check_version(version)}"

    def _make(self, folder: Path) -> Path:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.error("the folder for models cannot be written: %s", error)  # noqa: TRY400 - the path, no trace
            raise SourceFailed(
                "the folder for downloaded models cannot be written (EOTDL_DOWNLOAD_PATH)"
            ) from error
        return folder


def _profile(folder: Path) -> str | None:
    return read_profile(folder / "profile.toml") or read_profile(folder.parent / "profile.toml")


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _read_record(path: Path) -> dict[str, Any]:
    envelope = json.loads(path.read_bytes())
    record: dict[str, Any] = envelope["record"]
    if _digest(record) != envelope["digest"]:
        raise ValueError("its record is damaged")
    return record


def _write_record(path: Path, record: dict[str, Any]) -> None:
    """Write aside, make sure it lies on the disk, rename, make sure of the rename."""
    aside = path.with_suffix(".new")
    with aside.open("w") as file:
        json.dump({"digest": _digest(record), "record": record}, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    with suppress(OSError):  # some network file systems cannot sync a folder
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
