"""What a source of models promises, and the few words all of them share.

A source turns a name and a version into files of this machine and a plain STAC item: it reads no card, builds no session.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ml_inference.errors import ModelNotFound, SourceFailed

if TYPE_CHECKING:
    from pathlib import Path

type Item = Mapping[str, Any]
"""A STAC item as JSON gives it: dicts, lists, strings, numbers, booleans and None."""

type Progress = Callable[[int, int | None], None]
"""Called with the bytes that lie on disk and, where known, those there will be; from the thread that fetches."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_DIGITS = re.compile(r"(\d+)")
_SHOWN = 40


class Unreachable(SourceFailed):
    """The far side did not answer, or broke off: trying again may help, where any other `SourceFailed` stays."""


def check_name(name: str) -> str:
    """Give the name back, or raise `ModelNotFound`: it may become a folder's name or a part of an address."""
    if _NAME.fullmatch(name) is None or ".." in name:
        raise ModelNotFound(
            f"no model is called {shown(name)}: a name begins with a letter and has at most 128 letters, digits, "
            "'.', '_' and '-', without '..'"
        )
    return name


def check_version(version: str) -> str:
    """Give the version back, or raise `ModelNotFound`."""
    if _VERSION.fullmatch(version) is None or ".." in version:
        raise ModelNotFound(
            f"no version is called {shown(version)}: it is a number, or a name of at most 128 letters, digits, "
            "'.', '_' and '-', without '..'"
        )
    return version


def shown(text: str) -> str:
    """Quote a stranger's text for a message: escaped, and cut where it is long."""
    return ascii(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!a}… ({len(text)} characters)"


def version_key(version: str) -> tuple[bool, list[tuple[bool, int, str]]]:
    """Order versions: numbers after names, numbers by value, names as people sort them (`v2` before `v10`)."""
    parts = [(not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in _DIGITS.split(version) if p]
    return version.isdecimal(), parts


def choose_version(name: str, versions: list[str], asked: str | None) -> str:
    """Give the asked version, or the newest; raise `ModelNotFound` with those there are."""
    if not versions:
        raise ModelNotFound(f"no model is called {shown(name)} here")
    if asked is None:
        return max(versions, key=version_key)
    if asked not in versions:
        there = ", ".join(sorted(versions, key=version_key)[-10:])
        raise ModelNotFound(f"model `{name}` has no version {shown(asked)}; it has {there}")
    return asked


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model's name and, unless the newest will do, its version; neither can be anything else than a legal one."""

    name: str
    version: str | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.version is not None:
            check_version(self.version)


@dataclass(frozen=True, slots=True)
class ModelBundle:
    """A model on this machine, checked and ready to be loaded.

    Attributes:
        name: as it was asked for.
        version: the one that was chosen.
        source: the scheme of the source it came from (`eotdl:`).
        item: its STAC item, or None for a bare ONNX file.
        model_path: the ONNX file; its external data, where a source allows any, lies beneath the same folder.
        profile: the text of its profile (TOML), or None.
        sha256: of the ONNX file, in hex.
        verified: what the publisher had promised and the file kept (`size, sha1`), or `unverified`.
        notice: what people should know of this copy (the hub was away, …), or None.
    """

    name: str
    version: str
    source: str
    item: Item | None
    model_path: Path
    profile: str | None
    sha256: str
    verified: str
    notice: str | None = None


class ModelSource(Protocol):
    """One origin of models. Every method may be called from any thread, and beside other processes."""

    @property
    def scheme(self) -> str:
        """How `MODEL_SOURCES` calls it: `samples:`, `eotdl:`, `file:`."""

    def names(self) -> list[str]:
        """List the models known without asking the network, sorted."""

    def versions(self, name: str) -> list[str]:
        """List a model's versions known without asking the network, oldest first; empty where it knows no such model."""

    def fetch(self, reference: ModelReference, progress: Progress | None = None) -> ModelBundle:
        """Bring a model here and check it; blocks, for as long as the bytes take.

        Raises:
            ModelNotFound: this source has no such model or version.
            CardInvalid: it is there and cannot be served.
            SourceFailed: the hub failed and nothing usable is cached.
            Unauthorised: the hub wants a key, or knows another.
            Forbidden: the key has not the right.
        """

    def close(self) -> None:
        """Break off what is under way."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Plain values that the sources work by; seconds and bytes.

    Attributes:
        cache_dir: folder for downloaded models; made when first needed.
        eotdl_url: where EOTDL answers; the only place the key is sent to.
        eotdl_key: the key itself.
        eotdl_shared_cache: a folder of files as EOTDL lays it out, `{id}/{file}`; only read.
        allowed_hosts: `host` or `host:port` that downloads may come from although private, plain http or by redirect.
        max_model_bytes: a larger model is refused.
        connect_seconds: for a name to resolve, and for each address to take the call.
        read_seconds: of silence on a connection.
        api_seconds: for one whole answer of the hub's API.
        stall_seconds: within which each 64 KiB of a download must come.
        retries: tries after the first that brought nothing; a try that brings a MiB is not counted.
        backoff_seconds: the first pause between tries; it doubles, with jitter, up to 30 s.
        away_seconds: after the hub failed to answer, how long it is not asked again.
        lock_seconds: to wait for another process that is fetching the same model.
    """

    cache_dir: Path
    eotdl_url: str = "https://api.eotdl.com/"
    eotdl_key: str | None = field(default=None, repr=False)
    eotdl_shared_cache: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    max_model_bytes: int = 4 << 30
    connect_seconds: float = 5.0
    read_seconds: float = 30.0
    api_seconds: float = 10.0
    stall_seconds: float = 60.0
    retries: int = 4
    backoff_seconds: float = 0.5
    away_seconds: float = 10.0
    lock_seconds: float = 3600.0
