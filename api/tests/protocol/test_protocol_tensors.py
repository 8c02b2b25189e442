"""Bytes and numbers of a stranger become a tensor exactly, or an error that names it."""

from __future__ import annotations

import math
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_inference.errors import ContractMismatch
from ml_inference.protocol.datatypes import DATATYPES, NUMPY
from ml_inference.protocol.tensors import InferOutput, input_of_buffer, input_of_values, raw_bytes

FORMATS = dict(zip(NUMPY, "?BHIQbhiqefd", strict=True))
"""`struct`'s letters: the same bytes read by another library."""


def refused(make, *arguments):
    with pytest.raises(ContractMismatch) as caught:
        make("pixels", *arguments)
    assert caught.value.field == "inputs.pixels"
    assert "'pixels'" in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(NUMPY)),
    st.lists(st.integers(-1, 4), max_size=4),
    st.binary(max_size=128),
    st.booleans(),
)
def test_bytes_are_read_as_struct_reads_them_or_refused(datatype, shape, data, exact):
    letter = FORMATS[datatype]
    count = math.prod(shape)
    size = count * struct.calcsize(letter)
    if exact and 0 <= size <= 128:
        data = data.ljust(size, b"\1")[:size]
    legal = all(each >= 0 for each in shape) and len(data) == size
    if datatype == "BOOL" and any(each > 1 for each in data):
        legal = False
    if not legal:
        refused(input_of_buffer, datatype, shape, memoryview(data))
        return
    tensor = input_of_buffer("pixels", datatype, shape, memoryview(data))
    assert tensor.shape == tensor.data.shape == tuple(shape)
    expected = struct.unpack(f"<{count}{letter}", data)
    np.testing.assert_array_equal(tensor.data.ravel(), np.array(expected, NUMPY[datatype]), strict=True)


@pytest.mark.parametrize(
    "shape",
    [
        [-1, 3],
        [2**31],
        [2**33, 2**33, 4],
        [2**64],
        [True],
        [1.0],
        ["4"],
        [None],
        [[1]],
        [1] * 9,
        [2**31 - 1] * 8,
    ],
)
def test_a_shape_that_cannot_be_or_that_overflows_is_refused(shape):
    refused(input_of_buffer, "FP32", shape, memoryview(b"\0" * 16))
    refused(input_of_values, "FP32", shape, [0.0] * 4)


def test_a_shape_that_overflows_but_for_its_zero_is_refused():
    shape = [2**31 - 1, 2**31 - 1, 2**31 - 1, 0, 2]
    refused(input_of_buffer, "FP32", shape, memoryview(b""))
    refused(input_of_values, "FP32", shape, [])


@pytest.mark.parametrize("datatype", ["", "fp32", "V1000000000", "f4,f4", "FP32\0", "OBJECT"])
def test_only_the_protocols_own_words_are_datatypes(datatype):
    refused(input_of_buffer, datatype, [4], memoryview(b"\0" * 16))


def test_a_tensor_is_a_view_of_the_bytes_that_came():
    data = bytearray(np.arange(6, dtype="<f4").tobytes())
    tensor = input_of_buffer("pixels", "FP32", [2, 3], memoryview(data))
    data[0:4] = struct.pack("<f", 7.0)
    assert tensor.data[0, 0] == 7.0


@pytest.mark.parametrize("offset", range(1, 8))
def test_elements_that_do_not_lie_on_their_boundary_are_copied_to_one(offset):
    values = np.arange(6, dtype="<f8")
    data = bytearray(offset) + values.tobytes()
    array = input_of_buffer("pixels", "FP64", [6], memoryview(data)[offset:]).data
    assert array.flags.aligned
    np.testing.assert_array_equal(array, values)


def test_bf16_becomes_float32_of_the_same_values():
    values = np.array([[1.5, -2.0, 3.140625]], ml_dtypes.bfloat16)
    tensor = input_of_buffer("pixels", "BF16", [1, 3], memoryview(values.tobytes()))
    np.testing.assert_array_equal(tensor.data, values.astype(np.float32), strict=True)


