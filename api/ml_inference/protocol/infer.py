"""A request of the Open Inference Protocol through a model, whatever wire it came over."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml_inference.errors import DeadlineExceeded
from ml_inference.protocol.checks import check_outputs, check_request, image_elements
from ml_inference.protocol.datatypes import BYTES, datatype_of
from ml_inference.protocol.images import image_options
from ml_inference.protocol.tensors import InferOutput, InferResponse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ml_inference.contract.card import OutputSpec
    from ml_inference.engine.model import ServedModel
    from ml_inference.protocol.images import Decode
    from ml_inference.protocol.tensors import InferRequest, RequestedOutput

SORTED_HERE: Final = 1 << 16
"""Up to so many values, sorting on the event loop is cheaper than a trip to another thread."""


def deadline_of(request: InferRequest, arrived: float, latest: float) -> float:
    """When the request's time is over: at `latest`, or sooner by its `timeout`, which counts from its arrival.

    Args:
        request: may carry a timeout.
        arrived: when its headers were there, `time.monotonic()` seconds.
        latest: likewise.
    """
    return latest if request.timeout_us is None else min(latest, arrived + request.timeout_us / 1e6)


async def infer(model: ServedModel, request: InferRequest, deadline: float, decode: Decode) -> InferResponse:
    """Run a request's tensors, or its encoded images, and answer with the tensors that it wants.

    It counts nothing: surfaces wrap it, and the reading of the request, in `ServedModel.accounting()`.

    Args:
        model: held by the caller (`ModelRegistry.use`).
        request: well-formed.
        deadline: `time.monotonic()` seconds, from `deadline_of`.
        decode: decodes images, from `images.decoder`.

    Raises:
        ContractMismatch: the request does not fit the model's card.
        Overloaded, TooLarge, DeadlineExceeded, InferenceFailed, NotReady: see `Batcher.submit`.
    """
    card = model.card
    wanted = check_outputs(card, request)
    images = image_elements(card, request)
    if images is None:
        tensors = check_request(card, request)
    else:
        options = image_options(request.parameters)
        rasters = await decode(images, options.named_bands)
        tensors = await model.prepare_images(rasters, options, deadline)
    if time.monotonic() >= deadline:
        raise DeadlineExceeded("the request's time passed before its tensors were read")
    batched = await model.infer(tensors, deadline, request.priority)
    specs = {spec.name: spec for spec in card.outputs}
    outputs = [
        await _output(specs[each.name], batched.outputs[each.name], each, batched=model.batching.batched)
        for each in wanted
    ]
    seconds = {"queue": batched.queue_seconds, "infer": batched.run_seconds}
    return InferResponse(model.name, model.version, tuple(outputs), request.id, seconds=seconds)


async def _output(
    spec: OutputSpec, array: NDArray[Any], wanted: RequestedOutput, *, batched: bool
) -> InferOutput:
    if not wanted.classification:
        return InferOutput(spec.name, datatype_of(array.dtype), array.shape, array)
    if array.size <= SORTED_HERE:
        return classified(spec, array, wanted.classification, batched=batched)
    return await asyncio.to_thread(classified, spec, array, wanted.classification, batched=batched)


def classified(spec: OutputSpec, array: NDArray[Any], most: int, *, batched: bool) -> InferOutput:
    """The highest values as `score:index:label` (Triton's classification extension), best first.

    Args:
        spec: its classes give the labels, where there is one for each value.
        array: the output.
        most: values per row at most.
        batched: whether the first axis is rows, each to be classified by itself.

    Returns:
        BYTES of shape `(most,)`, or `(rows, most)` with `batched`.
    """
    rows = array.reshape(array.shape[0] if batched else 1, -1)
    labels = _labels(spec, rows.shape[1])
    texts = [text for row in rows for text in _best(row, most, labels)]
    count = min(most, rows.shape[1])
    shape = (rows.shape[0], count) if batched else (count,)
    return InferOutput(spec.name, BYTES, shape, texts)


def _best(row: NDArray[Any], most: int, labels: list[str]) -> list[bytes]:
    order = np.argsort(-row.astype(np.float64), kind="stable")[:most]
    written = "{:f}:{}" if row.dtype.kind == "f" else "{:d}:{}"
    texts = [written.format(row[index].item(), index) for index in order]
    named = [f"{text}:{labels[index]}" for text, index in zip(texts, order, strict=True)] if labels else texts
    return [text.encode() for text in named]


def _labels(spec: OutputSpec, values: int) -> list[str]:
    """The classes' names where channel i is class i; classes that stand for nodata may have no channel."""
    names = [each.name for each in spec.classes]
    told = names if len(names) == values else [each.name for each in spec.classes if not each.nodata]
    return told if len(told) == values else []
