"""One entry of `mlm:input`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from ml_inference.contract.card import ANY, Axis, InputSpec, Resize
from ml_inference.contract.mlm.axes import read_layout
from ml_inference.contract.mlm.bands import read_bands
from ml_inference.contract.mlm.processing import Channels, read_functions
from ml_inference.contract.mlm.scaling import read_scaling
from ml_inference.contract.mlm.values import Cursor, build, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.card import Band, Expression, ScalingStep
    from ml_inference.contract.mlm.axes import Layout
    from ml_inference.contract.profile import InputProfile

_FLAGS = frozenset({"interpolation-max", "wrap-fill-outliers", "wrap-inverse-map"})
_LAYOUT = ("shape", "dim_order", "data_type")


def read_input(
    entry: Cursor, known: Sequence[dict[str, Any]], override: tuple[str, InputProfile]
) -> InputSpec | None:
    """Read one input; what cannot be served becomes a problem of the entry's report.

    Args:
        entry: the element of `mlm:input`.
        known: the item's band objects.
        override: the profile's word on this input and its pointer.
    """
    if not isinstance(entry.value, dict):
        entry.refuse(f"{show(entry.value)} is no input: an object with name, input and bands is expected")
        return None
    pointer, profile = override
    told = Cursor(profile, pointer, entry.report)
    if entry.get("variables") is not None and entry.value["variables"] != []:
        entry.at("variables", None).refuse("datacube variables are unsupported: an image has bands")
    bands = read_bands(entry.get("bands"), known, profile.band_aliases)
    _check_aliases(told, profile, bands)
    layout = _read_layout(entry, told, profile)
    channels = _channels(bands, layout)
    processing = _read_processing(entry, profile, channels)
    scaling = _read_scaling(entry, profile, channels)
    if layout is None:
        return None
    _check_band_count(entry, bands, layout, processing)
    return build(
        entry,
        InputSpec,
        name=entry.text("name") or "input",
        description=entry.text("description") or _description(entry),
        bands=bands,
        axes=layout.axes,
        shape=layout.shape,
        dtype=layout.dtype,
        scaling=scaling,
        resize=_read_resize(entry, profile, layout),
        processing=processing,
        size_multiple=profile.size_multiple or 1,
        nodata_fill=profile.nodata_fill or 0.0,
    )


def _description(entry: Cursor) -> str:
    tensor = entry.get("input")
    return tensor.text("description") if tensor is not None else ""


def _check_aliases(told: Cursor, profile: InputProfile, bands: Sequence[Band]) -> None:
    names = {band.name for band in bands}
    for name in profile.band_aliases:
        if name not in names:
            told.at("band_aliases", None).at(name, None).refuse(
                f"the item has no band {name!r}; it has {sorted(names)[:16] or 'none'}"
            )


def _read_layout(entry: Cursor, told: Cursor, profile: InputProfile) -> Layout | None:
    tensor = entry.get("input")
    if tensor is None or not isinstance(tensor.value, dict):
        tensor = entry.at("input", {})
        if profile.dim_order is None or profile.data_type is None:
            tensor.refuse("missing: shape, dim_order and data_type say what the model takes")
            return None
    fields = {key: tensor.get(key) for key in _LAYOUT}
    for key in _LAYOUT:
        value = getattr(profile, key)
        if value is not None:
            fields[key] = told.at(key, list(value) if isinstance(value, tuple) else value)
    if profile.dim_order is not None and profile.shape is None:
        fields["shape"] = _fitting(fields["shape"], len(profile.dim_order))
    return read_layout(fields, tensor, output=False)


def _fitting(shape: Cursor | None, rank: int) -> Cursor | None:
    """The item's shape when it has the profile's rank; else the graph fills the sizes."""
    fits = shape is not None and isinstance(shape.value, list) and len(shape.value) == rank
    return shape if fits else None


def _channels(bands: Sequence[Band], layout: Layout | None) -> Channels:
    names = tuple(band.name for band in bands)
    return Channels(names, len(names) or (layout.size(Axis.CHANNEL) if layout else ANY))


def _check_band_count(
    entry: Cursor, bands: Sequence[Band], layout: Layout, processing: Sequence[Expression]
) -> None:
    declared = layout.size(Axis.CHANNEL)
    if bands and not processing and declared not in {ANY, len(bands)}:
        entry.at("bands", None).refuse(
            f"{len(bands)} bands for {declared} channels in the shape, and no pre_processing_function makes one of the other"
        )


def _read_processing(entry: Cursor, profile: InputProfile, channels: Channels) -> tuple[Expression, ...]:
    functions = entry.get("pre_processing_function")
    if profile.processing is not None:
        if functions is not None:
            functions.warn("replaced by the profile's processing")
        return profile.processing
    good, bad = read_functions(functions, channels)
    for cursor, reason in bad:
        cursor.refuse(f"{reason}; where images come prepared, set `processing = []` in the profile")
    return good


def _read_scaling(entry: Cursor, profile: InputProfile, channels: Channels) -> tuple[ScalingStep, ...] | None:
    if profile.scaling is not None:
        old = entry.first("value_scaling", "norm_type")
        if old is not None:
            old.warn("replaced by the profile's scaling")
        steps: tuple[ScalingStep, ...] | None = profile.scaling
    else:
        steps = read_scaling(entry, channels)
    if profile.source_scaling:
        steps = profile.source_scaling + (steps or ())
    return steps


def _read_resize(entry: Cursor, profile: InputProfile, layout: Layout) -> Resize | None:
    found = entry.get("resize_type")
    if profile.resize is not None:
        if found is not None:
            found.warn("replaced by the profile's resize")
        return None if profile.resize == "none" else profile.resize
    if found is None:
        return None
    name = str(found.value).strip().lower().replace("_", "-")
    for legal in get_args(Resize):
        if name == legal:
            _remark_spelling(found, legal)
            return legal  # type: ignore[no-any-return]  # get_args forgets the Literal it came from
    _refuse_resize(found, name, layout)
    return None


def _remark_spelling(found: Cursor, legal: str) -> None:
    if found.value != legal:
        found.info(f"{show(found.value)} read as {legal}")


def _refuse_resize(found: Cursor, name: str, layout: Layout) -> None:
    sizes = [
        n for axis, n in zip(layout.axes, layout.shape, strict=True) if axis in {Axis.HEIGHT, Axis.WIDTH}
    ]
    if name in {"", "none", "null"}:
        found.info(f"{show(found.value)} read as no resizing")
    elif name in _FLAGS and all(size == ANY for size in sizes):
        found.warn(
            f"{name} is a flag of OpenCV and no way to resize; images of any size fit, so it is ignored"
        )
    else:
        found.refuse(
            f"resize_type {show(found.value)} is no way to resize: legal are {', '.join(get_args(Resize))}; set `resize` in the profile"
        )
