"""Colours: a class's own, else one that colour-blind readers tell apart; and a ramp for quantities."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ml_inference.contract.card import ClassLabel

type Rgb = tuple[int, int, int]

_OKABE_ITO: tuple[Rgb, ...] = (
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (0, 0, 0),
)
"""Okabe & Ito, Color Universal Design (2008), as in Wong, Nature Methods 8:441 (2011); black last, it reads as nodata."""

_GOLDEN_ANGLE = 0.381966  # of a full turn: consecutive hues stay apart however many there are

_VIRIDIS = np.array(
    [
        (68, 1, 84), (72, 40, 120), (62, 73, 137), (49, 104, 142), (38, 130, 142),
        (31, 158, 137), (53, 183, 121), (110, 206, 88), (181, 222, 43), (253, 231, 37),
    ],
    np.float64,
)  # fmt: skip
"""Ten even steps of viridis (van der Walt & Smith 2015, CC0): dark is low, bright is high, also in print."""


def class_colours(classes: Sequence[ClassLabel]) -> dict[int, Rgb]:
    """Return a colour for each class value: the class's own, else the first default that nobody has taken."""
    taken = {each.color for each in classes if each.color}
    free = (colour for n in range(2 * len(classes) + len(_OKABE_ITO)) if (colour := _default(n)) not in taken)
    return {each.value: each.color or next(free) for each in classes}


def _default(number: int) -> Rgb:
    if number < len(_OKABE_ITO):
        return _OKABE_ITO[number]
    red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN_ANGLE % 1, 0.65, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def ramp(values: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Colour quantities between their 2nd and 98th percentile; outliers take the end colours.

    Args:
        values: `(height, width)`.
        valid: `(height, width)`; where False the colour means nothing.

    Returns:
        uint8 `(height, width, 3)`.
    """
    shown = values[valid]
    low, high = np.percentile(shown, (2, 98)) if shown.size else (0.0, 1.0)
    spread = high - low
    place = (np.where(valid, values, low) - low) / spread if spread > 0 else np.full(values.shape, 0.5)
    position = np.clip(place, 0, 1) * (len(_VIRIDIS) - 1)
    steps = np.arange(len(_VIRIDIS))
    channels = [np.interp(position, steps, _VIRIDIS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
