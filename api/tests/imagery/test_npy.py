"""`.npy` as NumPy writes it, read without NumPy's own reader."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from imagery.image_files import LIMITS, noise, npy

from ml_inference.errors import ContractMismatch, CorruptImage, ProcessorError, TooLarge
from ml_inference.imagery import decode
from ml_inference.imagery.npy import encode_npy


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "<i4", ">i8", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_saves_comes_back(dtype, order, version):
    array = np.array(noise(3), dtype, order=order)
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    raster = decode(buffer.getvalue(), LIMITS)
    np.testing.assert_array_equal(raster.pixels, array)
    assert raster.pixels.dtype.isnative
    assert raster.pixels.flags.c_contiguous
    assert raster.bands == ("", "", "")


def test_two_dimensions_are_one_band():
    raster = decode(npy(np.arange(6, dtype=np.uint8).reshape(2, 3)), LIMITS)
    assert raster.pixels.tolist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize("shape", [(4,), (), (1, 2, 3, 4)])
def test_other_dimensions_name_the_field(shape):
    with pytest.raises(ContractMismatch) as caught:
        decode(npy(np.zeros(shape, np.uint8)), LIMITS)
    assert caught.value.field == "image.shape"


@pytest.mark.parametrize(
    "array",
    [
        np.array([[{}]], object),
        np.zeros((2, 2), [("a", "u1"), ("b", "u1")]),
        np.zeros((2, 2), complex),
        np.zeros((2, 2), bool),
        np.zeros((2, 2), "U3"),
        np.zeros((2, 2), "M8[s]"),
    ],
    ids=lambda array: array.dtype.str,
)
def test_anything_but_plain_numbers_is_refused_by_its_header(array):
    with pytest.raises(ContractMismatch) as caught:
        decode(npy(array), LIMITS)
    assert caught.value.field == "image.dtype"


def with_header(text, body=b""):
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode("latin-1") + body


@pytest.mark.parametrize(
    "text",
    [
        "",
        "None",
        "{}",
        "{'descr': '|u1', 'fortran_order': False}",
        "{'descr': '|u1', 'fortran_order': 0, 'shape': (1, 1)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 1)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 1)}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': [1, 1]}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1), 'more': 1}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1)",
        "__import__('os').getcwd()",
        "(" * 900,
        "-" * 900 + "1",
        "{" + "'a': 1, " * 500 + "}",
        "\xff\xfe",
        "'\\d'",
    ],
)
def test_a_header_that_says_anything_else_is_corrupt(text):
    with pytest.raises(CorruptImage):
        decode(with_header(text, b"\0"), LIMITS)


@pytest.mark.parametrize("change", [-1, 1, 100])
def test_fewer_or_more_bytes_than_declared_are_corrupt(change):
    data = npy(noise(1))
    with pytest.raises(CorruptImage, match="its header says 960"):
        decode(data[:change] if change < 0 else data + bytes(change), LIMITS)


def test_a_declared_size_is_refused_before_the_bytes_are_missed():
    shape = "{'descr': '<f8', 'fortran_order': False, 'shape': (3, 99999, 99999)}"
    with pytest.raises(TooLarge):
        decode(with_header(shape), LIMITS)


def test_an_unknown_version_is_corrupt():
    with pytest.raises(ProcessorError, match="version"):
        decode(npy(noise(1)).replace(b"NUMPY\1", b"NUMPY\x09"), LIMITS)


def test_what_is_written_numpy_loads():
    array = noise(2).transpose(2, 0, 1)
    np.testing.assert_array_equal(np.load(io.BytesIO(encode_npy(array)), allow_pickle=False), array)
