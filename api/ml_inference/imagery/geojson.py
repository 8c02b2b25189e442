"""Boxes and classified areas as GeoJSON: WGS84 longitude and latitude, rings by the right-hand rule (RFC 7946)."""

from __future__ import annotations

import json
import math
from itertools import batched
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio import features, warp
from rasterio.crs import CRS
from rasterio.transform import Affine

from ml_inference.contract.predictions import Detection
from ml_inference.errors import InvalidRequest, TooLarge
from ml_inference.imagery import gdal
from ml_inference.imagery.palette import class_colours

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ml_inference.contract.card import ClassLabel
    from ml_inference.contract.predictions import Segmentation
    from ml_inference.contract.raster import Georeference

MAX_FEATURES = 20_000
"""Areas in one answer. Tracing them stops every other thread of the process, half a second for so many."""

_WGS84 = "OGC:CRS84"  # longitude first, as RFC 7946 has it
_DECIMALS = 7  # of a degree: one centimetre
_AT_ONCE = 200  # geometries converted before other threads get their turn
_RAGGED = 4  # corners where an area may begin, for each area, in maps that are more than noise
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

type Geometry = dict[str, Any]


def write_geojson(prediction: Detection | Segmentation, provenance: Mapping[str, str]) -> bytes:
    """Write a FeatureCollection with one feature for each box, or for each area of touching pixels of one class.

    Properties are `class`, `value` and `score` (boxes) or `color` (areas, as `#rrggbb`). An image that lies nowhere
    on Earth has no longitudes: coordinates are then its pixels, and the members `"coordinates_in": "pixels"` and
    `"crs": null` say so.

    Raises:
        TooLarge: more areas than `MAX_FEATURES`.
        InvalidRequest: the image's coordinate reference system has no way to WGS84.
    """
    place = prediction.georeference if _located(prediction.georeference) else None
    made = _boxes(prediction, place) if isinstance(prediction, Detection) else _areas(prediction, place)
    geometries = [geometry for geometry, _ in made]
    if place is not None:
        geometries = _to_wgs84(geometries, place)
    collection: dict[str, Any] = {"type": "FeatureCollection"}
    if place is None:
        collection |= {"coordinates_in": "pixels", "crs": None}
    collection["provenance"] = dict(provenance)
    collection["features"] = [
        {"type": "Feature", "geometry": _right_handed(geometry), "properties": properties}
        for geometry, (_, properties) in zip(geometries, made, strict=True)
    ]
    return json.dumps(collection, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _located(place: Georeference | None) -> bool:
    return place is not None and place.crs is not None and place.transform != _IDENTITY


def _boxes(prediction: Detection, place: Georeference | None) -> list[tuple[Geometry, dict[str, Any]]]:
    names = {each.value: each.name for each in prediction.classes}
    made = []
    rows = zip(prediction.boxes.tolist(), prediction.labels.tolist(), prediction.scores, strict=True)
    for (x0, y0, x1, y1), label, score in rows:
        corners = [(x0, y0), (x0, y1), (x1, y1), (x1, y0), (x0, y0)]
        ring = [place.locate(*corner) for corner in corners] if place else corners
        properties = {"class": names.get(label), "value": label, "score": float(str(score))}
        made.append(({"type": "Polygon", "coordinates": [ring]}, properties))
    return made


def _areas(prediction: Segmentation, place: Georeference | None) -> list[tuple[Geometry, dict[str, Any]]]:
    gdal.prepare_thread()
    kinds = _kinds(prediction.classes)
    empty = [each.value for each in prediction.classes if each.nodata]
    labels = prediction.values[0]
    labels = labels.astype(np.int32 if np.can_cast(labels.dtype, np.int32) else np.int64)
    shown = prediction.valid & ~np.isin(labels, empty)
    if _beginnings(labels) > _RAGGED * MAX_FEATURES:
        raise _too_many()
    transform = Affine(*place.transform) if place else Affine.identity()
    made: list[tuple[Geometry, dict[str, Any]]] = []
    for geometry, value in features.shapes(labels, mask=shown, transform=transform):
        if len(made) == MAX_FEATURES:
            raise _too_many()
        made.append((geometry, kinds.get(int(value), {"class": None, "value": int(value)})))
    return made


def _too_many() -> TooLarge:
    return TooLarge(f"The answer has more than {MAX_FEATURES} areas; ask for image/tiff instead.")


def _beginnings(labels: NDArray[np.integer[Any]]) -> int:
    """Count pixels unlike their left and upper neighbours: every area has at least one."""
    left = labels[:, 1:] != labels[:, :-1]
    above = labels[1:] != labels[:-1]
    inside = np.count_nonzero(left[1:] & above[:, 1:])
    return int(1 + np.count_nonzero(left[0]) + np.count_nonzero(above[:, 0]) + inside)


def _kinds(classes: Sequence[ClassLabel]) -> dict[int, dict[str, Any]]:
    colours = {value: "#{:02x}{:02x}{:02x}".format(*rgb) for value, rgb in class_colours(classes).items()}
    return {
        each.value: {"class": each.name, "value": each.value, "color": colours[each.value]}
        for each in classes
    }


def _to_wgs84(geometries: list[Geometry], place: Georeference) -> list[Geometry]:
    gdal.prepare_thread()
    moved: list[Geometry] = []
    try:
        source = CRS.from_wkt(place.crs)
        for some in batched(geometries, _AT_ONCE):
            moved += warp.transform_geom(source, _WGS84, some, precision=_DECIMALS)
    except Exception as error:  # GDAL's refusals have no public class in rasterio
        raise _nowhere() from error
    if not all(
        math.isfinite(x) and math.isfinite(y) for each in moved for ring in _rings(each) for x, y in ring
    ):
        raise _nowhere()
    return moved


def _nowhere() -> InvalidRequest:
    return InvalidRequest(
        "The image's coordinate reference system cannot be converted to WGS84, which GeoJSON needs; "
        "ask for image/tiff or application/json instead."
    )


def _rings(geometry: Geometry) -> list[list[tuple[float, float]]]:
    """All rings of a Polygon or MultiPolygon."""
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    return [ring for part in parts for ring in part]


def _right_handed(geometry: Geometry) -> Geometry:
    """Turn outer rings counterclockwise and holes clockwise (RFC 7946, section 3.1.6)."""
    several = geometry["type"] == "MultiPolygon"
    parts = [
        [ring if (_area(ring) > 0) == (number == 0) else ring[::-1] for number, ring in enumerate(part)]
        for part in (geometry["coordinates"] if several else [geometry["coordinates"]])
    ]
    return {"type": geometry["type"], "coordinates": parts if several else parts[0]}


def _area(ring: Sequence[tuple[float, float]]) -> float:
    """Twice the signed area, positive when counterclockwise (the shoelace formula)."""
    x, y = np.asarray(ring, np.float64).T
    x, y = x - x[0], y - y[0]
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))
