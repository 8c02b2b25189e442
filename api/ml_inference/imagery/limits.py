"""How large an image may say it is, judged by its header, before memory is taken for its pixels."""

from __future__ import annotations

from dataclasses import dataclass

from ml_inference.errors import ContractMismatch, TooLarge

BLOCK_BYTES = 64 << 20
"""A file's tile or strip may decode to this much, or to as much as the whole image, whichever is more."""


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """Upper bounds of one image.

    Attributes:
        max_pixels: width times height.
        max_bytes: of all bands once decoded.
        max_bands: number of bands, an alpha band included.
    """

    max_pixels: int = 64_000_000
    max_bytes: int = 512 << 20
    max_bands: int = 256

    def check(self, width: int, height: int, bands: int, itemsize: int) -> None:
        """Check a declared size; `itemsize` is bytes per sample.

        Raises:
            ContractMismatch: the image has no pixels or no bands.
            TooLarge: it has more than allowed.
        """
        if width < 1 or height < 1:
            raise ContractMismatch(
                f"The image is {width} x {height} pixels (width x height); it needs at least 1 x 1.",
                field="image.size",
                expected="at least 1 x 1",
                got=f"{width} x {height}",
            )
        if bands < 1:
            raise ContractMismatch(
                "The image has no bands; it needs at least one.",
                field="image.bands",
                expected="at least 1",
                got=bands,
            )
        _at_most(width * height, self.max_pixels, f"The image is {width} x {height} pixels", "pixels")
        _at_most(bands, self.max_bands, f"The image has {bands} bands", "bands")
        size = width * height * bands * itemsize
        _at_most(size, self.max_bytes, f"The image takes {size} bytes once decoded", "bytes")

    def check_block(self, block: int, image: int) -> None:
        """Check the decoded bytes of one tile or strip against those of the whole image.

        Raises:
            TooLarge: the block is far larger than the image needs.
        """
        allowed = max(BLOCK_BYTES, image)
        _at_most(block, allowed, f"A tile or strip of the image takes {block} bytes once decoded", "bytes")


def _at_most(value: int, limit: int, what: str, unit: str) -> None:
    if value > limit:
        raise TooLarge(f"{what}; at most {limit} {unit} are accepted.")
