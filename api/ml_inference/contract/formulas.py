"""Where the expressions of a card meet arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.expression import LETTERS, compile_expression
from ml_inference.errors import CardInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ml_inference.contract.card import Expression
    from ml_inference.contract.resample import Planes

GDAL_CALC = "gdal-calc"


def evaluate(expression: Expression, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Compute an expression on named arrays of one shape.

    Returns:
        float32 of that shape, NaN where the result is not finite.

    Raises:
        CardInvalid: it names something that is not there, which the loading of the card should have refused.
    """
    try:
        return compile_expression(expression).evaluate(arrays)
    except ValueError as error:
        raise CardInvalid(f"The card's expression cannot be computed: {error}.") from error


def process(expression: Expression, values: Planes, names: Sequence[str]) -> Planes:
    """Apply a pre- or post-processing expression to a whole tensor.

    `gdal-calc` on `A` alone is arithmetic on every channel. Otherwise its letters are the channels in order, as the names
    are in `rio-calc`, and the result has one channel.

    Args:
        expression: as the card has it.
        values: shape `(channels, …)`.
        names: of the channels; of equal ones the first is meant.
    """
    lettered = expression.format == GDAL_CALC
    if lettered and compile_expression(expression).names == (LETTERS[0],):
        return evaluate(expression, {LETTERS[0]: values})
    named = dict(zip(reversed(names), reversed(values), strict=False))
    if lettered:
        named |= dict(zip(LETTERS, values, strict=False))
    return evaluate(expression, named)[np.newaxis]
