"""JSON out: numpy arrays and scalars as numbers, NaN and infinities as null (JSON has neither)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


def to_json(value: Any) -> bytes:
    """UTF-8 JSON. Integers beyond 64 bits and lone surrogates, which published items may hold, survive."""
    try:
        return orjson.dumps(value, default=_plain, option=_OPTIONS)
    except orjson.JSONEncodeError:
        return json.dumps(value, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()  # arrays that are not contiguous, and scalars that orjson has no form for
    return str(value)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(to_json(value), status, headers, media_type="application/json")
