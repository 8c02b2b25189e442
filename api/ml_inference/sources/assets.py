"""Which of an item's assets is the model, and what its publisher promises about the bytes.

MLM 1.5: the model's asset carries the role `mlm:model`, and there may be several; the specification knows no value for
ONNX, so that `mlm:artifact_type`, media type and file name are asked in turn. Items without any role exist (EOTDL).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, urlsplit

from ml_inference.errors import CardInvalid
from ml_inference.sources.checksums import Checksum, hash_file, parse_multihash, parse_plain

if TYPE_CHECKING:
    from pathlib import Path

    from ml_inference.sources.base import Item

type Asset = Mapping[str, Any]

_MAX_HREF = 4096
_NOT_MODELS = {"thumbnail", "overview", "metadata", "code"}
_NOT_MODEL_PREFIXES = ("mlm:source_code", "mlm:inference-runtime", "mlm:training")
_FOREIGN_TYPES = {
    "torch": "PyTorch",
    "tf": "TensorFlow",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "pickle": "a Python pickle",
    "safetensors": "safetensors",
}
_FOREIGN_SUFFIXES = {
    ".pt": "PyTorch",
    ".pt2": "PyTorch",
    ".pth": "PyTorch",
    ".ckpt": "a training checkpoint",
    ".pkl": "a Python pickle",
    ".pickle": "a Python pickle",
    ".joblib": "a Python pickle",
    ".h5": "Keras",
    ".keras": "Keras",
    ".tflite": "TensorFlow Lite",
    ".safetensors": "safetensors",
    ".ort": "ONNX Runtime's own format",
    ".zip": "an archive",
    ".tar": "an archive",
    ".gz": "an archive",
}


class Mismatch(CardInvalid):
    """The bytes are not those the publisher promised."""


@dataclass(frozen=True, slots=True)
class ModelAsset:
    """The asset that is the model; `size` in bytes, where the item tells it."""

    key: str
    href: str
    size: int | None
    checksums: tuple[Checksum, ...]

    def verify(self, path: Path) -> tuple[str, str]:
        """Hold a file against size and checksums.

        Returns:
            its SHA-256 in hex, and what was compared: `size, sha1`, or `unverified` where nothing was promised.

        Raises:
            Mismatch: naming the field, what it promised and what came.
        """
        got_size = path.stat().st_size
        if self.size not in {None, got_size}:
            self._refuse("file:size", f"{self.size} bytes", f"{got_size} bytes")
        digests = hash_file(path, [c.algorithm for c in self.checksums])
        for checksum in self.checksums:
            if digests[checksum.algorithm] != checksum.digest:
                promised = f"{checksum.algorithm} {checksum.digest}"
                self._refuse(checksum.field, promised, digests[checksum.algorithm])
        kept = ["size"] * (self.size is not None) + [c.algorithm for c in self.checksums]
        return digests["sha256"], ", ".join(kept) or "unverified"

    def _refuse(self, field: str, promised: str, got: str) -> NoReturn:
        message = f"asset `{self.key}`: the file is not the one its item promises ({promised}; it has {got})"
        raise Mismatch(message, ((pointer(self.key, field), f"promised {promised}, the file has {got}"),))


def choose_model_asset(item: Item, key: str | None = None) -> ModelAsset:
    """Find the one ONNX model among an item's assets.

    `key` (from a profile) decides. Else, among assets with the role `mlm:model`: the only one, or the only one known as
    ONNX. Where no asset has that role, among those with none that speaks against it: the only one, the one called
    `model`, the only one known as ONNX.

    Raises:
        CardInvalid: no asset is an ONNX model (each is named with what it is), or several may be.
    """
    assets = _assets(item)
    if key is not None:
        if key not in assets:
            _invalid("/assets", f"the profile asks for asset `{key}`, the item has {_listed(assets)}")
        return _read(key, assets[key])
    models = {k: a for k, a in assets.items() if "mlm:model" in _roles(a)}
    candidates = models or {k: a for k, a in assets.items() if _may_be_model(a)}
    servable = {k: a for k, a in candidates.items() if _foreign(a) is None}
    if not servable:
        _invalid(
            "/assets", f"no asset is an ONNX model: {_described(candidates) or 'the item names no model'}"
        )
    chosen = _single(servable, [k for k in servable if k == "model" and not models])
    if chosen is None:
        problem = (
            f'several assets may be the model ({_listed(servable)}): name one in the profile, `asset = "…"`'
        )
        _invalid("/assets", problem)
    return _read(chosen, servable[chosen])


def pointer(*parts: str) -> str:
    """Give the JSON pointer (RFC 6901) of an asset or of a field in it."""
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in ("assets", *parts))


def _single(servable: Mapping[str, Asset], named: list[str]) -> str | None:
    known = [k for k, a in servable.items() if _is_onnx(a)]
    return next((choice[0] for choice in (list(servable), named, known) if len(choice) == 1), None)


def _assets(item: Item) -> dict[str, Asset]:
    assets = item.get("assets")
    if not isinstance(assets, Mapping) or not assets:
        _invalid("/assets", "the item has no assets, so there is no model to load")
    wrong = [str(k) for k, a in assets.items() if not isinstance(a, Mapping)]
    if wrong:
        _invalid(pointer(wrong[0]), "an asset is a JSON object")
    return dict(assets)


def _roles(asset: Asset) -> list[str]:
    roles = asset.get("roles")
    return [r for r in roles if isinstance(r, str)] if isinstance(roles, list) else []


def _may_be_model(asset: Asset) -> bool:
    return not any(r in _NOT_MODELS or r.startswith(_NOT_MODEL_PREFIXES) for r in _roles(asset))


def _is_onnx(asset: Asset) -> bool:
    said = f"{_text(asset, 'mlm:artifact_type')} {_text(asset, 'type')}"
    return "onnx" in said or _suffix(asset) == ".onnx"


def _foreign(asset: Asset) -> str | None:
    """Say what the asset is when it is known to be something else than ONNX."""
    artifact = _text(asset, "mlm:artifact_type")
    if artifact and "onnx" not in artifact:
        kind = _FOREIGN_TYPES.get(artifact.split(".")[0])
        return f"{kind} (`{artifact}`)" if kind else f"`{artifact}`"
    if _is_onnx(asset):
        return None
    return "PyTorch" if "pytorch" in _text(asset, "type") else _FOREIGN_SUFFIXES.get(_suffix(asset))


def _text(asset: Asset, field: str) -> str:
    value = asset.get(field)
    return value.lower() if isinstance(value, str) else ""


def _suffix(asset: Asset) -> str:
    return PurePosixPath(_path_of(_text(asset, "href"))).suffix


def _path_of(href: str) -> str:
    try:
        return unquote(urlsplit(href).path)
    except ValueError:
        return ""


def _read(key: str, asset: Asset) -> ModelAsset:
    foreign = _foreign(asset)
    if foreign is not None:
        _invalid(pointer(key), f"asset `{key}` is {foreign}; only ONNX models are served")
    href = asset.get("href")
    if not isinstance(href, str) or not 0 < len(href) <= _MAX_HREF:
        _invalid(pointer(key, "href"), f"asset `{key}` has no href of 1 to {_MAX_HREF} characters")
    return ModelAsset(key, href, _size(key, asset), _checksums(key, asset))


def _size(key: str, asset: Asset) -> int | None:
    sizes = {
        _whole(key, field, asset[field]) for field in ("file:size", "size") if asset.get(field) is not None
    }
    if len(sizes) > 1:
        _invalid(pointer(key, "file:size"), f"asset `{key}`: `file:size` and `size` differ")
    return sizes.pop() if sizes else None


def _whole(key: str, field: str, value: Any) -> int:
    # A table of items may have turned whole numbers into floats.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 0:
        _invalid(pointer(key, field), f"asset `{key}`: a size is a whole number of bytes")
    return int(value)


def _checksums(key: str, asset: Asset) -> tuple[Checksum, ...]:
    found = []
    if asset.get("file:checksum") is not None:
        try:
            found.append(parse_multihash(str(asset["file:checksum"])))
        except ValueError as error:
            _invalid(pointer(key, "file:checksum"), f"asset `{key}`: {error}")
    plain = parse_plain(str(asset.get("checksum", "")))
    return (*found, plain) if plain else tuple(found)


def _listed(assets: Mapping[str, Asset]) -> str:
    return ", ".join(f"`{key}`" for key in list(assets)[:10])


def _described(assets: Mapping[str, Asset]) -> str:
    return "; ".join(f"`{key}` is {_foreign(asset)}" for key, asset in list(assets.items())[:10])


def _invalid(where: str, problem: str) -> NoReturn:
    raise CardInvalid(problem, ((where, problem),))
