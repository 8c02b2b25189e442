"""The model's promise as frozen types, in the words of the MLM specification.

A `ModelCard` is what remains of a STAC MLM item, a profile and an ONNX graph once they agree: nothing in it is
optional by accident, and everything downstream (`prepare`, `interpret`, the surfaces) reads it and nothing else.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ANY = -1
"""A dimension the model leaves open (MLM `shape`)."""

DataType = Literal[
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"
]  # fmt: skip
"""Tensor element types, by numpy's names."""


class Frozen(BaseModel):
    """Immutable, and closed: an unknown key is an error, not a silent no-op."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Task(StrEnum):
    """What an output means, hence which decoder reads it. Other words of the specification map onto these."""

    CLASSIFICATION = "classification"
    SEGMENTATION = "semantic-segmentation"
    DETECTION = "object-detection"
    REGRESSION = "regression"
    RAW = "raw"
    """No decoder: the tensors are the answer."""


class Axis(StrEnum):
    """Canonical names of tensor axes (MLM `dim_order` has many spellings of each)."""

    BATCH = "batch"
    TIME = "time"
    CHANNEL = "channel"
    """Bands of an input; classes or values of an output."""
    HEIGHT = "height"
    WIDTH = "width"
    BOX = "box"
    VALUE = "value"
    OTHER = "other"
    """An axis of size 1 that carries nothing."""


class Severity(StrEnum):
    """How much a diagnostic matters."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Diagnostic(Frozen):
    """One remark on an item, a profile or a graph.

    Attributes:
        pointer: RFC 6901 pointer into the item (`/properties/mlm:input/0/bands`), `profile:/…`, or `onnx:NAME`.
        message: what was found, what was expected, what was done about it.
    """

    severity: Severity
    pointer: str
    message: str


class Expression(Frozen):
    """A processing expression that this service evaluates itself (MLM `format` + `expression`)."""

    format: Literal["gdal-calc", "rio-calc"]
    expression: str


class Identity(Frozen):
    """`{"type": null}`: declared, and nothing to do."""

    type: Literal["identity"] = "identity"


class MinMax(Frozen):
    """`(x - minimum) / (maximum - minimum)`, not clipped (MLM `value_scaling`, type `min-max`)."""

    type: Literal["min-max"] = "min-max"
    minimum: float
    maximum: float

    @model_validator(mode="after")
    def _spread(self) -> Self:
        if self.maximum == self.minimum:
            raise ValueError(f"minimum and maximum are both {self.minimum}: division by zero")
        return self


class ZScore(Frozen):
    """`(x - mean) / stddev`."""

    type: Literal["z-score"] = "z-score"
    mean: float
    stddev: float = Field(gt=0)


class Clip(Frozen):
    """Clamp; one bound may be absent (`clip`, `clip-min`, `clip-max`)."""

    type: Literal["clip"] = "clip"
    minimum: float | None = None
    maximum: float | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if low > high:
            raise ValueError(f"minimum {low} is above maximum {high}")
        return self


class Offset(Frozen):
    """`x - value`."""

    type: Literal["offset"] = "offset"
    value: float


class Scale(Frozen):
    """`x / value`."""

    type: Literal["scale"] = "scale"
    value: float

    @model_validator(mode="after")
    def _divisor(self) -> Self:
        if self.value == 0:
            raise ValueError("scale 0: division by zero")
        return self


class Processing(Frozen):
    """A per-channel expression (`type: processing`)."""

    type: Literal["processing"] = "processing"
    expression: Expression


Scaling = Annotated[
    Identity | MinMax | ZScore | Clip | Offset | Scale | Processing, Field(discriminator="type")
]
ScalingStep = tuple[Scaling, ...]
"""One operation for all channels (length 1) or one for each channel."""

Resize = Literal[
    "crop",
    "pad",
    "interpolation-nearest",
    "interpolation-linear",
    "interpolation-cubic",
    "interpolation-area",
    "interpolation-lanczos4",
]


class Band(Frozen):
    """One channel of an input: a band of the image, or one derived from several by an expression.

    Attributes:
        name: as the card lists it (`B04`, `red`, `NDVI`).
        common_name: STAC `eo:common_name`, when the item's band objects give one.
        aliases: further names under which an image may carry it (from the profile).
        expression: for a derived band; its names refer to bands of the image.
        nodata: the band's nodata value in the item, informational.
    """

    name: str
    common_name: str | None = None
    aliases: tuple[str, ...] = ()
    expression: Expression | None = None
    nodata: float | None = None


