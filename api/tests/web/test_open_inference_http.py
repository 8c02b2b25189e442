"""Inference over REST: every mixture of JSON and bytes gives what ONNX Runtime gives."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib

import numpy as np
import pytest
from protocol.sample_graphs import sample_session
from rpc.odd_models import write_odd_models
from web.slow_model import FOREVER
from web.tiles import tile
from web.v2 import LENGTH, arrays, body, tensor, valid

pytestmark = pytest.mark.anyio

SHARE = "/v2/models/landcover-share/infer"
KINDS = "/v2/models/kinds/infer"
SOME = {"FP32": "f4", "UINT8": "u1", "FP64": "f8", "BOOL": "?", "INT16": "i2"}


@pytest.fixture(scope="session")
def odd_models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd-models")
    write_odd_models(folder)
    return folder


@pytest.fixture
async def client(service, model_folder, odd_models):
    async with service(model_sources=("samples:", str(model_folder), str(odd_models))) as opened:
        yield opened


def pixels(rows=1, size=8, seed=0):
    return np.random.default_rng(seed).random((rows, 4, size, size), np.float32)


def every_kind(**binary):
    """Inputs of all types for the model that gives each back; those in `binary` as bytes."""
    names = [
        "BOOL",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "FP16",
        "FP32",
        "FP64",
    ]
    dtypes = dict(
        zip(names, ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"], strict=True)
    )
    for number, name in enumerate(names):
        values = (np.arange(3)[None] + number).astype(dtypes[name])
        yield (
            tensor(f"in_{name}", values, name, binary=name == "FP16" or binary.get(name, False)),
            values,
            name,
        )


async def infer(client, *tensors, path=SHARE, **more):
    return await client.post(path, **body(*tensors, **more))


@pytest.mark.parametrize("in_binary", [False, True])
@pytest.mark.parametrize("out_binary", [None, False, True])
@pytest.mark.parametrize("all_binary", [None, False, True])
async def test_bytes_and_json_carry_the_same_numbers_each_way(
    client, tmp_path, in_binary, out_binary, all_binary
):
    told = {} if out_binary is None else {"parameters": {"binary_data": out_binary}}
    more = {} if all_binary is None else {"parameters": {"binary_data_output": all_binary}}
    answer = await infer(
        client,
        tensor("reflectance", pixels(3), binary=in_binary),
        outputs=[{"name": "shares", **told}],
        **more,
    )
    session = sample_session("landcover-share", tmp_path)
    np.testing.assert_array_equal(arrays(answer)["shares"], session.run(None, {"reflectance": pixels(3)})[0])
    binary = bool(all_binary) if out_binary is None else out_binary
    assert (LENGTH in answer.headers) is binary
    kind = "application/octet-stream" if binary else "application/json"
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Content-Length"] == str(len(answer.content))


@pytest.mark.parametrize("seed", range(6))
async def test_blobs_lie_in_the_order_of_inputs_and_outputs_whichever_of_them_are_bytes(client, seed):
    choice = np.random.default_rng(seed)
    found = list(every_kind(**{name: bool(choice.integers(2)) for name in SOME}))
    names = [str(each) for each in choice.permutation(list(SOME))]
    outputs = [
        {"name": f"out_{name}", "parameters": {"binary_data": bool(choice.integers(2))}} for name in names
    ]
    order = choice.permutation(len(found))
    answer = await infer(client, *(found[i][0] for i in order), path=KINDS, outputs=outputs)
    values = {f"out_{name}": array for _, array, name in found}
    got = arrays(answer)
    assert list(got) == [each["name"] for each in outputs]
    for name, array in got.items():
        np.testing.assert_array_equal(array, values[name], strict=True)


@pytest.mark.parametrize("padding", range(9))
async def test_a_tensor_is_read_right_wherever_the_json_before_it_ends(client, tmp_path, padding):
    answer = await infer(client, tensor("reflectance", pixels(), binary=True), id="x" * (padding + 1))
    session = sample_session("landcover-share", tmp_path)
    np.testing.assert_array_equal(arrays(answer)["shares"], session.run(None, {"reflectance": pixels()})[0])
    assert valid(answer, "inference_response")["id"] == "x" * (padding + 1)


async def test_a_request_needs_no_content_type_and_any_other_is_as_good(client):
    asked = body(tensor("reflectance", pixels()))
    for kind in (
        None,
        "application/json",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ):
        headers = {} if kind is None else {"Content-Type": kind}
        valid(await client.post(SHARE, content=asked["content"], headers=headers), "inference_response")


async def test_all_of_the_body_may_be_announced_as_json(client):
    asked = body(tensor("reflectance", pixels()))["content"]
    valid(await client.post(SHARE, content=asked, headers={LENGTH: str(len(asked))}), "inference_response")


async def test_a_raw_request_is_one_row_of_the_one_input_and_answers_in_bytes(client):
    row = np.arange(100, dtype=np.float32)
    answer = await client.post("/v2/models/wide/infer", content=row.tobytes(), headers={LENGTH: "0"})
    np.testing.assert_array_equal(arrays(answer)["y"], np.tile(row, 64)[None])
    assert answer.headers["Content-Type"] == "application/octet-stream"


async def test_a_raw_request_needs_one_input_of_a_size_that_the_bytes_tell(client):
    several = await client.post(KINDS, content=b"123", headers={LENGTH: "0"})
    assert "in_BOOL, in_UINT8" in valid(several, "error", 400)["error"]
    open_sizes = await client.post(SHARE, content=bytes(64), headers={LENGTH: "0"})
    assert "'reflectance'" in valid(open_sizes, "error", 400)["error"]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("binary", [False, True])
async def test_compressed_bodies_are_read_and_lengths_are_those_inside(client, encoding, pack, binary):
    asked = body(tensor("reflectance", pixels(2), binary=binary))
    headers = {**asked["headers"], "Content-Encoding": encoding, "Accept-Encoding": "gzip, deflate, br"}
    answer = await client.post(SHARE, content=pack(asked["content"]), headers=headers)
    plain = await client.post(SHARE, **asked)
    np.testing.assert_array_equal(arrays(answer)["shares"], arrays(plain)["shares"])
    assert "Content-Encoding" not in answer.headers


async def test_other_encodings_are_415_with_the_ones_that_are_known(client):
    answer = await client.post(SHARE, content=b"x", headers={"Content-Encoding": "br"})
    assert "gzip or deflate" in valid(answer, "error", 415)["error"]
    image = await client.post("/ndvi", content=gzip.compress(tile()[1]), headers={"Content-Encoding": "gzip"})
    assert image.status_code == 415


async def test_what_has_no_form_in_json_is_refused_with_the_outputs_name_and_goes_as_bytes(client):
    broken = np.full((1, 2, 4, 4), np.nan, np.float32)
    answer = await infer(client, tensor("reflectance", broken, binary=True), path="/v2/models/ndvi/infer")
    told = valid(answer, "error", 400)
    assert "NaN" in told["error"]
    assert told["field"].startswith("outputs.")
    whole = await infer(
        client,
        tensor("reflectance", broken, binary=True),
        path="/v2/models/ndvi/infer",
        parameters={"binary_data_output": True},
    )
    assert all(np.isnan(each).all() for each in arrays(whole).values())
    halves = await infer(client, *(each for each, _, _ in every_kind()), path=KINDS)
    assert valid(halves, "error", 400)["field"] == "outputs.out_FP16"


async def test_classes_go_as_texts_in_json_and_behind_their_lengths_as_bytes(client):
    asked = tensor("reflectance", pixels(2))
    texts = await infer(
        client, asked, outputs=[{"name": "shares", "parameters": {"classification": 1, "binary_data": False}}]
    )
    told = valid(texts, "inference_response")["outputs"][0]
    assert (told["datatype"], told["shape"], len(told["data"])) == ("BYTES", [2, 1], 2)
    blobs = await infer(
        client, asked, outputs=[{"name": "shares", "parameters": {"classification": 1, "binary_data": True}}]
    )
    rest = blobs.content[int(blobs.headers[LENGTH]) :]
    assert rest == b"".join(len(each).to_bytes(4, "little") + each.encode() for each in told["data"])


async def test_a_version_may_be_named_and_a_model_is_loaded_when_it_is_first_asked(client):
    grey = tensor("image", np.ones((1, 1, 4, 4), np.float32))
    for path, version, value in (("/versions/1", "1", 1.0), ("/versions/2", "2", 2.0), ("", "2", 2.0)):
        answer = await infer(client, grey, path=f"/v2/models/slow{path}/infer")
        assert valid(answer, "inference_response")["model_version"] == version
        assert arrays(answer)["value"] == value
        assert answer.headers["X-Model-Version"] == version
    for path in ("/v2/models/slow/versions/9/infer", "/v2/models/nothing/infer", "/v2/models/docs/infer"):
        valid(await infer(client, grey, path=path), "error", 404)


async def test_a_timeout_ends_a_request_that_runs_too_long(client):
    endless = tensor("image", np.full((1, 1, 4, 4), FOREVER, np.float32))
    await client.get("/v2/models/slow")
    started = time.monotonic()
    answer = await infer(client, endless, path="/v2/models/slow/infer", parameters={"timeout": 300_000})
    assert 0.25 < time.monotonic() - started < 5
    valid(answer, "error", 504)


async def test_the_timeout_counts_from_the_arrival_of_the_request_not_of_its_body(client):
    asked = body(tensor("reflectance", pixels()), parameters={"timeout": 200_000})["content"]

    async def slowly():
        yield asked[:50]
        await asyncio.sleep(0.4)
        yield asked[50:]

    valid(await client.post(SHARE, content=slowly()), "error", 504)


async def test_every_request_is_counted_once_and_timed(client):
    async def counted():
        stats = valid(await client.get("/v2/models/landcover-share/stats"), "statistics")["model_stats"][0]
        return [stats["inference_stats"][each]["count"] for each in ("success", "fail")]

    before = await counted()
    answer = await infer(client, tensor("reflectance", pixels()))
    await client.post(SHARE, content=b"{}")
    assert [b - a for a, b in zip(before, await counted(), strict=True)] == [1, 1]
    assert {each.partition(";")[0] for each in answer.headers["Server-Timing"].split(", ")} == {
        *("decode", "queue", "infer", "encode")
    }


async def test_large_json_is_read_beside_the_loop(client):
    """While 20 MB of JSON are read, the loop never stands still for as long as the reading takes."""
    whole = json.dumps({"inputs": [tensor("reflectance", np.zeros((1, 4, 1000, 1000)))[0]]}).encode()
    await client.get("/v2/models/landcover-share")
    gaps = []

    async def watch():
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            gaps.append(time.perf_counter() - before)

    watcher = asyncio.create_task(watch())
    started = time.perf_counter()
    valid(await client.post(SHARE, content=whole), "inference_response")
    took = time.perf_counter() - started
    watcher.cancel()
    assert len(gaps) > 5
    assert max(gaps) < took
