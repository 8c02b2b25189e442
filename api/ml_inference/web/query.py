"""What a request says beside its image: query parameters and its own deadline."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, get_args
from urllib.parse import parse_qsl

from ml_inference.contract.options import OutputKind, PredictOptions
from ml_inference.contract.scaling import parse_scaling
from ml_inference.errors import InvalidRequest
from ml_inference.protocol.failures import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

TIMEOUT_HEADER: Final = "x-request-timeout-ms"
OUTPUTS: Final[tuple[str, ...]] = get_args(OutputKind)
MAX_BANDS: Final = 256
MAX_BAND_NAME: Final = 64
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_MILLISECONDS: Final = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Query:
    """The query of an inference request."""

    options: PredictOptions
    version: str | None = None


def parse_query(query_string: bytes) -> Query:
    """Read `output`, `threshold`, `bands`, `scaling` and `version`.

    Raises:
        InvalidRequest: an unknown, repeated or illegal parameter; the message names the legal ones.
    """
    values = parameters(query_string, (*_READERS, "version"))
    version = values.pop("version", None)
    options: dict[str, Any] = {name: _READERS[name](text) for name, text in values.items()}
    return Query(PredictOptions(**options), version)


def parameters(query_string: bytes, legal: Collection[str]) -> dict[str, str]:
    """The query's parameters by name, each at most once; an unknown one is an error, not a silent no-op.

    Raises:
        InvalidRequest: an unknown, repeated or empty parameter.
    """
    try:
        pairs = parse_qsl(
            query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=2 * len(legal) + 8
        )
    except ValueError:
        raise InvalidRequest(f"too many query parameters: expected {_listed(legal)}") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in legal:
            raise InvalidRequest(f"unknown query parameter {clean(name, 40)!r}: expected {_listed(legal)}")
        if name in values:
            raise InvalidRequest(f"the query parameter {name!r} comes twice: expected once at most")
        if not value.strip():
            raise InvalidRequest(f"the query parameter {name!r} is empty: give it a value or leave it out")
        values[name] = value.strip()
    return values


def deadline_of(header: str | None, longest: float) -> float:
    """When the request's time is over, in `time.monotonic()` seconds: after `longest`, or sooner if its header says so.

    Raises:
        InvalidRequest: the header is no positive whole number.
    """
    if header is None:
        return time.monotonic() + longest
    if not _MILLISECONDS.fullmatch(header) or int(header) == 0:
        raise InvalidRequest(
            f"X-Request-Timeout-Ms is {clean(header, 40)!r}: expected whole milliseconds from 1 to 999999999"
        )
    return time.monotonic() + min(longest, int(header) / 1000)


def _listed(legal: Collection[str]) -> str:
    return ", ".join(sorted(legal)) or "none"


def _output(text: str) -> str:
    if text not in OUTPUTS:
        raise InvalidRequest(f"output is {clean(text, 40)!r}: expected {', '.join(OUTPUTS)}")
    return text


def _threshold(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise InvalidRequest(f"threshold is {clean(text, 40)!r}: expected a finite number such as 0.5")
    return float(text)


def _bands(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if len(names) > MAX_BANDS or not all(
        0 < len(name) <= MAX_BAND_NAME and name.isprintable() for name in names
    ):
        raise InvalidRequest(
            f"bands is {clean(text, 80)!r}: expected the names of the file's bands in their order, such as B04,B03,B02"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidRequest(f"bands names {', '.join(repeated)} more than once: expected each band once")
    return names


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "output": _output,
    "threshold": _threshold,
    "bands": _bands,
    "scaling": parse_scaling,
}
