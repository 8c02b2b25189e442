"""What the HTTP tests share: the real application in this process, on the sample models and a folder of odd ones."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
from web.slow_model import write_models

from ml_inference.settings import Settings
from ml_inference.web.app import create_app


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def service(model_folder):
    """Open the application with these settings: `async with service(api_key="k") as client`."""

    @asynccontextmanager
    async def opened(**settings):
        settings.setdefault("model_sources", ("samples:", str(model_folder)))
        app = create_app(Settings(**settings))
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0)  # a server, too, turns its loop before the first request
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                yield client

    return opened


@pytest.fixture
async def client(service):
    async with service() as opened:
        yield opened
