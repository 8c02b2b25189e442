"""What each format becomes, against rasterio, OpenCV and bytes laid by hand."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import rasterio
from imagery.image_files import GRID, LIMITS, UTM, chunk, noise, npy, opencv, png, written
from rasterio.crs import CRS
from rasterio.enums import ColorInterp as Colour

from ml_inference.imagery import DecodeLimits, decode

REAL = (
    "AnnualCrop_1.tif",
    "AnnualCrop_2.tif",
    "Forest_1.tif",
    "Forest_2.tif",
    "boadella_2020-01-13.tif",
    "colombia2018-sat.tif",
)


@pytest.mark.parametrize("name", REAL)
def test_a_real_tile_is_what_rasterio_reads(shared_data, name):
    path = shared_data("sentinel2") / name
    raster = decode(path.read_bytes(), LIMITS)
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(raster.pixels, dataset.read())
        assert raster.pixels.dtype == dataset.dtypes[0]
        assert raster.georeference.transform == dataset.transform[:6]
        assert CRS.from_wkt(raster.georeference.crs) == dataset.crs
        assert raster.nodata == dataset.nodata
        assert raster.bands == tuple(text or "" for text in dataset.descriptions)
        valid = np.ones_like(raster.pixels, bool) if raster.valid is None else raster.valid
        np.testing.assert_array_equal(valid, dataset.read_masks() != 0)


DTYPES = (
    "uint8",
    "int8",
    "uint16",
    "int16",
    "uint32",
    "int32",
    "uint64",
    "int64",
    "float16",
    "float32",
    "float64",
)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_real_dtype_of_a_geotiff_is_kept(dtype):
    pixels = noise(2, dtype=dtype)
    raster = decode(written(pixels, crs=UTM, transform=GRID), LIMITS)
    assert raster.pixels.dtype == dtype
    np.testing.assert_array_equal(raster.pixels, pixels)


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "deflate", "predictor": 2},
        {"compress": "lzw", "interleave": "band"},
        {"compress": "zstd", "tiled": True, "blockxsize": 16, "blockysize": 16},
        {"compress": "packbits"},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
        {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
    ],
    ids=str,
)
def test_every_lossless_layout_of_a_geotiff_gives_the_same_pixels(options):
    pixels = noise(3)
    raster = decode(written(pixels, crs=UTM, transform=GRID, **options), LIMITS)
    np.testing.assert_array_equal(raster.pixels, pixels)


@pytest.mark.parametrize("codec", ["JP2", "J2K"])
def test_lossless_jpeg2000_in_its_file_format_and_bare(codec):
    pixels = noise(4, 40, 30)
    data = written(pixels, "JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES", CODEC=codec)
    np.testing.assert_array_equal(decode(data, LIMITS).pixels, pixels)


def test_jpeg2000_keeps_its_place_on_earth():
    data = written(
        noise(4), "JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES", CODEC="JP2", crs=UTM, transform=GRID
    )
    place = decode(data, LIMITS).georeference
    assert CRS.from_wkt(place.crs) == CRS.from_epsg(32630)
    assert place.transform == pytest.approx(GRID[:6])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_png_from_opencv_comes_back_as_red_green_blue(dtype):
    pixels = noise(3, dtype=dtype)
    raster = decode(opencv(".png", pixels), LIMITS)
    np.testing.assert_array_equal(raster.pixels, pixels)
    assert raster.bands == ("red", "green", "blue")
    assert raster.valid is None
    assert raster.georeference is None


def test_a_jpeg_is_what_opencv_reads():
    smooth = np.stack([np.add.outer(np.arange(64), np.arange(48)) + shift for shift in (0, 40, 90)])
    data = opencv(".jpg", smooth.astype(np.uint8), cv2.IMWRITE_JPEG_QUALITY, 95)
    raster = decode(data, LIMITS)
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(raster.pixels.astype(int) - np.moveaxis(seen[..., ::-1], -1, 0)).max() <= 2
    assert raster.bands == ("red", "green", "blue")


def test_a_grey_picture_is_one_band_without_a_name():
    raster = decode(png(3, 1, 8, 0, [[7, 8, 9]]), LIMITS)
    np.testing.assert_array_equal(raster.pixels, [[[7, 8, 9]]])
    assert raster.bands == ("",)
    assert not raster.named


@pytest.mark.parametrize(
    ("depth", "packed", "greys"),
    [(1, 0b10100000, [255, 0, 255]), (2, 0b11011000, [255, 85, 170]), (4, 0xF3, [255, 51])],
)
def test_greys_of_few_bits_reach_from_black_to_white(depth, packed, greys):
    data = png(len(greys), 1, depth, 0, [[packed]])
    np.testing.assert_array_equal(decode(data, LIMITS).pixels[0, 0], greys)


def test_alpha_is_validity_and_no_band():
    rgba = png(2, 1, 8, 6, [[1, 2, 3, 255, 4, 5, 6, 0]])
    raster = decode(rgba, LIMITS)
    np.testing.assert_array_equal(raster.pixels, [[[1, 4]], [[2, 5]], [[3, 6]]])
    np.testing.assert_array_equal(raster.valid, [[[True, False]]] * 3)
    assert raster.bands == ("red", "green", "blue")


def test_grey_with_alpha_is_one_band():
    raster = decode(png(2, 1, 8, 4, [[9, 0, 8, 1]]), LIMITS)
    np.testing.assert_array_equal(raster.pixels, [[[9, 8]]])
    np.testing.assert_array_equal(raster.valid, [[[False, True]]])


def test_opaque_alpha_leaves_nothing_to_say():
    assert decode(png(1, 1, 8, 6, [[1, 2, 3, 255]]), LIMITS).valid is None


def test_a_transparent_colour_of_a_png_is_invalid():
    data = png(2, 1, 8, 2, [[1, 2, 3, 4, 5, 6]], chunk(b"tRNS", b"\0\1\0\2\0\3"))
    np.testing.assert_array_equal(decode(data, LIMITS).valid, [[[False, True]]] * 3)


@pytest.mark.parametrize("transparency", [b"\0\xff\x80", b"\0\0\x80"])
def test_the_palette_of_a_png_is_expanded(transparency):
    table = bytes([10, 11, 12, 20, 21, 22, 30, 31, 32])
    data = png(3, 1, 8, 3, [[2, 1, 0]], chunk(b"PLTE", table), chunk(b"tRNS", transparency))
    raster = decode(data, LIMITS)
    np.testing.assert_array_equal(raster.pixels[:, 0], [[30, 20, 10], [31, 21, 11], [32, 22, 12]])
    np.testing.assert_array_equal(raster.valid[0, 0], [True, transparency[1] > 0, False])
    assert raster.bands == ("red", "green", "blue")
    assert raster.nodata is None


def test_the_palette_of_a_geotiff_only_colours_values_that_are_kept():
    pixels = noise(1, dtype="uint8") % 4
    data = written(pixels, table={n: (n, 90, 0, 255) for n in range(256)}, crs=UTM, transform=GRID)
    raster = decode(data, LIMITS)
    np.testing.assert_array_equal(raster.pixels, pixels)
    assert raster.bands == ("",)


def test_bands_carry_the_names_of_the_file():
    raster = decode(written(noise(3), names=("B04", "", "B08"), crs=UTM, transform=GRID), LIMITS)
    assert raster.bands == ("B04", "", "B08")


def test_colours_name_bands_where_nothing_else_does():
    wanted = [Colour.red, Colour.green, Colour.blue, Colour.nir]
    raster = decode(written(noise(4), colours=wanted, PHOTOMETRIC="RGB"), LIMITS)
    assert raster.bands == ("red", "green", "blue", "nir")


def test_colours_of_some_bands_name_none():
    raster = decode(written(noise(5), PHOTOMETRIC="RGB"), LIMITS)
    assert raster.bands == ("",) * 5


def test_a_described_fourth_band_of_bytes_is_not_taken_for_alpha():
    pixels = noise(4, dtype="uint8")
    raster = decode(written(pixels, names=("B02", "B03", "B04", "B08")), LIMITS)
    np.testing.assert_array_equal(raster.pixels, pixels)
    assert raster.bands == ("B02", "B03", "B04", "B08")
    assert raster.valid is None


def test_an_undescribed_fourth_band_of_bytes_is_the_alpha_that_it_declares():
    pixels = noise(4, dtype="uint8")
    pixels[3, :5] = 0
    raster = decode(written(pixels), LIMITS)
    np.testing.assert_array_equal(raster.pixels, pixels[:3])
    np.testing.assert_array_equal(raster.valid[1], pixels[3] > 0)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("uint8", 255),
        ("int16", -9999),
        ("int8", -1),
        ("float32", -9999.0),
        ("float64", 0.1),
        ("float32", np.nan),
    ],
)
def test_nodata_is_invalid_band_by_band(dtype, nodata):
    pixels = noise(2, dtype=dtype)
    pixels[0, 3:5] = nodata
    raster = decode(written(pixels, nodata=nodata, crs=UTM, transform=GRID), LIMITS)
    expected = np.ones(pixels.shape, bool)
    expected[0, 3:5] = False
    np.testing.assert_array_equal(raster.valid, expected)
    assert raster.nodata == pytest.approx(nodata, nan_ok=True)


@pytest.mark.parametrize("nodata", [-9999.0, 0.1])
def test_nodata_that_halves_can_only_round_is_nodata_all_the_same(nodata):
    """Pixels of -9999 are stored as -10000 in 16 bits; the tag still says -9999."""
    expected = np.ones((1, 24, 20), bool)
    expected[0, 3:5] = False
    pixels = np.where(expected, noise(1), nodata).astype(np.float16)
    raster = decode(written(pixels, nodata=nodata), LIMITS)
    np.testing.assert_array_equal(raster.valid, expected)


def test_nodata_that_no_pixel_has_leaves_nothing_to_say():
    raster = decode(written(noise(2), nodata=0, crs=UTM, transform=GRID), LIMITS)
    assert raster.valid is None
    assert raster.nodata == 0


def test_the_mask_inside_a_geotiff_is_validity_for_all_bands():
    mask = noise(1, dtype="uint8")[0] > 100
    raster = decode(written(noise(3), mask=mask, crs=UTM, transform=GRID), LIMITS)
    np.testing.assert_array_equal(raster.valid, np.stack([mask] * 3))


def test_scale_and_offset_tags_leave_pixels_alone():
    pixels = noise(1)
    with rasterio.MemoryFile() as memory:
        profile = {"driver": "GTiff", "count": 1, "height": 24, "width": 20, "dtype": "uint16"}
        with memory.open(**profile, crs=UTM, transform=GRID) as dataset:
            dataset.write(pixels)
            dataset.scales, dataset.offsets = (0.0001,), (-0.1,)
        data = memory.read()
    np.testing.assert_array_equal(decode(data, LIMITS).pixels, pixels)


def test_a_plain_tiff_lies_nowhere_and_warns_nobody():
    assert decode(written(noise(1)), LIMITS).georeference is None


def test_a_transform_without_a_crs_is_kept():
    place = decode(written(noise(1), transform=GRID), LIMITS).georeference
    assert place.crs is None
    assert place.transform == GRID[:6]


def test_a_memoryview_reads_like_bytes():
    data = written(noise(3))
    np.testing.assert_array_equal(decode(memoryview(bytearray(data)), LIMITS).pixels, noise(3))


def test_a_single_pixel_is_an_image():
    pixels = np.array([[[7]]], np.uint8)
    assert decode(written(pixels), LIMITS).pixels.tolist() == [[[7]]]


def test_eight_threads_read_the_same(shared_data):
    files = [(shared_data("sentinel2") / name).read_bytes() for name in REAL]
    files += [opencv(".png", noise(3, dtype="uint8")), opencv(".jpg", noise(3, dtype="uint8")), npy(noise(2))]
    alone = [decode(each, LIMITS) for each in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda each: decode(each, LIMITS), files * 8))
    for number, raster in enumerate(together):
        expected = alone[number % len(files)]
        np.testing.assert_array_equal(raster.pixels, expected.pixels)
        assert raster.bands == expected.bands
        assert raster.georeference == expected.georeference


def test_an_image_exactly_at_its_limits_is_read():
    exact = DecodeLimits(max_pixels=24 * 20, max_bytes=24 * 20 * 3 * 2, max_bands=3)
    assert decode(written(noise(3)), exact).count == 3
