"""Where models come from: `open_source` turns an entry of `MODEL_SOURCES` into a `ModelSource`.

A new origin is one file beside these and one line here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from ml_inference.errors import ConfigurationInvalid
from ml_inference.sources.base import ModelBundle, ModelReference, ModelSource, Progress, SourceOptions

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ModelBundle", "ModelReference", "ModelSource", "Progress", "SourceOptions", "open_source"]

_USERINFO = re.compile(r"//[^/@]*@")


def open_source(url: str, options: SourceOptions) -> ModelSource:
    """Open one source of models; nothing is fetched yet.

    Args:
        url: `samples:`, `eotdl:`, an absolute path, or `file:///` and one; `#NAME` after a path says that the folder
            holds the one model NAME.
        options: plain values that the sources work by.

    Raises:
        ConfigurationInvalid: no such source, no such folder, or the packages that it needs are not installed.
    """
    if url in _NAMED:
        return _NAMED[url](options)
    folder = _folder(url)
    if folder is None:
        shown = _USERINFO.sub("//…@", url)[:200]
        legal = "`samples:`, `eotdl:`, `/a/folder` or `file:///a/folder`, perhaps with `#NAME`"
        raise ConfigurationInvalid(f"MODEL_SOURCES: {shown!r} is no source of models; legal are {legal}")
    from ml_inference.sources.local import LocalSource  # noqa: PLC0415 - see _samples

    path, name = folder
    return LocalSource(path, max_model_bytes=options.max_model_bytes, name=name)


def _folder(url: str) -> tuple[Path, str | None] | None:
    """Give a folder and the name it is given, if any."""
    if url.startswith("/"):
        path, _, name = url.partition("#")
        return Path(path), name or None
    parts = urlsplit(url)
    if parts.scheme != "file" or parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        return None
    return Path(unquote(parts.path)), parts.fragment or None


def _samples(options: SourceOptions) -> ModelSource:
    # Each origin is imported when it is asked for: another one's packages may not be installed, and none is needed to start.
    from ml_inference.sources.samples import SamplesSource  # noqa: PLC0415 - as above

    return SamplesSource(options.cache_dir)


def _eotdl(options: SourceOptions) -> ModelSource:
    from ml_inference.sources.eotdl import EotdlSource  # noqa: PLC0415 - see _samples

    return EotdlSource(options)


_NAMED: dict[str, Callable[[SourceOptions], ModelSource]] = {"samples:": _samples, "eotdl:": _eotdl}
