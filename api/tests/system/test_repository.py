"""The repository under load: a new version loses no request, a bad one changes nothing, memory comes back."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from sources.onnx_models import bias_model, graph_of
from system.conftest import start, stop

PAGE = 4096
MIB = 1 << 20
CLIENTS = 8
WEIGHTS = 40
"""MiB of the heavy model: from 32 on glibc gives a block pages of its own, so that resident memory tells what is held."""


def put(models, name, version, data):
    """Lay a version down as a careful publisher would: aside, and then under its name at once."""
    aside = models / f".{name}-{version}"
    aside.mkdir(parents=True)
    (aside / "model.onnx").write_bytes(data)
    (models / name).mkdir(exist_ok=True)
    aside.rename(models / name / str(version))


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    put(folder, "adder", 1, bias_model(1))
    return folder


@pytest.fixture
def server(tmp_path, models):
    running = start(tmp_path, MODEL_SOURCES=str(models))
    yield running
    assert stop(running) == 0


def repository(server, model, verb):
    return httpx.post(f"{server.url}/v2/repository/models/{model}/{verb}", timeout=60)


def index(server):
    """State and reason of each model and version."""
    rows = httpx.post(f"{server.url}/v2/repository/index", timeout=30).json()
    return {(row["name"], row["version"]): (row["state"], row["reason"]) for row in rows}


def ask(client, server, model="adder", x=(1.0, 2.0, 3.0)):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(x)], "data": list(x)}
    return client.post(f"{server.url}/v2/models/{model}/infer", json={"inputs": [tensor]})


def added(response):
    """Version that answered, and what it added."""
    assert response.status_code == 200, response.text
    answer = response.json()
    difference = np.array(answer["outputs"][0]["data"]) - [1, 2, 3]
    assert difference.min() == difference.max()
    return answer["model_version"], float(difference[0])


@dataclass
class Hammer:
    """Clients that ask without a pause until told to stop, and what each answer was, by the time it was asked."""

    server: object
    answers: list = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self):
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._runs = [self._pool.submit(self._run) for _ in range(CLIENTS)]
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._pool.shutdown()
        for run in self._runs:
            run.result()

    def _run(self):
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                asked = time.monotonic()
                self.answers.append((asked, ask(client, self.server)))

    def wait(self, more):
        """Until so many more answers have come."""
        wanted, deadline = len(self.answers) + more, time.monotonic() + 30
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_a_new_version_takes_over_under_load_and_no_request_is_lost(server, models):
    assert repository(server, "adder", "load").status_code == 200
    with Hammer(server) as hammer:
        hammer.wait(200)
        put(models, "adder", 2, bias_model(2))
        hammer.wait(100)
        assert repository(server, "adder", "load").status_code == 200
        loaded = time.monotonic()
        hammer.wait(200)
    told = [(asked, *added(response)) for asked, response in hammer.answers]
    assert {(version, bias) for _, version, bias in told} == {("1", 1.0), ("2", 2.0)}
    assert {version for asked, version, _ in told if asked > loaded} == {"2"}
    assert index(server)["adder", "2"][0] == "READY"
    assert server.total("model_inference_errors_total") == 0
    assert server.total("model_counter_total", model="adder") == len(told)


@pytest.mark.parametrize(
    "bad", [b"no graph at all", b"", bias_model(3)[:-9]], ids=["text", "empty", "cut off"]
)
def test_a_failing_load_keeps_what_answers(server, models, bad):
    assert repository(server, "adder", "load").status_code == 200
    with Hammer(server) as hammer:
        hammer.wait(50)
        put(models, "adder", 2, bad)
        refused = repository(server, "adder", "load")
        hammer.wait(50)
    assert refused.status_code >= 400
    assert refused.json()["error"]
    assert {added(response) for _, response in hammer.answers} == {("1", 1.0)}
    assert index(server)["adder", "1"][0] == "READY"


def test_a_file_replaced_in_place_is_served_after_a_load(server, models):
    """The same version with other bytes: a publisher who does not number."""
    repository(server, "adder", "load")
    with Hammer(server) as hammer:
        hammer.wait(50)
        aside = models / ".other"
        aside.write_bytes(bias_model(7))
        aside.rename(models / "adder" / "1" / "model.onnx")
        assert repository(server, "adder", "load").status_code == 200
        loaded = time.monotonic()
        hammer.wait(50)
    told = [(asked, *added(response)) for asked, response in hammer.answers]
    assert {bias for asked, _, bias in told if asked > loaded} == {7.0}
    assert {bias for _, _, bias in told} == {1.0, 7.0}


def test_a_load_reads_the_card_anew(server, models):
    """What the item says may change where the graph does not."""
    put(models, "described", 1, bias_model(1))
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": ["https://stac-extensions.github.io/mlm/v1.5.1/schema.json"],
        "id": "described",
        "assets": {"model": {"href": "model.onnx", "roles": ["mlm:model"]}},
        "properties": {
            "mlm:input": [{"name": "x", "input": axes("channel")}],
            "mlm:output": [{"name": "y", "tasks": ["classification"], "result": axes("class")}],
        },
    }
    for names in (["a", "b", "c"], ["d", "e", "f"]):
        classes = [{"value": value, "name": name} for value, name in enumerate(names)]
        item["properties"]["mlm:output"][0]["classification:classes"] = classes
        (models / "described" / "1" / "item.json").write_text(json.dumps(item))
        assert repository(server, "described", "load").status_code == 200
        card = httpx.get(f"{server.url}/v2/models/described", timeout=30).json()["parameters"]
        assert [each["name"] for each in card["classes"]["y"]] == names


def axes(last):
    return {"shape": [-1, 3], "dim_order": ["batch", last], "data_type": "float32"}


def test_a_request_meets_an_unloaded_model_as_404_and_one_under_way_is_answered(server):
    repository(server, "adder", "load")
    with Hammer(server) as hammer:
        hammer.wait(100)
        assert repository(server, "adder", "unload").status_code == 200
        hammer.wait(50)
        assert repository(server, "adder", "load").status_code == 200
        loaded = time.monotonic()
        hammer.wait(50)
    statuses = Counter(response.status_code for _, response in hammer.answers)
    assert set(statuses) == {200, 404}
    assert {added(response) for asked, response in hammer.answers if asked > loaded} == {("1", 1.0)}


def test_the_index_tells_states_and_reasons(server, models):
    put(models, "broken", 1, b"no graph at all")
    put(models, "waiting", 1, bias_model(4))
    repository(server, "adder", "load")
    assert repository(server, "broken", "load").status_code >= 400
    unknown = repository(server, "nothing", "load")
    assert (unknown.status_code, repository(server, "nothing", "unload").status_code) == (404, 404)
    assert "nothing" in unknown.json()["error"]
    told = index(server)
    assert told["adder", "1"][0] == "READY"
    states = {name: entry for (name, _), entry in told.items()}
    assert states["waiting"][0] == states["broken"][0] == "UNAVAILABLE"
    assert "ONNX" in states["broken"][1]
    assert states["waiting"][1] != states["broken"][1]
    repository(server, "adder", "unload")
    state, reason = {name: entry for (name, _), entry in index(server).items()}["adder"]
    assert (state, "unloaded" in reason) == ("UNAVAILABLE", True)
    ready = httpx.post(f"{server.url}/v2/repository/index", json={"ready": True}, timeout=30).json()
    assert ready == []


def heavy(megabytes):
    """What a model with so many MiB of weights costs to hold, and next to nothing to run: it adds one of their rows."""
    weights = np.random.default_rng(0).normal(size=(megabytes * MIB // 12, 3)).astype(np.float32)
    nodes = [  # which row is computed from x, so that no optimizer folds the weights away
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("ReduceMax", ["nothing"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["weights", "index"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["y"]),
    ]
    initial = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.float32(0), "zero")]
    graph = graph_of(nodes, initial)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def resident(server):
    """Resident memory of the server, bytes."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * PAGE


