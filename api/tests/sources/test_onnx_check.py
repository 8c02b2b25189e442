"""What the runtime may be given, and what it is spared."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from sources.onnx_models import add_node, bias_model, external_model, external_tensor, graph_of, model_of

from ml_inference.errors import CardInvalid
from ml_inference.sources.onnx_check import check_onnx


def refusal(model: ModelProto | bytes, folder, *, external_data: bool = True) -> CardInvalid:
    path = folder / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(CardInvalid) as refused:
        check_onnx(path, external_data=external_data)
    assert str(folder) not in str(refused.value)
    return refused.value


@pytest.fixture
def folder(tmp_path):
    inner = tmp_path / "model"
    (inner / "sub").mkdir(parents=True)
    (tmp_path / "outside.bin").write_bytes(bytes(12))
    (inner / "weights.bin").write_bytes(bytes(12))
    (inner / "sub" / "weights.bin").write_bytes(bytes(12))
    return inner


@pytest.mark.parametrize("location", ["weights.bin", "sub/weights.bin", "./weights.bin"])
def test_data_beside_the_model_is_allowed_where_the_source_has_such(location, folder):
    path = folder / "model.onnx"
    path.write_bytes(external_model(location=location, offset="0", length="12").SerializeToString())
    check_onnx(path, external_data=True)
    problem = refusal(path.read_bytes(), folder, external_data=False)
    assert problem.problems[0][0] == "onnx:bias"


OUTSIDE = {
    "absolute": "/etc/passwd",
    "parent": "../outside.bin",
    "parent within": "sub/../../outside.bin",
    "backslash": "..\\outside.bin",
    "drive": "C:weights.bin",
    "share": "\\\\host\\share",
    "absent": "absent.bin",
    "folder": "sub",
    "empty": "",
    "nul": "weights.bin\0",
    "memory": "*/_ORT_MEM_ADDR_/*",
    "too long": "a" * 5000,
    "a file as a folder": "weights.bin/x",
}


@pytest.mark.parametrize("location", OUTSIDE.values(), ids=OUTSIDE)
def test_data_elsewhere_is_refused(location, folder):
    problem = refusal(external_model(location=location), folder)
    assert problem.problems[0][0] == "onnx:bias"
    assert "external data of tensor `bias`" in str(problem)


def _symbolic(folder):
    (folder / "link.bin").symlink_to(folder.parent / "outside.bin")


def _symbolic_within(folder):
    (folder / "link.bin").symlink_to("weights.bin")


def _hard(folder):
    os.link(folder.parent / "outside.bin", folder / "link.bin")


def _fifo(folder):
    os.mkfifo(folder / "link.bin")


def _through_a_folder(folder):
    (folder / "link.bin").symlink_to(folder.parent)


@pytest.mark.parametrize("make", [_symbolic, _symbolic_within, _hard, _fifo, _through_a_folder])
def test_links_and_special_files_are_refused(make, folder):
    make(folder)
    location = "link.bin/outside.bin" if make is _through_a_folder else "link.bin"
    assert "not a plain file of its own" in str(refusal(external_model(location=location), folder))


@pytest.mark.parametrize(
    ("offset", "length"), [("0", "13"), ("1", "12"), ("-4", "4"), ("4", "-4"), ("x", "4")]
)
def test_a_stretch_beyond_the_file_is_refused(offset, length, folder):
    refusal(external_model(location="weights.bin", offset=offset, length=length), folder)


def _in_subgraph(tensor: TensorProto) -> ModelProto:
    inner = graph_of([helper.make_node("Identity", ["hidden"], ["y"])], [tensor])
    condition = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    choice = helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
    return model_of([choice], [condition])


def _in_attribute(tensor: TensorProto) -> ModelProto:
    return model_of([helper.make_node("Constant", [], ["y"], value=tensor)])


def _in_list(tensor: TensorProto) -> ModelProto:
    node = add_node()
    node.attribute.add(name="several", type=9).tensors.append(tensor)
    return model_of([node])


def _sparse(tensor: TensorProto) -> ModelProto:
    model = model_of([add_node()])
    model.graph.sparse_initializer.add(dims=[3]).values.CopyFrom(tensor)
    return model


def _sparse_attribute(tensor: TensorProto) -> ModelProto:
    node = add_node()
    node.attribute.add(name="sparse", type=11).sparse_tensor.indices.CopyFrom(tensor)
    return model_of([node])


def _in_function(tensor: TensorProto) -> ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=tensor)
    function = helper.make_function("own", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 17)])
    model = model_of([helper.make_node("F", ["x"], ["y"], domain="own")], domains=("own",))
    model.functions.append(function)
    return model


def _in_training(tensor: TensorProto) -> ModelProto:
    model = model_of([add_node()])
    model.training_info.add().initialization.initializer.append(tensor)
    return model


HIDING_PLACES = [
    _in_subgraph,
    _in_attribute,
    _in_list,
    _sparse,
    _sparse_attribute,
    _in_function,
    _in_training,
]


@pytest.mark.parametrize("hide", HIDING_PLACES)
def test_every_tensor_of_a_graph_is_looked_at(hide, folder):
    tensor = external_tensor("hidden", location="../outside.bin")
    assert refusal(hide(tensor), folder).problems[0][0] == "onnx:hidden"


def test_entries_count_even_where_the_tensor_says_it_is_not_external(folder):
    tensor = external_tensor(location="/etc/passwd")
    tensor.data_location = TensorProto.DEFAULT
    refusal(model_of([add_node()], [tensor]), folder)


@pytest.mark.parametrize(
    ("domain", "operator", "words"),
    [
        ("my.company", "Secret", "domain `my.company`"),
        ("ai.onnx.contrib", "PyOp", "domain `ai.onnx.contrib`"),
        ("com.microsoft", "EPContext", "a compiled blob"),
    ],
)
def test_operators_of_strangers_are_refused(domain, operator, words, folder):
    node = helper.make_node(operator, ["x"], ["y"], name="odd", domain=domain)
    problem = refusal(model_of([node], domains=(domain,)), folder)
    assert problem.problems[0][0] == "onnx:odd"
    assert words in str(problem)


def test_the_runtimes_own_operators_and_the_models_own_functions_are_allowed(folder):
    gelu = helper.make_node("Gelu", ["x"], ["z"], domain="com.microsoft")
    call = helper.make_node("F", ["z"], ["y"], domain="own")
    model = model_of([gelu, call], domains=("com.microsoft", "own"))
    body = [helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(
        helper.make_function("own", "F", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    )
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    check_onnx(path, external_data=False)


def test_a_function_of_a_strangers_operator_is_refused(folder):
    model = model_of([helper.make_node("F", ["x"], ["y"], domain="own")], domains=("own",))
    body = [helper.make_node("Odd", ["x"], ["y"], domain="strange")]
    model.functions.append(
        helper.make_function("own", "F", ["x"], ["y"], body, [helper.make_opsetid("strange", 1)])
    )
    assert "domain `strange`" in str(refusal(model, folder))


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return buffer.getvalue()


NOT_ONNX = {
    "empty": (b"", "it is empty"),
    "zip": (_zip(), "a zip archive, as `torch.save` writes it"),
    "pickle": (pickle.dumps({"a": 1}), "a Python pickle"),
    "old pickle": (pickle.dumps([1] * 9, protocol=2), "a Python pickle"),
    "gzip": (b"\x1f\x8b\x08rest", "a gzip archive"),
    "page": (b"<!doctype html><title>Sign in</title>", "an HTML or XML page"),
    "json": (b'{"detail": "no"}', "JSON text"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "ort": (b"\x18\0\0\0ORTMrest", "ONNX Runtime's own format"),
    "tflite": (b"\x18\0\0\0TFL3rest", "TensorFlow Lite"),
    "noise": (np.random.default_rng(0).bytes(1000), "cannot be parsed"),
    "cut": (bias_model(padding=1000)[:-50], "cannot be parsed; it may be cut short"),
    "another message": (helper.make_opsetid("a", 1).SerializeToString(), "ONNX model"),
}


@pytest.mark.parametrize(("data", "words"), NOT_ONNX.values(), ids=NOT_ONNX)
def test_what_is_not_onnx_is_named(data, words, folder):
    assert words in str(refusal(data, folder))
