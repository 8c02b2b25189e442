"""Predictions as plain values for JSON: names beside numbers, and null where a number is not finite."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.predictions import Classification, Detection, Regression, Segmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ml_inference.contract.card import ClassLabel
    from ml_inference.contract.predictions import Prediction, Tensors


def to_plain(prediction: Prediction) -> dict[str, Any]:
    """Describe a prediction by what JSON can hold.

    - classification: the chosen class, and all classes with scores, best first (raw values in the model's order);
    - detection: boxes in pixels of the source image, best first;
    - segmentation: for each class its pixels and their share of the valid ones, or its mean score;
    - regression: each value by name; of a raster its mean, least and greatest;
    - tensors: shape, type and nested data of each.
    """
    if isinstance(prediction, Classification):
        return _classification(prediction)
    if isinstance(prediction, Detection):
        return _detection(prediction)
    if isinstance(prediction, Segmentation):
        return _segmentation(prediction)
    if isinstance(prediction, Regression):
        return _regression(prediction)
    return _tensors(prediction)


def _number(value: Any) -> float | None:
    """Return the shortest float that reads back as the same number of its type; None for NaN and infinity."""
    number = float(str(value)) if isinstance(value, np.floating) else float(value)
    return number if math.isfinite(number) else None


def _label(label: ClassLabel) -> dict[str, Any]:
    return {"class": label.name, "value": label.value}


def _named(classes: tuple[ClassLabel, ...], count: int) -> list[dict[str, Any]]:
    """Return one entry for each channel; channels that no class is declared for are known by their index."""
    known = [_label(each) for each in classes]
    return known if len(known) == count else [{"class": None, "value": index} for index in range(count)]


def _classification(prediction: Classification) -> dict[str, Any]:
    scores = [
        {**entry, "score": _number(score)}
        for entry, score in zip(
            _named(prediction.classes, len(prediction.scores)), prediction.scores, strict=True
        )
    ]
    if prediction.kind != "raw":
        scores.sort(key=lambda entry: -math.inf if entry["score"] is None else entry["score"], reverse=True)
    chosen = _label(prediction.label) if prediction.label else None
    return {"type": prediction.type, "class": chosen, "scores": scores}


def _detection(prediction: Detection) -> dict[str, Any]:
    names = {each.value: each.name for each in prediction.classes}
    rows = zip(prediction.boxes, prediction.labels.tolist(), prediction.scores, strict=True)
    return {
        "type": prediction.type,
        "height": prediction.height,
        "width": prediction.width,
        "detections": [
            {
                "box": [_number(v) for v in box],
                "class": names.get(label),
                "value": label,
                "score": _number(score),
            }
            for box, label, score in rows
        ],
    }


def _segmentation(prediction: Segmentation) -> dict[str, Any]:
    height, width = prediction.valid.shape
    valid = int(np.count_nonzero(prediction.valid))
    size = {"height": height, "width": width, "valid_pixels": valid, "nodata_pixels": height * width - valid}
    if prediction.kind == "labels":
        counts = _counts(prediction.values[0][prediction.valid])
        summary = [_share(_label(each), counts.pop(each.value, 0), valid) for each in prediction.classes]
        summary += [_share({"class": None, "value": v}, n, valid) for v, n in counts.items()]
    else:
        named = _named(prediction.classes, len(prediction.values))
        means = [_mean(band[prediction.valid]) for band in prediction.values]
        summary = [{**entry, "mean": mean} for entry, mean in zip(named, means, strict=True)]
    return {"type": prediction.type, "kind": prediction.kind, **size, "classes": summary}


def _share(entry: dict[str, Any], pixels: int, valid: int) -> dict[str, Any]:
    return {**entry, "pixels": pixels, "share": pixels / valid if valid else None}


def _counts(labels: NDArray[Any]) -> dict[int, int]:
    values, counts = np.unique(labels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _mean(values: NDArray[Any]) -> float | None:
    finite = values[np.isfinite(values)]
    return _number(finite.mean(dtype=np.float64)) if finite.size else None


def _regression(prediction: Regression) -> dict[str, Any]:
    values = [
        {"name": name, **({"value": _number(value)} if prediction.values.ndim == 1 else _spread(value))}
        for name, value in zip(prediction.names, prediction.values, strict=True)
    ]
    described: dict[str, Any] = {"type": prediction.type, "values": values}
    if prediction.values.ndim > 1:
        described |= {"height": prediction.values.shape[1], "width": prediction.values.shape[2]}
    return described


def _spread(values: NDArray[Any]) -> dict[str, Any]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return {"mean": None, "minimum": None, "maximum": None, "pixels": 0}
    return {
        "mean": _mean(finite),
        "minimum": _number(finite.min()),
        "maximum": _number(finite.max()),
        "pixels": int(finite.size),
    }


def _tensors(prediction: Tensors) -> dict[str, Any]:
    return {
        "type": prediction.type,
        "tensors": {name: _tensor(tensor) for name, tensor in prediction.tensors.items()},
    }


def _tensor(tensor: NDArray[Any]) -> dict[str, Any]:
    data = tensor
    if tensor.dtype.kind == "f":
        finite = np.isfinite(tensor)
        if not finite.all():
            data = tensor.astype(object)
            data[~finite] = None
    return {"shape": list(tensor.shape), "dtype": tensor.dtype.name, "data": data.tolist()}
