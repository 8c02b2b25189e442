"""What orchestrators and monitoring ask."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families
from web.slow_model import image

pytestmark = pytest.mark.anyio


async def settled(client, status):
    async with asyncio.timeout(20):
        while (answer := await client.get("/health/ready")).status_code != status:
            await asyncio.sleep(0.01)
    return answer


async def test_live_and_ready_without_models_to_preload(client):
    assert (await client.get("/health/live")).json() == {"status": "live"}
    assert (await settled(client, 200)).json() == {"status": "ready", "reasons": []}


async def test_ready_waits_for_the_models_it_was_told_to_load(service):
    async with service(models=("ndvi", "slow")) as client:
        await settled(client, 200)
        models = (await client.get("/models")).json()["models"]
        assert {each["name"] for each in models if each["state"] == "ready"} == {"ndvi", "slow"}


async def test_a_model_that_cannot_be_loaded_is_a_reason_against_traffic_but_not_against_life(service):
    async with service(models=("ndvi", "broken")) as client:
        async with asyncio.timeout(20):
            while "broken" not in str((answer := await client.get("/health/ready")).json()["reasons"]):
                await asyncio.sleep(0.01)
        assert answer.status_code == 503
        assert (await client.get("/health/live")).status_code == 200
        assert (await client.get("/models/ndvi")).status_code == 200


async def test_draining_is_not_ready_and_still_answers(client):
    client._transport.app.state.services.registry.start_draining()
    assert "draining" in (await client.get("/health/ready")).json()["reasons"]
    assert (await client.post("/slow", content=image())).status_code == 200


async def test_metrics_are_prometheus_text_that_tells_both_the_services_and_the_http_metrics(client):
    await client.post("/slow", content=image())
    await client.get("/health/live")
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    samples = {
        (sample.name, sample.labels.get("phase") or sample.labels.get("handler")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["model_counter_total", None] == 1
    for phase in ("decode", "prepare", "infer", "interpret", "encode"):
        assert samples["model_inference_request_seconds_count", phase] == 1
    assert samples["http_requests_total", "/{model}"] == 1
    assert ("http_requests_total", "/health/live") not in samples
    assert ("http_requests_total", "/metrics") not in samples


async def test_metrics_can_be_off(service):
    async with service(metrics=False) as client:
        answer = await client.get("/metrics")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
