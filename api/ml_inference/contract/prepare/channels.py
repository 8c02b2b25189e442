"""Which pixels of an image become which channel of an input: by name, and never by a guess."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ml_inference.contract.bands import find_band
from ml_inference.contract.card import ANY, Axis, Band
from ml_inference.contract.expression import LETTERS, compile_expression
from ml_inference.contract.formulas import GDAL_CALC, evaluate
from ml_inference.errors import ContractMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_inference.contract.card import InputSpec
    from ml_inference.contract.options import PredictOptions
    from ml_inference.contract.raster import Raster
    from ml_inference.contract.resample import Mask, Planes

POSITIONAL = "bands taken by position: the image names none"
REPEATED = "several channels hold the same band of the image, since the card asks for it more than once"
ALPHA = " A band that the file declares as alpha says which pixels are valid, and is not counted."
UNUSED = "`bands` changes nothing: the card names no bands"
SHOWN = 64
"""Names in an error at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """An input's channels before anything is done to their values.

    Attributes:
        values: shape `(channels, height, width)`, in the image's dtype, or float32 when a channel is derived. May be a
            view of the image: never to be written to. Finite where valid.
        valid: None when every pixel is valid.
        names: of the channels.
        integers: whether a channel holds the image's own integers, in units that only a declared scaling can tell.
        derived: whether a channel is computed from others.
        applied, warnings: what was done, in words.
    """

    values: Planes
    valid: Mask | None
    names: tuple[str, ...]
    integers: bool
    derived: bool = False
    applied: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


type Sources = tuple[int, ...]
"""Indices into the image's bands."""


def select_channels(raster: Raster, spec: InputSpec, options: PredictOptions) -> Channels:
    """Pick and derive the channels of one input.

    Args:
        raster: any number of bands, integer, float or bool.
        spec: an input whose bands may be named, derived, repeated, or absent (the image's bands as they come).
        options: `bands` overrides what the image says of its bands.

    Raises:
        ContractMismatch: field `bands` (missing, ambiguous, too many, too few), `pixels` (infinite), `image.dtype`.
    """
    names = image_bands(raster, options)
    if any(band.expression for band in spec.bands):
        return _derive(raster, spec, names)
    sources, warnings = _choose(raster, spec, names)
    if options.bands is not None and not spec.bands:
        warnings = (UNUSED,)
    labels = tuple(band.name for band in spec.bands) or _labels(names, raster.count)
    values = _take(_real(raster.pixels), sources)
    valid = _valid_pixels(raster, values, sources)
    applied = ("bands " + ",".join(labels),) if spec.bands else ()
    return Channels(values, valid, labels, values.dtype.kind != "f", applied=applied, warnings=warnings)


def image_bands(raster: Raster, options: PredictOptions) -> tuple[str, ...]:
    """Give the names of an image's bands by the request, else by the file; `()` when neither names any.

    Raises:
        ContractMismatch: the request names another number of bands than the file has.
    """
    if options.bands is None:
        return raster.bands if raster.named else ()
    if len(options.bands) != raster.count:
        perhaps_alpha = len(options.bands) == raster.count + 1
        raise ContractMismatch(
            f"`bands` names {len(options.bands)} bands and the image has {raster.count}: "
            "name every band of the file, in the file's order." + (ALPHA if perhaps_alpha else ""),
            field="bands",
            expected=f"{raster.count} names",
            got=list(options.bands[:SHOWN]),
        )
    return options.bands


def _labels(names: tuple[str, ...], count: int) -> tuple[str, ...]:
    return tuple((names[i] if names else "") or f"band {i + 1}" for i in range(count))


def _choose(raster: Raster, spec: InputSpec, names: tuple[str, ...]) -> tuple[Sources, tuple[str, ...]]:
    """Give the source of each channel of an input without derived bands, and what to warn of."""
    everything = tuple(range(raster.count))
    if not spec.bands:
        wanted = spec.size(Axis.CHANNEL)
        if not spec.processing and wanted not in (ANY, raster.count):
            raise _wrong_count(raster, spec, _bands(wanted))
        return everything, ()
    if names:
        sources = _locate(spec.bands, names)
        return sources, (REPEATED,) if len(set(sources)) < len(sources) else ()
    if raster.count != len(spec.bands):
        raise _wrong_count(raster, spec, [band.name for band in spec.bands])
    return everything, (POSITIONAL,)


def _bands(count: int) -> str:
    return "1 band" if count == 1 else f"{count} bands"


def _wrong_count(raster: Raster, spec: InputSpec, expected: str | list[str]) -> ContractMismatch:
    if isinstance(expected, list):
        wanted, names = f"{len(expected)} bands ({', '.join(expected)})", ", and none is named"
        advice = "Send just these bands, or say which band of the file is which with `bands=`."
    else:
        wanted, names, advice = expected, "", "Send just as many bands, in the model's order."
    return ContractMismatch(
        f"Input {spec.name!r} takes {wanted}; the image has {raster.count}{names}. {advice}",
        field="bands",
        expected=expected,
        got=_bands(raster.count),
    )


