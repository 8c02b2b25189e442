"""Outputs: the graph says what comes out, the card what it means; names of classes must fit, everything else gives way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_inference.contract.card import ANY, Axis, OutputSpec, Severity, Task
from ml_inference.contract.mlm.output import task_by_rank
from ml_inference.contract.mlm.processing import Channels, chain
from ml_inference.contract.reconcile.axes import infer_axes, plausible, raw_axes, surroundings
from ml_inference.contract.reconcile.boxes import COORDINATES, settle_boxes
from ml_inference.contract.reconcile.match import match, shape_words
from ml_inference.contract.reconcile.metadata import fill_from_metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.card import GraphSignature, InputSpec, TensorSpec
    from ml_inference.contract.mlm.values import Report
    from ml_inference.contract.reconcile.axes import Surroundings

BINARY = 2


def settle_outputs(
    specs: Sequence[OutputSpec], graph: GraphSignature, inputs: Sequence[InputSpec], report: Report
) -> tuple[OutputSpec, ...]:
    """Settle every output with its tensor; what the item does not mention is served raw.

    Returns:
        The declared ones in the item's order (the first is decoded), then the graph's others.
    """
    if not graph.outputs:
        report.refuse("onnx:", "the graph has no outputs")
        return tuple(specs)
    paired = _pair(specs, graph.outputs, report)
    settled = [_settle(spec, tensor, inputs, report) for spec, tensor in paired]
    if settled[0].task is Task.DETECTION:
        settled = list(settle_boxes(settled, report))
    first = fill_from_metadata(settled[0], _channels(settled[0]), graph.metadata, report)
    return tuple(_settle_meaning(output, report) for output in (first, *settled[1:]))


def _pair(
    specs: Sequence[OutputSpec], tensors: Sequence[TensorSpec], report: Report
) -> list[tuple[OutputSpec, TensorSpec]]:
    found = match(specs, tensors)
    for spec, tensor in zip(specs, found, strict=True):
        _remark_pair(spec, tensor, report)
    paired = [(s, t) for s, t in zip(specs, found, strict=True) if t is not None]
    taken = {tensor.name for _, tensor in paired}
    others = [t for t in tensors if t.name not in taken]
    paired += [(OutputSpec(name=t.name, task=Task.RAW, dtype=t.dtype or "float32"), t) for t in others]
    for tensor in others:
        report.note(
            Severity.INFO, f"onnx:{tensor.name}", "the item does not mention this output; it is served raw"
        )
    return _carried(paired, report)


def _remark_pair(spec: OutputSpec, tensor: TensorSpec | None, report: Report) -> None:
    if tensor is None:
        report.note(
            Severity.WARNING, "onnx:", f"the item's output {spec.name!r} has no tensor in the graph; left out"
        )
    elif tensor.name != spec.name:
        report.note(
            Severity.INFO,
            f"onnx:{tensor.name}",
            f"the item's output {spec.name!r} is taken for this one by its position",
        )


def _carried(
    paired: list[tuple[OutputSpec, TensorSpec]], report: Report
) -> list[tuple[OutputSpec, TensorSpec]]:
    """Leave out what no array can carry, unless it is the answer itself."""
    for i, (_, tensor) in enumerate(paired):
        if tensor.dtype is None and i == 0:
            report.refuse(
                f"onnx:{tensor.name}", "its element type cannot be carried (text, complex, sequence or map)"
            )
        elif tensor.dtype is None:
            report.note(
                Severity.WARNING, f"onnx:{tensor.name}", "its element type cannot be carried; left out"
            )
    return [pair for i, pair in enumerate(paired) if i == 0 or pair[1].dtype is not None]


def _settle(spec: OutputSpec, tensor: TensorSpec, inputs: Sequence[InputSpec], report: Report) -> OutputSpec:
    where = f"onnx:{tensor.name}"
    if tensor.dtype not in {None, spec.dtype}:
        report.note(
            Severity.WARNING, where, f"the item says {spec.dtype}, the graph gives {tensor.dtype}; never cast"
        )
    named = spec.model_copy(update={"name": tensor.name, "dtype": tensor.dtype or spec.dtype})
    if not tensor.shape and spec.shape:
        report.note(Severity.INFO, where, "the graph leaves the rank open; the item's shape is taken")
        return named
    near = surroundings(inputs, len(spec.classes))
    if spec.task is Task.DETECTION:
        return named.model_copy(update={"axes": raw_axes(tensor, near), "shape": tensor.shape})
    return _with_axes(named, tensor, near, report)


def _with_axes(spec: OutputSpec, tensor: TensorSpec, near: Surroundings, report: Report) -> OutputSpec:
    where = f"onnx:{tensor.name}"
    said = f"the item says {shape_words(spec.shape, spec.axes)}, the graph {shape_words(tensor.shape)}"
    if len(spec.axes) == len(tensor.shape) and plausible(spec.task, spec.axes, tensor.shape):
        if any(ANY not in {a, b} and a != b for a, b in zip(spec.shape, tensor.shape, strict=True)):
            report.note(Severity.WARNING, where, f"{said}; the graph's sizes are used")
        merged = tuple(a if b == ANY else b for a, b in zip(spec.shape, tensor.shape, strict=True))
        return spec.model_copy(
            update={"shape": merged, "axes": _without_points(spec.task, spec.axes, merged)}
        )
    if spec.axes:
        report.note(Severity.WARNING, where, f"{said}; the item's is dropped")
    axes = infer_axes(spec.task, tensor, near)
    if axes is not None:
        return spec.model_copy(update={"shape": tensor.shape, "axes": axes})
    task = task_by_rank(len(tensor.shape) + (not near.batched))
    report.note(
        Severity.WARNING, where, f"{shape_words(tensor.shape)} is no {spec.task}; read as {task} by its rank"
    )
    axes = infer_axes(task, tensor, near) or raw_axes(tensor, near)
    return spec.model_copy(update={"task": task, "shape": tensor.shape, "axes": axes})


def _without_points(task: Task, axes: tuple[Axis, ...], shape: tuple[int, ...]) -> tuple[Axis, ...]:
    """Height and width of 1 carry nothing where the answer is for the whole image."""
    if task is not Task.CLASSIFICATION:
        return axes
    points = {Axis.HEIGHT, Axis.WIDTH}
    return tuple(Axis.OTHER if a in points and n == 1 else a for a, n in zip(axes, shape, strict=True))


def _channels(output: OutputSpec) -> int:
    """Number of channels, where classes or values lie: -1 when open, 1 when there is no such axis."""
    if output.boxes is not None:
        yolo = output.boxes.layout == "yolo" and len(output.shape) > 1 and output.shape[-2] != ANY
        return output.shape[-2] - COORDINATES if yolo else ANY
    return output.shape[output.axes.index(Axis.CHANNEL)] if Axis.CHANNEL in output.axes else 1


def _settle_meaning(output: OutputSpec, report: Report) -> OutputSpec:
    if output.task is Task.RAW or output.task is Task.DETECTION:
        return output
    output = _settle_processing(output, report)
    if output.task is Task.RAW:
        return output
    return _settle_classes(output, report)


def _settle_processing(output: OutputSpec, report: Report) -> OutputSpec:
    try:
        chain(output.processing, Channels(output.bands, _channels(output)))
    except ValueError as error:
        message = f"post-processing does not fit the tensor: {error}; the output is served raw"
        report.note(Severity.WARNING, f"onnx:{output.name}", message)
        return output.model_copy(update={"task": Task.RAW, "processing": ()})
    return output


def _settle_classes(output: OutputSpec, report: Report) -> OutputSpec:
    """Channel i must be class i: wrong names are worse than none."""
    where = f"onnx:{output.name}"
    channels = chain(output.processing, Channels(output.bands, _channels(output))).count
    _remark_undecided(output, channels, report)
    count = len(output.classes)
    labelled = Axis.CHANNEL not in output.axes or (channels == 1 and not output.dtype.startswith("float"))
    if output.task is Task.REGRESSION or count == 0 or channels in {ANY, count} or labelled:
        return output
    if channels == 1 and count <= BINARY:
        return output
    if sum(not label.nodata for label in output.classes) == channels:
        report.note(
            Severity.INFO,
            where,
            f"{count} classes for {channels} channels; those that stand for nodata have none",
        )
        return output
    report.refuse(
        where,
        f"{count} classes are declared and the tensor {shape_words(output.shape, output.axes)} has {channels}: "
        "the item describes another model; set `classes` in the profile if the graph is right",
    )
    return output


def _remark_undecided(output: OutputSpec, channels: int, report: Report) -> None:
    """One score for two classes needs a rule, which MLM has no word for."""
    decided = output.activation is not None or output.threshold is not None or bool(output.processing)
    scores = (
        output.dtype.startswith("float")
        and Axis.CHANNEL in output.axes
        and output.task is not Task.REGRESSION
    )
    if channels == 1 and scores and not decided:
        report.note(
            Severity.WARNING,
            f"onnx:{output.name}",
            "one score for each pixel or image and no rule to decide by: labels need `activation` or `threshold` in the "
            "profile, or `threshold` in the request",
        )
