"""Three models of two spectral indices: every number follows from the formulas below, in numpy to the last bit.

::

    b02, b03, b04, b08 = numbers.astype(np.float32) / np.float32(10000)

    def index(a, b):                 # 0 where the sum is 0
        return np.where(a + b == 0, 0, (a - b) / np.where(a + b == 0, 1, a + b))

    ndvi = index(b08, b04)           # Rouse et al. 1974 (NASA SP-351); Tucker 1979, doi:10.1016/0034-4257(79)90013-0
    ndwi = index(b03, b08)           # McFeeters 1996, doi:10.1080/01431169608948714

    label = np.select([ndwi > 0, ndvi < 0.2, ndvi < 0.5, ndvi < 0.6], [0, 1, 2, 3], 4)
    # 0 water, 1 bare or built-up, 2 sparse, 3 moderate, 4 dense vegetation

Open water has a positive NDWI (McFeeters). 0.2 to 0.5 is the range that the USGS names for sparse vegetation
(shrubs, grassland, senescing crops) and 0.6 to 0.9 the one for dense vegetation ("NDVI, the Foundation for Remote
Sensing Phenology"); what lies between the two is called moderate here. Sobrino and Raissouni 2000
(doi:10.1080/014311600210876) take the same 0.2 and 0.5 for the ends of bare soil and of mixed pixels.
They are thresholds for a demonstration that can be checked by hand, not a land cover map.

All of it is float32. A pixel whose exact NDVI is a threshold (B04 : B08 of 2 : 3, 1 : 3, 1 : 4) falls to the side that
float32 rounds it to; in float64, or on the integers, some of these few fall to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ml_inference.sources.samples.graph import DOUBLE, FLOAT, INT64, Graph

if TYPE_CHECKING:
    from ml_inference.sources.samples.graph import Tensor

BANDS = ("B02", "B03", "B04", "B08")
NDVI_BANDS = ("B04", "B08")
CLASSES = ("water", "bare-or-built-up", "sparse-vegetation", "moderate-vegetation", "dense-vegetation")
NDVI_THRESHOLDS = (0.2, 0.5, 0.6)
NDWI_THRESHOLD = 0.0


def ndvi() -> bytes:
    """`reflectance` float32 `[batch, 2, height, width]` (B04, B08) → `ndvi` float32 `[batch, 1, height, width]`."""
    graph = Graph("ndvi", "NDVI = (B08 - B04) / (B08 + B04), 0 where the sum is 0")
    band = graph.bands(graph.input("reflectance", ["batch", 2, "height", "width"]), NDVI_BANDS)
    graph.output("ndvi", _index(graph, band["B08"], band["B04"]), ["batch", 1, "height", "width"])
    return graph.serialize()


def spectral_landcover() -> bytes:
    """`reflectance` float32 `[batch, 4, height, width]` → `scores` float32 `[batch, 5, height, width]`: 1 for the class, else 0."""
    graph = Graph("spectral-landcover", "Five classes from NDVI and NDWI, one-hot")
    reflectance = graph.input("reflectance", ["batch", len(BANDS), "height", "width"])
    graph.output("scores", _membership(graph, reflectance), ["batch", len(CLASSES), "height", "width"])
    return graph.serialize()


def landcover_share() -> bytes:
    """`reflectance` float32 `[batch, 4, height, width]` → `shares` float32 `[batch, 5]`.

    Pixels of class c with signal / pixels with signal, counted exactly; a pixel has signal where any band is
    above 0, so that nodata (fed to the model as 0) counts for nothing. All zeros where no pixel has signal.
    """
    graph = Graph("landcover-share", "Share of each class of spectral-landcover among the pixels with signal")
    reflectance = graph.input("reflectance", ["batch", len(BANDS), "height", "width"])
    signal = graph.op("ReduceMax", reflectance, axes=[1], keepdims=1) > 0.0
    counts = _count(graph, graph.where(signal, _membership(graph, reflectance), 0.0))
    total = graph.op("ReduceSum", counts, graph.int64(1), keepdims=1)
    share = counts / graph.op("Max", total, graph.constant(1.0, np.float64))
    graph.output("shares", share.cast(FLOAT), ["batch", len(CLASSES)])
    return graph.serialize()


def _index(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    total = a + b
    empty = total.equals(0.0)
    return graph.where(empty, 0.0, (a - b) / graph.where(empty, 1.0, total))


def _membership(graph: Graph, reflectance: Tensor) -> Tensor:
    """float32 `[batch, 5, height, width]`, one-hot."""
    band = graph.bands(reflectance, BANDS)
    greenness = _index(graph, band["B08"], band["B04"])
    land = graph.int64(1)
    for threshold in NDVI_THRESHOLDS:
        land = land + (greenness >= threshold).cast(INT64)
    water = _index(graph, band["B03"], band["B08"]) > NDWI_THRESHOLD
    label = graph.where(water, graph.int64(0), land)
    numbers = graph.constant(np.arange(len(CLASSES)).reshape(1, -1, 1, 1), np.int64)
    return label.equals(numbers).cast(FLOAT)


def _count(graph: Graph, ones: Tensor) -> Tensor:
    """Sum over height and width as float64 `[batch, classes]`.

    Rows first: float32 counts exactly up to 2^24, more than any row has, and float64 carries the rest.
    """
    rows = graph.op("ReduceSum", ones, graph.int64(3), keepdims=0).cast(DOUBLE)
    return graph.op("ReduceSum", rows, graph.int64(2), keepdims=0)
