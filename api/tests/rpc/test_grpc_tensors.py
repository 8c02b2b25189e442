"""Tensors in messages: raw and typed contents of every type, and what is said of those that lie."""

from __future__ import annotations

import struct

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rpc.conftest import failure, request
from rpc.odd_models import KINDS
from tritonclient.grpc import service_pb2 as pb

from ml_inference.errors import InvalidRequest
from ml_inference.protocol.tensors import InferOutput, InferResponse
from ml_inference.rpc.tensors import message_of, request_of

FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}  # OIP, grpc_predict_v2.proto: InferTensorContents


def extremes(dtype):
    """Three values of a type: its ends and something between."""
    kind = np.dtype(dtype).kind
    if kind == "b":
        return np.array([[True, False, True]])
    bounds = np.iinfo(dtype) if kind in "iu" else np.finfo(dtype)
    return np.array([[bounds.min, 1, bounds.max]], dtype)


def message(**tensors):
    made = pb.ModelInferRequest(model_name="m")
    for name, (datatype, shape) in tensors.items():
        made.inputs.add(name=name, datatype=datatype, shape=shape)
    return made


def refused(made):
    with pytest.raises(InvalidRequest) as caught:
        request_of(made)
    return str(caught.value)


@pytest.mark.anyio
async def test_every_type_goes_through_a_model_and_back_bit_by_bit(service):
    arrays = {name: extremes(dtype) for name, (_, dtype) in KINDS.items()}
    made = pb.ModelInferRequest(model_name="kinds")
    for name, array in arrays.items():
        made.inputs.add(name=f"in_{name}", datatype=name, shape=array.shape)
        made.raw_input_contents.append(array.tobytes())
    async with service() as it:
        answer = await it.stub.ModelInfer(made)
    assert len(answer.outputs) == len(KINDS)
    for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
        name = output.name.removeprefix("out_")
        assert (output.datatype, list(output.shape)) == (name, [1, 3])
        assert raw == arrays[name].tobytes()


@pytest.mark.parametrize("name", ["FP16", "BF16"])
def test_types_without_typed_contents_are_told_to_come_raw(name):
    made = message(x=(name, [1]))
    made.inputs[0].contents.fp32_contents.append(1.0)
    assert "expected raw_input_contents" in refused(made)


def test_bf16_is_widened_to_the_fp32_of_the_same_value():
    made = message(x=("BF16", [3]))
    made.raw_input_contents.append(struct.pack("<3H", 0x3F80, 0xC000, 0x7F80))  # 1, -2, infinity
    assert request_of(made).inputs[0].data.tolist() == [1.0, -2.0, float("inf")]


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_typed_contents_become_the_array_that_they_say(name):
    array = extremes(KINDS[name][1])
    made = message(x=(name, [1, 3]))
    getattr(made.inputs[0].contents, FIELDS[name]).extend(array.ravel().tolist())
    (given,) = request_of(made).inputs
    assert given.data.dtype == array.dtype
    assert given.data.tolist() == array.tolist()


@pytest.mark.parametrize(
    ("name", "value"), [("INT8", 128), ("INT8", -129), ("INT16", 2**15), ("UINT8", 256), ("UINT16", 2**16)]
)
def test_a_typed_value_beyond_its_type_is_named(name, value):
    made = message(x=(name, [2]))
    getattr(made.inputs[0].contents, FIELDS[name]).extend([0, value])
    words = refused(made)
    assert "'x'" in words
    assert str(value) in words


def test_raw_contents_are_not_copied_by_us():
    made = message(x=("FP32", [4]))
    made.raw_input_contents.append(struct.pack("<4f", 1, 2, 3, 4))
    (given,) = request_of(made).inputs
    assert given.data.tolist() == [1, 2, 3, 4]
    assert not given.data.flags.owndata  # a view …
    assert not given.data.flags.writeable  # … of the bytes themselves


def test_texts_come_raw_and_typed():
    typed = message(x=("BYTES", [2]))
    typed.inputs[0].contents.bytes_contents.extend([b"ab", b""])
    raw = message(x=("BYTES", [2]))
    raw.raw_input_contents.append(struct.pack("<I2sI", 2, b"ab", 0))
    for made in (typed, raw):
        assert [bytes(each) for each in request_of(made).inputs[0].data] == [b"ab", b""]


def test_contents_that_do_not_fit_their_tensor_are_refused_by_its_name():
    for raw in (b"", bytes(8), bytes(16)):
        made = message(x=("FP32", [3]))
        made.raw_input_contents.append(raw)
        assert "'x'" in refused(made)
        assert "12 bytes" in refused(made)
    made = message(x=("FP32", [3]))
    made.inputs[0].contents.fp32_contents.extend([1.0, 2.0])
    assert "takes 3 values and 2 came" in refused(made)
    made.inputs[0].contents.ClearField("fp32_contents")
    made.inputs[0].contents.fp64_contents.extend([1.0, 2.0, 3.0])
    assert "fp32_contents" in refused(made)
    assert "fp64_contents" in refused(made)


def test_contents_of_both_kinds_or_too_few_are_refused():
    made = message(x=("FP32", [1]), y=("FP32", [1]))
    made.raw_input_contents.append(bytes(4))
    assert "1 entries for 2 inputs" in refused(made)
    made.raw_input_contents.append(bytes(4))
    made.inputs[1].contents.fp32_contents.append(1.0)
    assert "'y'" in refused(made)
    assert "twice" in refused(made)


