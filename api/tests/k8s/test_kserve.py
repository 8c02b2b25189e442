"""k8s/kserve: keys that KServe knows, arguments and variables that this service takes, and every layout it mounts served."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import jsonschema
import numpy as np
import pytest
import yaml
from k8s.kserve_schema import INFERENCE_SERVICE, SERVING_RUNTIME
from onnx import TensorProto, helper

from ml_inference.cli import main
from ml_inference.settings import Settings, load_settings

FOLDER = Path(__file__).resolve().parents[3] / "k8s" / "kserve"
RUNTIME_TEXT = (FOLDER / "serving-runtime.yaml").read_text()
SERVICE_TEXT = (FOLDER / "inference-service.yaml").read_text()
RUNTIME, SERVICE = yaml.safe_load(RUNTIME_TEXT), yaml.safe_load(SERVICE_TEXT)
CONTAINER = RUNTIME["spec"]["containers"][0]
ENV = {each["name"]: each["value"] for each in CONTAINER["env"]}
NAME = SERVICE["metadata"]["name"]
MOUNT = "/mnt/models"


def uncommented(text):
    """The manifest with its commented-out choices in force, in place of those that they exclude."""
    text = re.sub(r"^ *protocolVersion: v2\n", "", text, flags=re.MULTILINE)
    return yaml.safe_load(re.sub(r"^( +)# (?= *(- |\w+:))", r"\1", text, flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("manifest", "schema"),
    [
        (RUNTIME, SERVING_RUNTIME),
        (SERVICE, INFERENCE_SERVICE),
        (uncommented(SERVICE_TEXT), INFERENCE_SERVICE),
    ],
)
def test_the_manifests_have_keys_and_values_that_kserve_knows(manifest, schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(manifest, schema)


@pytest.mark.parametrize(
    "slip",
    [
        lambda m: m["spec"]["containers"][0].update(securityContex={}),
        lambda m: m["spec"]["containers"][0]["securityContext"].update(runAsNonRoot=False),
        lambda m: m["spec"]["supportedModelFormats"][0].update(priority=0),
        lambda m: m["spec"]["supportedModelFormats"][0].update(version=1),
        lambda m: m["spec"]["protocolVersions"].append("v3"),
        lambda m: m["spec"]["containers"][0]["args"].append(8080),
        lambda m: m.update(apiVersion="serving.kserve.io/v1"),
    ],
)
def test_the_schema_finds_slips(slip):
    manifest = copy.deepcopy(RUNTIME)
    slip(manifest)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, SERVING_RUNTIME)


def test_runtime_and_service_fit_each_other():
    model = SERVICE["spec"]["predictor"]["model"]
    formats = {(each["name"], each["version"]) for each in RUNTIME["spec"]["supportedModelFormats"]}
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in formats
    assert model["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]
    assert model["runtime"] == RUNTIME["metadata"]["name"]


def parsed():
    """The arguments as the command line reads them."""
    command = main.commands[CONTAINER["args"][0]]
    return command.make_context(command.name, CONTAINER["args"][1:]).params


def test_arguments_and_variables_are_those_of_the_service():
    assert CONTAINER["command"] == ["ml-inference"]
    assert {name.lower() for name in ENV} <= set(Settings.model_fields)
    variables = {name: value.replace("{{.Name}}", NAME) for name, value in ENV.items()}
    settings = load_settings(variables, env_file=None, **parsed())
    assert (settings.host, settings.port, settings.grpc_port) == ("0.0.0.0", 8080, 9000)
    assert settings.model_sources == (f"file://{MOUNT}#{NAME}",)
    assert settings.models == (NAME,)


def test_ports_are_the_same_wherever_they_are_named():
    rest, grpc = parsed()["port"], parsed()["grpc_port"]
    probes = [CONTAINER[probe]["httpGet"]["port"] for probe in ("readinessProbe", "livenessProbe")]
    assert {str(port) for port in probes} == {rest}
    assert RUNTIME["spec"]["annotations"]["prometheus.kserve.io/port"] == rest
    chosen = uncommented(SERVICE_TEXT)["spec"]["predictor"]["model"]
    assert [str(each["containerPort"]) for each in chosen["ports"]] == [grpc]
    assert chosen["protocolVersion"] == "grpc-v2"


def doubling():
    """A model that doubles pixels, [rows, 1, height, width]."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [value("x", TensorProto.FLOAT, ["rows", 1, "height", "width"])],
        [value("y", TensorProto.FLOAT, ["rows", 1, "height", "width"])],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def item():
    """Its STAC item."""
    axes = {
        "shape": [-1, 1, -1, -1],
        "dim_order": ["batch", "channel", "height", "width"],
        "data_type": "float32",
    }
    return json.dumps(
        {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": ["https://stac-extensions.github.io/mlm/v1.5.1/schema.json"],
            "id": "doubling",
            "geometry": None,
            "links": [],
            "assets": {"model": {"href": "model.onnx", "roles": ["mlm:model"], "mlm:artifact_type": "onnx"}},
            "properties": {
                "datetime": "2026-01-01T00:00:00Z",
                "mlm:name": "doubling",
                "mlm:architecture": "sum",
                "mlm:tasks": ["regression"],
                "mlm:input": [{"name": "x", "bands": ["B04"], "input": axes}],
                "mlm:output": [{"name": "y", "tasks": ["regression"], "result": axes}],
            },
        }
    )


