"""Models of folders and of a hub, through the whole service: served, refused in words, cached."""

from __future__ import annotations

import json

import httpx
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from sources.hub import KEY, start_hub
from sources.onnx_models import external_model
from system.conftest import start, stop
from system.files import geotiff, opened, scene

CLASSES = 10
WEIGHTS = np.random.default_rng(0).normal(size=(CLASSES, 3, 1, 1)).astype(np.float32)


def classifier(shape=("batch", 3, "height", "width"), name="logits"):
    """Mean of each band, times a matrix: ten logits."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Conv", ["mean", "weights"], ["scores"]),
        helper.make_node("Flatten", ["scores"], [name], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(WEIGHTS, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


def item(asset, **more):
    """An item as EOTDL publishes it, of the classifier."""
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://crim-ca.github.io/mlm-extension/v1.2.0/schema.json"],
        "id": "model.onnx",
        "links": [],
        "assets": {"asset": asset},
        "properties": {
            "datetime": "2025-03-25T13:50:10.049061Z",
            "mlm:name": "model.onnx",
            "mlm:framework": "ONNX",
            "mlm:architecture": "Resnet",
            "mlm:tasks": ["classification"],
            "mlm:input": {
                "name": "RGB image",
                "bands": ["red", "green", "blue"],
                "input": {
                    "shape": [-1, 3, -1, -1],
                    "dim_order": ["batch", "channel", "height", "width"],
                    "data_type": "float32",
                },
                **more,
            },
            "mlm:output": {
                "name": "logits",
                "tasks": ["classification"],
                "result": {
                    "shape": [-1, CLASSES],
                    "dim_order": ["batch", "num_classes"],
                    "data_type": "float32",
                },
            },
        },
    }


def probabilities(pixels):
    """Softmax of the classifier's logits of an 8-bit picture, in float64."""
    means = pixels.reshape(3, -1).mean(axis=1) / 255
    logits = WEIGHTS[:, :, 0, 0].astype(np.float64) @ means
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def picture(seed=1):
    """Three bands of 8 bits."""
    return np.random.default_rng(seed).integers(0, 256, (3, 64, 64), dtype=np.uint8)


def test_a_model_of_eotdl_is_served_by_its_name_and_from_the_cache_when_the_hub_is_away(tmp_path):
    pixels = picture()
    with start_hub(tmp_path / "hub") as hub:
        data, name = classifier(), "EuroSAT-RGB-Q2"
        model_id = "66718849ca9a032893ca7d43"
        asset = {"href": f"{hub.url}models/{model_id}/stage/model.onnx", "size": len(data)}
        hub.publish(name, {1: [item(asset)]}, {"model.onnx": data}, model_id)
        environ = {
            "MODEL_SOURCES": "samples:,eotdl:",
            "EOTDL_API_URL": hub.url,
            "EOTDL_API_KEY": KEY,
            "EOTDL_ALLOWED_HOSTS": hub.store_host,
        }
        server = start(tmp_path, **environ)
        answer = ask(server, name, pixels)
        assert answer["preprocessing"] == ["bands red,green,blue", "divide by 255"]
        assert_scores(answer, pixels)
        assert httpx.get(f"{server.url}/models/{name}").json()["notice"] is None
        assert httpx.post(f"{server.url}/Nowhere", content=b"x", timeout=30).status_code == 404
        assert stop(server) == 0
        assert not [call for call in hub.calls("store") if call["key"]]
        hub.stop()
        server = start(tmp_path, **environ)
        assert_scores(ask(server, name, pixels), pixels)
        card = httpx.get(f"{server.url}/models/{name}").json()
        assert "cached" in card["notice"]
        assert httpx.post(f"{server.url}/Nowhere", content=b"x", timeout=30).status_code == 502
        assert stop(server) == 0
        assert KEY not in (tmp_path / "server.log").read_text()


def ask(server, name, pixels, **query):
    body = geotiff(pixels, ("red", "green", "blue"), crs=None)
    response = httpx.post(f"{server.url}/{name}", content=body, params=query, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def assert_scores(answer, pixels):
    scores = {entry["value"]: entry["score"] for entry in answer["prediction"]["scores"]}
    np.testing.assert_allclose([scores[i] for i in range(CLASSES)], probabilities(pixels), atol=1e-5)
    assert answer["prediction"]["class"]["value"] == int(np.argmax(probabilities(pixels)))


def write(folder, document, model=None, profile=None):
    folder.mkdir(parents=True)
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "item.json").write_text(text)
    if model is not None:
        (folder / "model.onnx").write_bytes(model)
    if profile is not None:
        (folder / "profile.toml").write_text(profile)


HERE = {"href": "model.onnx"}


