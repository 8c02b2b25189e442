"""The sample models' STAC items (STAC 1.1, MLM 1.5.1), built to be valid by those specifications."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_inference.sources.samples import cfar, spectral

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL_FILE = "model.onnx"

_EXTENSIONS = [
    "https://stac-extensions.github.io/mlm/v1.5.1/schema.json",
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/classification/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]
_SENTINEL_2 = {  # name: (common name, centre wavelength of Sentinel-2A in micrometres)
    "B02": ("blue", 0.4924),
    "B03": ("green", 0.5598),
    "B04": ("red", 0.6646),
    "B08": ("nir", 0.8328),
}
_LANDCOVER = (  # description, colour; in the order of spectral.CLASSES
    ("Open water: NDWI above 0", "2B6CB0"),
    ("Bare soil, rock or built-up: NDVI below 0.2", "C9A66B"),
    ("Sparse vegetation: NDVI from 0.2", "E3D96B"),
    ("Moderate vegetation: NDVI from 0.5", "7CB342"),
    ("Dense vegetation: NDVI from 0.6", "1B5E20"),
)
_TUCKER = "https://doi.org/10.1016/0034-4257(79)90013-0"
_MCFEETERS = "https://doi.org/10.1080/01431169608948714"
_SOBRINO = "https://doi.org/10.1080/014311600210876"


@dataclass(frozen=True, slots=True)
class Sample:
    """What makes one sample model.

    Attributes:
        graph: the model as ONNX bytes.
        profile: TOML for what the MLM specification cannot say.
        cites: addresses of the publications behind the formula.
    """

    description: str
    architecture: str
    task: str
    bands: tuple[str, ...]
    outputs: tuple[dict[str, Any], ...]
    graph: Callable[[], bytes]
    profile: str
    cites: tuple[str, ...] = ()


def stac_item(name: str, sample: Sample, model: bytes) -> dict[str, Any]:
    """The item of a sample whose ONNX file has these bytes; its asset points beside itself."""
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": name,
        "geometry": None,
        "properties": _properties(name, sample),
        "links": [{"rel": "cite-as", "href": address} for address in sample.cites],
        "assets": {
            "model": {
                "href": f"./{MODEL_FILE}",
                "type": "application/octet-stream",
                "title": "ONNX graph",
                "roles": ["mlm:model"],
                "mlm:artifact_type": "onnx",
                "file:size": len(model),
                "file:checksum": "1220" + hashlib.sha256(model).hexdigest(),
                "bands": _bands(sample),
            }
        },
    }


def _properties(name: str, sample: Sample) -> dict[str, Any]:
    return {
        "title": name,
        "description": sample.description,
        "license": "Apache-2.0",
        # Bound to no time: the interval that the MLM specification's own examples give such models.
        "datetime": None,
        "start_datetime": "1900-01-01T00:00:00Z",
        "end_datetime": "9999-12-31T23:59:59Z",
        "bands": _bands(sample),
        "mlm:name": name,
        "mlm:architecture": sample.architecture,
        "mlm:tasks": [sample.task],
        "mlm:framework": "ONNX",
        "mlm:total_parameters": 0,
        "mlm:pretrained": False,
        "mlm:pretrained_source": None,
        "mlm:batch_size_suggestion": 32,
        "mlm:input": [_input(sample.bands)],
        "mlm:output": list(sample.outputs),
    }


def _bands(sample: Sample) -> list[dict[str, Any]]:
    """Stated twice: MLM looks for STAC 1.1 bands in the properties, and STAC allows them there only beside an asset's."""
    return [_band(name) for name in sample.bands]


def _band(name: str) -> dict[str, Any]:
    common_name, wavelength = _SENTINEL_2[name]
    return {
        "name": name,
        "data_type": "uint16",
        "nodata": 0,
        "gsd": 10,
        "eo:common_name": common_name,
        "eo:center_wavelength": wavelength,
    }