@pytest.mark.parametrize(
    "shape",
    [[-1], [2**31], [2**62, 4], [2**31 - 1] * 8, [1] * 9, [0, 2**40]],
    ids=lambda shape: str(shape)[:20],
)
def test_shapes_that_cannot_be_are_refused_without_allocating(shape):
    made = message(x=("FP64", shape))
    made.raw_input_contents.append(bytes(8))
    assert "'x'" in refused(made)
    made.ClearField("raw_input_contents")
    assert "'x'" in refused(made)


@pytest.mark.parametrize("name", ["", "fp32", "STRING", "FP128"])
def test_an_unknown_datatype_is_refused(name):
    made = message(x=(name, [1]))
    made.raw_input_contents.append(bytes(4))
    assert "there is no datatype" in refused(made)


def test_shared_memory_is_refused_in_words_on_both_sides():
    made = message(x=("FP32", [1]))
    made.inputs[0].parameters["shared_memory_region"].string_param = "r"
    assert "shared memory" in refused(made)
    made = message()
    made.outputs.add(name="y").parameters["shared_memory_region"].string_param = "r"
    assert "'y'" in refused(made)


def test_priority_and_timeout_are_read_from_any_number():
    for field in ("int64_param", "uint64_param"):
        made = message()
        setattr(made.parameters["priority"], field, 3)
        setattr(made.parameters["timeout"], field, 1500)
        assert (request_of(made).priority, request_of(made).timeout_us) == (3, 1500)
    made.parameters["timeout"].string_param = "soon"
    assert "timeout" in refused(made)
    made.parameters["timeout"].int64_param = -1
    assert "timeout" in refused(made)


@given(
    datatype=st.sampled_from([*KINDS, "BYTES", "BF16", "X"]),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=9),
    raw=st.none() | st.binary(max_size=64),
    values=st.lists(st.integers(0, 300), max_size=5),
    field=st.sampled_from(sorted(set(FIELDS.values()))),
)
@settings(max_examples=300, deadline=None)
def test_whatever_a_message_says_it_is_read_or_refused(datatype, shape, raw, values, field):
    made = message(x=(datatype, shape))
    if raw is not None:
        made.raw_input_contents.append(raw)
    getattr(made.inputs[0].contents, field).extend(
        [bool(each) if field[0] == "b" else each for each in values]
    )
    try:
        (given,) = request_of(made).inputs
    except InvalidRequest:
        return
    elements = len(given.data) if given.datatype == "BYTES" else given.data.size
    assert elements == int(np.prod(shape, dtype=object))


def test_an_answer_travels_raw_whatever_its_layout():
    array = np.arange(6, dtype=">i4").reshape(2, 3).T
    texts = InferOutput("t", "BYTES", (2,), [b"ab", b""])
    answer = InferResponse(
        "m",
        "1",
        (InferOutput("x", "INT32", (3, 2), array), texts),
        "7",
        {"a": 1, "b": True, "c": "d", "e": 0.5},
    )
    made = message_of(answer)
    assert made.raw_output_contents[0] == np.array([0, 3, 1, 4, 2, 5], "<i4").tobytes()
    assert made.raw_output_contents[1] == struct.pack("<I2sI", 2, b"ab", 0)
    assert not any(each.HasField("contents") for each in made.outputs)
    assert (made.parameters["a"].int64_param, made.parameters["b"].bool_param) == (1, True)
    assert (made.parameters["c"].string_param, made.parameters["e"].double_param) == ("d", 0.5)


@pytest.mark.anyio
async def test_the_model_refuses_unknown_missing_and_repeated_inputs(service):
    array = np.zeros((1, 100), np.float32)
    double = request("wide", {"x": array})
    double.inputs.add(name="x", datatype="FP32", shape=(1, 100))
    double.raw_input_contents.append(array.tobytes())
    cases = {
        "missing": request("wide", {}),
        "no such input": request("wide", {"x": array, "z": array}),
        "twice": double,
        "another datatype": request("wide", {"x": array.astype(np.float64)}),
        "another shape": request("wide", {"x": array[:, :99]}),
        "no elements": request("wide", {"x": array[:0]}),
    }
    unknown = request("wide", {"x": array})
    unknown.outputs.add(name="q")
    cases["no such output"] = unknown
    async with service() as it:
        for words, made in cases.items():
            error = await failure(it.stub.ModelInfer(made))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, words
            assert words in error.details()
        assert await it.stub.ModelInfer(request("wide", {"x": array}))


@pytest.mark.anyio
async def test_many_typed_values_are_read_beside_the_loop(service):
    """A million numbers as objects; the answer is as good as with few."""
    array = np.random.default_rng(0).random((10_000, 100)).astype(np.float32)
    made = pb.ModelInferRequest(model_name="wide")
    tensor = made.inputs.add(name="x", datatype="FP32", shape=array.shape)
    tensor.contents.fp32_contents.extend(array.ravel().tolist())
    async with service(max_body_bytes=2**29, queue_bytes=2**29) as it:
        answer = await it.stub.ModelInfer(made)
    given = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(10_000, 6400)
    assert np.array_equal(given[::1000], np.tile(array[::1000], 64))
