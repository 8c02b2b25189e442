"""Bytes → `Raster`. A pure function of its bytes: no file, no network, no clock; it may run in any thread or process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.enums import ColorInterp

from ml_inference.contract.raster import Georeference, Raster
from ml_inference.errors import ContractMismatch, CorruptImage, InvalidRequest, ProcessorError, TooLarge
from ml_inference.imagery import gdal
from ml_inference.imagery.jp2_check import check_jp2
from ml_inference.imagery.npy import decode_npy
from ml_inference.imagery.png_check import check_png
from ml_inference.imagery.sniff import Format, sniff
from ml_inference.imagery.tiff_check import check_tiff
from ml_inference.imagery.validity import alpha_band, read_validity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ml_inference.imagery.limits import DecodeLimits

_DRIVERS = {Format.GEOTIFF: "GTiff", Format.JPEG2000: "JP2OpenJPEG", Format.PNG: "PNG", Format.JPEG: "JPEG"}
_COLOURLESS = frozenset({ColorInterp.undefined, ColorInterp.gray, ColorInterp.palette})
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
_NUMBERS = (
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
)


def decode(
    data: bytes | memoryview, limits: DecodeLimits, media_type: str | None = None, named: int | None = None
) -> Raster:
    """Read an image: GeoTIFF (also BigTIFF), JPEG 2000, PNG, JPEG or `.npy`.

    Pixels stay in the file's own units: scale and offset tags are not applied. Two things about pictures:

    - an alpha band becomes validity (alpha 0 is invalid), not a band; a GeoTIFF band with a description of its own is
      never taken for alpha, nor is any when the caller names as many bands as the GeoTIFF has: GDAL declares a fourth
      band of bytes as alpha without being asked, near infrared as often as not;
    - a PNG's or JPEG 2000's palette is expanded to red, green, blue, and greys of less than 8 bits to the range 0…255;
      a GeoTIFF's palette only colours values that mean something themselves, so the values are kept.

    Bands are named by the file's descriptions; a file without any, by its colours if it declares one for every band.

    Args:
        data: the whole file.
        limits: judged by the header, before pixels are read.
        media_type: as declared by the client; the bytes decide, it only appears in a message.
        named: how many bands the caller has names for.

    Raises:
        Undecodable: not one of these formats.
        CorruptImage: damaged or cut off.
        TooLarge: by its declared size.
        ContractMismatch: no pixels at all, or pixels that are not real numbers.
        InvalidRequest: the file refers to another file.
    """
    content = data if isinstance(data, bytes) else bytes(data)
    known = sniff(content, media_type)
    try:
        if known is Format.GEOTIFF:
            return _read_geotiff(content, limits, named)
        return _READERS[known](content, limits)
    except ProcessorError:
        raise
    except MemoryError as error:
        raise TooLarge(f"The {known} file needs more memory than there is now.") from error
    # rasterio answers damage with errors of many kinds, UnicodeDecodeError among them.
    except Exception as error:
        raise CorruptImage(
            f"The {known} file is damaged or cut off: it cannot be read to its end."
        ) from error


def _read_geotiff(content: bytes, limits: DecodeLimits, named: int | None) -> Raster:
    described = check_tiff(content, limits)
    with gdal.opened(content, _DRIVERS[Format.GEOTIFF]) as dataset:
        _guard(dataset, Format.GEOTIFF, limits)
        descriptions = gdal.band_descriptions(content) if described else ("",) * dataset.count
        return _raster(dataset, descriptions, alpha_counts=named == dataset.count)


def _read_jpeg(content: bytes, limits: DecodeLimits) -> Raster:
    with gdal.opened(content, _DRIVERS[Format.JPEG]) as dataset:
        _guard(dataset, Format.JPEG, limits)
        return _raster(dataset, ("",) * dataset.count)


def _read_jpeg2000(content: bytes, limits: DecodeLimits) -> Raster:
    check_jp2(content, limits)
    with gdal.opened(content, _DRIVERS[Format.JPEG2000]) as dataset:
        _guard(dataset, Format.JPEG2000, limits)
        return _expanded(dataset, _raster(dataset, ("",) * dataset.count), limits)


def _read_png(content: bytes, limits: DecodeLimits) -> Raster:
    header = check_png(content, limits)
    with gdal.opened(content, _DRIVERS[Format.PNG]) as dataset:
        _guard(dataset, Format.PNG, limits)
        raster = _expanded(dataset, _raster(dataset, ("",) * dataset.count), limits)
    if not header.grey or header.depth >= 8:  # noqa: PLR2004 - bits of a byte
        return raster
    factor = 255 // ((1 << header.depth) - 1)
    nodata = None if raster.nodata is None else raster.nodata * factor
    return Raster(raster.pixels * np.uint8(factor), raster.valid, raster.bands, raster.georeference, nodata)  # type: ignore[operator]


_READERS = {
    Format.JPEG2000: _read_jpeg2000,
    Format.PNG: _read_png,
    Format.JPEG: _read_jpeg,
    Format.NPY: decode_npy,
}


def _guard(dataset: Any, known: Format, limits: DecodeLimits) -> None:
    """Judge what the driver says it would read, without reading it."""
    if dataset.driver != _DRIVERS[known]:
        raise CorruptImage(f"The file begins as {known} and is something else further on.")
    if dataset.tags(ns="OVERVIEWS"):
        raise InvalidRequest("The file refers to another file; references to other files are refused.")
    kinds = sorted({str(kind) for kind in dataset.dtypes})
    if len(kinds) > 1 or kinds[0] not in _NUMBERS:
        raise ContractMismatch(
            f"The image's bands are of type {', '.join(kinds)}; all must be of one type of integer or real numbers.",
            field="image.dtype",
            expected=f"one of {', '.join(_NUMBERS)}",
            got=", ".join(kinds),
        )
    itemsize = np.dtype(kinds[0]).itemsize
    limits.check(dataset.width, dataset.height, dataset.count, itemsize)
    image = dataset.width * dataset.height * dataset.count * itemsize
    for rows, columns in set(dataset.block_shapes):
        limits.check_block(rows * columns * itemsize, image)


def _raster(dataset: Any, descriptions: tuple[str, ...], *, alpha_counts: bool = False) -> Raster:
    # Zeroed, so that a pixel the driver leaves out can never show what the memory held before.
    pixels: NDArray[Any] = np.zeros((dataset.count, dataset.height, dataset.width), dataset.dtypes[0])
    dataset.read(out=pixels)
    alpha = None if alpha_counts else alpha_band(dataset.colorinterp, descriptions)
    indexes = [i for i in range(dataset.count) if i != alpha]
    valid = read_validity(dataset, pixels, indexes, alpha)
    chosen = pixels if alpha is None else pixels[indexes]
    return Raster(
        chosen, valid, _names(dataset, descriptions, indexes), _georeference(dataset), dataset.nodata
    )


def _names(dataset: Any, descriptions: tuple[str, ...], indexes: list[int]) -> tuple[str, ...]:
    described = tuple(descriptions[i] for i in indexes)
    colours = [dataset.colorinterp[i] for i in indexes]
    if any(described) or not _COLOURLESS.isdisjoint(colours):
        return described
    return tuple(colour.name for colour in colours)


def _georeference(dataset: Any) -> Georeference | None:
    a, b, c, d, e, f = dataset.transform[:6]
    if not all(map(math.isfinite, (a, b, c, d, e, f))):
        raise CorruptImage("The file is damaged: its transform is not made of finite numbers.")
    crs = dataset.crs.to_wkt(version="WKT2_2019") if dataset.crs else None
    if crs is None and (a, b, c, d, e, f) == _IDENTITY:
        return None
    return Georeference(crs, (a, b, c, d, e, f))


def _expanded(dataset: Any, raster: Raster, limits: DecodeLimits) -> Raster:
    """Replace indexes into a palette by its colours; any other raster stays as it is."""
    if dataset.colorinterp[0] is not ColorInterp.palette:
        return raster
    limits.check(raster.width, raster.height, 4, 1)
    indexed = raster.pixels[0]
    table = np.zeros((int(np.iinfo(dataset.dtypes[0]).max) + 1, 4), np.uint8)
    for index, colour in dataset.colormap(1).items():
        table[index] = colour
    colours = np.moveaxis(table[indexed], -1, 0)
    opaque = colours[3] > 0
    valid = None if opaque.all() else np.broadcast_to(opaque, (3, *indexed.shape))
    return Raster(np.ascontiguousarray(colours[:3]), valid, ("red", "green", "blue"), raster.georeference)
