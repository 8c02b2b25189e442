"""`samples:`: models that this package builds itself at first use, with nothing to download.

Each is a published formula written as an ONNX graph (`spectral`, `cfar`) with its STAC MLM item and its profile, laid
out as a folder of models is: `NAME/item.json`, `NAME/model.onnx`, `NAME/profile.toml`.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import orjson

from ml_inference import __version__
from ml_inference.errors import ModelNotFound, SourceFailed
from ml_inference.sources.base import ModelBundle, choose_version, shown
from ml_inference.sources.samples.items import MODEL_FILE, SAMPLES, stac_item
from ml_inference.sources.samples.tile import sample_tile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_inference.sources.base import ModelReference, Progress

__all__ = ["SamplesSource", "sample_tile"]

_VERSION = "1"
_NOTICE = "the cache folder cannot be written, so this copy lies in a temporary folder of this process"


class SamplesSource:
    """The sample models (`ModelSource`).

    The graphs take a few milliseconds, so that each fetch builds the bytes anew and puts right whatever on disk
    differs from them: a half-written or damaged file never outlives the next fetch, and needs no record of its own.
    """

    scheme = "samples:"

    def __init__(self, directory: Path) -> None:
        """Build into `{directory}/samples/{version of this package}/`."""
        self._home = directory / "samples" / __version__
        self._refuge: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The sample models, sorted."""
        return sorted(SAMPLES)

    def versions(self, name: str) -> list[str]:
        """`["1"]`, or nothing for a name that is not a sample's."""
        return [_VERSION] if name in SAMPLES else []

    def fetch(self, reference: ModelReference, progress: Progress | None = None) -> ModelBundle:
        """Build a sample where it is not there already; see `ModelSource.fetch`.

        Raises:
            ModelNotFound: no sample has that name or version.
            SourceFailed: neither the cache nor a temporary folder can be written.
        """
        name = reference.name
        if name not in SAMPLES:
            raise ModelNotFound(
                f"no sample model is called {shown(name)}; there are {', '.join(self.names())}"
            )
        version = choose_version(name, self.versions(name), reference.version)
        model = SAMPLES[name].graph()
        item = stac_item(name, SAMPLES[name], model)
        folder, notice = self._place(
            name, _files(name, model, orjson.dumps(item, option=orjson.OPT_INDENT_2))
        )
        if progress is not None:
            progress(len(model), len(model))
        return ModelBundle(
            name=name,
            version=version,
            source=self.scheme,
            item=item,
            model_path=folder / MODEL_FILE,
            profile=SAMPLES[name].profile,
            sha256=hashlib.sha256(model).hexdigest(),
            verified="built here",
            notice=notice,
        )

    def close(self) -> None:
        """Remove the temporary folder, where one had to be used."""
        with self._lock:
            refuge, self._refuge = self._refuge, None
        if refuge is not None:
            refuge.cleanup()

    def _place(self, name: str, files: Mapping[str, bytes]) -> tuple[Path, str | None]:
        try:
            _write(self._home / name, files)
        except OSError:
            return self._place_aside(name, files), _NOTICE
        return self._home / name, None

    def _place_aside(self, name: str, files: Mapping[str, bytes]) -> Path:
        try:
            folder = self._temporary() / name
            _write(folder, files)
        except OSError as error:
            raise SourceFailed(
                f"sample model `{name}` cannot be written, neither to the cache nor to a temporary folder: "
                f"{error.strerror}"
            ) from error
        return folder

    def _temporary(self) -> Path:
        with self._lock:
            if self._refuge is None:
                self._refuge = tempfile.TemporaryDirectory(prefix="ml-inference-samples-")
            return Path(self._refuge.name)


def _files(name: str, model: bytes, item: bytes) -> dict[str, bytes]:
    """The item last: where it stands, what it points to stands too."""
    return {MODEL_FILE: model, "profile.toml": SAMPLES[name].profile.encode(), "item.json": item}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make the folder hold these files; nobody ever sees a part of one, however many write at once."""
    for name, content in files.items():
        path = folder / name
        if path.is_file() and path.read_bytes() == content:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{name}.{uuid4().hex}"
        try:
            aside.write_bytes(content)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
