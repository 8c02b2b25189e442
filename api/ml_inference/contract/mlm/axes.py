"""`shape`, `dim_order` and `data_type` of a tensor, in every spelling seen, as canonical axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from ml_inference.contract.card import ANY, Axis, DataType
from ml_inference.contract.mlm.values import show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_inference.contract.mlm.values import Cursor

MAX_RANK = 8
MAX_SIZE = 2**31

_INPUT_AXES: dict[str, Axis] = {
    **dict.fromkeys(("batch", "b", "batches", "n", "batch_size"), Axis.BATCH),
    **dict.fromkeys(("channel", "channels", "bands", "band", "c", "variables"), Axis.CHANNEL),
    **dict.fromkeys(("height", "h", "y", "lat", "latitude"), Axis.HEIGHT),
    **dict.fromkeys(("width", "w", "x", "lon", "longitude"), Axis.WIDTH),
    **dict.fromkeys(("time", "t"), Axis.TIME),
}
_OUTPUT_AXES: dict[str, Axis] = _INPUT_AXES | {
    **dict.fromkeys(
        ("class", "classes", "num_classes", "n_classes", "score", "scores", "logits"), Axis.CHANNEL
    ),
    **dict.fromkeys(("detections", "detection", "boxes", "anchors", "queries", "proposals"), Axis.BOX),
    **dict.fromkeys(("values", "value", "attributes", "coordinates", "coords"), Axis.VALUE),
}
_LONG_FORM = {"height", "width", "y", "x"}  # win over another spelling of the same axis

_TYPES: dict[str, DataType] = {name: name for name in get_args(DataType)} | {
    "float": "float32",
    "single": "float32",
    "double": "float64",
    "half": "float16",
    "byte": "uint8",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "boolean": "bool",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """Axes and sizes of a tensor, of equal length, and its element type."""

    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    dtype: DataType

    def size(self, axis: Axis) -> int:
        """Length of an axis: -1 when open, 1 when there is none such."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


def read_layout(fields: Mapping[str, Cursor | None], parent: Cursor, *, output: bool) -> Layout | None:
    """Read a tensor's description.

    An input that cannot be understood is refused; an output only loses its axes, since the graph knows them.

    Args:
        fields: `shape`, `dim_order` and `data_type`, each where it was found (the item, or the profile).
        parent: where a missing one is reported.
        output: which axis names are legal, and how strict to be.
    """
    dtype = _read_type(fields["data_type"], parent, output=output)
    sizes = _read_shape(fields["shape"], strict=not output)
    names = _read_names(fields["dim_order"], parent, strict=not output)
    if sizes is None or names is None or dtype is None:
        return None if dtype is None or not output else Layout((), (), dtype)
    sizes = sizes or (ANY,) * len(names)
    where = fields["shape"] or parent
    if len(sizes) != len(names):
        where.complain(
            f"shape {list(sizes)} has {len(sizes)} sizes and dim_order {list(names)} has {len(names)} names; "
            + (
                "the graph decides" if output else "set `dim_order` in the profile to what the ONNX input has"
            ),
            strict=not output,
        )
        return Layout((), (), dtype) if output else None
    axes = _canonical(names, sizes, fields["dim_order"] or parent, output=output)
    if axes is None:
        return Layout((), (), dtype) if output else None
    return Layout(axes, sizes, dtype)


def _read_type(cursor: Cursor | None, parent: Cursor, *, output: bool) -> DataType | None:
    """An output's type is what the graph emits, so a strange one is no obstacle there."""
    fallback: DataType | None = "float32" if output else None
    if cursor is None:
        parent.complain(
            "data_type is missing" + ("" if output else "; set `data_type` in the profile"), strict=not output
        )
        return fallback
    text = str(cursor.value).strip()
    name = text.lower().removeprefix("torch.").removeprefix("numpy.").removeprefix("np.")
    found = _TYPES.get(name)
    if found is None:
        cursor.complain(
            f"data_type {show(cursor.value)} cannot be fed: legal are {', '.join(_TYPES)}", strict=not output
        )
        return fallback
    if found != text:
        cursor.info(f"data_type {show(cursor.value)} read as {found}")
    return found


def _read_shape(cursor: Cursor | None, *, strict: bool) -> tuple[int, ...] | None:
    """Sizes; `()` when absent, so that the graph may fill them."""
    if cursor is None:
        return ()
    if not isinstance(cursor.value, list) or not 1 <= len(cursor.value) <= MAX_RANK:
        cursor.complain(
            f"shape {show(cursor.value)} is not a list of 1 to {MAX_RANK} integers", strict=strict
        )
        return None
    sizes: list[int] = []
    for entry in cursor.items():
        size = entry.integer()
        if size is None or size < ANY or size == 0 or size > MAX_SIZE:
            entry.complain(
                f"size {show(entry.value)} is neither -1 (open) nor a positive integer", strict=strict
            )
        else:
            sizes.append(size)
    if any(isinstance(value, float) for value in cursor.value):
        cursor.info(f"shape {show(cursor.value)} read as integers")
    return tuple(sizes) if len(sizes) == len(cursor.value) else None


def _read_names(cursor: Cursor | None, parent: Cursor, *, strict: bool) -> tuple[str, ...] | None:
    if cursor is None:
        parent.complain(
            "dim_order is missing" + ("; set `dim_order` in the profile" if strict else ""), strict=strict
        )
        return None
    if not isinstance(cursor.value, list) or not all(isinstance(v, str) for v in cursor.value):
        cursor.complain(f"dim_order {show(cursor.value)} is not a list of names", strict=strict)
        return None
    names = tuple(name.strip().lower() for name in cursor.value)
    if list(names) != cursor.value:
        cursor.warn(f"dim_order {show(cursor.value)} read as {list(names)}: names are lower case")
    return names


def _canonical(
    names: tuple[str, ...], sizes: tuple[int, ...], cursor: Cursor, *, output: bool
) -> tuple[Axis, ...] | None:
    table = _OUTPUT_AXES if output else _INPUT_AXES
    axes: list[Axis | None] = [table.get(name) for name in names]
    _settle_rivals(axes, names, cursor)
    for i, name in enumerate(names):
        if axes[i] is None and sizes[i] == 1:
            axes[i] = Axis.OTHER
            cursor.at(i, name).warn(f"axis {show(name)} is not known; of size 1, it carries nothing")
        elif axes[i] is None:
            cursor.at(i, name).complain(
                f"axis {show(name)} is not known, or named twice, and not of size 1", strict=not output
            )
            return None
    return tuple(axis for axis in axes if axis is not None)


def _settle_rivals(axes: list[Axis | None], names: tuple[str, ...], cursor: Cursor) -> None:
    """Give an axis to one of several claimants: `y` keeps the height that `h` claims too, which leaves `h` for channels."""
    for axis in dict.fromkeys(a for a in axes if a is not None):
        claims = [i for i, a in enumerate(axes) if a is axis]
        if len(claims) == 1:
            continue
        winner = next((i for i in claims if names[i] in _LONG_FORM), claims[0])
        for i in claims:
            if i == winner:
                continue
            free = names[i] in {"h", "w"} and Axis.CHANNEL not in axes
            axes[i] = Axis.CHANNEL if free else None
            cursor.at(i, names[i]).warn(
                f"{names[i]!r} and {names[winner]!r} are both {axis}; {names[winner]!r} is taken for it"
                + (f" and {names[i]!r} for the channels" if free else "")
            )
