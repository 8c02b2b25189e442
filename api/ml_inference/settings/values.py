"""What a setting's value may be, and how its text is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_BYTES = re.compile(r"(\d+)\s*([kmg]i?b|b|)", re.IGNORECASE)


@dataclass(frozen=True)
class About:
    """What people need to know of a setting, beside its type.

    Attributes:
        group: the heading under which it is listed.
        legal: what a value may be, as the end of the sentence "expected …".
    """

    group: str
    meaning: str
    legal: str


def lowered(value: Any) -> Any:
    """A text in lower case; anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _byte_count(value: Any) -> Any:
    if isinstance(value, str):
        match = _BYTES.fullmatch(value.strip())
        if not match:
            raise ValueError("not a number of bytes")
        return int(match[1]) * _UNITS[match[2].lower()]
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    port_is_a_number = parts.port is None or parts.port > 0
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in {"http", "https"} or not (parts.hostname and port_is_a_number and plain):
        raise ValueError("not an address of a server")
    return value if value.endswith("/") else value + "/"


def _header_safe(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ValueError("cannot travel in a header")
    return value


type Secret = Annotated[SecretStr, AfterValidator(_header_safe)]
type ByteCount = Annotated[int, BeforeValidator(_byte_count)]
type Names[Item] = Annotated[tuple[Item, ...], BeforeValidator(_split)]
type Url = Annotated[str, AfterValidator(_url)]
type Folder = Annotated[Path, AfterValidator(Path.expanduser)]


def sizes(low: str, high: str) -> str:
    """What a number of bytes may be, in words."""
    return f"a number of bytes from {low} to {high}, such as 67108864, 64MiB or 50MB"
