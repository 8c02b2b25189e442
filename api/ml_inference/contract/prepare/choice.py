"""No silent preprocessing: which scaling is in force, and what an image may not do without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_inference.contract.prepare.scale import scaling_words
from ml_inference.errors import ContractMismatch

if TYPE_CHECKING:
    from ml_inference.contract.card import InputSpec, ModelCard, ScalingStep
    from ml_inference.contract.options import PredictOptions
    from ml_inference.contract.prepare.channels import Channels
    from ml_inference.contract.resample import Planes

USUAL_RANGE = 50.0
"""Values further from zero than this, after scaling, are seldom what a network was trained on."""


def refuse_override(card: ModelCard, options: PredictOptions) -> None:
    """Refuse a request's scaling where the card leaves none open.

    Raises:
        ContractMismatch: every input's scaling is declared.
    """
    if options.scaling is None or any(spec.scaling is None for spec in card.inputs):
        return
    raise ContractMismatch(
        "The card declares this model's scaling, so a request cannot set another: leave out `scaling`.",
        field="scaling",
        expected="no `scaling` in the request",
        got=_said(options.scaling),
    )


def scaling_steps(
    spec: InputSpec, channels: Channels, options: PredictOptions
) -> tuple[ScalingStep, ...] | None:
    """Give the steps in force: the card's, else the request's; None when neither says and nothing needs saying.

    Raises:
        ContractMismatch: integers for a float model without any word on their units, or the wrong number of operations.
    """
    steps = spec.scaling if spec.scaling is not None else options.scaling
    if steps is None and channels.integers and spec.dtype.startswith("float") and not spec.processing:
        raise _undeclared(spec, channels)
    count = len(channels.values)
    wrong = next((step for step in steps or () if len(step) not in (1, count)), None)
    if wrong is not None:
        raise ContractMismatch(
            f"Scaling has {len(wrong)} operations for the {count} channels of input {spec.name!r}: give one, or one each.",
            field="scaling",
            expected=f"1 or {count} operations",
            got=len(wrong),
        )
    return steps


def _undeclared(spec: InputSpec, channels: Channels) -> ContractMismatch:
    dtype = channels.values.dtype.name if not channels.derived else "integer"
    return ContractMismatch(
        f"Input {spec.name!r} takes {spec.dtype} and the image has {dtype} pixels, but the model's metadata declares no "
        "value_scaling, and none is guessed. Say it with the request (`scaling=none`, `scaling=divide:10000`, …) "
        "or as `scaling` in the model's profile.",
        field="scaling",
        expected="a declared value_scaling",
        got=f"none declared, {dtype} pixels",
    )


def refuse_floats(
    values: Planes, channels: Channels, steps: tuple[ScalingStep, ...] | None, spec: InputSpec
) -> None:
    """Let an integer model take floats only from a declared chain, or from interpolated integers.

    Raises:
        ContractMismatch: the image itself is of floats.
    """
    if values.dtype.kind != "f" or spec.dtype.startswith("float"):
        return
    if steps or spec.processing or channels.derived or channels.integers:
        return
    raise ContractMismatch(
        f"Input {spec.name!r} takes {spec.dtype} and the image has {values.dtype.name} pixels, whose fractions would be lost. "
        f"Send {spec.dtype} pixels.",
        field="image.dtype",
        expected=spec.dtype,
        got=values.dtype.name,
    )


def range_doubts(
    span: tuple[float, float], steps: tuple[ScalingStep, ...] | None, spec: InputSpec, *, rounded: bool
) -> tuple[str, ...]:
    """Warn of lost fractions, and of values far from what networks are trained on unless raw ones are asked for."""
    low, high = span
    said = []
    if rounded:
        said.append(f"values are rounded to {spec.dtype}")
    declared_raw = steps == () and not spec.processing
    if spec.dtype.startswith("float") and not declared_raw and max(-low, high) > USUAL_RANGE:
        said.append(
            f"the model sees values from {low:.6g} to {high:.6g}, farther from zero than usual: "
            "are the pixels in the units that its scaling expects?"
        )
    return tuple(said)


def chain_words(
    spec: InputSpec, steps: tuple[ScalingStep, ...] | None, channels: Channels
) -> tuple[str, ...]:
    """Say which scaling and processing an input went through."""
    origin = "" if spec.scaling is not None else " [request]"
    if steps is None:
        kind = "integer" if channels.integers else "float"
        said = [f"no scaling declared: {kind} pixels used as they are"]
    else:
        said = [scaling_words(step) + origin for step in steps] or [f"no scaling{origin or ' (declared)'}"]
    return (*said, *(expression.expression for expression in spec.processing))


def _said(steps: tuple[ScalingStep, ...]) -> str:
    return ", then ".join(scaling_words(step) for step in steps) or "none"
