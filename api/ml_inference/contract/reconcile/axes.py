"""What the axes of an output are, told from its task, its rank and the model's inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_inference.contract.card import ANY, Axis, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.card import InputSpec, TensorSpec

_B, _C, _H, _W = Axis.BATCH, Axis.CHANNEL, Axis.HEIGHT, Axis.WIDTH


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What helps to tell axes apart.

    Attributes:
        batched: the inputs have a batch axis.
        channels_last: the first input ends with its channels.
        classes: number of classes; 0 when none are known.
    """

    batched: bool
    channels_last: bool
    classes: int = 0


def surroundings(inputs: Sequence[InputSpec], classes: int) -> Surroundings:
    """Sum up the inputs for `infer_axes`."""
    axes = inputs[0].axes if inputs else ()
    return Surroundings(_B in axes, len(axes) > 1 and axes[-1] is _C, classes)


def infer_axes(task: Task, tensor: TensorSpec, near: Surroundings) -> tuple[Axis, ...] | None:
    """Name the axes of an output.

    Returns:
        As many axes as the tensor's rank, or None when a tensor of that rank cannot be the task's.
    """
    rank = len(tensor.shape)
    if task is Task.RAW:
        return raw_axes(tensor, near)
    # Ranks are easier to read with the batch in place.
    shape = tensor.shape if near.batched else (1, *tensor.shape)
    full = _with_batch(task, shape, near)
    if full is None:
        return None
    axes = full if near.batched else full[1:]
    return axes if len(axes) == rank else None


def raw_axes(tensor: TensorSpec, near: Surroundings) -> tuple[Axis, ...]:
    """Axes of a tensor that nobody decodes: perhaps a batch, and values."""
    batched = near.batched and tensor.shape[:1] in {(ANY,), (1,)}
    return tuple(_B if i == 0 and batched else Axis.VALUE for i in range(len(tensor.shape)))


def _with_batch(task: Task, shape: tuple[int, ...], near: Surroundings) -> tuple[Axis, ...] | None:
    match task, len(shape):
        case Task.CLASSIFICATION | Task.REGRESSION, 1:
            return (_B,)
        case Task.CLASSIFICATION | Task.REGRESSION, 2:
            return _B, _C
        case Task.CLASSIFICATION, rank if set(shape[2:]) == {1}:
            return _B, _C, *(Axis.OTHER for _ in range(rank - 2))
        case Task.SEGMENTATION | Task.REGRESSION, 3:
            return _B, _H, _W
        case Task.SEGMENTATION | Task.REGRESSION, 4:
            return (_B, _H, _W, _C) if _channels_last(shape, near) else (_B, _C, _H, _W)
        case _:
            return None


def _channels_last(shape: tuple[int, ...], near: Surroundings) -> bool:
    wanted = {near.classes, 1} if near.classes == 2 else {near.classes}  # noqa: PLR2004 - two classes fit one channel
    first, last = shape[1] in wanted, shape[3] in wanted
    return last if first != last else near.channels_last


def plausible(task: Task, axes: Sequence[Axis], shape: Sequence[int]) -> bool:
    """Tell whether axes as declared can carry the task."""
    spatial = {axis for axis, size in zip(axes, shape, strict=True) if axis in {_H, _W} and size != 1}
    if task is Task.SEGMENTATION:
        return {_H, _W} <= set(axes)
    return task is not Task.CLASSIFICATION or not spatial
