"""A model's tensors, brought into known axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml_inference.contract.card import Axis, Task
from ml_inference.errors import InferenceFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ml_inference.contract.card import ModelCard, OutputSpec
    from ml_inference.contract.resample import Planes

VECTORS = {1: (Axis.CHANNEL,), 2: (Axis.BATCH, Axis.CHANNEL)}
RASTERS = {2: (Axis.HEIGHT, Axis.WIDTH), 4: (Axis.BATCH, Axis.CHANNEL, Axis.HEIGHT, Axis.WIDTH)}


def without_batch(outputs: Mapping[str, NDArray[Any]], card: ModelCard) -> dict[str, NDArray[Any]]:
    """Give every output without its batch axis of length 1.

    An output whose axes the card does not know has one when the inputs have, and its first axis is of length 1.
    """
    specs = {output.name: output for output in card.outputs}
    batched = any(Axis.BATCH in spec.axes for spec in card.inputs)
    found = {}
    for name, array in outputs.items():
        spec = specs.get(name)
        if spec is not None and len(spec.axes) == array.ndim:
            axis = spec.axes.index(Axis.BATCH) if Axis.BATCH in spec.axes else None
        else:
            axis = 0 if batched and array.ndim and array.shape[0] == 1 else None
        found[name] = array if axis is None else _only_row(array, axis, name)
    return found


def _only_row(array: NDArray[Any], axis: int, name: str) -> NDArray[Any]:
    if array.shape[axis] != 1:
        raise InferenceFailed(f"The model answered {array.shape[axis]} rows in {name!r} for one image.")
    return array.squeeze(axis)


def axes_of(output: OutputSpec, array: NDArray[Any]) -> tuple[Axis, ...]:
    """Give the axes of an output with its batch axis: as the card has them, else as is usual for its task and rank.

    Raises:
        InferenceFailed: of a rank that means nothing for the task.
    """
    if len(output.axes) == array.ndim:
        return output.axes
    raster = output.task is Task.SEGMENTATION or array.ndim > max(VECTORS)
    known = RASTERS if raster else VECTORS
    if raster and array.ndim == 3:  # noqa: PLR2004 - between the ranks of the table
        return (Axis.BATCH if array.shape[0] == 1 else Axis.CHANNEL, Axis.HEIGHT, Axis.WIDTH)
    if array.ndim not in known:
        raise InferenceFailed(
            f"The model answered {output.name!r} of shape {array.shape}, which fits no {output.task}."
        )
    return known[array.ndim]


def is_raster(output: OutputSpec, array: NDArray[Any]) -> bool:
    """Tell whether an output has a value for every pixel, by its axes."""
    axes = axes_of(output, array)
    return Axis.HEIGHT in axes or Axis.WIDTH in axes


def to_planes(output: OutputSpec, array: NDArray[Any]) -> Planes:
    """Give an output, batch axis included, as `(channels, height, width)`; axes it lacks have length 1.

    Raises:
        InferenceFailed: another axis is longer than 1.
    """
    axes = axes_of(output, array)
    channel = next((axis for axis in (Axis.CHANNEL, Axis.VALUE, Axis.BOX) if axis in axes), Axis.CHANNEL)
    wanted = (channel, Axis.HEIGHT, Axis.WIDTH)
    for axis, length in zip(axes, array.shape, strict=True):
        if axis not in wanted and length != 1:
            raise InferenceFailed(
                f"The model answered {output.name!r} with {length} along its {axis} axis, not 1."
            )
    sizes = dict(zip(axes, array.shape, strict=True))
    order = [axes.index(axis) for axis in wanted if axis in axes]
    order += [i for i in range(array.ndim) if i not in order]
    return array.transpose(order).reshape([sizes.get(axis, 1) for axis in wanted])
