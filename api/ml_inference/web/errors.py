"""The one table from error class to HTTP status, and the one shape in which errors leave (RFC 9457)."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ml_inference.errors import (
    CardInvalid,
    ClientGone,
    ContractMismatch,
    CorruptImage,
    DeadlineExceeded,
    Forbidden,
    InferenceFailed,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    ProcessorError,
    SourceFailed,
    TooLarge,
    Unauthorised,
    Unavailable,
    Undecodable,
)
from ml_inference.protocol.failures import clean, log_failure
from ml_inference.web.json import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE: Final = "application/problem+json"
LONGEST_VALUE: Final = 200
MOST_VALUES: Final = 64


class NotAcceptable(InvalidRequest):
    """None of the media types in `Accept` can be made of this answer."""


class BodyTooSlow(InvalidRequest):
    """The body had not come in full when the request's time was over."""


class UnsupportedEncoding(InvalidRequest):
    """A body in a `Content-Encoding`, which this service does not undo."""


class MethodUnknown(InvalidRequest):
    """No route of this service has that method."""


STATUS_OF: Final[Mapping[type[ProcessorError], int]] = {
    InvalidRequest: 400,
    ContractMismatch: 400,
    CorruptImage: 400,
    Unauthorised: 401,
    Forbidden: 403,
    ModelNotFound: 404,
    NotAcceptable: 406,
    BodyTooSlow: 408,
    TooLarge: 413,
    Undecodable: 415,
    UnsupportedEncoding: 415,
    ClientGone: 499,  # nobody is left to read it; it stands in the log and the metrics
    ProcessorError: 500,
    CardInvalid: 500,
    InferenceFailed: 500,
    MethodUnknown: 501,
    SourceFailed: 502,
    Unavailable: 503,
    Overloaded: 503,
    NotReady: 503,
    DeadlineExceeded: 504,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it leaves: status, headers and the members of the problem object."""

    status: int
    members: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The problem object as JSON."""
        return to_json(self.members)


def status_of(error: ProcessorError) -> int:
    """The status of the nearest class in `STATUS_OF`."""
    return next(STATUS_OF[each] for each in type(error).__mro__ if each in STATUS_OF)


def problem_of(error: Exception, request_id: str) -> Problem:
    """Any exception in the one shape; what is ours (500) is logged here with its traceback and an id."""
    if isinstance(error, ProcessorError):
        return _of_domain(error, request_id)
    if isinstance(error, HTTPException):
        return _of_http(error, request_id)
    if isinstance(error, RequestValidationError):
        return _of_domain(InvalidRequest(_validation_text(error)), request_id)
    return _of_defect(error, request_id)


def _of_domain(error: ProcessorError, request_id: str) -> Problem:
    status = status_of(error)
    name = type(error).__name__
    extra = _extra(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        extra["error_id"] = log_failure(error)
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    members = _members(
        f"urn:ml-inference:{words.replace(' ', '-')}", words.capitalize(), status, str(error), request_id
    )
    return Problem(status, {**members, **extra}, _headers(error))


def _extra(error: ProcessorError) -> dict[str, Any]:
    if isinstance(error, ContractMismatch):
        return {"field": clean(error.field), "expected": _plain(error.expected), "got": _plain(error.got)}
    if isinstance(error, CardInvalid):
        return {"problems": [{"pointer": clean(at), "message": clean(what)} for at, what in error.problems]}
    return {}


def _headers(error: ProcessorError) -> dict[str, str]:
    if isinstance(error, Unauthorised):
        return {"WWW-Authenticate": 'Bearer realm="ml-inference"'}
    if isinstance(error, Unavailable):
        wait = error.retry_after if math.isfinite(error.retry_after) else 1.0
        return {"Retry-After": str(max(1, math.ceil(wait)))}
    if isinstance(error, BodyTooSlow):
        return {"Connection": "close"}
    return {}


def _of_http(error: HTTPException, request_id: str) -> Problem:
    phrase = HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    detail = {
        404: "There is nothing at this path; GET /docs lists what there is.",
        405: f"This path does not take that method; it takes {headers.get('Allow', headers.get('allow', 'others'))}.",
    }.get(error.status_code, str(error.detail))
    return Problem(
        error.status_code, _members("about:blank", phrase, error.status_code, detail, request_id), headers
    )


def _of_defect(error: Exception, request_id: str) -> Problem:
    error_id = log_failure(error)
    detail = f"Something failed inside the service. Its log tells more under the id {error_id}."
    members = _members("urn:ml-inference:internal-error", "Internal error", 500, detail, request_id)
    return Problem(500, {**members, "error_id": error_id})


def _members(kind: str, title: str, status: int, detail: str, request_id: str) -> dict[str, Any]:
    text = clean(detail)
    return {
        "type": kind,
        "title": title,
        "status": status,
        "detail": text,
        "error": text,
        "instance": f"urn:request:{quote(request_id, safe='')}",
    }


def _validation_text(error: RequestValidationError) -> str:
    told = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:MOST_VALUES]]
    return "; ".join(told)


def _plain(value: Any) -> Any:
    """A bounded JSON value of what a card or a request said."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {
            clean(str(name), LONGEST_VALUE): _plain(each) for name, each in list(value.items())[:MOST_VALUES]
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in list(value)[:MOST_VALUES]]
    return clean(str(value), LONGEST_VALUE)