def test_fifty_rounds_of_load_and_unload_give_the_memory_back(server, models):
    """A model that stayed would cost fifty times its weights; one that left a tenth of them, five times."""
    rounds = 50
    put(models, "heavy", 1, heavy(WEIGHTS))
    loaded, unloaded = [], []
    with httpx.Client(timeout=60) as client:
        for _ in range(3 + rounds):
            assert repository(server, "heavy", "load").status_code == 200
            assert ask(client, server, "heavy").status_code == 200
            loaded.append(resident(server) / MIB)
            assert repository(server, "heavy", "unload").status_code == 200
            unloaded.append(resident(server) / MIB)
    # The first rounds fill what stays: thread pools, allocators' arenas.
    before, after = min(unloaded[:5]), min(unloaded[-5:])
    figures = f"unloaded {before:.0f} MiB, loaded up to {max(loaded):.0f}, unloaded after {rounds} rounds {after:.0f}"
    print(figures)  # noqa: T201 - the figures are the point; pytest -s shows them
    assert min(loaded) - before > WEIGHTS / 2, figures
    assert after - before < WEIGHTS / 2, figures


def test_versions_that_were_superseded_give_their_memory_back(server, models):
    versions, held = 12, []
    with httpx.Client(timeout=60) as client:
        for version in range(1, 1 + versions):
            put(models, "heavy", version, heavy(WEIGHTS))
            assert repository(server, "heavy", "load").status_code == 200
            assert ask(client, server, "heavy").json()["model_version"] == str(version)
            held.append(resident(server) / MIB)
    assert max(held[-4:]) - min(held[:4]) < 2 * WEIGHTS, (
        held
    )  # the eleven before it would be eleven times that
