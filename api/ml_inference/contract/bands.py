"""Which band of an image a card means: exact name, then common name, then the table of well-known spellings.

The table follows Sentinel-2 and the STAC common names (https://github.com/stac-extensions/eo, "Common Band Names").
A spelling that two sensors use for different bands is read as Sentinel-2's: `B5` is red edge here, although Landsat 8
calls its near infrared so. A Landsat item is safe when its band objects give common names, which win over the table.
Words that fit several bands (`rededge`, `swir`) are no alias of anything.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ml_inference.errors import ContractMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_inference.contract.card import Band

_SPELLINGS: tuple[tuple[str, ...], ...] = (
    ("B01", "B1", "coastal"),
    ("B02", "B2", "blue"),
    ("B03", "B3", "green"),
    ("B04", "B4", "red"),
    ("B05", "B5", "rededge071", "rededge1"),
    ("B06", "B6", "rededge075", "rededge2"),
    ("B07", "B7", "rededge078", "rededge3"),
    ("B08", "B8", "nir"),
    ("B8A", "B08A", "nir08"),
    ("B09", "B9", "nir09"),
    ("B10", "cirrus"),
    ("B11", "swir16", "swir1"),
    ("B12", "swir22", "swir2"),
)
_BAND = {spelling.casefold(): row[0] for row in _SPELLINGS for spelling in row}
# "B02 - blue", "B02: Blue (band 2)": a code, a mark, and words about it.
_DESCRIBED = re.compile(r"(b\d{1,2}a?)\s*[-:,(]\s*(.*)", re.IGNORECASE | re.DOTALL)
_MAX_NAME = 256


def canonical(name: str) -> str | None:
    """Give the Sentinel-2 code (`B04`) of a band's name or description, or None when it is not a well-known one."""
    text = name.strip().casefold()[:_MAX_NAME]
    if text in _BAND:
        return _BAND[text]
    described = _DESCRIBED.fullmatch(text)
    if described is None:
        return None
    code, words = _BAND.get(described[1]), _BAND.get(described[2].strip(" )"))
    # "B5 - nir" is Landsat's: the code and the words disagree, so it is neither.
    return None if words is not None and words != code else code


def find_band(wanted: Band, available: Sequence[str]) -> int | None:
    """Find the one band of an image that a card's band means.

    Tried in order, each over all of the image's names: the exact name, the name regardless of case, the aliases of the
    profile, the STAC common name, the built-in table. The first rule that matches decides.

    Args:
        wanted: a band of the card.
        available: the image's band names in its order; `""` where it gives none.

    Returns:
        The index into `available`, or None when no rule matches.

    Raises:
        ContractMismatch: with field `bands`, when the deciding rule matches several bands: never a guess.
    """
    for rule in _rules(wanted):
        found = [i for i, name in enumerate(available) if name.strip() and rule(name)]
        if len(found) > 1:
            raise ContractMismatch(
                f"band {wanted.name!r} could be any of {[available[i] for i in found][:8]}: "
                "name the image's bands with `bands=`",
                field="bands",
                expected=wanted.name,
                got=list(available)[:64],
            )
        if found:
            return found[0]
    return None


def _rules(wanted: Band) -> tuple[Callable[[str], bool], ...]:
    name = wanted.name.strip().casefold()
    extra = {alias.strip().casefold() for alias in wanted.aliases}
    common = (wanted.common_name or "").strip().casefold()
    # The item's own common name knows its sensor; the table only guesses Sentinel-2.
    code = canonical(common) or canonical(wanted.name)
    return (
        lambda have: have == wanted.name,
        lambda have: have.strip().casefold() == name,
        lambda have: have.strip().casefold() in extra,
        lambda have: bool(common) and have.strip().casefold() == common,
        lambda have: code is not None and canonical(have) == code,
    )
