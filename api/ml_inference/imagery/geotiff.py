"""Predictions as GeoTIFF: same grid as the source, and a file that says itself what its numbers mean."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.crs import CRS
from rasterio.transform import Affine

from ml_inference.contract.predictions import Segmentation
from ml_inference.imagery import gdal
from ml_inference.imagery.palette import class_colours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ml_inference.contract.predictions import Regression
    from ml_inference.contract.raster import Georeference

_TILED_FROM = 1024  # pixels on the longer side; below, one strip or two are read faster
_LABEL_TYPES = (np.uint8, np.uint16, np.int16, np.int32, np.int64)
_PALETTED = (np.uint8, np.uint16)  # the types TIFF allows a colour table for


@dataclass(frozen=True, slots=True, eq=False)
class _Bands:
    """What is to be written: bands, and what is said of them."""

    pixels: NDArray[Any]
    nodata: float | None
    names: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    colours: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)


def write_geotiff(prediction: Segmentation | Regression, provenance: Mapping[str, str]) -> bytes:
    """Write a prediction that has a value for every pixel.

    Labels become one band of the smallest integer type that holds them, with a colour table and one band tag
    `CLASS_<value>` for each class; scores, raw values and quantities become bands of floats, described by name, with
    NaN for nodata unless the prediction has a nodata value that no valid pixel shares.

    Args:
        prediction: labels, scores, or a regression with `(values, height, width)`.
        provenance: becomes dataset tags, in capitals.
    """
    if isinstance(prediction, Segmentation) and prediction.kind == "labels":
        bands = _labels(prediction)
    else:
        bands = _quantities(prediction)
    return _write(bands, prediction.georeference, provenance)


def _labels(prediction: Segmentation) -> _Bands:
    values, nodata = prediction.values, prediction.nodata
    spoken = [each.value for each in prediction.classes]
    hidden = nodata is None and not prediction.valid.all()
    reach = [*spoken, int(values.min()), int(values.max()), *([] if nodata is None else [int(nodata)])]
    dtype = _smallest(min(reach), max(reach) + hidden)
    if hidden:
        # Every value of the narrower type means something: the largest of this one does not.
        nodata = int(np.iinfo(dtype).max)
    pixels = values.astype(dtype)
    if nodata is not None:
        pixels = np.where(prediction.valid, pixels, dtype(nodata))
    colours = {value: (*rgb, 255) for value, rgb in class_colours(prediction.classes).items()}
    if nodata is not None:
        colours.setdefault(int(nodata), (0, 0, 0, 0))
    return _Bands(
        pixels,
        nodata,
        ("class",),
        {f"CLASS_{each.value}": each.name for each in prediction.classes},
        colours if dtype in _PALETTED else {},
    )


def _smallest(low: int, high: int) -> type[np.integer[Any]]:
    for dtype in _LABEL_TYPES:
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return dtype
    return np.int64


def _quantities(prediction: Segmentation | Regression) -> _Bands:
    pixels = prediction.values
    if isinstance(prediction, Segmentation):
        names, pixels = tuple(each.name for each in prediction.classes), pixels.astype(np.float32)
    else:
        names, pixels = prediction.names, pixels.astype(np.promote_types(pixels.dtype, np.float32))
    valid = np.ones(pixels.shape[1:], np.bool_) if prediction.valid is None else prediction.valid
    nodata = math.nan if prediction.nodata is None else float(prediction.nodata)
    if not math.isnan(nodata) and (pixels[:, valid] == pixels.dtype.type(nodata)).any():
        nodata = math.nan
    filled = np.where(valid, pixels, pixels.dtype.type(nodata))
    return _Bands(filled, nodata, names if len(names) == len(pixels) else ())


def _write(bands: _Bands, place: Georeference | None, provenance: Mapping[str, str]) -> bytes:
    count, height, width = bands.pixels.shape
    with gdal.created(
        "GTiff", count=count, height=height, width=width, dtype=bands.pixels.dtype.name, nodata=bands.nodata,
        **_grid(place), **_layout(bands.pixels),
    ) as (dataset, memory):  # fmt: skip
        if bands.colours:
            dataset.write_colormap(1, bands.colours)
        dataset.write(bands.pixels)
        if bands.names:
            dataset.descriptions = bands.names
        if bands.tags:
            dataset.update_tags(1, **bands.tags)
        dataset.update_tags(**{key.upper(): value for key, value in provenance.items()})
        dataset.close()
        return bytes(memory.getbuffer())


def _grid(place: Georeference | None) -> dict[str, Any]:
    if place is None:
        return {}
    return {"transform": Affine(*place.transform), "crs": CRS.from_wkt(place.crs) if place.crs else None}


def _layout(pixels: NDArray[Any]) -> dict[str, Any]:
    options: dict[str, Any] = {"compress": "DEFLATE", "interleave": "BAND", "BIGTIFF": "IF_SAFER"}
    if pixels.dtype.kind == "f":
        options |= {"predictor": 3, "zlevel": 1}  # with floats more effort hardly saves a byte
    if max(pixels.shape[1:]) >= _TILED_FROM:
        options |= {"tiled": True, "blockxsize": 512, "blockysize": 512}
    return options
