"""A hub for each test, and options whose waits are short."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sources.hub import KEY, Hub, start_hub

from ml_inference.sources.base import SourceOptions
from ml_inference.sources.eotdl import EotdlSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("pyarrow", reason="the `eotdl` extra is not installed")
    root = tmp_path / "hub"
    root.mkdir()
    with start_hub(root) as running:
        yield running


@pytest.fixture
def options(hub: Hub, tmp_path: Path) -> Callable[..., SourceOptions]:
    """Give options that know the hub and its key, allow its store, and lose patience within a second or two."""

    def make(**changes: object) -> SourceOptions:
        values = {
            "cache_dir": tmp_path / "cache",
            "eotdl_url": hub.url,
            "eotdl_key": KEY,
            "allowed_hosts": (hub.store_host,),
            "connect_seconds": 2.0,
            "read_seconds": 2.0,
            "api_seconds": 1.0,
            "stall_seconds": 2.0,
            "backoff_seconds": 0.01,
            "away_seconds": 0.0,
            "lock_seconds": 30.0,
        }
        return SourceOptions(**(values | changes))

    return make


@pytest.fixture
def source(options: Callable[..., SourceOptions]) -> EotdlSource:
    return EotdlSource(options())
