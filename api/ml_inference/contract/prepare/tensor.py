"""The last steps to a tensor: its type, with nothing lost unseen, and its axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.card import ANY, Axis
from ml_inference.errors import CardInvalid, ContractMismatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ml_inference.contract.card import InputSpec
    from ml_inference.contract.resample import Planes, Size

PLANE_AXES = (Axis.CHANNEL, Axis.HEIGHT, Axis.WIDTH)


def limits(dtype: str) -> tuple[float, float]:
    """Give the smallest and largest finite value of a tensor's element type."""
    if dtype == "bool":
        return 0, 1
    kind = np.dtype(dtype)
    info: np.finfo[Any] | np.iinfo[Any] = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    return (float(info.min), float(info.max)) if kind.kind == "f" else (int(info.min), int(info.max))


def extremes(values: Planes) -> tuple[float, float]:
    """Give the smallest and largest value; NaN when one is."""
    return values.min().item(), values.max().item()


def cast_values(values: Planes, spec: InputSpec) -> tuple[Planes, tuple[float, float], bool]:
    """Bring values to the dtype of an input, rounding fractions for an integer one.

    Returns:
        The values, the smallest and largest of them, and whether any was rounded.

    Raises:
        ContractMismatch: a value does not fit.
    """
    dtype = np.dtype(spec.dtype)
    low, high = extremes(values)
    least, most = limits(spec.dtype)
    if not (least <= low and high <= most):  # also when either is NaN
        raise _out_of_range(values, spec, low, high)
    if dtype.kind == "f" or values.dtype.kind != "f":
        return values.astype(dtype, copy=False), (low, high), False
    whole = np.rint(values)
    return whole.astype(dtype), (low, high), bool((whole != values).any())


def _out_of_range(values: Planes, spec: InputSpec, low: float, high: float) -> ContractMismatch:
    least, most = limits(spec.dtype)
    return ContractMismatch(
        f"Input {spec.name!r} is {spec.dtype}, which holds {least:.6g} to {most:.6g}; "
        f"the image's values reach from {low:.6g} to {high:.6g} ({values.dtype.name}). "
        "Send pixels in the range the model was made for.",
        field="image.dtype",
        expected=f"{spec.dtype} ({least:.6g} to {most:.6g})",
        got=f"{values.dtype.name} ({low:.6g} to {high:.6g})",
    )


def lay_out(values: Planes, spec: InputSpec, grid: Size) -> NDArray[Any]:
    """Put planes into the axes of an input, padded with its fill at the bottom and right.

    Args:
        values: of the input's dtype.
        spec: axes, shape and fill.
        grid: rows and columns of the tensor, at least those of the values.

    Raises:
        ContractMismatch: the number of channels, or a fixed axis that one image cannot fill.
    """
    count, height, width = values.shape
    sizes = dict(zip(PLANE_AXES, (count, *grid), strict=True))
    shape = tuple(sizes.get(axis, 1) for axis in spec.axes)
    _check_shape(spec, shape, count)
    order = [PLANE_AXES.index(axis) for axis in spec.axes if axis in PLANE_AXES]
    order += [
        i for i in range(len(PLANE_AXES)) if i not in order
    ]  # absent axes have size 1 and may stand anywhere
    if (height, width) == grid:
        return np.ascontiguousarray(values.transpose(order)).reshape(shape)
    padded = (count, *grid)
    tensor = np.full([padded[i] for i in order], fill_of(spec), dtype=values.dtype)
    tensor.transpose(np.argsort(order))[:, :height, :width] = values
    return tensor.reshape(shape)


def _check_shape(spec: InputSpec, shape: tuple[int, ...], count: int) -> None:
    for axis, wanted, got in zip(spec.axes, spec.shape, shape, strict=True):
        if wanted not in (ANY, got) and axis is not Axis.BATCH:
            raise _wrong_axis(spec, axis, wanted, got)
    if count != 1 and Axis.CHANNEL not in spec.axes:
        raise _wrong_axis(spec, Axis.CHANNEL, 1, count)


def _wrong_axis(spec: InputSpec, axis: Axis, wanted: int, got: int) -> ContractMismatch:
    return ContractMismatch(
        f"Input {spec.name!r} takes {wanted} along its {axis} axis; the image gives {got}.",
        field="bands" if axis is Axis.CHANNEL else f"input.{axis}",
        expected=wanted,
        got=got,
    )


def fill_of(spec: InputSpec) -> float:
    """Give what an input holds where there is no data, as its dtype can."""
    least, most = limits(spec.dtype)
    fill = spec.nodata_fill if spec.dtype.startswith("float") else round(spec.nodata_fill)
    if not least <= fill <= most:
        raise CardInvalid(
            f"Input {spec.name!r} is {spec.dtype}, which cannot hold the fill value {spec.nodata_fill:g}.",
            (("profile:/nodata_fill", f"a value from {least:.6g} to {most:.6g}"),),
        )
    return fill
