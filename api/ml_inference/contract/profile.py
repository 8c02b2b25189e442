"""A model's profile: a small TOML file for what MLM cannot say, or what an item forgot.

It stands above the item and below the request. Every key is optional; `docs/models.md` shows all of them.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ml_inference.contract.card import (
    Activation,
    BoxSpec,
    ClassLabel,
    Clip,
    DataType,
    Expression,
    Frozen,
    Identity,
    MinMax,
    Offset,
    Processing,
    Resize,
    Scale,
    Scaling,
    ScalingStep,
    Task,
    ZScore,
)
from ml_inference.contract.expression import compile_expression
from ml_inference.contract.scaling import parse_scaling
from ml_inference.errors import CardInvalid, ContractMismatch

MAX_LENGTH = 64 * 1024
_MAX_COLOR = 255
_HEX = re.compile(r"#?([0-9A-Fa-f]{6})")


def parse_color(value: Any) -> tuple[int, int, int] | None:
    """Read `#RRGGBB` (the mark may be missing) or three numbers 0…255; None when it is neither."""
    if isinstance(value, str):
        found = _HEX.fullmatch(value.strip())
        return (int(found[1][0:2], 16), int(found[1][2:4], 16), int(found[1][4:6], 16)) if found else None
    match value:
        case [int() | float(), int() | float(), int() | float()]:
            whole = all(0 <= v <= _MAX_COLOR and v == int(v) for v in value)
            return (int(value[0]), int(value[1]), int(value[2])) if whole else None
        case _:
            return None


def _steps(value: Any) -> Any:
    """`"divide:255"`, or a table for all channels, or a list of one table for each channel."""
    if isinstance(value, str):
        try:
            return parse_scaling(value)
        except ContractMismatch as error:
            raise ValueError(str(error)) from None
    if isinstance(value, dict):
        return ((value,),)
    return (tuple(value),) if isinstance(value, list) and value else value


def _expressions(value: tuple[Expression, ...]) -> tuple[Expression, ...]:
    for expression in value:
        compile_expression(expression)
    return value


def _wrapped(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _classes(value: Any) -> Any:
    """Names alone count from 0; a table's colour may be written as hex."""
    if not isinstance(value, list):
        return value
    return [_class(i, entry) for i, entry in enumerate(value)]


def _class(index: int, entry: Any) -> Any:
    if isinstance(entry, str):
        return {"value": index, "name": entry}
    if isinstance(entry, dict) and "color" in entry:
        color = parse_color(entry["color"])
        if color is None:
            raise ValueError(f"color {str(entry['color'])[:40]!r} is neither #RRGGBB nor three numbers 0…255")
        return entry | {"color": color}
    return entry


type Steps = Annotated[tuple[ScalingStep, ...], BeforeValidator(_steps)]


class InputProfile(Frozen):
    """What an operator says about one input.

    Attributes:
        name: of the item's or the graph's input; None means by position.
        scaling: replaces the item's `value_scaling`; `"none"` declares that there is nothing to do.
        source_scaling: comes before the scaling, for statistics that were taken on scaled values.
        resize: replaces `resize_type`; `"none"` refuses images of another size.
        processing: replaces `pre_processing_function`; `[]` says that images come prepared.
        size_multiple: height and width are padded up to a multiple of this.
        nodata_fill: what the model sees where the image has no valid pixel, in units after scaling.
        band_aliases: further names under which an image may carry a band.
        dim_order, shape, data_type: replace the item's, in MLM's words.
    """

    name: str | None = None
    scaling: Steps | None = None
    source_scaling: Steps = ()
    resize: Resize | Literal["none"] | None = None
    processing: tuple[Expression, ...] | None = None
    size_multiple: int | None = Field(default=None, ge=1, le=4096)
    nodata_fill: float | None = None
    band_aliases: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    dim_order: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None
    data_type: DataType | None = None

    @model_validator(mode="after")
    def _evaluable(self) -> InputProfile:
        _expressions(self.processing or ())
        return self


