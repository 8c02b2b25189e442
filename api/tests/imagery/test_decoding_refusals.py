"""What is refused, with which error, how soon; and that nothing else ever comes out."""

from __future__ import annotations

import functools
import json
import resource
import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imagery.image_files import GRID, LIMITS, UTM, chunk, declared, noise, npy, opencv, png, tiff, written

from ml_inference.contract.raster import Raster
from ml_inference.errors import (
    ContractMismatch,
    CorruptImage,
    InvalidRequest,
    ProcessorError,
    TooLarge,
    Undecodable,
)
from ml_inference.imagery import DecodeLimits, decode

STATUS = {TooLarge: 413, Undecodable: 415, InvalidRequest: 400}
DEFAULT = DecodeLimits()


def status_of(data):
    """Give the HTTP status that the error's class stands for; None for an image."""
    try:
        decode(data, DEFAULT)
    except ProcessorError as error:
        return next(status for kind, status in STATUS.items() if isinstance(error, kind))
    return None


def test_each_hostile_upload_gets_its_status(shared_data, monkeypatch):
    folder = shared_data("hostile")
    monkeypatch.chdir(folder)
    for name, expected in json.loads((folder / "expect.json").read_text()).items():
        legal = expected["status"] if isinstance(expected["status"], list) else [expected["status"]]
        assert status_of((folder / name).read_bytes()) in legal, (name, expected["why"])


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param(declared(20_000, 20_000), id="20000 x 20000 in 200 bytes"),
        pytest.param(declared(2**31 - 1, 1), id="very wide"),
        pytest.param(declared(1, 1, tag277=60_000), id="60000 bands"),
        pytest.param(declared(1, 1, tag322=30_000, tag323=30_000), id="a tile far larger than the image"),
        pytest.param(declared(5_000, 5_000, tag258=64, tag277=4), id="many bytes in few pixels"),
    ],
)
def test_a_size_that_is_only_declared_is_refused_at_once_and_costs_no_memory(entries):
    data = tiff(entries)
    assert len(data) < 200
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(TooLarge, match="at most"):
        decode(data, DEFAULT)
    assert time.perf_counter() - started < 0.1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_every_page_of_a_tiff_is_judged():
    small, large = tiff(declared(4, 4), pages=2), tiff(declared(20_000, 20_000))
    second = len(small) // 2 + 4
    with pytest.raises(TooLarge):
        decode(small[:second] + large[8:], DEFAULT)


def codestream(width, height, tile, bands=1, *, box=True, style=b""):
    """Write the beginning of a JPEG 2000 codestream, bare or in a file."""
    size = struct.pack(">HHIIIIIIIIH", 38 + 3 * bands, 0, width, height, 0, 0, tile, tile, 0, 0, bands)
    data = b"\xff\x4f\xff\x51" + size + b"\7\1\1" * bands + style
    return b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I", 0) + b"jp2c" + data if box else data


def coding(exponent, layers=1, precinct=None, levels=5):
    """Write a coding style: blocks of `2 ** exponent`, precincts of another power of two."""
    precincts = b"" if precinct is None else bytes([precinct * 17] * (levels + 1))
    body = struct.pack(">BBHBBBBBB", bool(precincts), 0, layers, 0, levels, exponent - 2, exponent - 2, 0, 0)
    return b"\xff\x52" + struct.pack(">H", len(body + precincts) + 2) + body + precincts


TILE_PART = b"\xff\x90" + struct.pack(">HHIBB", 10, 0, 0, 0, 1)


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize(
    "size",
    [
        pytest.param((20_000, 20_000, 1024), id="20000 x 20000"),
        pytest.param((5_000, 5_000, 16), id="very many tiles"),
        pytest.param((10, 10, 10, 16_000), id="16000 bands"),
        pytest.param((5_000, 5_000, 5_000, 1, coding(2)), id="very many blocks"),
        pytest.param((5_000, 5_000, 5_000, 1, TILE_PART + coding(2)), id="very many blocks of a tile"),
        pytest.param((5_000, 5_000, 5_000, 1, coding(6) + coding(6, 1, 2)), id="very many precincts"),
        pytest.param((5_000, 5_000, 5_000, 1, coding(6, 60_000)), id="very many layers"),
    ],
)
def test_a_jpeg2000_is_judged_by_what_it_declares(size, box):
    *size, style = size if len(size) == 5 else (*size, b"")
    started = time.perf_counter()
    with pytest.raises(TooLarge):
        decode(codestream(*size, box=box, style=style), DEFAULT)
    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize(
    "data",
    [
        codestream(0, 9, 9),
        codestream(9, 9, 0),
        codestream(9, 9, 9)[:-10],
        codestream(9, 9, 9)[:12],
        codestream(9, 9, 9).replace(b"jp2c", b"jp2x"),
        codestream(9, 9, 9).replace(b"\xff\x51", b"\xff\x52"),
    ],
)
def test_a_jpeg2000_without_size_or_pixels_is_refused(data):
    with pytest.raises(InvalidRequest):
        decode(data, DEFAULT)


