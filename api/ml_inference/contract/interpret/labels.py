"""Which class a number of the model stands for, and which number of a raster a class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ml_inference.contract.card import ClassLabel

if TYPE_CHECKING:
    from collections.abc import Iterable

DTYPES: tuple[type[np.integer[Any]], ...] = (np.uint8, np.uint16, np.int16, np.int32, np.int64)
"""Of label rasters, the smallest that fits."""


def unnamed_class(value: int) -> ClassLabel:
    """Stand in for a class that the card does not list."""
    return ClassLabel(value=value, name=f"class_{value}")


def class_of_value(value: int, classes: tuple[ClassLabel, ...]) -> ClassLabel:
    """Find a class by its value."""
    return next((label for label in classes if label.value == value), unnamed_class(value))


def classes_of_channels(classes: tuple[ClassLabel, ...], channels: int) -> tuple[ClassLabel, ...]:
    """Give the class of each score of the model.

    Score `k` belongs to the class of value `k`. Only when there are just as many classes as scores and their values are
    not 0 … channels - 1 in any order, the listed order counts. Classes that mark nodata are left out where that makes the
    numbers agree; scores without a class are named `class_k`.
    """
    if len(classes) != channels:
        real = tuple(label for label in classes if not label.nodata)
        classes = real if len(real) == channels else classes
    if len(classes) == channels and {label.value for label in classes} != set(range(channels)):
        return classes
    by_value = {label.value: label for label in classes}
    return tuple(by_value.get(k) or unnamed_class(k) for k in range(channels))


def binary_classes(classes: tuple[ClassLabel, ...]) -> tuple[ClassLabel, ClassLabel]:
    """Give the classes below and from the threshold of a single score: the one of the larger value is above.

    A lone class is the one above too.
    """
    real = tuple(label for label in classes if not label.nodata)
    if len(real) == 1:
        other = 0 if real[0].value else 1
        return class_of_value(other, classes), real[0]
    below, above = sorted(classes_of_channels(real, 2), key=lambda label: label.value)
    return below, above


def label_format(classes: Iterable[ClassLabel]) -> tuple[np.dtype[np.integer[Any]], int]:
    """Choose the dtype and the nodata value of a label raster, by its classes alone so that every tile gets the same.

    The value of a class that marks nodata is taken; else one that no class has: the largest of an unsigned type, the
    smallest of a signed one.
    """
    given = tuple(classes)
    used = {label.value for label in given}
    flagged = [label.value for label in given if label.nodata]
    low, high = min(used, default=0), max(used, default=0)
    for dtype in DTYPES:
        info = np.iinfo(dtype)
        if not (info.min <= low and high <= info.max):
            continue
        candidates = range(info.min, info.max + 1) if info.min else range(info.max, -1, -1)
        nodata = flagged[0] if flagged else next((v for v in candidates if v not in used), None)
        if nodata is not None:
            return np.dtype(dtype), nodata
    return np.dtype(np.int64), np.iinfo(np.int64).min


def open_label_format(dtype: np.dtype[np.generic]) -> tuple[np.dtype[np.integer[Any]], int]:
    """Choose dtype and nodata for labels that come from the model without any class: every value of its own must fit."""
    if dtype.kind == "b":
        return np.dtype(np.uint8), 255
    wider = np.int16 if dtype.itemsize == 1 else np.int32
    return np.dtype(wider), int(np.iinfo(wider).min)
