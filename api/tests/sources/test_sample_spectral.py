"""The spectral sample models give, to the pixel, what their published formulas give in numpy."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import rasterio

from ml_inference.sources.samples.items import SAMPLES

SIZES = [(1, 1), (1, 7), (7, 1), (64, 64), (300, 300)]


def run(name, reflectance):
    session = ort.InferenceSession(SAMPLES[name].graph(), providers=["CPUExecutionProvider"])
    return session.run(None, {"reflectance": reflectance})[0]


def reflectance(bands, size, *, batch=1, seed=0):
    """Sentinel-2 numbers divided by 10000: a fifth of the pixels without signal, some of single bands at 0."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 6000, (batch, bands, *size))
    numbers[rng.random(numbers.shape) < 0.1] = 0
    numbers *= rng.random((batch, 1, *size)) > 0.2
    return numbers.astype(np.float32) / np.float32(10000)


def index(a, b):
    total = a + b
    return np.divide(a - b, total, out=np.zeros_like(total), where=total != 0)


def label(b02, b03, b04, b08):
    ndvi = index(b08, b04)
    land = np.select([ndvi < np.float32(0.2), ndvi < np.float32(0.5), ndvi < np.float32(0.6)], [1, 2, 3], 4)
    return np.where(index(b03, b08) > 0, 0, land)


@pytest.mark.parametrize("size", SIZES)
def test_ndvi_is_the_formula_and_0_where_there_is_no_signal(size):
    pixels = reflectance(2, size, batch=2)
    got = run("ndvi", pixels)
    assert got.dtype == np.float32
    assert got.shape == (2, 1, *size)
    assert np.array_equal(got[:, 0], index(pixels[:, 1], pixels[:, 0]))


def test_ndvi_of_the_numbers_themselves_agrees_to_a_millionth():
    """Dividing by 10000 in float32 first costs no visible accuracy against float64 on the integers."""
    red, nir = np.meshgrid(np.arange(1, 10001, 37), np.arange(1, 10001, 37))
    got = run("ndvi", (np.stack([red, nir])[None].astype(np.float32)) / np.float32(10000))
    assert np.abs(got[0, 0] - (nir - red) / (nir + red)).max() < 1e-6


@pytest.mark.parametrize("tile", ["AnnualCrop_1", "AnnualCrop_2", "Forest_1", "Forest_2"])
def test_real_chips_get_the_ndvi_and_classes_of_the_formula_on_their_integers(shared_data, tile):
    with rasterio.open(shared_data("sentinel2") / f"{tile}.tif") as file:
        numbers = file.read([2, 3, 4, 8]).astype(float)
    pixels = numbers.astype(np.float32)[None] / np.float32(10000)
    ndvi = index(numbers[3], numbers[2])
    assert np.abs(run("ndvi", pixels[:, 2:])[0, 0] - ndvi).max() < 1e-6
    classes = np.where(index(numbers[1], numbers[3]) > 0, 0, 1 + np.digitize(ndvi, [0.2, 0.5, 0.6]))
    assert (run("spectral-landcover", pixels)[0].argmax(0) == classes).mean() > 0.999


@pytest.mark.parametrize("size", SIZES)
def test_landcover_scores_are_one_for_the_class_of_the_thresholds_and_zero_for_the_others(size):
    pixels = reflectance(4, size, batch=2)
    got = run("spectral-landcover", pixels)
    want = label(*pixels.swapaxes(0, 1))
    assert got.dtype == np.float32
    assert np.array_equal(got, np.arange(5)[:, None, None] == want[:, None])


def test_every_class_occurs_and_a_value_on_a_threshold_belongs_to_the_upper_class():
    bare, sparse, moderate, dense = (
        (np.float32(1) - np.float32(ndvi), np.float32(1) + np.float32(ndvi))
        for ndvi in (0.19, 0.25, 0.5, 0.75)
    )
    pixels = np.zeros((1, 4, 1, 6), np.float32)
    for column, (red, nir) in enumerate([bare, sparse, moderate, dense]):
        pixels[0, [2, 3], 0, column] = red, nir
    pixels[0, :, 0, 4] = 0.1, 0.2, 0.1, 0.1
    got = run("spectral-landcover", pixels)[0, :, 0]
    assert got.argmax(0).tolist() == [1, 2, 3, 4, 0, 1]
    assert got.sum(0).tolist() == [1] * 6


@pytest.mark.parametrize("size", SIZES)
def test_shares_are_counts_of_classes_over_pixels_with_signal(size):
    pixels = reflectance(4, size, batch=3)
    got = run("landcover-share", pixels)
    assert got.dtype == np.float32
    for row, image in zip(got, pixels, strict=True):
        seen = label(*image)[image.max(0) > 0]
        assert np.array_equal(row, (np.bincount(seen, minlength=5) / max(seen.size, 1)).astype(np.float32))


def test_shares_of_an_image_without_signal_are_all_zero():
    assert run("landcover-share", np.zeros((1, 4, 9, 5), np.float32)).tolist() == [[0.0] * 5]


def test_shares_are_exact_beyond_what_float32_can_count():
    """2**24 + 4096 pixels, of which 4096 alone are water: a float32 sum stands still at 2**24."""
    pixels = np.zeros((1, 4, 4097, 4096), np.float32)
    pixels[:, 3] = 0.4
    pixels[:, [1, 3], 2000] = np.float32([[0.2], [0.1]])
    total = 4097 * 4096
    want = np.float32([4096 / total, 0, 0, 0, 4096 * 4096 / total])
    assert np.array_equal(run("landcover-share", pixels)[0], want)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_row_of_a_batch_gives_what_it_gives_alone(name):
    bands = len(SAMPLES[name].bands)
    rows = [reflectance(bands, (40, 33), seed=seed) for seed in range(4)]
    rows += [np.zeros_like(rows[0]), np.full_like(rows[0], 0.3)]
    together = run(name, np.concatenate(rows))
    assert np.array_equal(together, np.concatenate([run(name, row) for row in rows]))


@pytest.mark.parametrize("name", SAMPLES)
def test_graphs_keep_the_onnx_specification_and_are_the_same_bytes_every_time(name):
    model = SAMPLES[name].graph()
    assert model == SAMPLES[name].graph()
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
