"""Bytes from an address to a file: streamed, resumed, retried, bounded.

What has come lies in the file itself; beside it, `NAME.resume` remembers the server's validator, so that a download goes
on after a cut, in another try or another process, only while the far side still has the very same bytes (RFC 9110, `If-Range`).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_inference.errors import NotReady, SourceFailed
from ml_inference.sources.base import Unreachable
from ml_inference.sources.http import Leash

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from threading import Event
    from typing import BinaryIO

    from ml_inference.sources.base import Progress, SourceOptions
    from ml_inference.sources.http import Outbound, Reply

log = logging.getLogger(__name__)

_CHUNK = 64 << 10
_EARNED = 1 << 20
_MAX_PAUSE = 30.0
_LOG_SECONDS = 5.0
_DISK_SPARE = 1.2
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}


class LinkExpired(SourceFailed):
    """The store refuses the link; a freshly signed one may do."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to fetch, and where to.

    Attributes:
        sign: gives the address; asked again, once, when the store refuses it.
        into: the file to fill; what it holds from an earlier try is used if it still fits.
        label: what logs and messages call it.
        size: bytes promised, if any.
        max_bytes: more than that is refused.
    """

    sign: Callable[[], str]
    into: Path
    label: str
    size: int | None
    max_bytes: int
    progress: Progress | None = None


class Downloader:
    """Fetches files, each into a place that one caller has for itself; may be used by several threads.

    Args:
        web: the way out.
        options: limits of time and tries.
        stop: once it is set, downloads break off with `NotReady` at their next bytes; what came stays for the next time.
        free_bytes: room left where a path lies; for tests.
    """

    def __init__(
        self,
        web: Outbound,
        options: SourceOptions,
        stop: Event,
        *,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        self._web = web
        self._options = options
        self._free_bytes = free_bytes or (lambda path: shutil.disk_usage(path).free)
        self._stop = stop

    def fetch(self, order: Order) -> None:
        """Fill `order.into` to its end, on disk; what was noted to resume it stays there until `discard`.

        Raises:
            SourceFailed: the store, the disk or the size is at fault, or every try broke off.
            Unauthorised, Forbidden, ModelNotFound: as `order.sign` raises them.
        """
        url, failures, signed_again = order.sign(), 0, False
        part = _Part(order)
        while True:
            before = part.have()
            try:
                self._attempt(url, part)
            except LinkExpired:
                if signed_again:
                    raise
                url, signed_again = order.sign(), True
            except Unreachable as error:
                gained = part.have() - before
                failures = 0 if gained >= _EARNED else failures + 1
                signed_again = signed_again and gained <= 0
                self._pause(order, failures, error)
            else:
                return

    def _pause(self, order: Order, failures: int, error: Unreachable) -> None:
        if failures > self._options.retries:
            message = f"{order.label} could not be downloaded in {failures} tries; the last one: {error}"
            raise SourceFailed(message) from error
        longest = min(_MAX_PAUSE, self._options.backoff_seconds * 2**failures)
        pause = random.uniform(longest / 2, longest)  # noqa: S311 - spreads tries of many servers, guards nothing
        log.warning("%s: %s; trying again in %.1f s", order.label, error, pause)
        self._stop.wait(pause)

    def _attempt(self, url: str, part: _Part) -> None:
        if self._stop.is_set():
            raise NotReady("the service is shutting down")
        if part.whole():
            return
        leash = Leash(self._options.stall_seconds)
        with self._web.get(url, leash, part.range_headers()) as reply:
            try:
                part.begin(reply)
                self._check_room(part)
                self._stream(reply, part, leash)
            except OSError as error:
                part.drop()
                full = error.errno in _FULL
                raise SourceFailed(
                    "the disk for models is full" if full else "the model could not be written"
                ) from error

    def _check_room(self, part: _Part) -> None:
        most = part.order.max_bytes
        if part.total is not None and part.total > most:
            part.drop()
            raise SourceFailed(f"{part.order.label} has {part.total} bytes; at most {most} are fetched")
        missing = (part.total or 0) - part.start
        free = self._free_bytes(part.order.into.parent)
        if missing * _DISK_SPARE > free:
            part.drop()
            raise SourceFailed(
                f"{part.order.label} needs {missing} bytes more, the disk for models has {free} left"
            )

    def _stream(self, reply: Reply, part: _Part, leash: Leash) -> None:
        count = renewed = part.start
        ticker = _Ticker(part)
        with part.open() as file:
            for chunk in reply.chunks():
                if self._stop.is_set():
                    raise NotReady("the service is shutting down")
                file.write(chunk)
                count += len(chunk)
                part.check_count(count)
                if count - renewed >= _CHUNK:
                    leash.renew()
                    renewed = count
                ticker.tell(count)
            file.flush()
            os.fsync(file.fileno())
        part.check_end(count)


def discard(path: Path) -> None:
    """Remove a file that was fetched, or begun, and what was noted to resume it."""
    for one in (path, _note(path)):
        with suppress(OSError):
            one.unlink(missing_ok=True)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".resume")


class _Part:
    """A file that is being filled, and what is known of the bytes it waits for."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.start = 0
        self.total = order.size
        self._note = _note(order.into)
        self._validator = ""
        with suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self._note.read_text())
            self._validator, self.total = str(note["validator"]), note["total"]

    def have(self) -> int:
        """Count the bytes on disk that may be resumed."""
        try:
            return self.order.into.stat().st_size if self._validator else 0
        except FileNotFoundError:
            return 0

    def whole(self) -> bool:
        return self.have() > 0 and self.have() == self.total

    def range_headers(self) -> dict[str, str]:
        have = self.have()
        return {"Range": f"bytes={have}-", "If-Range": self._validator} if have else {}

    def begin(self, reply: Reply) -> None:
        """Judge the answer's head: where its bytes start, and how many there will be."""
        if reply.status == 206:  # noqa: PLR2004 - Partial Content
            self._go_on(reply)
        elif reply.status == 200:  # noqa: PLR2004 - OK: from the beginning, whatever was asked
            self._start_over(reply)
        elif reply.status == 416:  # noqa: PLR2004 - Range Not Satisfiable: what lies here is no beginning of it
            self.drop()
            raise Unreachable(f"{reply.origin} has other bytes by now")
        else:
            raise _refusal(reply, self.order.label)
        if reply.headers.get("content-encoding", "identity") != "identity":
            raise SourceFailed(f"{reply.origin} sends {self.order.label} encoded, although asked not to")

    def _go_on(self, reply: Reply) -> None:
        match = _RANGE.fullmatch(reply.headers.get("content-range", ""))
        if match is None or int(match[1]) != self.have():
            self.drop()
            raise Unreachable(f"{reply.origin} answered with another range than asked")
        self.start = int(match[1])

    def _start_over(self, reply: Reply) -> None:
        self.drop()
        length = reply.headers.get("content-length", "")
        self.total = int(length) if length.isdecimal() else self.order.size
        if self.order.size not in {None, self.total}:
            raise SourceFailed(
                f"{self.order.label} should have {self.order.size} bytes, the store has {self.total}"
            )
        self._validator = _validator(reply)
        if self._validator:
            self._note.write_text(json.dumps({"validator": self._validator, "total": self.total}))

    def open(self) -> BinaryIO:
        """Open the file at the place where the answer's bytes belong, with nothing behind it."""
        file = self.order.into.open("r+b" if self.start else "wb")
        file.seek(self.start)
        file.truncate()
        return file

    def check_count(self, count: int) -> None:
        most = self.order.max_bytes if self.total is None else self.total
        if count > most:
            self.drop()
            raise SourceFailed(f"{self.order.label} goes on after {most} bytes, where it should end")

    def check_end(self, count: int) -> None:
        if self.total is not None and count < self.total:
            raise Unreachable(f"the connection ended after {count} of {self.total} bytes")

    def drop(self) -> None:
        """Forget what came: it does not fit, or the disk needs the room."""
        self.start, self._validator = 0, ""
        discard(self.order.into)


class _Ticker:
    """Tells progress to the caller at each chunk, and to the log every few seconds."""

    def __init__(self, part: _Part) -> None:
        self._part = part
        self._next = time.monotonic() + _LOG_SECONDS

    def tell(self, count: int) -> None:
        order, total = self._part.order, self._part.total
        if order.progress is not None:
            order.progress(count, total)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOG_SECONDS
            of = f" of {total / 1e6:.1f}" if total else ""
            log.info("%s: %.1f%s MB have come", order.label, count / 1e6, of)


def _validator(reply: Reply) -> str:
    """Give what `If-Range` may carry: a strong ETag, else the date of the last change."""
    etag = reply.headers.get("etag", "")
    return etag if etag.startswith('"') else reply.headers.get("last-modified", "")


def _refusal(reply: Reply, label: str) -> SourceFailed:
    message = f"{reply.origin} answered {reply.status} for {label}"
    if reply.status == 403:  # noqa: PLR2004 - Forbidden: how stores say that a signed link is over
        return LinkExpired(message)
    return Unreachable(message) if reply.status in _TRY_AGAIN else SourceFailed(message)
