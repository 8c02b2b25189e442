"""Results as a tagged union; each carries what a writer needs to say what its numbers mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ml_inference.contract.card import ClassLabel
    from ml_inference.contract.options import OutputKind
    from ml_inference.contract.raster import Georeference


@dataclass(frozen=True, slots=True, eq=False)
class Classification:
    """One decision for a whole image.

    Attributes:
        scores: float32 `(classes,)` in the order of `classes`; raw values when `kind` is `raw`.
        label: the chosen class; None when `kind` is `raw`.
    """

    kind: OutputKind
    classes: tuple[ClassLabel, ...]
    scores: NDArray[np.float32]
    label: ClassLabel | None
    type: Literal["classification"] = "classification"


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """A decision for every pixel.

    Attributes:
        values: `labels`: integer `(1, height, width)` of class values, `nodata` where invalid;
            `probabilities` and `raw`: float32 `(classes, height, width)`, NaN where invalid.
        valid: bool `(height, width)`.
        nodata: the value that stands for "no data" in `values`; None when every value is taken or nothing is invalid.
        georeference: of the grid of `values`.
    """

    kind: OutputKind
    classes: tuple[ClassLabel, ...]
    values: NDArray[np.generic]
    valid: NDArray[np.bool_]
    nodata: float | None
    georeference: Georeference | None
    type: Literal["segmentation"] = "segmentation"


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """Boxes in pixels of the source image, best score first.

    Attributes:
        boxes: float32 `(n, 4)`: x0, y0, x1, y1; pixel corners, (0, 0) upper left.
        scores: float32 `(n,)`.
        labels: int64 `(n,)` of class values.
        height, width: of the source image.
    """

    classes: tuple[ClassLabel, ...]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    height: int
    width: int
    georeference: Georeference | None
    type: Literal["detection"] = "detection"


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """Values: one vector for the image, or one for every pixel.

    Attributes:
        names: of the values, one each.
        values: `(values,)`, or `(values, height, width)` with NaN where invalid.
        valid: bool `(height, width)` for a raster, None for a vector.
    """

    names: tuple[str, ...]
    values: NDArray[np.floating]
    valid: NDArray[np.bool_] | None
    nodata: float | None
    georeference: Georeference | None
    type: Literal["regression"] = "regression"


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """The model's own tensors, without the batch axis, for models and requests that want no decoding."""

    tensors: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    type: Literal["tensors"] = "tensors"


type Prediction = Classification | Segmentation | Detection | Regression | Tensors
