"""From a model's raw values to scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ml_inference.contract.card import Activation


def activate(raw: NDArray[Any], activation: Activation | None) -> NDArray[np.float32]:
    """Turn raw values into scores, in float32 and without overflow.

    Args:
        raw: classes along the first axis.
        activation: None and `none` leave the values as they are.
    """
    with np.errstate(all="ignore"):  # what is not finite, here or already in `raw`, is the reader's to find
        values = raw.astype(np.float32, copy=False)
        if activation == "softmax":
            return softmax(values)
        if activation == "sigmoid":
            return sigmoid(values)
    return values


def softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give `exp(x) / Σ exp(x)` along the first axis, shifted by the maximum so that nothing overflows."""
    powers = values - values.max(axis=0, keepdims=True)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=0, keepdims=True)
    return powers


def sigmoid(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give `1 / (1 + exp(-x))`, with the exponent kept below zero so that nothing overflows."""
    power = np.exp(-np.abs(values))
    scores: NDArray[np.float32] = np.where(values >= 0, np.float32(1), power) / (1 + power)
    return scores
