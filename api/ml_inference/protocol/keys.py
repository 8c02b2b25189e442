"""Who may ask: one key, compared in constant time, before anything else of a request is looked at."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from ml_inference.errors import Forbidden, Unauthorised

if TYPE_CHECKING:
    from collections.abc import Iterable


class KeyCheck:
    """Judges the headers of requests: `x-api-key: KEY` or `authorization: Bearer KEY`, names in lower case.

    Args:
        key: None lets everyone in.
    """

    def __init__(self, key: str | None) -> None:
        self._digest = None if key is None else _digest(key.encode())

    def __call__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Let a request pass.

        Raises:
            Unauthorised: no key came.
            Forbidden: another key came.
        """
        if self._digest is None:
            return
        given = _given_key(headers)
        if given is None:
            raise Unauthorised("this service needs a key: send it as X-API-Key or as Authorization: Bearer")
        if not hmac.compare_digest(_digest(given), self._digest):
            raise Forbidden("this is not the key of this service")


def _given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    bearer = None
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip() or None
        if name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            bearer = (token.strip() or None) if scheme.lower() == b"bearer" else None
    return bearer


def _digest(key: bytes) -> bytes:
    """Keys are compared by digest: of equal length, and as bytes, which may be any."""
    return hashlib.sha256(key).digest()
