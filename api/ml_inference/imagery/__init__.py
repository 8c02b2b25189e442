"""Bytes ↔ rasters: GeoTIFF, JPEG 2000, PNG, JPEG and `.npy` in; GeoTIFF, PNG, GeoJSON, `.npy` and JSON out."""

from ml_inference.imagery.decoding import decode
from ml_inference.imagery.encoding import GEOJSON, GEOTIFF, JSON, NPY, PNG, encode, offered
from ml_inference.imagery.limits import DecodeLimits
from ml_inference.imagery.plain import to_plain

__all__ = [
    "GEOJSON",
    "GEOTIFF",
    "JSON",
    "NPY",
    "PNG",
    "DecodeLimits",
    "decode",
    "encode",
    "offered",
    "to_plain",
]
