"""Parameters that this service knows (Triton's parameter, schedule-policy and classification extensions); others are ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ml_inference.errors import InvalidRequest
from ml_inference.protocol.tensors import RequestedOutput, mismatch, quoted

if TYPE_CHECKING:
    from ml_inference.protocol.tensors import Parameters

MAX_PRIORITY: Final = 2**32 - 1
MAX_TIMEOUT_US: Final = 2**63 - 1


def schedule_of(parameters: Parameters) -> tuple[int, int | None]:
    """`priority` and `timeout` of a request; a timeout of 0 is none, as clients have it.

    Raises:
        InvalidRequest: one of them is no whole number, or negative.
    """
    priority = whole("priority", parameters.get("priority", 0), MAX_PRIORITY)
    timeout = whole("timeout", parameters.get("timeout", 0), MAX_TIMEOUT_US)
    return priority, timeout or None


def requested_output(name: str, parameters: Parameters) -> RequestedOutput:
    """What a request says of an output.

    Raises:
        ContractMismatch: `binary_data` is no boolean, or the output is to go to shared memory.
        InvalidRequest: `classification` is no whole number.
    """
    refuse_shared_memory(name, parameters, side="output")
    binary = parameters.get("binary_data")
    if binary is not None and not isinstance(binary, bool):
        raise mismatch(
            name,
            "binary_data is no boolean",
            expected="true or false",
            got=quoted(str(binary)),
            side="output",
        )
    classes = whole(
        f"classification of output {quoted(name)}", parameters.get("classification", 0), 2**31 - 1
    )
    return RequestedOutput(name, binary, classes)


def refuse_shared_memory(name: str, parameters: Parameters, *, side: str = "input") -> None:
    """A region of memory that client and server share is a hole in both.

    Raises:
        ContractMismatch: the tensor is said to lie in one.
    """
    found = next((each for each in parameters if each.startswith("shared_memory_")), None)
    if found is not None:
        raise mismatch(
            name, "shared memory is not offered here", expected="data in the request", got=found, side=side
        )


def whole(name: str, value: Any, most: int) -> int:
    """A whole number from 0 to `most`.

    Raises:
        InvalidRequest: it is none.
    """
    if type(value) is not int or not 0 <= value <= most:
        raise InvalidRequest(f"{name} is {quoted(str(value))}: expected a whole number from 0 to {most}")
    return value
