"""The weakest word on a model: `metadata_props` inside the ONNX file, in the keys of QGIS Deepness.

https://github.com/PUTvision/qgis-plugin-deepness documents `class_names`, `model_type`, `seg_thresh`, `det_conf` and
`det_iou_thresh`; each value is JSON. They fill what nothing else declares.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from ml_inference.contract.card import ANY, BoxSpec, ClassLabel, Severity, Task
from ml_inference.contract.mlm.classes import MAX_CLASSES
from ml_inference.contract.mlm.values import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_inference.contract.card import OutputSpec
    from ml_inference.contract.mlm.values import Report

MAX_LENGTH = 1_000_000
WHERE = "onnx:metadata_props"
_CLASSIFYING = {Task.CLASSIFICATION, Task.SEGMENTATION, Task.DETECTION}
_TYPES = {"segmentor": Task.SEGMENTATION, "detector": Task.DETECTION, "regressor": Task.REGRESSION}


def fill_from_metadata(
    output: OutputSpec, channels: int, metadata: Mapping[str, str], report: Report
) -> OutputSpec:
    """Fill what the profile and the item leave open.

    Args:
        output: the one that is decoded.
        channels: of the graph's tensor; class names of another number are left out.
        metadata: of the ONNX file; values that are not what they should be are ignored.
        report: gets a remark for everything taken.
    """
    found = {
        "classes": _classes(metadata, channels)
        if output.task in _CLASSIFYING and not output.classes
        else None,
        "threshold": _number(metadata, "seg_thresh") if _lacks_threshold(output) else None,
        "boxes": _boxes(output.boxes, metadata) if output.boxes is not None else None,
    }
    _remark_type(output, metadata, report)
    update = {key: value for key, value in found.items() if value is not None}
    for key in update:
        report.note(Severity.INFO, WHERE, f"{key} of output {output.name!r}, which nothing else declares")
    return output.model_copy(update=update)


def _lacks_threshold(output: OutputSpec) -> bool:
    """Whether there are scores to decide by: integers are classes already."""
    scores = output.dtype.startswith("float")
    return scores and output.threshold is None and output.task is Task.SEGMENTATION


def _value(metadata: Mapping[str, str], key: str) -> Any:
    text = metadata.get(key, "")
    try:
        return json.loads(text) if 0 < len(text) <= MAX_LENGTH else None
    except (ValueError, RecursionError):
        return None


def _number(metadata: Mapping[str, str], key: str) -> float | None:
    value = _value(metadata, key)
    return (
        value
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else None
    )


def _classes(metadata: Mapping[str, str], channels: int) -> tuple[ClassLabel, ...] | None:
    names = _value(metadata, "class_names")
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not 0 < len(names) <= MAX_CLASSES:
        return None
    by_value = {str(key): name for key, name in names.items() if isinstance(name, str) and name}
    complete = all(str(i) in by_value for i in range(len(names)))
    if not complete or not _fits(len(names), channels):
        return None
    return tuple(ClassLabel(value=i, name=by_value[str(i)]) for i in range(len(names)))


def _fits(names: int, channels: int) -> bool:
    """As many names as channels; one channel may tell two classes apart."""
    return channels in {ANY, names} or (channels == 1 and names == 2)  # noqa: PLR2004 - a binary score


def _boxes(boxes: BoxSpec, metadata: Mapping[str, str]) -> BoxSpec | None:
    wanted = {"score_threshold": "det_conf", "iou_threshold": "det_iou_thresh"}
    found = {
        field: value
        for field, key in wanted.items()
        if field not in boxes.model_fields_set
        and (value := _number(metadata, key)) is not None
        and 0 <= value <= 1
    }
    return boxes.model_copy(update=found) if found else None


def _remark_type(output: OutputSpec, metadata: Mapping[str, str], report: Report) -> None:
    word = metadata.get("model_type", "")
    task = _TYPES.get(word.strip(' "').lower())
    if task is not None and task is not output.task:
        report.note(
            Severity.WARNING,
            WHERE,
            f"model_type is {show(word)}, and output {output.name!r} is read as {output.task}",
        )
