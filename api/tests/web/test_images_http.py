"""Inference over HTTP: right answers by independent arithmetic, right statuses for everything else."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import time

import numpy as np
import pytest
from rasterio.io import MemoryFile
from web.slow_model import FOREVER, image
from web.tiles import BANDS, npy, tile

pytestmark = pytest.mark.anyio

GEOTIFF = "image/tiff; application=geotiff"
KINDS = {
    "spectral-landcover": [
        GEOTIFF,
        "application/json",
        "image/png",
        "application/geo+json",
        "application/x-npy",
    ],
    "landcover-share": ["application/json", "application/x-npy"],
    "ndvi": [GEOTIFF, "application/json", "image/png", "application/x-npy"],
    "bright-targets": ["application/json", "application/geo+json", "image/png", "application/x-npy"],
}
MAGIC = {GEOTIFF: b"II*\0", "image/png": b"\x89PNG", "application/x-npy": b"\x93NUMPY"}


def ndvi_of(pixels, bands=BANDS):
    red, infrared = (pixels[bands.index(name)].astype(np.float64) for name in ("B04", "B08"))
    return (infrared - red) / (infrared + red)


def check_problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert told["error"] == told["detail"]
    assert told["detail"].isprintable()
    return told


async def counts(client, model):
    """The model's accounting as Prometheus sees it: requests, errors and cancelled."""
    totals = {"requests": 0.0, "errors": 0.0, "cancelled": 0.0}
    names = {
        "model_counter_total": "requests",
        "model_inference_errors_total": "errors",
        "model_inference_rejected_total": "cancelled",
    }
    for line in (await client.get("/metrics")).text.splitlines():
        name, _, rest = line.partition("{")
        if f'model="{model}"' in rest:
            key = names.get(name)
            if key and (key != "cancelled" or 'reason="cancelled"' in rest):
                totals[key] += float(rest.rpartition(" ")[2])
    return totals


async def test_a_raster_answer_is_the_formula_on_the_inputs_own_grid(client):
    pixels, data = tile()
    answer = await client.post("/ndvi", content=data, headers={"Content-Type": "image/tiff"})
    assert answer.headers["Content-Type"] == GEOTIFF
    with (
        MemoryFile(answer.content) as memory,
        memory.open() as result,
        MemoryFile(data) as source,
        source.open() as given,
    ):
        np.testing.assert_allclose(result.read(1), ndvi_of(pixels), atol=1e-6)
        assert (result.crs, result.transform, result.shape) == (given.crs, given.transform, given.shape)


async def test_every_spelling_of_the_request_gives_the_same_answer(client):
    _, data = tile()
    answers = [
        await client.post("/ndvi", content=data),
        await client.post(
            "/models/ndvi/predict", content=data, headers={"Content-Type": "application/octet-stream"}
        ),
        await client.post("/models/ndvi/versions/1/predict", content=data),
        await client.post("/ndvi?version=1", content=data),
        await client.post("/ndvi", files={"image": ("tile.tif", data, "image/tiff")}),
        await client.post("/ndvi", files={"image": ("tile.tif", data)}, data={"version": "1"}),
    ]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize("model", KINDS)
async def test_accept_chooses_the_form_of_the_answer(client, model):
    _, data = tile()
    assert (await client.post(f"/{model}", content=data)).headers["Content-Type"] == KINDS[model][0]
    for kind in KINDS[model]:
        answer = await client.post(f"/{model}", content=data, headers={"Accept": kind})
        assert answer.headers["Content-Type"] == kind
        assert answer.content.startswith(MAGIC.get(kind, b"{"))


async def test_a_form_that_this_answer_cannot_take_is_406_with_those_it_can(client):
    _, data = tile()
    told = check_problem(
        await client.post("/ndvi", content=data, headers={"Accept": "application/geo+json"}), 406
    )
    assert "image/png" in told["detail"]


async def test_a_form_that_no_answer_can_take_is_406_before_any_work(client):
    check_problem(await client.post("/ndvi", content=b"not read", headers={"Accept": "text/html"}), 406)
    assert (await counts(client, "ndvi"))["requests"] == 0


async def test_a_json_answer_tells_model_version_task_preprocessing_and_scores_by_name(client):
    _, data = tile()
    answer = await client.post("/landcover-share", content=data)
    told = answer.json()
    assert (told["model"], told["version"], told["task"]) == ("landcover-share", "1", "classification")
    assert any("divide by 10000" in step for step in told["preprocessing"])
    scores = told["prediction"]["scores"]
    assert sum(each["score"] for each in scores) == pytest.approx(1, abs=1e-5)
    assert {"water", "dense-vegetation"} <= {each["class"] for each in scores}


