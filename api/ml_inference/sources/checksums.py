"""Checksums as publishers write them: STAC's multihash, and EOTDL's plain SHA-1."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_HEX = re.compile(r"(?:[0-9a-f]{2})+", re.IGNORECASE)
_BLOCK = 1 << 20
_MIN_BLAKE2B = 32

# Codes of the multiformats table (https://github.com/multiformats/multicodec), with the length of a whole digest.
_CODES: dict[int, tuple[str, int]] = {
    0x11: ("sha1", 20),
    0x12: ("sha256", 32),
    0x13: ("sha512", 64),
    0x14: ("sha3_512", 64),
    0x15: ("sha3_384", 48),
    0x16: ("sha3_256", 32),
    0x20: ("sha384", 48),
    0xD5: ("md5", 16),
} | {0xB200 + size: (f"blake2b-{size * 8}", size) for size in range(_MIN_BLAKE2B, 65)}
_PLAIN = {32: "md5", 40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}


@dataclass(frozen=True, slots=True)
class Checksum:
    """A promise about a file's bytes.

    Attributes:
        algorithm: `sha256`, `sha1`, `sha3_256`, `blake2b-256` ….
        digest: the whole digest in lower-case hex.
        field: where the item says so (`file:checksum`, `checksum`).
    """

    algorithm: str
    digest: str
    field: str


def parse_multihash(text: str) -> Checksum:
    """Read a `file:checksum` (STAC file extension 2.1): code and length as varints, then the digest, in hex.

    Weak codes (SHA-1, MD5) are read too: they find damage, though not malice, and `verified` names them.

    Raises:
        ValueError: in words, when it is no multihash, of another kind, or cut short.
    """
    if _HEX.fullmatch(text) is None:
        raise ValueError("a multihash is written in hex")
    data = bytes.fromhex(text)
    code, rest = _varint(data)
    length, digest = _varint(rest)
    if code not in _CODES or length != len(digest):
        hint = "; this looks like a bare digest, which needs `1220` before it" if len(text) in _PLAIN else ""
        raise ValueError(f"not a whole multihash of SHA-2, SHA-3 or BLAKE2b{hint}")
    algorithm, whole = _CODES[code]
    if length != whole:
        raise ValueError(f"a {algorithm} digest has {whole} bytes, this one {length}")
    return Checksum(algorithm, digest.hex(), "file:checksum")


def parse_plain(text: str) -> Checksum | None:
    """Read a bare digest in hex (EOTDL's `checksum`), its kind told by its length; None for anything else."""
    algorithm = _PLAIN.get(len(text)) if _HEX.fullmatch(text) else None
    return None if algorithm is None else Checksum(algorithm, text.lower(), "checksum")


def hash_file(path: Path, algorithms: Iterable[str] = ()) -> dict[str, str]:
    """Hash a file once for all algorithms, and always by `sha256`; digests in hex."""
    hashes = {name: _make(name) for name in {"sha256", *algorithms}}
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            for one in hashes.values():
                one.update(block)
    return {name: one.hexdigest() for name, one in hashes.items()}


def _make(algorithm: str) -> Any:
    """Begin a hash; `hashlib` gives its kinds no common public type."""
    if algorithm.startswith("blake2b-"):
        return hashlib.blake2b(digest_size=int(algorithm.removeprefix("blake2b-")) // 8)
    return hashlib.new(algorithm, usedforsecurity=algorithm not in {"md5", "sha1"})


def _varint(data: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(data[:9]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the bit that says another byte follows
            return value, data[index + 1 :]
    raise ValueError("not a whole multihash: it ends within its head")