def test_a_tiff_of_very_many_pages_is_refused():
    with pytest.raises(TooLarge, match="images or more in one file"):
        decode(tiff(declared(4, 4), pages=200), DEFAULT)


@pytest.mark.parametrize("limit", ["max_pixels", "max_bytes", "max_bands"])
@pytest.mark.parametrize("kind", ["tiff", "png", "jpeg", "jp2", "npy"])
def test_each_limit_holds_for_each_format(kind, limit):
    pixels = noise(3, dtype="uint8")
    data = {
        "tiff": lambda: written(pixels),
        "png": lambda: opencv(".png", pixels),
        "jpeg": lambda: opencv(".jpg", pixels),
        "jp2": lambda: written(pixels, "JP2OpenJPEG"),
        "npy": lambda: npy(pixels),
    }[kind]()
    below = {"max_pixels": 24 * 20 - 1, "max_bytes": 24 * 20 * 3 - 1, "max_bands": 2}
    with pytest.raises(TooLarge):
        decode(data, DecodeLimits(**{limit: below[limit]}))


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (0, 0)])
def test_an_image_without_pixels_names_the_field(size):
    for data in (
        tiff(declared(*size)),
        png(*size, 8, 0, []),
        npy(np.zeros((1, size[1], size[0]), np.uint8)),
    ):
        with pytest.raises(ContractMismatch) as caught:
            decode(data, DEFAULT)
        assert caught.value.field == "image.size"
        assert caught.value.got == f"{size[0]} x {size[1]}"


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_pixels_name_the_field(dtype):
    with pytest.raises(ContractMismatch) as caught:
        decode(written(noise(1, dtype=dtype)), DEFAULT)
    assert caught.value.field == "image.dtype"
    assert caught.value.got == dtype


def virtual(path):
    return (
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f"<SourceFilename>{path}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def test_a_vrt_is_no_image_even_where_the_file_that_it_names_is_there(tmp_path):
    (tmp_path / "real.tif").write_bytes(written(noise(1, 4, 4, "uint8")))
    with pytest.raises(Undecodable):
        decode(virtual(tmp_path / "real.tif").encode(), DEFAULT)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"I",
        b"hello, this is text that somebody named tile.tif\n" * 9,
        b'{"type": "gdal_streamed_alg"}',
        b"GIF89a" + bytes(99),
        b"RIFF\0\0\0\0WEBPVP8 " + bytes(99),
        b"BM" + bytes(99),
        b"PK\3\4" + bytes(99),
        b"CDF\1" + bytes(99),
        b"\x89HDF\r\n\x1a\n" + bytes(99),
        b" " + png(1, 1, 8, 0, [[1]]),
        bytes(1000),
    ],
    ids=lambda data: repr(data[:8]),
)
def test_other_formats_are_undecodable(data):
    with pytest.raises(Undecodable):
        decode(data, DEFAULT)


def test_the_message_says_what_was_sent_in_printable_letters():
    with pytest.raises(Undecodable, match=r"sent as text/plain, are not an image .* GeoTIFF, JPEG 2000, PNG"):
        decode(b"hello", DEFAULT, "text/plain\r\n\x1b")


@functools.cache
def seeds():
    pixels = noise(3, 16, 16, "uint8")
    return {
        "tiff": written(noise(3, 16, 16), crs=UTM, transform=GRID, names=("a", "b", "c"), nodata=0),
        "deflated": written(noise(3, 16, 16), crs=UTM, transform=GRID, compress="deflate", tags={"A": "b"}),
        "png": opencv(".png", pixels),
        "jpeg": opencv(".jpg", pixels),
        "jp2": written(pixels, "JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES", CODEC="JP2"),
        "npy": npy(pixels),
    }