class InputSpec(Frozen):
    """One input tensor and the way from an image to it.

    The order of operations (the specification leaves it open): bands and derived bands → resize or pad →
    scaling steps → processing → cast → transpose.

    Attributes:
        name: the ONNX input's name once reconciled, the item's label before.
        bands: channels in order; empty means the image's bands in their own order.
        axes, shape: equal length; `-1` in shape is open.
        dtype: of the tensor after all preparation.
        scaling: steps in order; `()` is declared identity; None is *undeclared* (see `prepare`).
        resize: how an image of another size comes to a fixed shape; None refuses it.
        processing: `pre_processing_function`, in order.
        size_multiple: height and width are padded up to a multiple of this (profile).
        nodata_fill: what the model sees where the image has no valid pixel, in units *after* scaling.
    """

    name: str
    description: str = ""
    bands: tuple[Band, ...] = ()
    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    dtype: DataType
    scaling: tuple[ScalingStep, ...] | None = None
    resize: Resize | None = None
    processing: tuple[Expression, ...] = ()
    size_multiple: int = Field(default=1, ge=1, le=4096)
    nodata_fill: float = 0.0

    @model_validator(mode="after")
    def _ranks(self) -> Self:
        if len(self.axes) != len(self.shape):
            raise ValueError(f"{len(self.axes)} axes for a shape of {len(self.shape)} dimensions")
        return self

    def size(self, axis: Axis) -> int:
        """Length of an axis: `-1` when open, 1 when the tensor has no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


class ClassLabel(Frozen):
    """One class (STAC classification extension).

    Attributes:
        value: the number that stands for it in a label raster.
        color: RGB, 0…255.
        nodata: pixels of this class count as nodata.
    """

    value: int
    name: str
    description: str = ""
    color: tuple[int, int, int] | None = None
    nodata: bool = False


Activation = Literal["none", "softmax", "sigmoid"]

BoxLayout = Literal["xyxy", "yolo", "rows"]
"""How a detector writes its boxes.

`xyxy`: tensors boxes `[N, K, 4]` (x0 y0 x1 y1 in input pixels), scores `[N, K]`, labels `[N, K]`.
`yolo`: one tensor `[N, 4 + C, A]`: centre x, centre y, width, height, then one score per class.
`rows`: one tensor `[N, K, 6]`: x0 y0 x1 y1 score label.
"""


class BoxSpec(Frozen):
    """How boxes are read and thinned out.

    Attributes:
        layout: see `BoxLayout`; None lets `reconcile` tell it from the shapes, or refuse.
        boxes, scores, labels: ONNX output names for `xyxy`; None means by name or order.
        normalized: coordinates are 0…1 of the input's width and height instead of pixels.
        score_threshold, iou_threshold, max_detections: for the selection and non-maximum suppression.
        nms: False when the graph already does it.
    """

    layout: BoxLayout | None = None
    boxes: str | None = None
    scores: str | None = None
    labels: str | None = None
    normalized: bool = False
    score_threshold: float = Field(default=0.25, ge=0, le=1)
    iou_threshold: float = Field(default=0.45, ge=0, le=1)
    max_detections: int = Field(default=300, ge=1, le=100_000)
    nms: bool = True


class OutputSpec(Frozen):
    """One output tensor and what it means.

    Attributes:
        name: the ONNX output's name once reconciled.
        axes, shape: as the graph has them once reconciled (`()` when the item's did not fit and were dropped).
        activation: what turns raw values into scores; None is undeclared (raw values stay raw).
        threshold: for a one-channel score: label 1 from here on.
        processing: `post_processing_function`, in order, on the raw values.
        boxes: only for detection.
    """

    name: str
    description: str = ""
    task: Task
    axes: tuple[Axis, ...] = ()
    shape: tuple[int, ...] = ()
    dtype: DataType = "float32"
    classes: tuple[ClassLabel, ...] = ()
    bands: tuple[str, ...] = ()
    activation: Activation | None = None
    threshold: float | None = None
    processing: tuple[Expression, ...] = ()
    boxes: BoxSpec | None = None


class ModelCard(Frozen):
    """Everything the service knows of a model before it sees an image.

    Attributes:
        name: the item's label (`mlm:name`); the identity of a model is its registry name, never this.
        item_id, mlm_version: of the STAC item; None for a bare ONNX file.
        outputs: the first one is decoded; the others are reachable through `output=raw`.
        batch_size: `mlm:batch_size_suggestion`, None when absent.
        diagnostics: every coercion, override and doubt on the way here.
    """

    name: str
    item_id: str | None = None
    mlm_version: str | None = None
    architecture: str = ""
    framework: str = ""
    description: str = ""
    inputs: tuple[InputSpec, ...] = Field(min_length=1)
    outputs: tuple[OutputSpec, ...] = Field(min_length=1)
    batch_size: int | None = Field(default=None, ge=1)
    memory_size: int | None = None
    accelerator: str | None = None
    accelerator_constrained: bool = False
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def task(self) -> Task:
        """What the model is for: the task of its first output."""
        return self.outputs[0].task


class TensorSpec(Frozen):
    """A tensor as the graph declares it; `-1` is open. `dtype` is None for what numpy cannot carry."""

    name: str
    dtype: DataType | None
    shape: tuple[int, ...]


class GraphSignature(Frozen):
    """What the ONNX file says of itself: the truth for what runs."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    metadata: dict[str, str] = Field(default_factory=dict)