LAYOUTS = {
    "item at the root": {"item.json": item(), "model.onnx": doubling()},
    "model.onnx at the root": {"model.onnx": doubling()},
    "folder of another name": {"doubling/item.json": item(), "doubling/model.onnx": doubling()},
    "folder of versions": {"doubling/2/item.json": item(), "doubling/2/model.onnx": doubling()},
    "Triton's repository": {"doubling/1/model.onnx": doubling(), "doubling/config.pbtxt": 'name: "doubling"'},
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def pod(tmp_path):
    """Start the container's process over a mounted folder: its arguments and variables, and no other variables.

    Address, ports and the mount differ, since a test owns neither the machine's 8080 nor its /mnt.
    """
    running = []

    def start(files):
        mount = tmp_path / "mnt" / "models"
        for name, content in files.items():
            path = mount / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        ports = {each: free_port() for each in ("8080", "9000")}
        instead = {**ports, "0.0.0.0": "127.0.0.1"}
        args = [instead.get(each, each) for each in CONTAINER["args"]]
        filled = {k: v.replace("{{.Name}}", NAME).replace(MOUNT, str(mount)) for k, v in ENV.items()}
        with (tmp_path / "log").open("w") as log:
            command = [sys.executable, "-m", "ml_inference", *args]
            env = {"PATH": os.environ["PATH"], "HOME": "/", **filled}
            running.append(subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log))
        return f"http://127.0.0.1:{ports['8080']}", f"127.0.0.1:{ports['9000']}"

    yield start
    for process in running:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in running] == [0] * len(running)


def until(url, accept):
    """Ask the readiness probe until it satisfies, as a kubelet would."""
    path = CONTAINER["readinessProbe"]["httpGet"]["path"]
    response, deadline = None, time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            response = httpx.get(url + path, timeout=5)
            if accept(response):
                return response
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(f"the probe was never satisfied: {response and response.text}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_directory_as_kserve_mounts_it_is_served_under_the_service_s_name(layout, pod):
    http = pytest.importorskip("tritonclient.http")
    grpc = pytest.importorskip("tritonclient.grpc", reason="the `grpc` extra is not installed")
    rest, rpc = pod(LAYOUTS[layout])
    until(rest, lambda response: response.status_code == 200)
    x = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3)
    for client, module in (
        (http.InferenceServerClient(rest.removeprefix("http://")), http),
        (grpc.InferenceServerClient(rpc), grpc),
    ):
        tensor = module.InferInput("x", x.shape, "FP32")
        tensor.set_data_from_numpy(x)
        assert client.is_model_ready(NAME)
        np.testing.assert_array_equal(client.infer(NAME, [tensor]).as_numpy("y"), 2 * x)
        client.close()
    v1 = httpx.post(f"{rest}/v1/models/{NAME}:predict", json={"instances": x.tolist()}, timeout=30)
    assert v1.status_code == 200, v1.text
    np.testing.assert_array_equal(v1.json()["predictions"], 2 * x)
    metrics = httpx.get(rest + RUNTIME["spec"]["annotations"]["prometheus.kserve.io/path"], timeout=30).text
    assert f'model_ready{{model="{NAME}"' in metrics


def test_a_mounted_folder_without_a_model_never_gets_ready_and_says_why(pod):
    rest, _ = pod({"a/model.onnx": doubling(), "b/model.onnx": doubling()})
    response = until(rest, lambda response: "several models (a, b)" in response.text)
    assert response.status_code == 503
    assert "item.json" in response.text
    assert httpx.get(rest + CONTAINER["livenessProbe"]["httpGet"]["path"], timeout=5).status_code == 200
