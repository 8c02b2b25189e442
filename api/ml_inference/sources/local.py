"""A folder of models, or of one model that lies at its root.

A model is an `item.json` beside its ONNX file, or the ONNX file alone; a version is a folder of either. A folder that
was given a name is one model whatever it is called inside: so platforms mount it, and call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote, urlsplit

from ml_inference.errors import CardInvalid, ConfigurationInvalid, ModelNotFound
from ml_inference.sources.assets import ModelAsset, choose_model_asset, pointer
from ml_inference.sources.base import (
    Item,
    ModelBundle,
    ModelReference,
    Progress,
    check_name,
    check_version,
    choose_version,
    shown,
    version_key,
)
from ml_inference.sources.items import asset_key, read_item, read_profile
from ml_inference.sources.onnx_check import check_onnx

if TYPE_CHECKING:
    from collections.abc import Callable

_ITEM = "item.json"
_MODEL = "model.onnx"
_PROFILE = "profile.toml"
_TRITON = "config.pbtxt"
_FIRST = "1"
_SHOWN = 10

type _Places = dict[str, Path]
"""For each version the `item.json` or the `.onnx` file that stands for it."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """The files of one version, and which of them says what the model is."""

    model: ModelAsset
    path: Path
    item: Item | None
    profile: str | None


class LocalSource:
    """Models in a folder of this machine, looked at afresh each time.

    Args:
        folder: must exist.
        max_model_bytes: a larger model is refused.
        name: the folder holds one model, of this name: at its root, or in its only folder. None where it holds models
            by their names; a model at its root is then called as the folder is.

    Raises:
        ConfigurationInvalid: there is no such folder, or no model may be called so.
    """

    scheme = "file:"

    def __init__(self, folder: Path, *, max_model_bytes: int, name: str | None = None) -> None:
        if not folder.is_dir():
            raise ConfigurationInvalid(f"MODEL_SOURCES: there is no folder {folder}")
        if name is not None and not _legal(check_name, name):
            raise ConfigurationInvalid(f"MODEL_SOURCES: no model may be called {shown(name)} ({folder})")
        self._folder = folder
        self._max_bytes = max_model_bytes
        self._given = name
        self._name = name if name is not None else folder.absolute().name

    def names(self) -> list[str]:
        """List the models in the folder, and its own name where it was given one."""
        own = [self._name] if self._given or (_legal(check_name, self._name) and self._root()) else []
        return sorted({*own, *self._inner()})

    def versions(self, name: str) -> list[str]:
        """List a model's versions, oldest first; one that is not named is `1`."""
        return sorted(self._places(check_name(name)), key=version_key)

    def close(self) -> None:
        """Nothing is open."""

    def fetch(self, reference: ModelReference, progress: Progress | None = None) -> ModelBundle:
        """Give the asked version, or the newest, where it lies; checked, and never copied."""
        places = self._places(reference.name)
        if not places and reference.name == self._given:
            raise ModelNotFound(self._nothing())
        version = choose_version(reference.name, list(places), reference.version)
        place = places[version]
        parts = self._bare(place) if place.suffix == ".onnx" else self._described(place)
        size = parts.path.stat().st_size
        if size > self._max_bytes:
            _invalid(parts.model, f"the model's file has more than {self._max_bytes} bytes")
        sha256, verified = parts.model.verify(parts.path)
        check_onnx(parts.path, external_data=True)
        if progress is not None:
            progress(size, size)
        return ModelBundle(
            name=reference.name,
            version=version,
            source=self.scheme,
            item=parts.item,
            model_path=parts.path,
            profile=parts.profile,
            sha256=sha256,
            verified=verified,
            notice=self._notice(place),
        )

    # ---- what lies where

    def _places(self, name: str) -> _Places:
        """Give a model's versions; a folder comes before a bare file of the same version."""
        root = self._root()
        places = (root if name == self._name else {}) or self._own(name, bare=self._apart(root))
        if not places and name == self._given:
            inner = self._inner()
            places = self._own(inner[0], bare=True) if len(inner) == 1 else {}
        return places

    def _root(self) -> _Places:
        """Give the versions of the one model that the whole folder is; only a given name makes it of a bare file."""
        bare = _lone(self._folder) if self._given else None
        return _versions(self._folder, bare, named=False)

    def _apart(self, root: _Places) -> bool:
        """Whether a file at the root is a model of its own, and not a part of the one that lies there."""
        return all(place.parent != self._folder for place in root.values())

    def _inner(self) -> list[str]:
        """List the models that have a folder, or a bare file, of their own."""
        candidates = {path.stem if path.suffix == ".onnx" else path.name for path in self._folder.iterdir()}
        bare = self._apart(self._root())
        return sorted(name for name in candidates if _legal(check_name, name) and self._own(name, bare=bare))

    def _own(self, name: str, *, bare: bool) -> _Places:
        """Give the versions of such a model; `bare` as `_apart` says."""
        file, folder = self._folder / f"{name}.onnx", self._folder / name
        places: _Places = {_FIRST: file} if bare and file.is_file() else {}
        return places | (_versions(folder, _lone(folder), named=True) if folder.is_dir() else {})

    def _nothing(self) -> str:
        held = self._inner()
        what = f"several models ({', '.join(held[:_SHOWN])})" if held else "no model"
        expected = f"{_ITEM} or {_MODEL} at its root, in VERSION/ or in NAME/[VERSION/]"
        return f"the folder that is to be model `{self._given}` holds {what}; expected {expected}"

    def _notice(self, place: Path) -> str | None:
        above = [folder for folder in place.parents[:2] if folder.is_relative_to(self._folder)]
        if not any((folder / _TRITON).is_file() for folder in above):
            return None
        return f"{_TRITON} is not read: what it configures follows from the model and the service's settings"

    def _bare(self, path: Path) -> _Parts:
        asset = ModelAsset("model", path.name, None, ())
        path = _followed(self._folder, path)
        return _Parts(asset, path, None, read_profile(path.with_suffix(".toml")))

    def _described(self, place: Path) -> _Parts:
        item, profile = read_item(place), read_profile(place.with_name(_PROFILE))
        asset = choose_model_asset(item, asset_key(profile))
        return _Parts(asset, _inside(place.parent, asset), item, profile)