def _input(bands: tuple[str, ...]) -> dict[str, Any]:
    return {
        "name": "reflectance",
        "description": "Sentinel-2 surface reflectance, quantified as integers by 10000; of any size",
        "bands": list(bands),
        "input": {
            "shape": [-1, len(bands), -1, -1],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [{"type": "scale", "value": 10000}],
    }


def _output(
    name: str,
    task: str,
    dimensions: dict[str, int],
    description: str,
    *,
    data_type: str = "float32",
    bands: list[str] | None = None,
    classes: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    output = {
        "name": name,
        "tasks": [task],
        "description": description,
        "result": {"shape": [*dimensions.values()], "dim_order": [*dimensions], "data_type": data_type},
        "bands": bands,
        "classification:classes": classes,
    }
    return {key: value for key, value in output.items() if value is not None}


def _landcover_classes() -> list[dict[str, Any]]:
    rows = zip(spectral.CLASSES, _LANDCOVER, strict=True)
    return [
        {"value": value, "name": name, "description": description, "color_hint": color}
        for value, (name, (description, color)) in enumerate(rows)
    ]


_SCORES = _output(
    "scores",
    "semantic-segmentation",
    {"batch": -1, "class": len(spectral.CLASSES), "height": -1, "width": -1},
    "1 for the pixel's class, 0 for the others",
    classes=_landcover_classes(),
)
_SHARES = _output(
    "shares",
    "classification",
    {"batch": -1, "class": len(spectral.CLASSES)},
    "Share of each class among the pixels with signal; they add up to 1",
    classes=_landcover_classes(),
)
_NDVI = _output(
    "ndvi",
    "regression",
    {"batch": -1, "bands": 1, "height": -1, "width": -1},
    "NDVI, from -1 to 1",
    bands=["NDVI"],
)
_TARGET_CLASS = {
    "value": 0,
    "name": "bright-target",
    "description": "Far brighter than its surroundings, such as a ship on water",
    "color_hint": "D81B60",
}
_BOXES = (
    _output(
        "boxes",
        "object-detection",
        {"batch": -1, "detections": -1, "values": 4},
        "x0, y0, x1, y1 in pixels, corners of pixels; best score first",
        classes=[_TARGET_CLASS],
    ),
    _output(
        "scores",
        "object-detection",
        {"batch": -1, "detections": -1},
        "x / (x + threshold): 0.5 at the detection threshold; 0 where a row holds no target",
    ),
    _output(
        "labels",
        "object-detection",
        {"batch": -1, "detections": -1},
        "Class of the box; always 0",
        data_type="int64",
    ),
)

_AS_IT_IS = """\
source = "the graph's own formula"

[output]
activation = "none"  # the values are what they should be already
"""
_READ_BOXES = """\
source = "the graph's own formula"

[output]
name = "boxes"

[output.boxes]
layout = "xyxy"
boxes = "boxes"
scores = "scores"
labels = "labels"
score_threshold = 0.5  # the detector's own threshold; rows without a target score 0
max_detections = 100
nms = false            # the graph gives each target one box
"""

SAMPLES = {
    "spectral-landcover": Sample(
        "Five land cover classes for every pixel, from thresholds on NDVI and NDWI",
        "Decision rule on spectral indices",
        "semantic-segmentation",
        spectral.BANDS,
        (_SCORES,),
        spectral.spectral_landcover,
        _AS_IT_IS,
        (_TUCKER, _MCFEETERS, _SOBRINO),
    ),
    "landcover-share": Sample(
        "Share of each class of spectral-landcover in an image",
        "Decision rule on spectral indices",
        "classification",
        spectral.BANDS,
        (_SHARES,),
        spectral.landcover_share,
        _AS_IT_IS,
        (_TUCKER, _MCFEETERS, _SOBRINO),
    ),
    "ndvi": Sample(
        "Normalised difference vegetation index for every pixel: (B08 - B04) / (B08 + B04)",
        "Spectral index",
        "regression",
        spectral.NDVI_BANDS,
        (_NDVI,),
        spectral.ndvi,
        _AS_IT_IS,
        (_TUCKER,),
    ),
    "bright-targets": Sample(
        "Boxes around pixels far brighter than their surroundings, by cell-averaging CFAR on the near infrared, "
        "where water is dark",
        "Cell-averaging CFAR",
        "object-detection",
        (cfar.BAND,),
        _BOXES,
        cfar.bright_targets,
        _READ_BOXES,
    ),
}
