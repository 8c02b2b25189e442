"""Small predictions of every kind."""

from __future__ import annotations

import numpy as np
from rasterio.crs import CRS

from ml_inference.contract.card import ClassLabel
from ml_inference.contract.predictions import Classification, Detection, Regression, Segmentation, Tensors
from ml_inference.contract.raster import Georeference

WATER = ClassLabel(value=1, name="water", color=(10, 20, 200))
WOOD = ClassLabel(value=4, name="wood")
CLOUD = ClassLabel(value=9, name="cloud", nodata=True)
CLASSES = (WATER, WOOD, CLOUD)


def place(epsg=32630, transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_600_000.0)):
    return Georeference(CRS.from_epsg(epsg).to_wkt(version="WKT2_2019"), transform)


def labelled(height=30, width=40, georeference=None, classes=CLASSES, nodata=255.0):
    """Blocks of the classes; the upper left corner is invalid."""
    values = np.array([each.value for each in classes])
    blocks = np.add.outer(np.arange(height) // 7, np.arange(width) // 9)
    labels = values[blocks % len(classes)][np.newaxis]
    valid = np.ones((height, width), bool)
    if nodata is not None:
        valid[:3, :4] = False
        labels = np.where(valid, labels, int(nodata))
    return Segmentation("labels", classes, labels, valid, nodata, georeference)


def scored(kind="probabilities", height=30, width=40, georeference=None):
    scores = np.random.default_rng(1).dirichlet([1, 1, 1], (height, width)).astype(np.float32)
    values = np.moveaxis(scores, -1, 0).copy()
    valid = np.ones((height, width), bool)
    valid[5, 6:9] = False
    values[:, ~valid] = np.nan
    return Segmentation(kind, CLASSES, values, valid, None, georeference)


def quantities(names=("ndvi",), *, nodata=None, georeference=None, dtype=np.float32):
    height, width = 30, 40
    values = np.random.default_rng(2).normal(0.3, 0.2, (len(names), height, width)).astype(dtype)
    valid = np.ones((height, width), bool)
    valid[0, :5] = False
    values[:, ~valid] = np.nan
    return Regression(names, values, valid, nodata, georeference)


def boxed(georeference=None):
    return Detection(
        classes=(WATER, WOOD),
        boxes=np.array([[2, 3, 12, 8], [20.5, 10.25, 30, 29]], np.float32),
        scores=np.array([0.9, 0.1], np.float32),
        labels=np.array([4, 1], np.int64),
        height=30,
        width=40,
        georeference=georeference,
    )


def decided(kind="labels"):
    scores = np.array([0.1, 0.7, 0.2], np.float32)
    return Classification(kind, CLASSES, scores, None if kind == "raw" else WOOD)


def vector():
    return Regression(("height", "age"), np.array([12.5, np.nan], np.float32), None, None, None)


def tensors(count=1):
    return Tensors({f"out{n}": np.arange(6, dtype=np.float32).reshape(2, 3) for n in range(count)})