def test_bytes_elements_are_counted_against_the_shape():
    data = memoryview(struct.pack("<I", 2) + b"ab" + struct.pack("<I", 0))
    assert [bytes(each) for each in input_of_buffer("pixels", "BYTES", [2], data).data] == [b"ab", b""]
    for shape in ([1], [3], [], [2**31 - 1]):
        refused(input_of_buffer, "BYTES", shape, data)
    refused(input_of_buffer, "BYTES", [1], memoryview(struct.pack("<I", 2**32 - 1) + b"ab"))


@pytest.mark.parametrize("datatype", [each for each in NUMPY if each != "FP16"])
def test_values_come_flat_or_nested_as_the_shape_says(datatype):
    wanted = np.array([[0, 1, 1], [1, 0, 1]], NUMPY[datatype])
    for values in (wanted.tolist(), wanted.ravel().tolist()):
        tensor = input_of_values("pixels", datatype, [2, 3], values)
        np.testing.assert_array_equal(tensor.data, wanted, strict=True)


@pytest.mark.parametrize(
    ("datatype", "shape", "values"),
    [
        ("FP32", [2, 2], [[1, 2], [3]]),
        ("FP32", [2, 2], [[1, 2], 3]),
        ("FP32", [2, 2], [[1], [2], [3], [4]]),
        ("FP32", [4], [[1, 2], [3, 4]]),
        ("FP32", [2], [[[1]], [[2]]]),
        ("FP32", [2], [1, 2, 3]),
        ("FP32", [2], [1, None]),
        ("FP32", [2], [1, "2"]),
        ("FP32", [2], [1, True]),
        ("FP32", [2], [1, {}]),
        ("FP32", [2], [1, 1e39]),
        ("FP64", [1], [10**400]),
        ("UINT8", [2], [1, 256]),
        ("UINT8", [2], [1, -1]),
        ("UINT8", [2], [1, 1.0]),
        ("INT64", [1], [2**63]),
        ("UINT64", [1], [2**64]),
        ("BOOL", [2], [True, 1]),
        ("BYTES", [2], ["a", 1]),
        ("BYTES", [2], [["a"], ["b", "c"]]),
        ("FP16", [1], [1.0]),
        ("BF16", [1], [1.0]),
    ],
)
def test_values_that_are_ragged_or_of_another_type_or_out_of_range_are_refused(datatype, shape, values):
    refused(input_of_values, datatype, shape, values)


def test_one_long_text_among_many_values_costs_no_memory():
    # numpy would make every element as wide as the longest.
    refused(input_of_values, "FP32", [100_001], [*([0.5] * 100_000), "x" * 10_000_000])


@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_is_written_is_read_back(datatype):
    if datatype == "BYTES":
        output = InferOutput("y", datatype, (2,), [b"a", b"bc"])
        assert [bytes(e) for e in input_of_buffer("y", "BYTES", [2], raw_bytes(output)).data] == [b"a", b"bc"]
    elif datatype != "BF16":
        array = np.arange(12).reshape(3, 4).astype(NUMPY[datatype])[:, ::2]
        output = InferOutput("y", datatype, array.shape, array)
        np.testing.assert_array_equal(
            input_of_buffer("y", datatype, array.shape, raw_bytes(output)).data, array
        )


def test_an_output_that_lies_right_already_is_not_copied():
    array = np.zeros((4, 5), np.float32)
    assert np.shares_memory(
        np.frombuffer(raw_bytes(InferOutput("y", "FP32", array.shape, array)), "f4"), array
    )


def test_empty_and_scalar_outputs_have_bytes_too():
    empty = np.zeros((0, 3), np.float32)
    assert bytes(raw_bytes(InferOutput("y", "FP32", empty.shape, empty))) == b""
    assert bytes(raw_bytes(InferOutput("y", "UINT8", (), np.array(7, np.uint8)))) == b"\7"