def _versions(folder: Path, bare: Path | None, *, named: bool) -> _Places:
    """Give the versions in a model's folder; what has an item comes before what has none. Unless `named`, they are numbers."""
    inner = [
        path
        for path in folder.glob("*/")
        if _legal(check_version, path.name) and (named or path.name.isdecimal())
    ]
    items = {path.name: path / _ITEM for path in inner if (path / _ITEM).is_file()}
    if (folder / _ITEM).is_file():
        items.setdefault(_FIRST, folder / _ITEM)
    numbered = {path.name: lone for path in inner if path.name.isdecimal() and (lone := _lone(path))}
    return items or numbered or ({_FIRST: bare} if bare else {})


def _lone(folder: Path) -> Path | None:
    """Give the ONNX file that is a folder's model: `model.onnx`, else the only one."""
    files = [path for path in folder.glob("*.onnx") if path.is_file()]
    preferred = [path for path in files if path.name == _MODEL]
    chosen = preferred or files
    return chosen[0] if len(chosen) == 1 else None


def _legal(check: Callable[[str], str], text: str) -> bool:
    try:
        check(text)
    except ModelNotFound:
        return False
    return True


def _inside(folder: Path, asset: ModelAsset) -> Path:
    """Give the file an href points to: a plain one, in the item's folder or beneath it, links followed."""
    href = unquote(asset.href)
    relative = PurePosixPath(href)
    if (
        urlsplit(asset.href).scheme
        or relative.is_absolute()
        or ".." in relative.parts
        or not href.isprintable()
        or "\\" in href
    ):
        _invalid(asset, "the href must be relative to `item.json`, in its folder or beneath it")
    path = _followed(folder, folder / relative)
    if not (path.is_relative_to(folder) or path.is_relative_to(folder.resolve())):
        _invalid(asset, "the href leads out of the folder of `item.json`")
    if not path.is_file():
        _invalid(asset, f"there is no file `{href[:80]}` beside `item.json`")
    return path


def _followed(folder: Path, path: Path) -> Path:
    """Follow the links beneath a folder.

    The folder's own address stays: where it leads through `/proc/PID/root`, as KServe mounts the image of a model, the
    kernel finds the file and `resolve` does not.
    """
    steps = len(path.relative_to(folder).parts)
    linked = any(step.is_symlink() for step in (path, *path.parents[: steps - 1]))
    return path.resolve() if linked else path


def _invalid(asset: ModelAsset, problem: str) -> NoReturn:
    raise CardInvalid(f"asset `{asset.key}`: {problem}", ((pointer(asset.key, "href"), problem),))
