"""`Prediction` → bytes: which media types a prediction can become, the default first, and the way to each."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.predictions import Classification, Detection, Regression, Segmentation, Tensors
from ml_inference.errors import ContractMismatch
from ml_inference.imagery.geojson import write_geojson
from ml_inference.imagery.geotiff import write_geotiff
from ml_inference.imagery.npy import encode_npy
from ml_inference.imagery.picture import draw, encode_png
from ml_inference.imagery.plain import to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ml_inference.contract.predictions import Prediction

JSON = "application/json"
GEOTIFF = "image/tiff; application=geotiff"
PNG = "image/png"
GEOJSON = "application/geo+json"
NPY = "application/x-npy"

_UNKNOWN: Mapping[str, str] = MappingProxyType({})


def offered(prediction: Prediction) -> tuple[str, ...]:
    """Media types that this prediction can be written as, the default first."""
    if isinstance(prediction, Detection):
        return JSON, GEOJSON, PNG, NPY
    if isinstance(prediction, Segmentation):
        more = {"labels": (PNG, GEOJSON), "probabilities": (PNG,), "raw": ()}[prediction.kind]
        return GEOTIFF, JSON, *more, NPY
    if isinstance(prediction, Regression) and prediction.values.ndim > 1:
        return GEOTIFF, JSON, PNG, NPY
    if isinstance(prediction, Tensors) and len(prediction.tensors) != 1:
        return (JSON,)
    return JSON, NPY


def encode(prediction: Prediction, media_type: str, provenance: Mapping[str, str] = _UNKNOWN) -> bytes:
    """Write a prediction.

    Args:
        prediction: of any kind.
        media_type: one of those `offered`; parameters do not matter.
        provenance: what made it (`model`, `version`, `preprocessing` …), kept inside where the format has a place for it:
            tags of a GeoTIFF, the member `provenance` of GeoJSON and JSON.

    Raises:
        ContractMismatch: this prediction cannot be written as that.
        TooLarge: more areas than a GeoJSON answer may hold.
        InvalidRequest: GeoJSON for a coordinate reference system that has no way to WGS84.
    """
    possible = {_essence(each): each for each in offered(prediction)}
    known = possible.get(_essence(media_type))
    if known is None:
        raise ContractMismatch(
            f"A {prediction.type} result cannot be written as {media_type[:80]}; it can be {', '.join(possible.values())}.",
            field="accept",
            expected=list(possible.values()),
            got=media_type[:80],
        )
    return _WRITERS[known](prediction, provenance)


def _essence(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def _json(prediction: Prediction, provenance: Mapping[str, str]) -> bytes:
    document = {**to_plain(prediction), "provenance": dict(provenance)}
    return json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _npy(prediction: Prediction, _: Mapping[str, str]) -> bytes:
    return encode_npy(_array(prediction))


def _array(prediction: Prediction) -> NDArray[Any]:
    """Return the numbers alone; boxes as rows x0 y0 x1 y1 score label, float32."""
    if isinstance(prediction, Classification):
        return prediction.scores
    if isinstance(prediction, Detection):
        return np.column_stack([prediction.boxes, prediction.scores, prediction.labels]).astype(np.float32)
    if isinstance(prediction, Tensors):
        (tensor,) = prediction.tensors.values()
        return tensor
    return prediction.values


_WRITERS: dict[str, Callable[[Any, Mapping[str, str]], bytes]] = {
    JSON: _json,
    GEOTIFF: write_geotiff,
    PNG: lambda prediction, _: encode_png(draw(prediction)),
    GEOJSON: write_geojson,
    NPY: _npy,
}
