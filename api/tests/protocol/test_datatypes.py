"""Element types: the protocol's words, BF16 bits, and elements behind their lengths."""

from __future__ import annotations

import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from ml_inference.protocol.datatypes import NUMPY, datatype_of, join_elements, split_elements, widened


@pytest.mark.parametrize("name", NUMPY)
def test_a_type_is_the_one_that_a_stock_client_means_by_the_word(name):
    dtype = NUMPY[name]
    assert np_to_triton_dtype(dtype) == name == datatype_of(dtype) == datatype_of(dtype.name)
    assert dtype.byteorder in "|<=" or np.little_endian is False


def test_every_bf16_widens_to_the_fp32_of_the_same_value():
    bits = np.arange(2**16, dtype=np.uint16)
    np.testing.assert_array_equal(widened(bits), bits.view(ml_dtypes.bfloat16).astype(np.float32))


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_elements_travel_as_stock_clients_write_them_and_come_back(elements):
    stock = serialize_byte_tensor(np.array([*elements, b""], np.object_)).item()
    assert join_elements([*elements, b""]) == stock
    assert [bytes(each) for each in split_elements(memoryview(stock))] == [*elements, b""]


@pytest.mark.parametrize(
    "data",
    [b"\x01", struct.pack("<I", 1), struct.pack("<I", 2**32 - 1) + b"xyz", struct.pack("<I", 0) + b"\0"],
)
def test_a_length_that_leads_beyond_the_end_is_an_error(data):
    with pytest.raises(ValueError, match="bytes"):
        list(split_elements(memoryview(data)))
