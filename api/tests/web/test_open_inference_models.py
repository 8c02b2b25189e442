"""Health, metadata, configuration, statistics and the repository over REST; every answer is valid by the schema."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from web.slow_model import FOREVER
from web.v2 import body, tensor, valid

pytestmark = pytest.mark.anyio

READY = "/v2/models/ndvi/ready"


async def settled(client, path, status):
    async with asyncio.timeout(20):
        while (answer := await client.get(path)).status_code != status:
            await asyncio.sleep(0.01)
    return answer


def grey(value=1.0):
    return body(tensor("image", np.full((1, 1, 4, 4), value, np.float32)))


async def test_health_says_yes_and_no_in_the_protocols_words(service):
    async with service(models=("broken",)) as client:
        assert valid(await client.get("/v2/health/live"), "server_live") == {"live": True}
        assert valid(await settled(client, "/v2/health/ready", 503), "server_ready", 503) == {"ready": False}
    async with service() as client:
        assert valid(await settled(client, "/v2/health/ready", 200), "server_ready") == {"ready": True}


async def test_health_needs_no_key_and_everything_else_does(service):
    async with service(api_key="k") as client:
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/health/live?any=thing"):
            assert (await client.get(path)).status_code in {200, 503}
        for path in ("/v2", "/v2/models", "/v2/models/ndvi", READY, "/v2/models/stats", "/v1/models"):
            valid(await client.get(path), "error", 401)
            assert (await client.get(path, headers={"X-API-Key": "k"})).status_code in {200, 503}
        for path in ("/v2/models/ndvi/infer", "/v2/repository/index", "/v2/repository/models/ndvi/unload"):
            valid(await client.post(path), "error", 401)
            valid(await client.post(path, headers={"Authorization": "Bearer no"}), "error", 403)


async def test_the_server_is_described_with_and_without_the_slash(client):
    for path in ("/v2", "/v2/"):
        told = valid(await client.get(path), "server_metadata")
        assert told["name"] == "ml-inference-processor"


async def test_a_model_is_described_after_it_was_loaded_for_it(client):
    told = valid(await client.get("/v2/models/landcover-share"), "model_metadata")
    assert told["inputs"] == [{"name": "reflectance", "datatype": "FP32", "shape": [-1, 4, -1, -1]}]
    assert told["parameters"]["bands"] == {"reflectance": ["B02", "B03", "B04", "B08"]}
    item = (await client.get(told["parameters"]["item"])).json()
    assert item[0]["properties"]["mlm:name"] == "landcover-share"
    config = (await client.get("/v2/models/landcover-share/versions/1/config")).json()
    assert config["input"][0]["dims"] == told["inputs"][0]["shape"][1:]
    for path in ("/v2/models/nothing", "/v2/models/ndvi/versions/9/config", "/v2/models/nothing/stats"):
        valid(await client.get(path), "error", 404)


async def test_versions_that_are_loaded_are_told(client):
    assert valid(await client.get("/v2/models/slow"), "model_metadata")["versions"] == ["2"]
    assert valid(await client.get("/v2/models/slow/versions/1"), "model_metadata")["versions"] == ["1", "2"]


async def test_a_model_that_cannot_be_served_says_why(client):
    told = valid(await client.get("/v2/models/broken"), "error", 500)
    assert told["problems"]
    waiting = valid(await client.get("/v2/models/broken/ready"), "model_ready", 503)
    assert not waiting["ready"]
    index = {each["name"]: each for each in valid(await client.post("/v2/repository/index"), "index")}
    assert index["broken"]["state"] == "UNAVAILABLE"
    assert index["broken"]["reason"] == told["error"]


async def test_statistics_are_of_one_model_one_version_or_all(client):
    for version in (1, 2):
        assert (await client.post(f"/v2/models/slow/versions/{version}/infer", **grey())).status_code == 200
    one = valid(await client.get("/v2/models/slow/versions/1/stats"), "statistics")["model_stats"]
    both = valid(await client.get("/v2/models/slow/stats"), "statistics")["model_stats"]
    everything = valid(await client.get("/v2/models/stats"), "statistics")["model_stats"]
    assert [each["version"] for each in one] == ["1"]
    assert {each["version"] for each in both} == {"1", "2"}
    assert [each["inference_count"] for each in everything] == [1, 1]
    assert all(each["last_inference"] > 0 for each in both)


async def test_the_names_of_all_models_are_listed_and_in_v1_of_those_that_answer(client):
    await client.get("/v2/models/ndvi")
    everything = valid(await client.get("/v2/models"), "models")["models"]
    assert {"broken", "landcover-share", "ndvi", "slow"} <= set(everything)
    assert valid(await client.get("/v1/models"), "models")["models"] == ["ndvi"]


@pytest.mark.parametrize("path", [READY, "/v2/models/ndvi/versions/1/ready", "/v1/models/ndvi"])
async def test_waiting_for_a_model_to_be_ready_loads_it(client, path):
    valid(await client.get(path), "model_ready", 503)
    assert valid(await settled(client, path, 200), "model_ready") == {"name": "ndvi", "ready": True}


async def test_a_model_that_nobody_has_is_not_found_ready_or_not(client):
    valid(await client.get("/v2/models/nothing/ready"), "error", 404)
    valid(await client.get("/v1/models/nothing"), "error", 404)


async def test_an_unloaded_model_is_gone_until_it_is_loaded(client):
    assert (await client.post("/v2/repository/models/ndvi/load", content=b"")).content == b""
    valid(await client.get(READY), "model_ready")
    asked = {"json": {"parameters": {"unload_dependents": True}}}
    assert (await client.post("/v2/repository/models/ndvi/unload", **asked)).content == b""
    for path in (READY, "/v2/models/ndvi", "/v1/models/ndvi", "/models/ndvi"):
        assert "unloaded" in valid(await client.get(path), "error", 404)["error"]
    valid(await client.post("/v1/models/ndvi:predict", json={"instances": [1]}), "error", 404)
    assert (await client.post("/v2/repository/models/ndvi/load", json={})).status_code == 200
    valid(await client.get(READY), "model_ready")


async def test_unloading_waits_for_the_requests_that_the_model_has(client):
    await client.get("/v2/models/slow")
    running = asyncio.create_task(client.post("/v2/models/slow/infer", **grey(1e6)))
    while not client._transport.app.state.services.registry.loaded("slow")._leases:
        await asyncio.sleep(0.01)
    assert (await client.post("/v2/repository/models/slow/unload")).status_code == 200
    assert running.done()
    assert (await running).status_code == 200


async def test_the_index_lists_every_model_or_the_ready_ones(client):
    await client.get("/v2/models/ndvi")
    for content in (b"", b"{}", b'{"ready": false}'):
        told = valid(await client.post("/v2/repository/index", content=content), "index")
        assert {each["name"]: each["state"] for each in told}["slow"] == "UNAVAILABLE"
    ready = valid(await client.post("/v2/repository/index", json={"ready": True}), "index")
    assert ready == [{"name": "ndvi", "version": "1", "state": "READY", "reason": ""}]


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/v2/repository/index", b"[]"),
        ("/v2/repository/index", b'{"ready": 1}'),
        ("/v2/repository/index", b"{"),
        ("/v2/repository/models/ndvi/load", b'{"parameters": []}'),
        ("/v2/repository/models/ndvi/load", b'{"parameters": {"config": "{}"}}'),
        ("/v2/repository/models/ndvi/load", b'{"parameters": {"file:1/model.onnx": "AAAA"}}'),
        ("/v2/repository/models/ndvi/unload", b'{"parameters": {"unload_dependents": "yes"}}'),
    ],
)
async def test_what_the_repository_does_not_know_is_refused(client, path, content):
    valid(await client.post(path, content=content), "error", 400)


@pytest.mark.parametrize("verb", ["load", "unload"])
@pytest.mark.parametrize("name", ["nothing", "docs", "..", "a%2Fb"])
async def test_the_repository_has_no_other_models(client, verb, name):
    answer = await client.post(f"/v2/repository/models/{name}/{verb}")
    assert answer.status_code in {400, 404}
    assert answer.json()["error"]


async def test_a_query_that_no_route_knows_is_an_error_and_a_wrong_method_says_the_right_one(client):
    valid(await client.get("/v2/models/ndvi?version=1"), "error", 400)
    answer = await client.post("/v2/models/ndvi")
    valid(answer, "error", 405)
    assert "GET" in answer.headers["Allow"]


async def test_draining_is_told_to_those_who_ask(client):
    await settled(client, "/v2/health/ready", 200)
    client._transport.app.state.services.registry.start_draining()
    valid(await client.get("/v2/health/ready"), "server_ready", 503)
    valid(await client.get("/v2/health/live"), "server_live")


async def test_a_client_that_leaves_stops_its_run(client):
    await client.get("/v2/models/slow")
    served = client._transport.app.state.services.registry.loaded("slow")
    running = asyncio.create_task(client.post("/v2/models/slow/infer", **grey(FOREVER)))
    while not served._leases:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    running.cancel()
    async with asyncio.timeout(20):
        while served._leases:
            await asyncio.sleep(0.01)
        assert (await client.post("/v2/models/slow/infer", **grey())).status_code == 200
