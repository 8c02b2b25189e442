"""A folder of models: `NAME/item.json`, or `NAME/VERSION/item.json`, each beside its ONNX file; or a bare `NAME.onnx`."""

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
    version_key,
)
from ml_inference.sources.items import asset_key, read_item, read_profile
from ml_inference.sources.onnx_check import check_onnx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ITEM = "item.json"
_PROFILE = "profile.toml"
_FIRST = "1"


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
    """

    scheme = "file:"

    def __init__(self, folder: Path, *, max_model_bytes: int) -> None:
        if not folder.is_dir():
            raise ConfigurationInvalid(f"MODEL_SOURCES: there is no folder {folder}")
        self._folder = folder
        self._max_bytes = max_model_bytes

    def names(self) -> list[str]:
        """List the models in the folder."""
        candidates = {path.stem if path.suffix == ".onnx" else path.name for path in self._folder.iterdir()}
        return sorted(name for name in candidates if _legal(check_name, name) and self._places(name))

    def versions(self, name: str) -> list[str]:
        """List a model's versions, oldest first; one that is not named is `1`."""
        return sorted(self._places(check_name(name)), key=version_key)

    def close(self) -> None:
        """Nothing is open."""

    def fetch(self, reference: ModelReference, progress: Progress | None = None) -> ModelBundle:
        """Give the asked version, or the newest, where it lies; checked, and never copied."""
        places = self._places(reference.name)
        version = choose_version(reference.name, list(places), reference.version)
        place = places[version]
        parts = self._bare(place) if place.suffix == ".onnx" else self._described(place)
        if parts.path.stat().st_size > self._max_bytes:
            _invalid(parts.model, f"the model's file has more than {self._max_bytes} bytes")
        sha256, verified = parts.model.verify(parts.path)
        check_onnx(parts.path, external_data=True)
        if progress is not None:
            progress(parts.path.stat().st_size, parts.path.stat().st_size)
        return ModelBundle(
            name=reference.name,
            version=version,
            source=self.scheme,
            item=parts.item,
            model_path=parts.path,
            profile=parts.profile,
            sha256=sha256,
            verified=verified,
        )

    def _places(self, name: str) -> dict[str, Path]:
        """Give for each version the `item.json` or the bare `.onnx` that stands for it; a folder comes before a bare file."""
        bare = self._folder / f"{name}.onnx"
        places = {_FIRST: bare} if bare.is_file() else {}
        root = self._folder / name
        if root.is_dir():
            places |= {_FIRST: root / _ITEM} if (root / _ITEM).is_file() else {}
            places |= {path.parent.name: path for path in _versioned(root)}
        return places

    def _bare(self, path: Path) -> _Parts:
        asset = ModelAsset("model", path.name, None, ())
        return _Parts(asset, path.resolve(), None, read_profile(path.with_suffix(".toml")))

    def _described(self, place: Path) -> _Parts:
        item, profile = read_item(place), read_profile(place.with_name(_PROFILE))
        asset = choose_model_asset(item, asset_key(profile))
        return _Parts(asset, _inside(place.parent, asset), item, profile)


def _versioned(root: Path) -> Iterator[Path]:
    for path in root.glob(f"*/{_ITEM}"):
        if path.is_file() and _legal(check_version, path.parent.name):
            yield path


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
    root = folder.resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        _invalid(asset, "the href leads out of the folder of `item.json`")
    if not path.is_file():
        _invalid(asset, f"there is no file `{href[:80]}` beside `item.json`")
    return path


def _invalid(asset: ModelAsset, problem: str) -> NoReturn:
    raise CardInvalid(f"asset `{asset.key}`: {problem}", ((pointer(asset.key, "href"), problem),))
