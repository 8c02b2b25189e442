"""Inputs: what a card says of them must fit the graph, or the model would be fed something else than it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ml_inference.contract.card import ANY, Axis, Severity
from ml_inference.contract.mlm.processing import Channels, chain
from ml_inference.contract.reconcile.match import match, shape_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.card import DataType, InputSpec, TensorSpec
    from ml_inference.contract.mlm.values import Report


def settle_inputs(
    specs: Sequence[InputSpec], tensors: Sequence[TensorSpec], report: Report
) -> tuple[InputSpec, ...]:
    """Settle every input with its tensor; contradictions become problems at `onnx:NAME`."""
    if len(specs) != len(tensors):
        names = [tensor.name for tensor in tensors]
        report.refuse(
            f"onnx:{names[0] if names else ''}",
            f"the item declares {len(specs)} inputs ({[s.name for s in specs][:8]}), the graph has {len(names)} ({names[:8]})",
        )
        return tuple(specs)
    return tuple(
        _settle(spec, tensor, report, several=len(specs) > 1)
        for spec, tensor in zip(specs, match(specs, tensors), strict=True)
        if tensor is not None
    )


def _settle(spec: InputSpec, tensor: TensorSpec, report: Report, *, several: bool) -> InputSpec:
    where = f"onnx:{tensor.name}"
    if spec.name != tensor.name:
        severity = Severity.WARNING if several else Severity.INFO
        report.note(severity, where, f"the item's input {spec.name!r} is taken for this one by its position")
    known = len(report.problems)
    axes, shape = _settle_shape(spec, tensor, report)
    settled = spec.model_copy(
        update={
            "name": tensor.name,
            "axes": axes,
            "shape": shape,
            "dtype": _settle_type(spec, tensor, report),
        }
    )
    return settled if len(report.problems) > known else _settle_channels(settled, report)


def _settle_type(spec: InputSpec, tensor: TensorSpec, report: Report) -> DataType:
    where = f"onnx:{tensor.name}"
    if tensor.dtype is None:
        report.refuse(where, "its element type cannot be fed with pixels (text, complex, sequence or map)")
        return spec.dtype
    if tensor.dtype == spec.dtype:
        return tensor.dtype
    if np.can_cast(spec.dtype, tensor.dtype, "safe"):
        report.note(
            Severity.WARNING,
            where,
            f"the item says {spec.dtype}, the graph takes {tensor.dtype}, which holds every such value",
        )
    else:
        report.refuse(
            where,
            f"the item says {spec.dtype} and the graph takes {tensor.dtype}, which cannot hold every such value; "
            f'if the graph is right, set `data_type = "{tensor.dtype}"` in the profile',
        )
    return tensor.dtype


def _settle_shape(
    spec: InputSpec, tensor: TensorSpec, report: Report
) -> tuple[tuple[Axis, ...], tuple[int, ...]]:
    where = f"onnx:{tensor.name}"
    if not tensor.shape and spec.shape:
        report.note(Severity.WARNING, where, "the graph leaves the rank open; the item's shape is taken")
        return spec.axes, spec.shape
    axes, shape = _squeezed(spec, tensor, report)
    if len(axes) != len(tensor.shape):
        report.refuse(
            where,
            f"{_both(spec, tensor)}: another number of axes; set `dim_order` in the profile if the graph is right",
        )
        return spec.axes, spec.shape
    wrong = [
        f"{axis} is {said} in the item and {real} in the graph"
        for axis, said, real in zip(axes, shape, tensor.shape, strict=True)
        if axis is not Axis.BATCH and ANY not in {said, real} and said != real
    ]
    if wrong:
        report.refuse(where, f"{_both(spec, tensor)}: {', '.join(wrong)}")
    for axis, said, real in zip(axes, shape, tensor.shape, strict=True):
        if axis is Axis.BATCH and ANY not in {said, real} and said != real:
            report.note(
                Severity.WARNING,
                where,
                f"the item says batches of {said}, the graph is fixed to {real}, which is used",
            )
    return axes, tuple(said if real == ANY else real for said, real in zip(shape, tensor.shape, strict=True))


def _both(spec: InputSpec, tensor: TensorSpec) -> str:
    return f"the item says {shape_words(spec.shape, spec.axes)}, the graph {shape_words(tensor.shape)}"


def _squeezed(
    spec: InputSpec, tensor: TensorSpec, report: Report
) -> tuple[tuple[Axis, ...], tuple[int, ...]]:
    """Leave out axes of size 1 that carry nothing, where the graph has just so many fewer."""
    kept = [i for i, axis in enumerate(spec.axes) if axis is not Axis.OTHER]
    if len(spec.axes) == len(tensor.shape) or len(kept) != len(tensor.shape):
        return spec.axes, spec.shape
    report.note(
        Severity.WARNING,
        f"onnx:{tensor.name}",
        f"{_both(spec, tensor)}: the item's axes of size 1 are left out",
    )
    return tuple(spec.axes[i] for i in kept), tuple(spec.shape[i] for i in kept)


def _settle_channels(spec: InputSpec, report: Report) -> InputSpec:
    """Follow the bands through scaling and processing to the tensor's channels."""
    where = f"onnx:{spec.name}"
    wanted = spec.size(Axis.CHANNEL)
    start = Channels(
        tuple(b.name for b in spec.bands), len(spec.bands) or (ANY if spec.processing else wanted)
    )
    try:
        end = chain(spec.processing, start)
    except ValueError as error:
        report.refuse(where, f"processing does not fit the bands: {error}")
        return spec
    if ANY not in {wanted, end.count} and wanted != end.count:
        report.refuse(
            where,
            f"{len(spec.bands)} bands and {len(spec.processing)} processing functions make {end.count} channels, the graph takes {wanted}",
        )
    for length in {len(step) for step in spec.scaling or ()} - {1, start.count}:
        if start.count != ANY:
            report.refuse(where, f"scaling for {length} channels, and there are {start.count}")
    _remark_time(spec, report)
    return spec if wanted != ANY or end.count == ANY else _with_channels(spec, end.count)


def _with_channels(spec: InputSpec, count: int) -> InputSpec:
    index = spec.axes.index(Axis.CHANNEL)
    return spec.model_copy(update={"shape": (*spec.shape[:index], count, *spec.shape[index + 1 :])})


def _remark_time(spec: InputSpec, report: Report) -> None:
    if spec.size(Axis.TIME) > 1:
        report.note(
            Severity.WARNING,
            f"onnx:{spec.name}",
            f"{spec.size(Axis.TIME)} dates, and an image is of one: only tensors can be sent",
        )
