"""Proactive content negotiation (RFC 9110 §12.5.1): which of the offered media types a client takes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ml_inference.errors import InvalidRequest
from ml_inference.web.errors import NotAcceptable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TYPE: Final = re.compile(rf"({_WORD})/({_WORD})")
_WEIGHT: Final = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
LONGEST: Final = 4096
"""Characters of `Accept`; browsers send some two hundred."""


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One element of `Accept`, or a media type that is offered."""

    type: str
    subtype: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0

    @property
    def precision(self) -> int:
        """How much the range says: the most precise one that fits decides (RFC 9110)."""
        return (self.type != "*") + (self.subtype != "*") + len(self.parameters)

    def covers(self, offered: MediaRange) -> bool:
        """Whether the offered type lies in this range."""
        return (
            self.type in {"*", offered.type}
            and self.subtype in {"*", offered.subtype}
            and self.parameters.items() <= offered.parameters.items()
        )


def choose(accept: str, offered: Sequence[str]) -> str:
    """The offered media type that suits `Accept` best.

    The highest quality wins; among equals the type that the client names most precisely; among those the first
    offered. An empty header takes anything. Elements that are no media range are ignored.

    Args:
        accept: all `Accept` lines joined by commas.
        offered: media types, the default first.

    Raises:
        NotAcceptable: nothing fits.
        InvalidRequest: a header longer than anybody needs.
    """
    if len(accept) > LONGEST:
        raise InvalidRequest(f"Accept has {len(accept)} characters: expected {LONGEST} at most")
    if accept.strip() in {"", "*/*"}:
        return offered[0]
    ranges = tuple(_ranges(accept))
    best, best_rank = None, (0.0, 0)
    for name in offered:
        rank = _rank(next(_ranges(name)), ranges)
        if rank[0] > 0 and rank > best_rank:
            best, best_rank = name, rank
    if best is None:
        raise NotAcceptable(f"Accept names none of what this answer can be: {', '.join(offered)}")
    return best


def _rank(offer: MediaRange, ranges: Sequence[MediaRange]) -> tuple[float, int]:
    """Quality and precision of the most precise range that covers the offer; `(0, 0)` when none does."""
    fitting = [each for each in ranges if each.covers(offer)]
    if not fitting:
        return 0.0, 0
    closest = max(fitting, key=lambda each: each.precision)
    return closest.quality, closest.precision


def _ranges(accept: str) -> Iterator[MediaRange]:
    for element in _split(accept, ","):
        name, *parameters = _split(element, ";")
        match = _TYPE.fullmatch(name)
        if match:
            yield _range(match[1].lower(), match[2].lower(), parameters)


def _range(kind: str, subtype: str, texts: Sequence[str]) -> MediaRange:
    parameters: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name.strip().lower() == "q":  # what follows the weight belongs to Accept, not to the media type
            quality = float(value) if _WEIGHT.fullmatch(value.strip()) else 0.0
            return MediaRange(kind, subtype, parameters, quality)
        if name:
            parameters[name.strip().lower()] = value.strip().strip('"').lower()
    return MediaRange(kind, subtype, parameters)


def _split(text: str, separator: str) -> list[str]:
    """Pieces between separators that stand outside of quotes."""
    pieces, quoted = [""], False
    for each in text:
        quoted ^= each == '"'
        if each == separator and not quoted:
            pieces.append("")
        else:
            pieces[-1] += each
    return [piece.strip() for piece in pieces]
