"""The bands of an input, joined to what the item says about bands of that name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ml_inference.contract.bands import canonical
from ml_inference.contract.card import Band, Expression
from ml_inference.contract.mlm.processing import LETTERED, format_of, read_expression
from ml_inference.contract.mlm.values import show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml_inference.contract.mlm.values import Cursor

MAX_BANDS = 1024
MAX_NAME = 256


def definitions(item: Cursor, model_asset: Cursor | None) -> tuple[dict[str, Any], ...]:
    """Collect the item's band objects, the model asset's first: `bands` (STAC 1.1), `eo:bands`, `raster:bands`.

    Returns:
        Objects with a name; several may share one, each knowing something else about it.
    """
    assets = item.get("assets")
    members = (
        [assets.at(key, value) for key, value in assets.value.items()]
        if assets and isinstance(assets.value, dict)
        else []
    )
    holders = [model_asset, item.get("properties"), *members]
    found: list[dict[str, Any]] = []
    for holder in holders:
        for key in ("bands", "eo:bands", "raster:bands"):
            listed = holder.get(key) if holder is not None else None
            if listed is not None and isinstance(listed.value, list):
                found += [b for b in listed.value if isinstance(b, dict) and isinstance(b.get("name"), str)]
    return tuple(found[: 4 * MAX_BANDS])


def read_bands(
    cursor: Cursor | None, known: Sequence[dict[str, Any]], aliases: Mapping[str, tuple[str, ...]]
) -> tuple[Band, ...]:
    """Read an input's `bands`: names or objects, in channel order.

    Args:
        cursor: the list; None or empty means positional channels.
        known: what `definitions` found.
        aliases: the profile's further names, by band.
    """
    if cursor is None or cursor.value == []:
        return ()
    if not isinstance(cursor.value, list):
        cursor.refuse(f"bands is {show(cursor.value)}, expected a list of names or band objects")
        return ()
    if len(cursor.value) > MAX_BANDS:
        cursor.refuse(f"{len(cursor.value)} bands, {MAX_BANDS} at most")
        return ()
    entries = [(entry, _name(entry)) for entry in cursor.items()]
    plain = [name for entry, name in entries if name and not _derived(entry)]
    bands = tuple(_band(entry, name, plain, aliases) for entry, name in entries if name)
    _remark_repeats(cursor, bands)
    return _joined(bands, known, cursor)


def _name(entry: Cursor) -> str:
    name = entry.value if isinstance(entry.value, str) else entry.text("name")
    if not name.strip() or len(name) > MAX_NAME:
        entry.refuse(f"band {show(entry.value)} has no name of 1 to {MAX_NAME} characters")
        return ""
    return name.strip()


def _derived(entry: Cursor) -> bool:
    return entry.first("expression", "format") is not None


def _band(entry: Cursor, name: str, plain: Sequence[str], aliases: Mapping[str, tuple[str, ...]]) -> Band:
    also = aliases.get(name, ())
    if not _derived(entry):
        return Band(name=name, aliases=also)
    # Letters stand for the listed bands; names may be any band that the image will have.
    found = read_expression(entry, plain if format_of(entry) == LETTERED else None)
    if isinstance(found, Expression):
        return Band(name=name, aliases=also, expression=found)
    entry.refuse(f"band {name!r} cannot be derived: {found}")
    return Band(name=name)


def _remark_repeats(cursor: Cursor, bands: Sequence[Band]) -> None:
    names = [band.name for band in bands]
    repeated = (
        sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    )
    if repeated:
        cursor.warn(
            f"bands {repeated[:8]} are listed more than once: an image that names its bands in exactly this order "
            "(of several dates, for instance) fills them one by one, any other fills each with the same band"
        )


def _joined(bands: Sequence[Band], known: Sequence[dict[str, Any]], cursor: Cursor) -> tuple[Band, ...]:
    index, shared = _index(known), _shared(known)
    facts = {band.name: _facts(band.name, index) for band in bands if band.expression is None}
    for common in sorted({c for c, _ in facts.values() if c in shared}):
        cursor.info(f"common name {show(common)} fits several bands of the item, so it tells none of them")
    return tuple(
        band.model_copy(update={"common_name": None if common in shared else common, "nodata": nodata})
        for band in bands
        for common, nodata in [facts.get(band.name, (None, None))]
    )


def _shared(known: Sequence[dict[str, Any]]) -> frozenset[str]:
    """Common names that the item gives to more than one band (`rededge` of Sentinel-2's three)."""
    owners: dict[str, set[str]] = {}
    for definition in known:
        common = _common_name(definition)
        if common:
            owners.setdefault(common, set()).add(canonical(definition["name"]) or definition["name"])
    return frozenset(common for common, names in owners.items() if len(names) > 1)


def _common_name(definition: dict[str, Any]) -> str | None:
    common = definition.get("common_name") or definition.get("eo:common_name")
    return common if isinstance(common, str) and len(common) <= MAX_NAME else None


def _index(known: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Band objects by name, and by well-known code where only one name has it."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for definition in known:
        by_name.setdefault(definition["name"], []).append(definition)
    by_code: dict[str | None, list[str]] = {}
    for name in by_name:
        by_code.setdefault(canonical(name), []).append(name)
    unique = {
        code: by_name[names[0]] for code, names in by_code.items() if code is not None and len(names) == 1
    }
    return unique | by_name


def _facts(name: str, index: Mapping[str, list[dict[str, Any]]]) -> tuple[str | None, float | None]:
    matches = index.get(name) or index.get(canonical(name) or name, [])
    common = next((c for d in matches if (c := _common_name(d))), None)
    nodata = next((float(n) for d in matches for n in [d.get("nodata")] if isinstance(n, int | float)), None)
    return (common, nodata if nodata is not None and math.isfinite(nodata) else None)
