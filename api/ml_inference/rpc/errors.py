"""The one table from error class to gRPC status code, and how an error leaves."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import grpc
from grpc import StatusCode

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

if TYPE_CHECKING:
    from collections.abc import Mapping


class NotOffered(InvalidRequest):
    """A call of the protocol that this service does not implement."""


CODE_OF: Final[Mapping[type[ProcessorError], StatusCode]] = {
    InvalidRequest: StatusCode.INVALID_ARGUMENT,
    ContractMismatch: StatusCode.INVALID_ARGUMENT,
    CorruptImage: StatusCode.INVALID_ARGUMENT,
    Undecodable: StatusCode.INVALID_ARGUMENT,
    Unauthorised: StatusCode.UNAUTHENTICATED,
    Forbidden: StatusCode.PERMISSION_DENIED,
    ModelNotFound: StatusCode.NOT_FOUND,
    TooLarge: StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: StatusCode.UNAVAILABLE,
    NotReady: StatusCode.UNAVAILABLE,
    SourceFailed: StatusCode.UNAVAILABLE,
    DeadlineExceeded: StatusCode.DEADLINE_EXCEEDED,
    ClientGone: StatusCode.CANCELLED,
    NotOffered: StatusCode.UNIMPLEMENTED,
    ProcessorError: StatusCode.INTERNAL,
    CardInvalid: StatusCode.INTERNAL,
    InferenceFailed: StatusCode.INTERNAL,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it leaves.

    Attributes:
        trailing: metadata beside the status; `retry-after` in seconds, as HTTP has it.
    """

    code: StatusCode
    details: str
    trailing: tuple[tuple[str, str], ...] = ()


def failure_of(error: Exception) -> Failure:
    """Any exception as a status; what is ours (INTERNAL) is logged here with its traceback and an id."""
    if not isinstance(error, ProcessorError):
        error_id = log_failure(error)
        details = f"Something failed inside the service. Its log tells more under the id {error_id}."
        return Failure(StatusCode.INTERNAL, details)
    code = next(CODE_OF[each] for each in type(error).__mro__ if each in CODE_OF)
    details = clean(str(error))
    if code is StatusCode.INTERNAL:
        details = f"{details} (the log tells more under the id {log_failure(error)})"
    if isinstance(error, Unavailable):
        wait = error.retry_after if math.isfinite(error.retry_after) else 1.0
        return Failure(code, details, (("retry-after", str(max(1, math.ceil(wait)))),))
    return Failure(code, details)


async def abort(context: grpc.aio.ServicerContext, failure: Failure, request_id: str | None = None) -> None:
    """End the call with this status; raises what the library waits for."""
    named = () if request_id is None else (("x-request-id", request_id),)
    try:
        await context.abort(failure.code, failure.details, (*named, *failure.trailing))
    except grpc.aio.InternalError:  # the client has gone; the library would log a stack trace of it
        raise asyncio.CancelledError from None