@lru_cache(maxsize=256)
def _locate(bands: tuple[Band, ...], names: tuple[str, ...]) -> Sources:
    """Find every band by name; the same names in the same order are the same bands, even when some are repeated.

    Raises:
        ContractMismatch: lists all that are missing, or names the one that could be several.
    """
    if names == tuple(band.name for band in bands):
        return tuple(range(len(names)))
    found = [find_band(band, names) for band in bands]
    missing = [band.name for band, index in zip(bands, found, strict=True) if index is None]
    if missing:
        raise _missing(missing, [band.name for band in bands], names)
    return tuple(index for index in found if index is not None)


def _missing(missing: list[str], wanted: list[str], names: Sequence[str]) -> ContractMismatch:
    have = list(names[:SHOWN])
    return ContractMismatch(
        f"The image has no band {', '.join(dict.fromkeys(missing))}; it has {', '.join(n or '(unnamed)' for n in have)}. "
        "If the bands are there under other names, name them in the file's order with `bands=`.",
        field="bands",
        expected=wanted,
        got=have,
    )


def _derive(raster: Raster, spec: InputSpec, names: tuple[str, ...]) -> Channels:
    """Compute the channels of an input of which some are expressions over bands of the image."""
    formulas = [_needed(band, spec) for band in spec.bands]
    needed = tuple(dict.fromkeys(band for formula in formulas for band in formula.values()))
    if not names:
        raise ContractMismatch(
            f"Input {spec.name!r} has bands derived from others by name, and the image names none: "
            "say which band of the file is which with `bands=`.",
            field="bands",
            expected=[band.name for band in needed],
            got="no names",
        )
    sources = dict(zip(needed, _locate(needed, names), strict=True))
    used = tuple(sources.values())
    pixels = _real(raster.pixels)
    valid = _valid_pixels(raster, _take(pixels, used), used)
    values = np.empty((len(spec.bands), raster.height, raster.width), dtype=np.float32)
    for plane, band, formula in zip(values, spec.bands, formulas, strict=True):
        arrays = {name: pixels[sources[source]] for name, source in formula.items()}
        plane[:] = evaluate(band.expression, arrays) if band.expression else arrays[band.name]
    finite = np.isfinite(values).all(axis=0)
    if not finite.all():
        valid = finite if valid is None else valid & finite
    integers = pixels.dtype.kind != "f" and not all(band.expression for band in spec.bands)
    labels = tuple(band.name for band in spec.bands)
    applied = ("bands " + ",".join(labels), *(_formula_words(band) for band in spec.bands if band.expression))
    return Channels(values, valid, labels, integers, derived=True, applied=applied)


def _formula_words(band: Band) -> str:
    return f"{band.name} = {band.expression.expression if band.expression else band.name}"


def _needed(band: Band, spec: InputSpec) -> dict[str, Band]:
    """Give the image's bands that a channel is made of, by the names its expression calls them."""
    if band.expression is None:
        return {band.name: band}
    plain = [other for other in spec.bands if other.expression is None]
    known = {other.name: other for other in plain}
    if band.expression.format == GDAL_CALC:
        known |= zip(LETTERS, plain, strict=False)  # also where a band is itself called by a letter
    return {name: known.get(name, Band(name=name)) for name in compile_expression(band.expression).names}


def _real(pixels: Planes) -> Planes:
    """Give pixels as numbers to compute with."""
    if pixels.dtype.kind == "b":
        return pixels.view(np.uint8)
    if pixels.dtype.kind not in "iuf":
        raise ContractMismatch(
            f"Pixels of type {pixels.dtype.name} are not real numbers.",
            field="image.dtype",
            expected="integers or floats",
            got=pixels.dtype.name,
        )
    return pixels


def _take(pixels: Planes, sources: Sources) -> Planes:
    """Give bands of an image, as a view where their order allows one."""
    if sources == tuple(range(len(pixels))):
        return pixels
    step = sources[1] - sources[0] if len(sources) > 1 else 1
    if step and all(b - a == step for a, b in pairwise(sources)):
        stop = sources[-1] + step
        return pixels[sources[0] : stop if stop >= 0 else None : step]
    return pixels[list(sources)]


def _valid_pixels(raster: Raster, values: Planes, sources: Sources) -> Mask | None:
    """Give where every band in use has data; NaN is none.

    Raises:
        ContractMismatch: a pixel is infinite.
    """
    valid: Mask | None = None
    if raster.valid is not None:
        valid = _take(raster.valid, sources).all(axis=0)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        numbers = ~np.isnan(values).any(axis=0)
        valid = numbers if valid is None else valid & numbers
        _refuse_infinite(np.isinf(values).any(axis=0) & valid)
    return None if valid is None or valid.all() else valid


def _refuse_infinite(infinite: Mask) -> None:
    if not infinite.any():
        return
    row, column = (int(i) for i in np.argwhere(infinite)[0])
    raise ContractMismatch(
        f"{int(infinite.sum())} pixels are infinite, the first at row {row}, column {column}. "
        "Mark them as nodata (NaN, or the file's nodata value).",
        field="pixels",
        expected="finite values",
        got=f"{int(infinite.sum())} infinite pixels",
    )
