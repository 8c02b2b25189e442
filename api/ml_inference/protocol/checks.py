"""A request against the card of its model: the tensors of a stranger reach the runtime only as the graph declares them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ml_inference.contract.card import ANY, Axis
from ml_inference.errors import ContractMismatch
from ml_inference.protocol.datatypes import BF16, BYTES, datatype_of
from ml_inference.protocol.parameters import requested_output
from ml_inference.protocol.tensors import mismatch, quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ml_inference.contract.card import InputSpec, ModelCard
    from ml_inference.protocol.datatypes import Buffer
    from ml_inference.protocol.tensors import InferInput, InferRequest, RequestedOutput, Shape

IMAGE: str = "image"
"""A name that the one input of encoded images may have whatever the model calls its own."""


def check_request(card: ModelCard, request: InferRequest) -> dict[str, NDArray[Any]]:
    """The tensors of a request by name, as the graph takes them.

    Args:
        card: reconciled with its graph.
        request: well-formed, without encoded images.

    Raises:
        ContractMismatch: at `inputs.NAME` or `outputs.NAME`: unknown, missing, repeated, or of another type or shape;
            inputs that disagree on their rows; tensors without elements.
    """
    check_outputs(card, request)
    given = _by_name(request.inputs)
    _check_names(card, given)
    tensors = {spec.name: _checked_tensor(spec, given[spec.name]) for spec in card.inputs}
    _check_rows(card, tensors)
    return tensors


def check_outputs(card: ModelCard, request: InferRequest) -> tuple[RequestedOutput, ...]:
    """The outputs that the request wants, all of them where it names none.

    Raises:
        ContractMismatch: one that the model has not, or one named twice.
    """
    known = [spec.name for spec in card.outputs]
    names = [wanted.name for wanted in request.outputs]
    for name in names:
        if name not in known:
            raise mismatch(
                name, "the model has no such output", expected=known, got=quoted(name), side="output"
            )
        if names.count(name) > 1:
            raise mismatch(
                name, "it is asked for twice", expected="once", got=names.count(name), side="output"
            )
    return request.outputs or tuple(requested_output(name, {}) for name in known)


def image_elements(card: ModelCard, request: InferRequest) -> Sequence[Buffer] | None:
    """The encoded images of a request; None where it has tensors.

    The service's own extension: one input of datatype BYTES and shape `[n]` or `[n, 1]`, named `image` or as the
    model's first input, holds n encoded images in place of all inputs.

    Raises:
        ContractMismatch: a BYTES input that is not this.
    """
    found = next((each for each in request.inputs if each.datatype == BYTES), None)
    if found is None:
        return None
    legal = (IMAGE, card.inputs[0].name)
    if found.name not in legal:
        what = "BYTES are encoded images here, and no such input takes them"
        raise mismatch(found.name, what, expected=" or ".join(map(quoted, legal)), got=quoted(found.name))
    if len(request.inputs) > 1:
        raise mismatch(
            found.name, "encoded images stand for all inputs", expected="no other input", got="others"
        )
    if len(found.shape) not in {1, 2} or found.shape[1:] not in {(), (1,)} or found.shape[0] < 1:
        expected = "[n] or [n, 1], n at least 1"
        raise mismatch(found.name, "images have another shape", expected=expected, got=list(found.shape))
    return cast("Sequence[Buffer]", found.data)


def open_shape(spec: InputSpec) -> Shape:
    """An input's shape with its rows open: whatever the graph's own batch, requests are split and filled to fit."""
    return tuple(
        ANY if axis is Axis.BATCH and i == 0 else n
        for i, (axis, n) in enumerate(zip(spec.axes, spec.shape, strict=True))
    )


def has_rows(card: ModelCard) -> bool:
    """Whether every input begins with a batch axis."""
    return all(spec.axes[:1] == (Axis.BATCH,) for spec in card.inputs)


def _by_name(inputs: Iterable[InferInput]) -> dict[str, InferInput]:
    given: dict[str, InferInput] = {}
    for each in inputs:
        if each.name in given:
            raise mismatch(each.name, "it comes twice", expected="once", got="twice or more")
        given[each.name] = each
    return given


def _check_names(card: ModelCard, given: dict[str, InferInput]) -> None:
    known = [spec.name for spec in card.inputs]
    for name in given:
        if name not in known:
            raise mismatch(name, "the model has no such input", expected=known, got=quoted(name))
    for name in known:
        if name not in given:
            raise mismatch(name, "it is missing", expected=known, got=list(given) or "no inputs")


def _checked_tensor(spec: InputSpec, given: InferInput) -> NDArray[Any]:
    expected = datatype_of(spec.dtype)
    fits = given.datatype == expected or (given.datatype, expected) == (BF16, "FP32")
    if not fits or not isinstance(given.data, np.ndarray):
        raise mismatch(given.name, "it has another datatype", expected=expected, got=given.datatype)
    _check_shape(spec, given)
    return given.data


def _check_shape(spec: InputSpec, given: InferInput) -> None:
    shape = open_shape(spec)
    if spec.shape and not _fits(given.shape, shape):
        raise mismatch(
            given.name, "it has another shape", expected=str(list(shape)), got=str(list(given.shape))
        )
    if 0 in given.shape:
        raise mismatch(given.name, "it has no elements", expected="at least one", got=str(list(given.shape)))
    for axis in (Axis.HEIGHT, Axis.WIDTH):
        length = given.shape[spec.axes.index(axis)] if axis in spec.axes else 0
        if length % spec.size_multiple:
            expected = f"a multiple of {spec.size_multiple}"
            raise mismatch(given.name, f"its {axis} does not fit the model", expected=expected, got=length)


def _fits(shape: Shape, wanted: Shape) -> bool:
    return len(shape) == len(wanted) and all(w in (ANY, n) for n, w in zip(shape, wanted, strict=True))


def _check_rows(card: ModelCard, tensors: dict[str, NDArray[Any]]) -> None:
    rows = {name: array.shape[0] for name, array in tensors.items()} if has_rows(card) else {}
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ContractMismatch(
            f"the inputs disagree on their rows, the first dimension: {told}; expected the same in all",
            field="inputs",
            expected="as many rows in each input",
            got=rows,
        )
