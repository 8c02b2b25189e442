"""Sample models in ONNX Runtime alone, to hold the service's answers against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnxruntime

from ml_inference.sources.base import ModelReference
from ml_inference.sources.samples import SamplesSource

if TYPE_CHECKING:
    from pathlib import Path


def sample_session(name: str, folder: Path) -> onnxruntime.InferenceSession:
    """A sample's graph; its files are written into the folder."""
    bundle = SamplesSource(folder).fetch(ModelReference(name, None))
    return onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
