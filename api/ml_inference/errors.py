"""What can go wrong, in the domain's words.

Nothing here knows of HTTP or gRPC: `web/errors.py` and `rpc/errors.py` hold the tables from class to status.

::

    ProcessorError
    ├── InvalidRequest        the request itself is malformed
    │   └── ContractMismatch  well-formed, but it does not fit the model (field, expected, got)
    ├── CorruptImage          an image by its first bytes, damaged further on
    ├── Undecodable           not an image this service reads
    ├── TooLarge              more bytes or pixels than the service accepts
    ├── Unauthorised          no key
    ├── Forbidden             a wrong key, or one without the right
    ├── ModelNotFound         no such model or version
    ├── Unavailable           come back in `retry_after` seconds
    │   ├── Overloaded        the queue is full
    │   └── NotReady          still starting, still loading, or draining
    ├── DeadlineExceeded      the request's time has passed
    ├── ClientGone            nobody waits for the answer any more
    ├── SourceFailed          the hub failed and nothing is cached
    ├── CardInvalid           the model's metadata, profile or graph cannot be served (problems)
    ├── InferenceFailed       the model ran and failed
    └── ConfigurationInvalid  the service cannot start like this
"""

from __future__ import annotations

from typing import Any, Literal


class ProcessorError(Exception):
    """Base of every error this package raises on purpose.

    `str(error)` is a sentence a stranger may read: never a path of the server, a key or a stack trace.
    """


class InvalidRequest(ProcessorError):
    """The request cannot be understood."""


class ContractMismatch(InvalidRequest):
    """Understood, but not what the model's card asks for.

    Attributes:
        field: what was wrong (`bands`, `image.dtype`, `scaling` …).
        expected: what the model's contract asks for.
        got: what came.
    """

    def __init__(self, message: str, *, field: str, expected: Any, got: Any) -> None:
        super().__init__(message)
        self.field = field
        self.expected = expected
        self.got = got


class CorruptImage(InvalidRequest):
    """The bytes begin as an image of a known format and are damaged further on."""


class Undecodable(ProcessorError):
    """The bytes are not an image of a format this service reads."""


class TooLarge(ProcessorError):
    """More bytes, pixels or parts than the service accepts."""


class Unauthorised(ProcessorError):
    """A key is needed and none came, or the hub does not know ours."""


class Forbidden(ProcessorError):
    """The key is wrong, or has not the right."""


class ModelNotFound(ProcessorError):
    """No source knows a model, or a version, of that name."""


class Unavailable(ProcessorError):
    """Not now.

    Attributes:
        retry_after: seconds after which a retry is sensible.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Overloaded(Unavailable):
    """The queue is full by requests or bytes, or too long for this request's deadline.

    Attributes:
        reason: `queue_full` or `deadline`, as the metrics name it.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float = 1.0,
        reason: Literal["queue_full", "deadline"] = "queue_full",
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.reason = reason


class NotReady(Unavailable):
    """Starting, loading or draining."""


class DeadlineExceeded(ProcessorError):
    """The request's time passed before its answer was there."""


class ClientGone(ProcessorError):
    """The client has left; its work is dropped."""


class SourceFailed(ProcessorError):
    """A model source could not deliver, and nothing usable is cached."""


class CardInvalid(ProcessorError):
    """A model cannot be served; every reason is listed.

    Attributes:
        problems: `(pointer, message)` pairs; the pointer is an RFC 6901 JSON pointer into the item,
            or `profile:/…` into the profile, or `onnx:NAME` for a tensor of the graph.
    """

    def __init__(self, message: str, problems: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class InferenceFailed(ProcessorError):
    """The runtime failed on a batch that the contract allowed."""


class ConfigurationInvalid(ProcessorError):
    """A setting has a value the service cannot start with."""
