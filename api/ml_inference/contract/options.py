"""What one request may say of its own, above profile and card."""

from __future__ import annotations

from typing import Literal

from ml_inference.contract.card import Frozen, ScalingStep

OutputKind = Literal["labels", "probabilities", "raw"]


class PredictOptions(Frozen):
    """A request's choices; None leaves a choice to the profile and the card.

    Attributes:
        output: `labels` (classes, boxes, values), `probabilities` (scores per class), `raw` (the model's tensor).
        threshold: for one-channel scores and for detection scores.
        bands: which band of the file is which, in the file's order.
        scaling: only legal where the card leaves scaling open; `()` is the explicit "none".
    """

    output: OutputKind = "labels"
    threshold: float | None = None
    bands: tuple[str, ...] | None = None
    scaling: tuple[ScalingStep, ...] | None = None

    @property
    def named_bands(self) -> int | None:
        """How many bands of the file the request names; None when it leaves that to the file."""
        return None if self.bands is None else len(self.bands)
