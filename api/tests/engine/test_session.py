"""ONNX Runtime behind its one door: what loads, what runs, what is refused, what stops."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto as T
from onnx import helper as h

from ml_inference.contract.card import (
    Axis,
    GraphSignature,
    InputSpec,
    ModelCard,
    OutputSpec,
    Task,
    TensorSpec,
)
from ml_inference.engine.abort import Abort
from ml_inference.engine.device import Device
from ml_inference.engine.session import OnnxSession
from ml_inference.engine.warmup import warm_up
from ml_inference.errors import CardInvalid, InferenceFailed

CPU = Device("cpu")


def write(path, nodes, shape_in, shape_out, initializers=()):
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info("x", T.FLOAT, shape_in)],
        [h.make_tensor_value_info("y", T.FLOAT, shape_out)],
        list(initializers),
    )
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9)
    h.set_model_props(model, {"author": "test"})
    onnx.save(model, path)
    return path


def relu(path, shape):
    return write(path, [h.make_node("Relu", ["x"], ["y"])], shape, shape)


def endless(path):
    """A graph that never ends by itself: a Loop whose condition stays true."""
    body = h.make_graph(
        [h.make_node("Identity", ["c"], ["c2"]), h.make_node("Add", ["v", "one"], ["v2"])],
        "body",
        [
            h.make_tensor_value_info("i", T.INT64, []),
            h.make_tensor_value_info("c", T.BOOL, []),
            h.make_tensor_value_info("v", T.FLOAT, [None, 1]),
        ],
        [h.make_tensor_value_info("c2", T.BOOL, []), h.make_tensor_value_info("v2", T.FLOAT, [None, 1])],
        [h.make_tensor("one", T.FLOAT, [1], [1.0])],
    )
    nodes = [h.make_node("Loop", ["n", "go", "x"], ["y"], body=body)]
    init = [h.make_tensor("n", T.INT64, [], [2**62]), h.make_tensor("go", T.BOOL, [], [True])]
    return write(path, nodes, ["b", 1], ["b", 1], init)


def card(shape, axes="bchw"):
    names = {"b": Axis.BATCH, "c": Axis.CHANNEL, "h": Axis.HEIGHT, "w": Axis.WIDTH}
    spec = InputSpec(name="x", axes=tuple(names[a] for a in axes), shape=tuple(shape), dtype="float32")
    return ModelCard(name="m", inputs=(spec,), outputs=(OutputSpec(name="y", task=Task.RAW),))


def test_the_signature_is_the_graphs_own(tmp_path):
    session = OnnxSession(relu(tmp_path / "m.onnx", ["b", 3, "h", 8]), CPU, threads=1)
    spec = {"dtype": "float32", "shape": (-1, 3, -1, 8)}
    assert session.signature == GraphSignature(
        inputs=(TensorSpec(name="x", **spec),),
        outputs=(TensorSpec(name="y", **spec),),
        metadata={"author": "test"},
    )
    assert session.provider == "CPUExecutionProvider"


def test_a_run_gives_every_output_by_name(tmp_path):
    session = OnnxSession(relu(tmp_path / "m.onnx", ["b", 2]), CPU, threads=1)
    x = np.array([[-1, 2], [3, -4]], np.float32)
    np.testing.assert_array_equal(session.run({"x": x}, Abort())["y"], np.maximum(x, 0))


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"PK\x03\x04", b"hello world" * 9])
def test_a_file_that_is_no_graph_is_refused_without_a_path(tmp_path, content):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(CardInvalid) as refused:
        OnnxSession(path, CPU, threads=1)
    assert str(tmp_path) not in str(refused.value)


def test_a_wrong_shape_is_a_failure_in_the_runtimes_words(tmp_path):
    session = OnnxSession(relu(tmp_path / "m.onnx", ["b", 2]), CPU, threads=1)
    with pytest.raises(InferenceFailed, match="index: 1 Got: 5 Expected: 2"):
        session.run({"x": np.zeros((1, 5), np.float32)}, Abort())


def test_an_endless_run_stops_when_told(tmp_path):
    session = OnnxSession(endless(tmp_path / "m.onnx"), CPU, threads=1)
    abort = Abort()
    threading.Timer(0.2, abort.abort).start()
    started = time.monotonic()
    with pytest.raises(InferenceFailed):
        session.run({"x": np.zeros((1, 1), np.float32)}, abort)
    assert time.monotonic() - started < 10


def test_an_abort_that_came_first_stops_the_run_at_once(tmp_path):
    session = OnnxSession(endless(tmp_path / "m.onnx"), CPU, threads=1)
    abort = Abort()
    abort.abort()
    with pytest.raises(InferenceFailed):
        session.run({"x": np.zeros((1, 1), np.float32)}, abort)


def test_independent_rows_may_share_a_batch(tmp_path):
    session = OnnxSession(relu(tmp_path / "m.onnx", ["b", 3, "h", "w"]), CPU, threads=1)
    safety = warm_up(session, card((-1, 3, -1, -1)))
    assert (safety.batched, safety.limit, safety.exact) == (True, None, None)


def test_rows_that_depend_on_their_batch_run_one_by_one(tmp_path):
    nodes = [
        h.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        h.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    session = OnnxSession(write(tmp_path / "m.onnx", nodes, ["b", 3, 8, 8], ["b", 3, 8, 8]), CPU, threads=1)
    safety = warm_up(session, card((-1, 3, 8, 8)))
    assert safety.limit == 1
    assert "depends on its batch" in safety.note


def test_an_output_without_rows_runs_one_by_one(tmp_path):
    nodes = [h.make_node("ReduceMax", ["x"], ["y"], axes=[0], keepdims=0)]
    session = OnnxSession(write(tmp_path / "m.onnx", nodes, ["b", 3, 8, 8], [3, 8, 8]), CPU, threads=1)
    safety = warm_up(session, card((-1, 3, 8, 8)))
    assert safety.limit == 1


@pytest.mark.parametrize(("rows", "exact"), [(1, None), (4, 4)])
def test_a_fixed_batch_is_kept_to(tmp_path, rows, exact):
    session = OnnxSession(relu(tmp_path / "m.onnx", [rows, 3, 8, 8]), CPU, threads=1)
    safety = warm_up(session, card((rows, 3, 8, 8)))
    assert (safety.limit, safety.exact) == (rows, exact)


def test_a_graph_without_a_batch_axis_is_not_batched(tmp_path):
    session = OnnxSession(relu(tmp_path / "m.onnx", [3, 8, 8]), CPU, threads=1)
    assert not warm_up(session, card((3, 8, 8), "chw")).batched


def test_a_model_that_fails_on_its_own_shape_is_refused(tmp_path):
    nodes = [h.make_node("Reshape", ["x", "shape"], ["y"])]
    init = [h.make_tensor("shape", T.INT64, [1], [7])]
    session = OnnxSession(write(tmp_path / "m.onnx", nodes, ["b", 2], None, init), CPU, threads=1)
    spec = InputSpec(name="x", axes=(Axis.BATCH, Axis.CHANNEL), shape=(-1, 2), dtype="float32")
    bad = ModelCard(name="m", inputs=(spec,), outputs=(OutputSpec(name="y", task=Task.RAW),))
    with pytest.raises(CardInvalid, match="declares"):
        warm_up(session, bad)


def test_the_runtime_reports_to_nobody_and_leaves_nothing_in_the_home_folder(tmp_path):
    model = relu(tmp_path / "m.onnx", [1, 4])
    home = tmp_path / "home"
    home.mkdir()
    script = (
        "import sys, pathlib\n"
        "from ml_inference.engine.session import OnnxSession, resolve_device\n"
        "OnnxSession(pathlib.Path(sys.argv[1]), resolve_device('cpu'), 1)\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-c", script, str(model)],
        env={**clean, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert [path for path in home.rglob("*") if path.is_file()] == []


def test_what_the_runtime_says_of_a_failure_is_its_cause_and_not_its_source_code(tmp_path):
    sizes = h.make_tensor("s", T.INT64, [2], [-1, 4])
    reshape = [h.make_node("Reshape", ["x", "s"], ["y"])]
    session = OnnxSession(write(tmp_path / "m.onnx", reshape, ["n"], ["m", 4], [sizes]), CPU, 1)
    with pytest.raises(InferenceFailed, match=r"cannot be reshaped .* requested shape:\{-1,4\}") as failed:
        session.run({"x": np.zeros(3, np.float32)}, Abort())
    assert "/" not in str(failed.value)
    assert "::" not in str(failed.value)