@pytest.mark.parametrize("kind", ["tiff", "deflated", "png", "jp2", "npy"])
def test_an_image_cut_off_anywhere_is_refused(kind):
    data = seeds()[kind]
    for length in range(len(data) - 40) if kind != "jp2" else range(0, len(data) - 40, 9):
        with pytest.raises(ProcessorError):
            decode(data[:length], DEFAULT)


def test_what_is_said_of_an_image_is_not_lost_with_the_end_of_its_file():
    """Whatever is left of a file either carries its place, names and nodata, or is refused."""
    whole = seeds()["tiff"]
    expected = decode(whole, DEFAULT)
    for length in range(len(whole) - 40, len(whole)):
        try:
            raster = decode(whole[:length], DEFAULT)
        except CorruptImage:
            continue
        assert (raster.bands, raster.nodata, raster.georeference) == (
            ("a", "b", "c"),
            0,
            expected.georeference,
        )


def test_a_jpeg_cut_off_anywhere_in_its_pixels_is_refused():
    data = opencv(".jpg", noise(3, 64, 64, "uint8"))
    for length in range(0, len(data) - 2, 5):
        with pytest.raises(ProcessorError):
            decode(data[:length], DEFAULT)


def test_a_png_with_any_bit_flipped_is_refused():
    data = png(3, 2, 8, 2, [range(9), range(9)])
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            with pytest.raises((CorruptImage, Undecodable, ContractMismatch, TooLarge)):
                decode(bytes(flipped), DEFAULT)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(4, 4, 8, 0, [[1, 2, 3, 4]] * 3), id="a row too few"),
        pytest.param(png(4, 4, 8, 5, [[1, 2, 3, 4]] * 4), id="no such colour type"),
        pytest.param(png(4, 4, 8, 0, [[9, 9, 9, 9]] * 4).replace(b"IDAT", b"IDaT"), id="no pixels"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), id="no header"),
        pytest.param(png(1, 1, 8, 0, [[1]])[:-12], id="no end"),
    ],
)
def test_a_png_that_lies_is_corrupt(data):
    with pytest.raises(CorruptImage, match="PNG"):
        decode(data, DEFAULT)


def test_a_geotiff_that_points_nowhere_finite_is_corrupt():
    data = written(noise(1), crs=UTM, transform=GRID)
    damaged = data.replace(struct.pack("<d", GRID[2]), struct.pack("<d", float("nan")))
    assert damaged != data
    with pytest.raises(CorruptImage, match="transform"):
        decode(damaged, DEFAULT)


def test_messages_tell_nothing_of_the_server():
    for kind, data in seeds().items():
        with pytest.raises(ProcessorError) as caught:
            decode(data[: len(data) // 2], DEFAULT)
        assert "/" not in str(caught.value), kind
        assert "vsimem" not in str(caught.value)


# GDAL quotes damaged bytes in its messages; rasterio cannot decode them, and says so on the interpreter's hook.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(seeds())),
    st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), min_size=1, max_size=6),
    st.floats(0.3, 1),
)
def test_damage_of_any_kind_is_an_image_or_one_of_our_errors(kind, changes, kept):
    data = bytearray(seeds()[kind])
    for place, value in changes:
        data[int(place * len(data))] = value
    cut = bytes(data[: int(kept * len(data))]) if kept < 0.9 else bytes(data)
    try:
        raster = decode(cut, LIMITS)
    except ProcessorError:
        return
    assert isinstance(raster, Raster)
    assert raster.pixels.shape == (len(raster.bands), raster.height, raster.width)
    again = decode(cut, LIMITS)
    np.testing.assert_array_equal(raster.pixels, again.pixels)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"II*\0", b"MM\0*", b"II+\0", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x93NUMPY", b"\xff\x4f\xff\x51",
                        b"\0\0\0\x0cjP  \r\n\x87\n"]), st.binary(max_size=300))  # fmt: skip
def test_a_good_beginning_and_nonsense_is_refused(magic, rest):
    with pytest.raises(ProcessorError):
        decode(magic + rest, LIMITS)
