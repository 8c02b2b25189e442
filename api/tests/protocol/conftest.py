"""The service's parts, opened for real on the sample models and on bare ONNX files."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager

import pytest
from rpc.odd_models import write_odd_models

from ml_inference.services import open_services
from ml_inference.settings import Settings


@pytest.fixture(scope="session")
def odd_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd-models")
    write_odd_models(folder)
    return folder


@pytest.fixture
def opened(odd_models):
    """`async with opened("ndvi") as (services, model)`."""

    @asynccontextmanager
    async def open_model(name, **settings):
        chosen = Settings(model_sources=("samples:", str(odd_models)), **settings)
        async with open_services(chosen, preload=False) as services:
            yield services, await services.registry.get(name, None, time.monotonic() + 30)

    return open_model