async def test_every_answer_carries_its_version_and_its_timing(client):
    _, data = tile()
    for kind in (GEOTIFF, "application/json"):
        answer = await client.post("/ndvi", content=data, headers={"Accept": kind})
        timing = dict(each.split(";dur=") for each in answer.headers["Server-Timing"].split(", "))
        assert set(timing) >= {"decode", "prepare", "queue", "infer", "encode"}
        assert all(0 <= float(ms) < 60_000 for ms in timing.values())
        assert answer.headers["X-Model-Version"] == "1"


async def test_a_binary_answer_warns_in_a_header(client):
    answer = await client.post("/slow", content=image(), headers={"Accept": "application/x-npy"})
    assert "by position" in answer.headers["X-Model-Warnings"]
    assert np.load(io.BytesIO(answer.content)).tolist() == [2.0]


async def test_the_newest_version_answers_unless_another_is_named(client):
    for path, form, expected in [
        ("/slow", {}, 2.0),
        ("/slow?version=1", {}, 1.0),
        ("/slow", {"version": "1"}, 1.0),
        ("/models/slow/versions/1/predict", {"version": "1"}, 1.0),
    ]:
        answer = await client.post(path, files={"image": image()}, data=form)
        assert answer.json()["prediction"]["values"][0]["value"] == expected
        assert answer.headers["X-Model-Version"] == str(int(expected))


async def test_versions_that_disagree_are_refused(client):
    check_problem(await client.post("/slow?version=2", files={"image": image()}, data={"version": "1"}), 400)
    check_problem(await client.post("/models/slow/versions/1/predict?version=2", content=image()), 400)


async def test_options_reach_the_model(client):
    _, data = tile(bands=("", "", "", ""))
    answer = await client.post(
        "/ndvi?bands=B02,B03,B04,B08&output=raw", content=data, headers={"Accept": "application/x-npy"}
    )
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(np.squeeze(np.load(io.BytesIO(answer.content))), ndvi_of(tile()[0]), atol=1e-6)


# ---- several images


async def test_several_images_come_back_in_order_each_with_its_own_fate(client):
    files = [("image", (f"{n}.npy", image(float(n)))) for n in range(1, 20)]
    files[4] = ("image", ("../bad.tif", b"text"))
    answer = await client.post("/slow", files=files)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    entries = answer.json()
    good = [each["prediction"]["values"][0]["value"] for n, each in enumerate(entries) if n != 4]
    assert good == [2.0 * n for n in range(1, 20) if n != 5]
    assert (entries[4]["status"], entries[4]["image"]) == (415, "bad.tif")
    assert entries[4]["error"] == entries[4]["detail"]
    assert [each["image"] for each in entries[:2]] == ["1.npy", "2.npy"]
    assert await counts(client, "slow") == {"requests": 19, "errors": 1, "cancelled": 0}


async def test_several_binary_answers_come_in_base64_equal_to_the_single_ones(client):
    tiles = [tile(seed=seed)[1] for seed in range(3)]
    answer = await client.post(
        "/ndvi", files=[("image", data) for data in tiles], headers={"Accept": "image/tiff"}
    )
    assert answer.headers["Content-Type"] == "application/json"
    for entry, data in zip(answer.json(), tiles, strict=True):
        single = await client.post("/ndvi", content=data)
        assert entry["media_type"] == GEOTIFF
        assert base64.b64decode(entry["data"]) == single.content


async def test_one_image_in_a_form_is_a_plain_answer_or_its_own_status(client):
    assert isinstance((await client.post("/slow", files={"image": image()})).json(), dict)
    check_problem(await client.post("/slow", files={"image": b"text"}), 415)


async def test_two_thousand_parts_are_413(client):
    check_problem(await client.post("/slow", files=[("image", b"x")] * 2000), 413)


# ---- bad input

VRT = b'<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"/></VRTDataset>'
HUGE = struct.pack(
    "<2sHIH" + "HHII" * 10 + "I", b"II", 42, 8, 10,
    *(256, 4, 1, 20_000), *(257, 4, 1, 20_000), *(258, 3, 1, 8), *(259, 3, 1, 1), *(262, 3, 1, 1),
    *(273, 4, 1, 0), *(277, 3, 1, 1), *(278, 4, 1, 20_000), *(279, 4, 1, 0), *(284, 3, 1, 1), 0,
)  # fmt: skip
FLOATS = np.full((4, 8, 8), 1000.0, np.float32)


def with_value(value):
    pixels = FLOATS.copy()
    pixels[2, 3, 4] = value
    return npy(pixels)


