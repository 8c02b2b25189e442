"""One table of tests for the four stock clients, against the running service and ONNX Runtime alone."""

from __future__ import annotations

import os
import queue

import ml_dtypes
import numpy as np
import onnxruntime
import pytest
from rpc.odd_models import KINDS as TYPES
from rpc.odd_models import write_odd_models
from system.conftest import start, stop
from system.files import geotiff, scene
from system.stock_clients import KINDS, Stock
from tritonclient.utils import InferenceServerException
from web.slow_model import FOREVER, write_models

from ml_inference import __version__
from ml_inference.sources.base import ModelReference
from ml_inference.sources.samples import SamplesSource

SAMPLES = ("landcover-share", "ndvi", "spectral-landcover", "bright-targets")
STATUS = {404: "NOT_FOUND", 400: "INVALID_ARGUMENT", 504: "DEADLINE_EXCEEDED"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = write_models(tmp_path_factory.mktemp("models"))
    write_odd_models(folder)
    running = start(tmp_path_factory.mktemp("service"), MODEL_SOURCES=f"samples:,{folder}")
    yield running
    assert stop(running) == 0


@pytest.fixture(params=KINDS)
def client(request, place):
    stock = Stock(request.param, place)
    yield stock
    stock.close()


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    """The samples in ONNX Runtime alone, with as many threads as the service gives them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, len(os.sched_getaffinity(0)) - 1)
    source = SamplesSource(tmp_path_factory.mktemp("samples"))
    return {
        name: onnxruntime.InferenceSession(
            str(source.fetch(ModelReference(name, None)).model_path), options, ["CPUExecutionProvider"]
        )
        for name in SAMPLES
    }


def reflectance(session, rows=1, size=(20, 24), seed=0):
    bands = session.get_inputs()[0].shape[1]
    return np.random.default_rng(seed).random((rows, bands, *size), np.float32)


def failure(client, status, call, *arguments, **more):
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **more)
    expected = f"StatusCode.{STATUS[status]}" if client.grpc else str(status)
    assert caught.value.status() == expected, caught.value
    return caught.value.message()


def test_the_service_is_live_and_ready_and_says_what_it_is(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    told = client.told("server_metadata")
    assert told["version"] == __version__
    assert "statistics" in told["extensions"]


def test_a_model_says_what_it_is_and_how_it_is_configured(client):
    metadata, config = client.told("model_metadata", "ndvi"), client.told("model_config", "ndvi", "1")
    assert client.is_model_ready("ndvi")
    assert client.is_model_ready("ndvi", "1")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"][0]["datatype"] == "FP32"
    assert [int(each) for each in metadata["inputs"][0]["shape"]] == [-1, 2, -1, -1]
    assert [int(each) for each in config["input"][0]["dims"]] == [2, -1, -1]
    assert config["max_batch_size"] == 8


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("model", SAMPLES)
def test_answers_are_onnx_runtimes_to_the_last_bit(client, sessions, model, rows):
    session = sessions[model]
    pixels = reflectance(session, rows, seed=rows)
    name = session.get_inputs()[0].name
    names = [each.name for each in session.get_outputs()]
    result = client.infer(model, [client.tensor(name, pixels)], request_id="r 1")
    for output, expected in zip(names, session.run(names, {name: pixels}), strict=True):
        np.testing.assert_array_equal(result.as_numpy(output), expected, strict=True)
    assert client.answer(result)["id"] == "r 1"
    assert client.answer(result)["model_version"] == "1"


@pytest.mark.parametrize("way", ["binary", "JSON in", "JSON out", "JSON"])
def test_tensors_of_every_type_come_back_as_they_went(client, way):
    arrays = {name: np.array([[0, 1, 1], [1, 0, 1]]).astype(kind) for name, (_, kind) in TYPES.items()}
    arrays["FP64"] = np.array([[np.pi, -1e300, 5e-324], [0.1, -0.0, 1]])
    arrays["FP32"] = np.array([[np.pi, -3e38, 1e-45], [0.1, -0.0, 1]], np.float32)
    for name in ("INT64", "UINT64"):
        bounds = np.iinfo(TYPES[name][1])
        arrays[name][0, :2] = bounds.min, bounds.max

    def binary(name, side):
        return name == "FP16" or way not in {"JSON", f"JSON {side}"}

    inputs = [client.tensor(f"in_{n}", a, n, binary_data=binary(n, "in")) for n, a in arrays.items()]
    outputs = [client.output(f"out_{n}", binary(n, "out")) for n in arrays]
    result = client.infer("kinds", inputs, outputs=outputs)
    for name, array in arrays.items():
        np.testing.assert_array_equal(result.as_numpy(f"out_{name}"), array, strict=True)


def test_not_a_number_survives_as_bytes(client, sessions):
    pixels = reflectance(sessions["ndvi"])
    pixels[..., :7] = np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, 3e38
    name, output = sessions["ndvi"].get_inputs()[0].name, sessions["ndvi"].get_outputs()[0].name
    result = client.infer("ndvi", [client.tensor(name, pixels)])
    np.testing.assert_array_equal(result.as_numpy(output), sessions["ndvi"].run(None, {name: pixels})[0])


def test_bf16_is_taken_for_fp32(client, sessions):
    pixels = reflectance(sessions["ndvi"]).astype(ml_dtypes.bfloat16)
    name, output = sessions["ndvi"].get_inputs()[0].name, sessions["ndvi"].get_outputs()[0].name
    result = client.infer("ndvi", [client.tensor(name, pixels, "BF16")])
    expected = sessions["ndvi"].run(None, {name: pixels.astype(np.float32)})[0]
    np.testing.assert_array_equal(result.as_numpy(output), expected)


def test_only_the_outputs_that_are_asked_for_come_back(client):
    inputs = [client.tensor(f"in_{name}", np.zeros((1, 3), kind), name) for name, (_, kind) in TYPES.items()]
    result = client.infer("kinds", inputs, outputs=[client.output("out_INT8"), client.output("out_BOOL")])
    assert [each["name"] for each in client.answer(result)["outputs"]] == ["out_INT8", "out_BOOL"]


def test_classes_come_with_score_index_and_name(client, sessions):
    session = sessions["landcover-share"]
    pixels = reflectance(session, 2)
    inputs = [client.tensor("reflectance", pixels)]
    for binary in (True, False):
        result = client.infer("landcover-share", inputs, outputs=[client.output("shares", binary, classes=2)])
        told = result.as_numpy("shares")
        assert told.shape == (2, 2)
        for row, scores in zip(told, session.run(None, {"reflectance": pixels})[0], strict=True):
            text = row[0].decode() if isinstance(row[0], bytes) else row[0]
            assert text.split(":")[:2] == [f"{scores.max():f}", str(scores.argmax())]
            assert text.split(":")[2] in {"water", "bare-or-built-up", "dense-vegetation"}


def test_encoded_images_go_through_the_cards_preprocessing(client, sessions):
    pixels = [scene(seed, 20, 24) for seed in (1, 2)]
    files = np.array([geotiff(each, ("B02", "B03", "B04", "B08")) for each in pixels], np.object_)
    told = client.infer("landcover-share", [client.tensor("image", files, "BYTES")]).as_numpy("shares")
    expected = np.stack(pixels).astype(np.float32) / np.float32(10000)
    np.testing.assert_array_equal(told, sessions["landcover-share"].run(None, {"reflectance": expected})[0])


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_requests_and_answers_may_be_compressed(client, sessions, algorithm):
    session = sessions["ndvi"]
    pixels, name = reflectance(session), session.get_inputs()[0].name
    how = (
        {"compression_algorithm": algorithm}
        if client.grpc
        else {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    )
    result = client.infer("ndvi", [client.tensor(name, pixels)], **how)
    np.testing.assert_array_equal(
        result.as_numpy(session.get_outputs()[0].name), session.run(None, {name: pixels})[0]
    )


def test_priority_and_timeout_are_kept(client):
    quick, endless = (np.full((1, 1, 4, 4), each, np.float32) for each in (1.0, FOREVER))
    result = client.infer("slow", [client.tensor("image", quick)], priority=2, timeout=20_000_000)
    np.testing.assert_array_equal(result.as_numpy("value"), [[2.0]])
    inputs = [client.tensor("image", endless)]
    failure(client, 504, client.infer, "slow", inputs, timeout=300_000)


def test_statistics_count_requests_rows_and_runs(client):
    def told():
        stats = client.told("inference_statistics", "slow", "1")["model_stats"][0]
        batches = {int(each["batch_size"]): each for each in stats.get("batch_stats", [])}
        success = stats["inference_stats"]["success"]
        return [
            int(stats.get("inference_count", 0)),
            int(stats.get("execution_count", 0)),
            int(success.get("count", 0)),
            int(batches.get(2, {}).get("compute_infer", {}).get("count", 0)),
        ], int(success.get("ns", 0))

    before, spent = told()
    client.infer("slow", [client.tensor("image", np.ones((2, 1, 4, 4), np.float32))], model_version="1")
    after, longer = told()
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 1, 1]
    assert longer > spent
    everything = client.told("inference_statistics")["model_stats"]
    assert ("slow", "1") in {(each["name"], each["version"]) for each in everything}


def test_models_are_loaded_and_unloaded_and_listed_with_reasons(client):
    client.load_model("bright-targets")
    assert client.is_model_ready("bright-targets")
    assert client.index()["bright-targets"]["state"] == "READY"
    client.unload_model("bright-targets")
    assert not client.is_model_ready("bright-targets")
    told = client.index()["bright-targets"]
    assert (told["state"], told["reason"]) == ("UNAVAILABLE", "unloaded by hand")
    assert "unloaded" in failure(client, 404, client.get_model_metadata, "bright-targets")
    client.load_model("bright-targets")
    client.unload_model("bright-targets", unload_dependents=True) if not client.grpc else None
    client.load_model("bright-targets")
    assert client.is_model_ready("bright-targets")


def test_what_nobody_has_is_not_found(client):
    assert not client.is_model_ready("nothing")
    inputs = [client.tensor("x", np.zeros((1, 1), np.float32))]
    for call, *arguments in (
        (client.get_model_metadata, "nothing"),
        (client.get_model_config, "nothing"),
        (client.get_inference_statistics, "nothing"),
        (client.load_model, "nothing"),
        (client.unload_model, "nothing"),
        (client.infer, "nothing", inputs),
        (client.infer, "slow", inputs, "77"),
    ):
        failure(client, 404, call, *arguments)


def test_a_tensor_that_does_not_fit_is_named(client):
    good = client.tensor("reflectance", np.zeros((1, 4, 8, 8), np.float32))
    for bad, words in (
        ([client.tensor("reflectance", np.zeros((1, 3, 8, 8), np.float32))], "'reflectance'"),
        ([client.tensor("reflectance", np.zeros((1, 4, 8, 8)), "FP64")], "'reflectance'"),
        ([client.tensor("other", np.zeros((1, 4, 8, 8), np.float32))], "'other'"),
        ([good, good], "'reflectance'"),
    ):
        assert words in failure(client, 400, client.infer, "landcover-share", bad)
    outputs = [client.output("nothing")]
    assert "'nothing'" in failure(client, 400, client.infer, "landcover-share", [good], outputs=outputs)
    assert client.infer("landcover-share", [good]).as_numpy("shares").shape == (1, 5)


def test_shared_memory_and_files_for_loading_are_refused_in_words(client):
    tensor = client.api.InferInput("reflectance", [1, 4, 8, 8], "FP32")
    tensor.set_shared_memory("region", 1024)
    assert "shared memory" in failure(client, 400, client.infer, "landcover-share", [tensor])
    failure(client, 400, client.load_model, "landcover-share", config='{"max_batch_size": 4}')


def test_requests_that_are_not_waited_for_are_answered(client):
    if client.runner is not None:
        pytest.skip("an aio client waits for each of its requests")
    pixels = np.random.default_rng(0).random((1, 4, 8, 8), np.float32)
    inputs = [client.tensor("reflectance", pixels)]
    expected = client.infer("landcover-share", inputs).as_numpy("shares")
    if client.grpc:
        answers = queue.SimpleQueue()
        for _ in range(4):
            client.async_infer("landcover-share", inputs, lambda result, error: answers.put((result, error)))
        results = [answers.get(timeout=30) for _ in range(4)]
        assert [error for _, error in results] == [None] * 4
        arrays = [result.as_numpy("shares") for result, _ in results]
    else:
        waiting = [client.async_infer("landcover-share", inputs) for _ in range(4)]
        arrays = [each.get_result().as_numpy("shares") for each in waiting]
    np.testing.assert_array_equal(np.concatenate(arrays), np.repeat(expected, 4, axis=0))