@pytest.fixture(scope="module")
def folder_server(tmp_path_factory):
    """A service over a folder of one good model and many that cannot be served."""
    root = tmp_path_factory.mktemp("folder")
    models = root / "models"
    write(models / "good", item(HERE), classifier(), PROFILE)
    write(models / "no-scaling", item(HERE), classifier())
    write(models / "broken-json", '{"type": "Feature",\n  "properties": {', classifier())
    write(models / "other-shape", item(HERE), classifier(("batch", 5, "height", "width")))
    write(models / "typo", item(HERE), classifier(), '[output]\nactivatoin = "softmax"\n')
    write(models / "escape", item({"href": "../good/model.onnx"}), classifier())
    write(models / "external", item(HERE), external_model(location="../good/model.onnx").SerializeToString())
    python = {"format": "python", "expression": "os:system"}
    write(models / "python", item(HERE, pre_processing_function=python), classifier())
    write(models / "pickle", item(HERE), b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00.")
    onnx.load_from_string(classifier())  # the good one is good
    server = start(root, MODEL_SOURCES=f"samples:,{models}")
    yield server
    assert stop(server) == 0


PROFILE = 'source = "this test"\n[input]\nscaling = "divide:255"\n[output]\nactivation = "softmax"\n'


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken-json", ["item.json", "line 2"]),
        ("other-shape", ["onnx:image", "5", "3"]),
        ("typo", ["activatoin", "activation"]),
        ("escape", ["href"]),
        ("external", ["onnx:bias"]),
        ("python", ["/properties/mlm:input/pre_processing_function", "python"]),
        ("pickle", ["ONNX"]),
    ],
)
def test_a_model_that_cannot_be_served_says_why_and_the_others_are_served(
    folder_server, tmp_path, name, words
):
    response = httpx.post(f"{folder_server.url}/{name}", content=b"x", timeout=60)
    assert response.status_code == 500
    problem = response.json()
    assert problem["type"] == "urn:ml-inference:card-invalid"
    for word in words:
        assert word in response.text
    assert "/models/" not in response.text.replace("http://", "")
    card = httpx.get(f"{folder_server.url}/models/{name}", timeout=60).json()
    assert card["state"] == "refused"
    listed = httpx.get(f"{folder_server.url}/models", timeout=60).json()["models"]
    assert {m["name"]: m["state"] for m in listed}[name] == "refused"
    assert_scores(ask(folder_server, "good", picture(2)), picture(2))


def test_integers_for_a_float_model_without_scaling_are_refused_and_the_override_works(folder_server):
    body = geotiff(picture(3), ("red", "green", "blue"))
    response = httpx.post(f"{folder_server.url}/no-scaling", content=body, timeout=60)
    problem = response.json()
    assert (response.status_code, problem["field"]) == (400, "scaling")
    assert "scaling=" in problem["detail"]
    answer = ask(folder_server, "no-scaling", picture(3), scaling="divide:255", output="raw")
    means = picture(3).reshape(3, -1).mean(axis=1) / 255
    raw = {entry["value"]: entry["score"] for entry in answer["prediction"]["scores"]}
    np.testing.assert_allclose([raw[i] for i in range(CLASSES)], WEIGHTS[:, :, 0, 0] @ means, atol=1e-5)
    assert any("request" in step for step in answer["preprocessing"])


def test_a_float_tile_for_an_integer_model_is_refused_by_its_type(tmp_path):
    spec = item(HERE)
    spec["properties"]["mlm:input"]["input"]["data_type"] = "uint8"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["same"])],
        "same",
        [value("image", TensorProto.UINT8, ["b", 3, "h", "w"])],
        [value("same", TensorProto.UINT8, ["b", 3, "h", "w"])],
    )
    spec["properties"]["mlm:output"] = {"name": "same", "tasks": ["regression"], "result": {
        "shape": [-1, 3, -1, -1], "dim_order": ["batch", "channel", "height", "width"], "data_type": "uint8"}}  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    write(tmp_path / "models" / "bytes", spec, model.SerializeToString())
    server = start(tmp_path, MODEL_SOURCES=str(tmp_path / "models"))
    try:
        names = ("red", "green", "blue")
        floats = geotiff(scene(1, 8, 8)[:3].astype(np.float32) / 7, names)
        problem = httpx.post(f"{server.url}/bytes", content=floats, timeout=60).json()
        assert (problem["status"], problem["field"]) == (400, "image.dtype")
        whole = httpx.post(f"{server.url}/bytes", content=geotiff(picture(4), names), timeout=60)
        np.testing.assert_array_equal(opened(whole.content)[1], picture(4))
    finally:
        assert stop(server) == 0
