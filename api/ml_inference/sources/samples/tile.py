"""The sample tile: a real Sentinel-2 chip, the one that the `spyndex` package (MIT) carries.

300 x 300 pixels of 10 m, bands B02 B03 B04 B08, surface reflectance times 10000, no pixel without signal. The package
does not say where on Earth it lies or when it was taken, so the tile has no coordinates either.
Contains modified Copernicus Sentinel data.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson

from ml_inference.errors import SourceFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

TILE_BANDS = ("B02", "B03", "B04", "B08")


def sample_tile() -> tuple[NDArray[np.uint16], tuple[str, ...]]:
    """Pixels, uint16 `(4, 300, 300)`, and the band names.

    Raises:
        SourceFailed: the `spyndex` package is missing or carries another chip.
    """
    # Found, not imported: only the file is wanted, not a library that builds its catalogue of indices.
    spec = find_spec("spyndex")
    if spec is None or spec.origin is None:
        raise SourceFailed("The sample tile comes with the package spyndex, which is not installed")
    try:
        values = orjson.loads((Path(spec.origin).parent / "data" / "S2_10m.json").read_bytes())
        pixels = np.asarray(values, np.uint16)
    except (OSError, ValueError, OverflowError) as error:
        raise SourceFailed("The sample tile in the installed package spyndex cannot be read") from error
    if pixels.shape != (len(TILE_BANDS), 300, 300):
        raise SourceFailed(f"The sample tile in the installed package spyndex has shape {pixels.shape}")
    return pixels, TILE_BANDS
