"""Pixels never travel alone: pixels, validity, band names and place on Earth are one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

type Affine = tuple[float, float, float, float, float, float]
"""`(a, b, c, d, e, f)` of `x = a·col + b·row + c`, `y = d·col + e·row + f` (pixel corners)."""


@dataclass(frozen=True, slots=True)
class Georeference:
    """Where a grid of pixels lies on Earth.

    Attributes:
        crs: the coordinate reference system as WKT2, or None when the file names none.
        transform: pixel corner to CRS coordinates, in CRS units.
    """

    crs: str | None
    transform: Affine

    def scaled(self, x_factor: float, y_factor: float) -> Georeference:
        """The same extent on a grid whose pixels are `factor` times as large."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a * x_factor, b * y_factor, c, d * x_factor, e * y_factor, f))

    def shifted(self, columns: float, rows: float) -> Georeference:
        """The grid whose upper left corner is `(columns, rows)` of this one."""
        a, b, c, d, e, f = self.transform
        return Georeference(self.crs, (a, b, a * columns + b * rows + c, d, e, d * columns + e * rows + f))

    def locate(self, column: float, row: float) -> tuple[float, float]:
        """CRS coordinates of a position in pixels (0, 0 is the upper left corner)."""
        a, b, c, d, e, f = self.transform
        return a * column + b * row + c, d * column + e * row + f


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """A decoded image.

    Attributes:
        pixels: shape `(bands, height, width)`, integer or float, in the file's own units.
        valid: bool, shape `(bands, height, width)`; False where the file says nodata or is masked.
            None means every pixel is valid.
        bands: one name per band as the file gives it (`""` where it gives none).
        georeference: None for a plain picture.
        nodata: the file's nodata value, None when it has none.
    """

    pixels: NDArray[np.generic]
    valid: NDArray[np.bool_] | None = None
    bands: tuple[str, ...] = ()
    georeference: Georeference | None = None
    nodata: float | None = None

    @property
    def count(self) -> int:
        """Number of bands."""
        return int(self.pixels.shape[0])

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[1])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[2])

    @property
    def named(self) -> bool:
        """Whether any band carries a name, so that bands are never guessed by position."""
        return any(self.bands)
