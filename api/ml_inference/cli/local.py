"""The service's own parts in this process, for commands that need no server; and how far they have come."""

from __future__ import annotations

import sys
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import click

from ml_inference.services import Services, open_services
from ml_inference.settings import load_settings
from ml_inference.telemetry import configure_logging

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

FOR_EVER = float("inf")
"""A deadline for those who wait at a terminal: they have Ctrl-C."""
SHOWN_FROM = 1 << 20
"""Bytes; a smaller download is over before a bar could be read."""


@asynccontextmanager
async def local_services(model: str = "") -> AsyncIterator[Services]:
    """Open everything from the settings, with a bar while `model` is fetched."""
    settings = load_settings()
    configure_logging("text", "error")  # what matters here ends up in the command's own one line
    with download_bar(model) as progress:
        async with open_services(settings, preload=False, progress=progress) as services:
            yield services


def bar(label: str, length: int) -> Any:
    """A progress bar on stderr, where a person watches: a context manager with `update(steps)`."""
    return click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())


@contextmanager
def download_bar(model: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar that begins with the first bytes of a model, if there are any to fetch; called from the thread that fetches."""
    with ExitStack() as shown:
        bars: list[Any] = []

        def progress(done: int, total: int | None) -> None:
            if total is None or total < SHOWN_FROM:
                return
            if not bars:
                bars.append(shown.enter_context(bar(f"Fetching {model}", total)))
            bars[0].update(done - bars[0].pos)

        yield progress
