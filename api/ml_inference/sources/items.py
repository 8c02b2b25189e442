"""Reading the documents that lie beside a model: its STAC item and its profile."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any, NoReturn

from ml_inference.errors import CardInvalid

if TYPE_CHECKING:
    from pathlib import Path

MAX_ITEM_BYTES = 1 << 20
MAX_PROFILE_BYTES = 64 << 10
_MAX_DEPTH = 64


def read_item(path: Path) -> dict[str, Any]:
    """Read a STAC item from a file of at most 1 MiB; `CardInvalid` says line and column of what is broken."""
    return parse_item(_read(path, MAX_ITEM_BYTES, "item.json", ""))


def parse_item(data: bytes) -> dict[str, Any]:
    """Read a STAC item: one JSON object in UTF-8, without NaN, nested at most 64 deep."""
    try:
        item = json.loads(data.decode("utf-8-sig"), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _broken(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _broken(f"line {line}: a byte that is not UTF-8") from error
    except RecursionError as error:
        raise _broken("nested too deeply") from error
    except ValueError as error:
        raise _broken(str(error)) from error
    if not isinstance(item, dict):
        raise _broken(f"a STAC item is a JSON object, this is a {type(item).__name__}")
    if _deeper_than(item, _MAX_DEPTH):
        raise _broken(f"nested more than {_MAX_DEPTH} deep")
    return item


def read_profile(path: Path) -> str | None:
    """Read a profile's text, or None where there is no such file."""
    if not path.is_file():
        return None
    try:
        return _read(path, MAX_PROFILE_BYTES, "profile.toml", "profile:/").decode()
    except UnicodeDecodeError as error:
        raise CardInvalid("the profile is not UTF-8", (("profile:/", "not UTF-8"),)) from error


def asset_key(profile: str | None) -> str | None:
    """Give the key of the asset that a profile chooses (`asset = "…"`), if it does; all else in it is not looked at."""
    try:
        key = tomllib.loads(profile or "").get("asset")
    except tomllib.TOMLDecodeError as error:
        raise CardInvalid(f"the profile is not TOML: {error}", (("profile:/", str(error)),)) from error
    if key is not None and not isinstance(key, str):
        problem = f"`asset` is the key of one of the item's assets, a string, not a {type(key).__name__}"
        raise CardInvalid(f"the profile cannot be read: {problem}", (("profile:/asset", problem),))
    return key


def _read(path: Path, limit: int, what: str, pointer: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise CardInvalid(
            f"{what} cannot be read ({error.strerror})", ((pointer, "cannot be read"),)
        ) from error
    if len(data) > limit:
        raise CardInvalid(f"{what} has more than {limit} bytes", ((pointer, f"more than {limit} bytes"),))
    return data


def _broken(problem: str) -> CardInvalid:
    return CardInvalid(f"item.json is broken: {problem}", (("", problem),))


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
        ]
    return bool(level)
