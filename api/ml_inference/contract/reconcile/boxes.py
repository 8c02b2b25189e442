"""Detection: which of a graph's outputs are boxes, scores and labels, and in which of three layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_inference.contract.card import ANY, Axis, BoxSpec, Severity, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.card import BoxLayout, OutputSpec
    from ml_inference.contract.mlm.values import Report

COORDINATES = 4
ROW = 6
_SET = "set `boxes = { layout = … }` in the profile's output"
_HINTS = {"boxes": ("box",), "scores": ("score", "conf", "prob"), "labels": ("label", "class", "cls")}
_INTEGERS = ("int", "uint")


def settle_boxes(outputs: Sequence[OutputSpec], report: Report) -> tuple[OutputSpec, ...]:
    """Settle the layout of a detector whose first output has the task.

    Args:
        outputs: shapes and types are the graph's already; the first carries what is declared of boxes.
        report: gets a problem when the layout can be told neither from the profile nor from the shapes.

    Returns:
        The outputs with axes; the first with a complete `BoxSpec`, the others raw.
    """
    first = outputs[0]
    told = first.boxes or BoxSpec()
    missing = {n for n in (told.boxes, told.scores, told.labels) if n is not None} - {o.name for o in outputs}
    if missing:
        report.refuse(
            f"onnx:{first.name}",
            f"the profile names outputs {sorted(missing)}; the graph has {[o.name for o in outputs][:8]}",
        )
        return tuple(outputs)
    parts = _find_parts(outputs, told)
    layout = told.layout or ("xyxy" if parts is not None else _layout_of_one(first))
    where = f"onnx:{first.name}"
    if layout is None:
        shapes = "; ".join(f"{o.name} {list(o.shape)}" for o in outputs[:4])
        report.refuse(where, f"boxes cannot be told from the shapes ({shapes}): known are {_KNOWN}; {_SET}")
        return tuple(outputs)
    if told.layout is None:
        report.note(Severity.INFO, where, f"boxes are laid out as `{layout}`, told from the shapes")
    if layout != "xyxy":
        return _settle_one(outputs, told.model_copy(update={"layout": layout}), report)
    if parts is None:
        report.refuse(
            where,
            f"layout xyxy needs outputs for boxes, scores and labels; the graph has {[o.name for o in outputs][:8]}; {_SET}",
        )
        return tuple(outputs)
    return _settle_parts(outputs, told.model_copy(update={"layout": "xyxy", **parts}))


_KNOWN = "boxes [N, K, 4] with scores and labels [N, K]; one tensor [N, 4+C, A]; one tensor [N, K, 6]"


def _layout_of_one(output: OutputSpec) -> BoxLayout | None:
    """`[N, K, 6]` and `[N, 4 + C, A]` are told apart only where a size settles it."""
    if len(output.shape) not in {2, 3}:
        return None
    first, last = output.shape[-2:]
    yolo = COORDINATES + len(output.classes)
    could_be_rows = last == ROW
    could_be_yolo = len(output.shape) == 3 and (  # noqa: PLR2004 - batch, values, anchors
        first == yolo if output.classes else COORDINATES < first < last
    )
    if could_be_rows == could_be_yolo:
        return None
    return "rows" if could_be_rows else "yolo"


def _settle_one(outputs: Sequence[OutputSpec], boxes: BoxSpec, report: Report) -> tuple[OutputSpec, ...]:
    first, *others = outputs
    where = f"onnx:{first.name}"
    rank, inner = len(first.shape), first.shape[-2:]
    if rank not in {2, 3} or (boxes.layout == "rows" and inner[1] not in {ANY, ROW}):
        report.refuse(
            where, f"shape {list(first.shape)} is no layout `{boxes.layout}`: known are {_KNOWN}; {_SET}"
        )
        return tuple(outputs)
    count = inner[0] - COORDINATES if boxes.layout == "yolo" and inner[0] != ANY else None
    if count is not None and (count < 1 or (first.classes and count != len(first.classes))):
        report.refuse(
            where,
            f"layout yolo with {inner[0]} values leaves {count} classes, and there are {len(first.classes)}; {_SET}",
        )
    ending = (Axis.VALUE, Axis.BOX) if boxes.layout == "yolo" else (Axis.BOX, Axis.VALUE)
    axes = (Axis.BATCH, *ending)[-rank:] if rank in {2, 3} else ()
    return first.model_copy(update={"boxes": boxes, "axes": axes}), *(_raw(o) for o in others)


def _raw(output: OutputSpec) -> OutputSpec:
    return output.model_copy(update={"task": Task.RAW, "boxes": None})


def _find_parts(outputs: Sequence[OutputSpec], told: BoxSpec) -> dict[str, str] | None:
    """Names of the outputs for boxes, scores and labels: as told, else by their names, else by ranks and types."""
    parts = {part: name for part in _HINTS if (name := getattr(told, part)) is not None}
    for part, hints in _HINTS.items():
        if part in parts:
            continue
        left = [o for o in outputs if o.name not in parts.values() and _fits(part, o, outputs, parts)]
        hinted = [o for o in left if any(hint in o.name.lower() for hint in hints)]
        if len(hinted or left) != 1:
            return None
        parts[part] = (hinted or left)[0].name
    chosen = {part: next(o for o in outputs if o.name == name) for part, name in parts.items()}
    return parts if all(_fits(part, output, outputs, parts) for part, output in chosen.items()) else None


def _fits(part: str, output: OutputSpec, outputs: Sequence[OutputSpec], parts: dict[str, str]) -> bool:
    rank = len(output.shape)
    if part == "boxes":
        return rank in {2, 3} and output.shape[-1] in {COORDINATES, ANY}
    boxes = next(o for o in outputs if o.name == parts["boxes"])
    # Labels often come as floats, scores never as integers.
    return rank == len(boxes.shape) - 1 and (part == "labels" or not output.dtype.startswith(_INTEGERS))


def _settle_parts(outputs: Sequence[OutputSpec], boxes: BoxSpec) -> tuple[OutputSpec, ...]:
    classes = next((o.classes for o in outputs if o.classes), ())
    settled = []
    for i, output in enumerate(outputs):
        ending = {
            boxes.boxes: (Axis.BOX, Axis.VALUE),
            boxes.scores: (Axis.BOX,),
            boxes.labels: (Axis.BOX,),
        }.get(output.name)
        axes = output.axes if ending is None else (Axis.BATCH, *ending)[-len(output.shape) :]
        update = (
            {"axes": axes, "boxes": boxes, "classes": classes}
            if i == 0
            else {"axes": axes, "boxes": None, "task": Task.RAW}
        )
        settled.append(output.model_copy(update=update))
    return tuple(settled)
