"""Two hundred callers at once: mixed models, sizes and formats, a third bad, a tenth hanging up."""

from __future__ import annotations

import asyncio
import random
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from system.files import geotiff, opened, scene
from system.formulas import CLASSES, landcover, ndvi, shares

pytestmark = pytest.mark.anyio

NAMES = ("B02", "B03", "B04", "B08")
SIZES = [(1, 1), (7, 13), (64, 64), (64, 64), (64, 64), (120, 90), (300, 300)]


def good(number):
    """A request, and a check of its answer."""
    dice = random.Random(number)
    height, width = dice.choice(SIZES)
    pixels = scene(number, height, width)
    bands = dict(zip(NAMES, pixels, strict=True))
    model = dice.choice(["ndvi", "spectral-landcover", "landcover-share"])
    npy = dice.random() < 0.3
    body = npy_bytes(pixels) if npy else geotiff(pixels, NAMES)

    def check(response):
        if model == "ndvi":
            np.testing.assert_allclose(
                opened(response.content)[1][0], ndvi(bands["B04"], bands["B08"]), atol=1e-6
            )
        elif model == "spectral-landcover":
            np.testing.assert_array_equal(opened(response.content)[1][0], landcover(bands))
        else:
            scores = {s["class"]: s["score"] for s in response.json()["prediction"]["scores"]}
            np.testing.assert_allclose([scores[c] for c in CLASSES], shares(bands), atol=1e-6)

    return model, body, {"bands": "B02,B03,B04,B08"} if npy else {}, check


def npy_bytes(pixels):
    import io  # noqa: PLC0415

    out = io.BytesIO()
    np.save(out, pixels)
    return out.getvalue()


def bad(number):
    """A request, and the status it must get, whether the model itself was reached."""
    tile = geotiff(scene(number, 64, 64), NAMES)
    cases = [
        ("ndvi", b"just text, no image", {}, 415),
        ("ndvi", tile[: len(tile) // 2], {}, 400),
        ("ndvi", geotiff(scene(number, 8, 8)[:3]), {}, 400),
        ("landcover-share", geotiff(scene(number, 8, 8), ("B02", "B03", "B04", "B05")), {}, 400),
        ("no-such-model", tile, {}, 404),
        ("ndvi", tile, {"bandz": "B04"}, 400),
        ("spectral-landcover", tile, {"scaling": "divide:255"}, 400),
        ("ndvi", b"", {}, 400),
    ]
    return cases[number % len(cases)]


async def hang_up(url, number):
    """Send a request, in part or whole, and go."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    body = geotiff(scene(number, 300, 300), NAMES)
    head = f"POST /spectral-landcover HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    writer.write(head + (body if number % 2 else body[: len(body) // 2]))
    await writer.drain()
    await asyncio.sleep(random.Random(number).random() * 0.05)
    writer.transport.abort()
    del reader


async def test_everyone_gets_their_own_and_the_metrics_add_up(server):
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        for model in ("ndvi", "spectral-landcover", "landcover-share"):
            assert (await client.get(f"/models/{model}")).status_code == 200
        before = server.metrics()

        async def ask_well(number):
            model, body, query, check = good(number)
            response = await client.post(f"/{model}", content=body, params=query)
            assert response.status_code == 200, response.text
            check(response)

        async def ask_badly(number):
            model, body, query, status = bad(number)
            response = await client.post(f"/{model}", content=body, params=query)
            assert response.status_code == status, (number % 8, response.text)
            problem = response.json()
            assert response.headers["content-type"] == "application/problem+json"
            assert problem["status"] == status
            assert problem["error"] == problem["detail"]

        jobs = [ask_well(n) for n in range(113)] + [ask_badly(n) for n in range(67)]
        jobs += [hang_up(server.url, n) for n in range(20)]
        random.Random(1).shuffle(jobs)
        results = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 100)
        failures = [result for result in results if result is not None]
        assert not failures, failures[:3]

        pending = "model_inference_pending_requests"
        async with asyncio.timeout(20):
            while server.total(pending) or not adds_up(before, server.metrics()):
                await asyncio.sleep(0.1)


def adds_up(before, after):
    """Requests = answers (each ends its interpret phase) + failures + cancellations."""

    def grown(name, **labels):
        wanted = [f'{k}="{v}"' for k, v in labels.items()]
        return sum(
            after[s] - before.get(s, 0.0)
            for s in after
            if s.split("{")[0] == name and all(w in s for w in wanted)
        )

    asked = grown("model_counter_total")
    answered = grown("model_inference_request_seconds_count", phase="encode")
    failed = grown("model_inference_errors_total")
    left = grown("model_inference_rejected_total", reason="cancelled")
    return answered >= 113 and failed > 0 and asked == answered + failed + left