BAD = {
    "wrong band count": (npy(np.ones((3, 8, 8), np.uint16)), 400, "bands"),
    "missing band name": (tile(bands=("B02", "B03", "B04", "B05"))[1], 400, "bands"),
    "0x0": (npy(np.ones((4, 0, 0), np.uint16)), 400, "image.size"),
    "truncated TIFF": (tile()[1][:-700], 400, None),
    "20000x20000 in 200 bytes": (HUGE, 413, None),
    "text as TIFF": (b"this is not a TIFF", 415, None),
    "VRT": (VRT, 415, None),
    "no bytes": (b"", 400, None),
    "zip": (b"PK\x03\x04" + bytes(100), 415, None),
    "complex pixels": (npy(np.ones((4, 8, 8), np.complex64)), 400, None),
    "pickle in npy": (npy(np.array([{}], dtype=object)), 400, None),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_image_gets_its_status_and_nothing_else_changes(client, case):
    data, status, field = BAD[case]
    _, good = tile()
    before = (await client.post("/ndvi", content=good)).content
    told = check_problem(
        await client.post("/ndvi", content=data, headers={"Content-Type": "image/tiff"}), status
    )
    if field:
        assert told["field"] == field
        assert {"expected", "got"} <= told.keys()
    assert (await client.post("/ndvi", content=good)).content == before


async def test_a_nan_pixel_stays_out_of_the_model_and_of_the_answer(client):
    answer = await client.post(
        "/ndvi?bands=B02,B03,B04,B08",
        content=with_value(np.nan),
        headers={"Accept": "application/x-npy"},
    )
    values = np.squeeze(np.load(io.BytesIO(answer.content)))
    expected = np.zeros((8, 8))
    expected[3, 4] = np.nan
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
async def test_an_infinite_pixel_is_refused_with_its_place(client, value):
    told = check_problem(await client.post("/ndvi?bands=B02,B03,B04,B08", content=with_value(value)), 400)
    assert "row 3, column 4" in told["detail"]


async def test_what_the_client_called_the_bytes_stands_in_the_message(client):
    for change in (
        {"content": b"text", "headers": {"Content-Type": "image/tiff"}},
        {"files": {"image": ("a.tif", b"text", "image/tiff")}},
    ):
        assert "image/tiff" in check_problem(await client.post("/ndvi", **change), 415)["detail"]


async def test_one_pixel_is_an_image(client):
    pixels, data = tile(1, 1)
    answer = await client.post("/ndvi", content=data, headers={"Accept": "application/x-npy"})
    assert np.squeeze(np.load(io.BytesIO(answer.content))) == pytest.approx(ndvi_of(pixels)[0, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/no-such-model", 404),
        ("/..%2F..%2Fetc%2Fpasswd", 404),
        ("/%2e%2e", 404),
        ("/a..b", 404),
        ("/%00", 404),
        ("/%0d%0aX-Evil:1", 404),
        ("/" + "x" * 10_000, 404),
        ("/\u00e9", 404),
        ("/models/ndvi/versions/..%2F1/predict", 404),
        ("/models/ndvi/versions/99/predict", 404),
        ("/models/ndvi/versions/%00/predict", 404),
        ("/ndvi?version=99", 404),
        ("/ndvi?version=" + "9" * 9000, 404),
        ("/health", 404),
        ("/v2", 404),
        ("/ndvi/", 404),
        ("/ndvi?treshold=1", 400),
        ("/ndvi?output=everything", 400),
        ("/ndvi?scaling=multiply:2", 400),
        ("/ndvi?scaling=divide:2", 400),
        ("/broken", 500),
        ("/models", 404),
        ("/models/ndvi", 405),
    ],
)
async def test_a_bad_address_gets_its_status_in_the_one_shape(client, path, status):
    _, data = tile()
    told = check_problem(await client.post(path, content=data), status)
    assert len(json.dumps(told)) < 4000
    check_problem(await client.post(path, files={"image": data}), status)


async def test_a_model_that_cannot_be_served_says_why(client):
    told = check_problem(await client.post("/broken", content=image()), 500)
    assert told["problems"][0]["pointer"].startswith("/properties/mlm:input/0")
    assert told["error_id"]


@pytest.mark.parametrize(
    "change",
    [
        {"content": b"--x\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        {"files": {"picture": b"x"}},
        {"data": {"version": "1"}, "files": {"other": b"x"}},
        {"content": b"x", "headers": {"X-Request-Timeout-Ms": "soon"}},
    ],
)
async def test_a_malformed_request_is_400(client, change):
    check_problem(await client.post("/ndvi", **change), 400)


async def test_a_compressed_body_is_415(client):
    check_problem(await client.post("/ndvi", content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), 415)


# ---- bounds


async def test_a_body_over_the_cap_is_413_and_counted(service):
    async with service(max_body_bytes=2000) as client:
        assert (await client.post("/slow", content=image())).status_code == 200
        check_problem(await client.post("/slow", content=bytes(2001)), 413)
        check_problem(await client.post("/slow", content=chunks([b"x" * 1500, b"x" * 1500])), 413)
        assert await counts(client, "slow") == {"requests": 3, "errors": 2, "cancelled": 0}
        assert 'reason="too_large",version="2"} 2.0' in (await client.get("/metrics")).text


async def chunks(parts):
    for part in parts:
        yield part


async def test_an_image_over_the_pixel_limit_is_413(service):
    async with service(max_pixels=100) as client:
        assert (await client.post("/slow", content=image(size=10))).status_code == 200
        check_problem(await client.post("/slow", content=image(size=11)), 413)


async def test_a_request_ends_at_its_own_deadline(client):
    await client.get("/models/slow")
    started = time.monotonic()
    answer = await client.post("/slow", content=image(FOREVER), headers={"X-Request-Timeout-Ms": "300"})
    check_problem(answer, 504)
    assert time.monotonic() - started < 5
    assert await counts(client, "slow") == {"requests": 1, "errors": 1, "cancelled": 0}


async def test_the_services_timeout_bounds_what_a_client_may_ask_for(service):
    async with service(request_timeout=0.3) as client:
        await client.get("/models/slow")
        answer = await client.post("/slow", content=image(FOREVER), headers={"X-Request-Timeout-Ms": "60000"})
        check_problem(answer, 504)


async def test_a_full_queue_is_503_with_retry_after(service):
    async with service(queue_size=1, batch_size=1, request_timeout=1.0) as client:
        await client.get("/models/slow")
        answers = await asyncio.gather(*(client.post("/slow", content=image(FOREVER)) for _ in range(6)))
        refused = [answer for answer in answers if answer.status_code == 503]
        assert {answer.status_code for answer in answers} == {503, 504}
        assert len(refused) >= 3
        for answer in refused:
            check_problem(answer, 503)
            assert int(answer.headers["Retry-After"]) >= 1


async def test_a_client_that_leaves_takes_its_work_with_it(client):
    """The ASGI disconnect arrives while the model runs: the run ends, and is counted as cancelled."""
    await client.get("/models/slow")
    app = client._transport.app
    sent, body = [], image(FOREVER)
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await asyncio.sleep(0.2)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/slow", "raw_path": b"/slow", "query_string": b"",
        "root_path": "", "scheme": "http", "http_version": "1.1", "headers": [], "asgi": {"version": "3.0"},
    }  # fmt: skip
    async with asyncio.timeout(10):
        await app(scope, receive, send)
    assert sent[0]["status"] == 499
    assert await counts(client, "slow") == {"requests": 1, "errors": 0, "cancelled": 1}
    assert (await client.post("/slow", content=image())).status_code == 200


# ---- keys and labels


async def test_a_key_is_asked_for_wherever_a_model_is(service):
    async with service(api_key="k3y") as client:
        for method, path in [
            ("GET", "/models"), ("GET", "/models/ndvi"), ("GET", "/ndvi"), ("POST", "/ndvi"),
            ("POST", "/models/ndvi/predict"), ("POST", "/models/ndvi/versions/1/predict"), ("HEAD", "/models"), ("GET", "/x/y"),
        ]:  # fmt: skip
            assert (await client.request(method, path)).status_code == 401, path
            assert (await client.request(method, path, headers={"X-API-Key": "no"})).status_code == 403, path
        for path in ("/", "/docs", "/openapi.json", "/metrics", "/health/live", "/health/ready"):
            assert (await client.get(path)).status_code == 200, path
        assert (await client.get("/")).json()["auth_required"] is True
        _, data = tile()
        for headers in ({"X-API-Key": "k3y"}, {"Authorization": "Bearer k3y"}):
            assert (await client.post("/ndvi", content=data, headers=headers)).status_code == 200


async def test_nothing_a_client_chooses_becomes_a_label(client):
    """Random names, paths, methods and ids leave the number of series as it is."""

    async def attempt(word):
        await client.get(f"/{word}")
        await client.get(f"/{word}/")
        await client.post(f"/models/{word}/predict", content=b"x", headers={"X-Request-ID": word})
        await client.get(f"/a/{word}/b")
        await client.request(word.upper(), "/")

    async def series():
        lines = (await client.get("/metrics")).text.splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    await attempt("first")
    before = await series()
    for number in range(30):
        await attempt(f"word{number}")
    assert await series() == before


async def test_cors_is_off_unless_origins_are_named(service):
    asked = {"Origin": "https://maps.example.org", "Access-Control-Request-Method": "POST"}
    async with service(api_key="k") as client:
        assert "access-control-allow-origin" not in (await client.get("/", headers=asked)).headers
    async with service(api_key="k", cors_origins=("https://maps.example.org",)) as client:
        preflight = await client.options("/ndvi", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == "https://maps.example.org"
        other = await client.get("/", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        refused = await client.post("/ndvi", headers=asked)
        assert refused.status_code == 401
        assert refused.headers["Access-Control-Allow-Origin"] == "https://maps.example.org"
