"""One entry of `mlm:output`: what a tensor means. An output that cannot be decoded is served raw, with a warning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ml_inference.contract.card import ANY, Axis, BoxSpec, OutputSpec, Task
from ml_inference.contract.mlm.axes import Layout, read_layout
from ml_inference.contract.mlm.classes import channel_order, read_classes
from ml_inference.contract.mlm.processing import Channels, read_functions
from ml_inference.contract.mlm.values import Cursor, build, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_inference.contract.card import ClassLabel, Expression
    from ml_inference.contract.profile import OutputProfile

MAX_TASKS = 32

_TASKS = {
    "classification": Task.CLASSIFICATION,
    "scene-classification": Task.CLASSIFICATION,
    "segmentation": Task.SEGMENTATION,
    "semantic-segmentation": Task.SEGMENTATION,
    "detection": Task.DETECTION,
    "object-detection": Task.DETECTION,
    "regression": Task.REGRESSION,
}
_BY_RANK = {2: Task.CLASSIFICATION, 4: Task.SEGMENTATION}
_THRESHOLDS = {
    "score_threshold": ("confidence_threshold", "score_threshold"),
    "iou_threshold": ("iou_threshold", "nms_threshold"),
    "max_detections": ("max_detections",),
}


def task_by_rank(rank: int) -> Task:
    """What an output without a usable task most likely means: `(batch, class)`, or a class for every pixel."""
    return _BY_RANK.get(rank, Task.RAW)


def read_tasks(cursor: Cursor | None) -> tuple[tuple[Task, ...], tuple[str, ...]]:
    """Read a list of tasks: those with a decoder, and the words as they stand."""
    if cursor is None:
        return (), ()
    if isinstance(cursor.value, str):
        cursor.warn("one task instead of a list; read as a list of one")
    words = tuple(
        str(entry.value).strip().lower().replace("_", "-").replace(" ", "-")[:60]
        for entry in cursor.items()[:MAX_TASKS]
    )
    return tuple(_TASKS[word] for word in words if word in _TASKS), words


def read_output(
    entry: Cursor,
    item_tasks: tuple[Task, ...],
    hyperparameters: Mapping[str, Any],
    profile: OutputProfile,
) -> OutputSpec | None:
    """Read one output; doubts become warnings, since the graph decides about its tensors.

    Args:
        entry: the element of `mlm:output`.
        item_tasks: `mlm:tasks` of the item, used where the output names none.
        hyperparameters: of the item; detection thresholds are looked for there.
        profile: the operator's word on this output.
    """
    if not isinstance(entry.value, dict):
        entry.refuse(f"{show(entry.value)} is no output: an object with name, tasks and result is expected")
        return None
    layout = _read_layout(entry)
    task = _read_task(entry, profile, item_tasks, layout)
    layout = _plausible(entry, task, layout)
    classes = _read_classes(entry, profile)
    bands = _read_bands(entry)
    task, processing = _read_processing(entry, profile, task, _channels(layout, bands))
    return build(
        entry,
        OutputSpec,
        name=entry.text("name") or "output",
        description=entry.text("description") or _description(entry),
        task=task,
        axes=layout.axes if layout else (),
        shape=layout.shape if layout else (),
        dtype=layout.dtype if layout else "float32",
        classes=classes,
        bands=bands,
        activation=profile.activation,
        threshold=profile.threshold,
        processing=processing,
        boxes=_read_boxes(entry, profile, hyperparameters) if task is Task.DETECTION else None,
    )


def _description(entry: Cursor) -> str:
    result = entry.get("result")
    return result.text("description") if result is not None else ""


def _read_layout(entry: Cursor) -> Layout | None:
    result = entry.get("result")
    if result is None or not isinstance(result.value, dict):
        entry.warn("no `result` with shape and dim_order; the graph decides")
        return None
    return read_layout(
        {key: result.get(key) for key in ("shape", "dim_order", "data_type")}, result, output=True
    )


def _read_task(
    entry: Cursor, profile: OutputProfile, item_tasks: tuple[Task, ...], layout: Layout | None
) -> Task:
    if profile.task is not None:
        return profile.task
    tasks, words = read_tasks(entry.get("tasks"))
    if tasks:
        if item_tasks and tasks[0] not in item_tasks:
            entry.at("tasks", None).warn(
                f"the item's tasks are {[str(t) for t in item_tasks]}; the output's {tasks[0]} is used"
            )
        return tasks[0]
    where = entry.at("tasks", None)
    if words:
        where.warn(f"tasks {list(words)[:8]} have no decoder here; the output is served raw")
        return Task.RAW
    if item_tasks:
        where.warn(f"the output names no task; the item's {item_tasks[0]} is used")
        return item_tasks[0]
    task = task_by_rank(len(layout.axes)) if layout else Task.RAW
    where.warn(f"no task anywhere; {task} by the rank of the result")
    return task


def _plausible(entry: Cursor, task: Task, layout: Layout | None) -> Layout | None:
    """Drop a declared result that cannot be the declared task: one of them is wrong, and the graph tells which."""
    if layout is None or task is not Task.SEGMENTATION or not layout.axes:
        return layout
    if {Axis.HEIGHT, Axis.WIDTH} <= set(layout.axes):
        return layout
    entry.at("result", None).warn(
        f"a {task} needs height and width, and the result is {[str(a) for a in layout.axes]}; dropped, the graph decides"
    )
    return Layout((), (), layout.dtype)


def _read_classes(entry: Cursor, profile: OutputProfile) -> tuple[ClassLabel, ...]:
    if profile.classes is None:
        return read_classes(entry)
    return channel_order(profile.classes)


def _read_bands(entry: Cursor) -> tuple[str, ...]:
    bands = entry.get("bands")
    if bands is None or not isinstance(bands.value, list):
        return ()
    names = [b if isinstance(b, str) else b.get("name") if isinstance(b, dict) else None for b in bands.value]
    return tuple(name for name in names if isinstance(name, str))


def _channels(layout: Layout | None, bands: tuple[str, ...]) -> Channels:
    return Channels(bands, layout.size(Axis.CHANNEL) if layout and layout.axes else ANY)


def _read_processing(
    entry: Cursor, profile: OutputProfile, task: Task, channels: Channels
) -> tuple[Task, tuple[Expression, ...]]:
    functions = entry.get("post_processing_function")
    if profile.processing is not None:
        if functions is not None:
            functions.warn("replaced by the profile's processing")
        return task, profile.processing
    good, bad = read_functions(functions, channels)
    for cursor, reason in bad:
        cursor.warn(
            f"{reason}; without it the numbers would mean something else, so the output is served raw. "
            "Where it is not needed, set `processing = []` in the profile"
        )
    return (Task.RAW, ()) if bad else (task, good)


def _read_boxes(entry: Cursor, profile: OutputProfile, hyperparameters: Mapping[str, Any]) -> BoxSpec:
    """The profile's word, then thresholds that publishers put among the hyperparameters."""
    told = profile.boxes or BoxSpec()
    found = {
        field: value
        for field, suffixes in _THRESHOLDS.items()
        if (value := _hyperparameter(hyperparameters, suffixes)) is not None
    }
    extra = {field: value for field, value in found.items() if field not in told.model_fields_set}
    if not extra:
        return told
    where = Cursor(None, "/properties/mlm:hyperparameters", entry.report)
    try:
        made = BoxSpec(**told.model_dump(exclude_unset=True) | extra)
    except ValidationError:
        where.warn(f"{show(extra)} are no thresholds for detection; ignored")
        return told
    where.info(f"{', '.join(f'{k} {v}' for k, v in extra.items())} for detection")
    return made


def _hyperparameter(values: Mapping[str, Any], suffixes: tuple[str, ...]) -> float | None:
    for key, value in values.items():
        if key.endswith(suffixes) and isinstance(value, int | float) and not isinstance(value, bool):
            return value
    return None