class OutputProfile(Frozen):
    """What an operator says about one output.

    Attributes:
        name: of the item's or the graph's output; None means by position.
        task: replaces the item's task.
        activation: turns the model's values into scores.
        threshold: label 1 from here on, for a one-channel score.
        classes: replace the item's; names alone count from 0.
        processing: replaces `post_processing_function`.
        boxes: how a detector writes its boxes, and how they are thinned out.
    """

    name: str | None = None
    task: Task | None = None
    activation: Activation | None = None
    threshold: float | None = None
    classes: Annotated[tuple[ClassLabel, ...], BeforeValidator(_classes)] | None = None
    processing: tuple[Expression, ...] | None = None
    boxes: BoxSpec | None = None

    @model_validator(mode="after")
    def _evaluable(self) -> OutputProfile:
        _expressions(self.processing or ())
        return self


class Profile(Frozen):
    """All of a profile.

    Attributes:
        source: where its values come from, for whoever reads the card.
        asset: key of the item's asset that is the ONNX file.
        input, output: one table, or several in the item's order.
    """

    source: str = ""
    asset: str | None = None
    input: Annotated[tuple[InputProfile, ...], BeforeValidator(_wrapped)] = ()
    output: Annotated[tuple[OutputProfile, ...], BeforeValidator(_wrapped)] = ()


def parse_profile(text: str) -> Profile:
    """Read a profile.

    Raises:
        CardInvalid: with a `profile:/…` pointer for everything that is wrong; a TOML syntax error names its line, an
            unknown key the nearest legal one.
    """
    if len(text) > MAX_LENGTH:
        raise _invalid([("profile:/", f"{len(text)} characters, {MAX_LENGTH} at most")])
    try:
        return Profile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise _invalid([("profile:/", f"not TOML: {error}")]) from None
    except RecursionError:
        raise _invalid([("profile:/", "nested too deep")]) from None
    except ValidationError as error:
        raise _invalid(
            [_problem(e["type"], e["loc"], e["msg"]) for e in error.errors(include_url=False)]
        ) from None


def _invalid(problems: list[tuple[str, str]]) -> CardInvalid:
    pointer, message = problems[0]
    return CardInvalid(f"the profile cannot be used: {pointer}: {message}", tuple(problems[:50]))


_LEGAL: dict[str, tuple[type[Frozen], ...]] = {
    "": (Profile,),
    "input": (InputProfile,),
    "output": (OutputProfile,),
    "boxes": (BoxSpec,),
    "classes": (ClassLabel,),
    "processing": (Expression, Processing),
    "scaling": (Identity, MinMax, ZScore, Clip, Offset, Scale, Processing),
    "source_scaling": (Identity, MinMax, ZScore, Clip, Offset, Scale, Processing),
}
_TAGS = {model.model_fields["type"].default for model in get_args(get_args(Scaling)[0])}


def _problem(kind: str, location: tuple[int | str, ...], message: str) -> tuple[str, str]:
    # After step and channel, pydantic names the member of the scaling union; in the file there is no such key.
    path = [
        step
        for i, step in enumerate(location)
        if not (
            step in _TAGS and i > 1 and isinstance(location[i - 1], int) and isinstance(location[i - 2], int)
        )
    ]
    pointer = "profile:/" + "/".join(str(step).replace("~", "~0").replace("/", "~1") for step in path)
    if kind != "extra_forbidden":
        return pointer, message.removeprefix("Value error, ").replace("valid tuple", "list")
    section = next((str(step) for step in reversed(path[:-1]) if step in _LEGAL), "")
    legal = sorted({name for model in _LEGAL[section] for name in model.model_fields})
    near = difflib.get_close_matches(str(path[-1])[:60], legal, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"legal are {', '.join(legal)}"
    return pointer, f"unknown key {str(path[-1])[:60]!r}: {hint}"
