"""`bright-targets` finds what the CA-CFAR formula finds, each planted target once, and little in noise."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime as ort
import pytest

from ml_inference.sources.samples.items import SAMPLES

PFA, GUARD, TRAINING = 1e-3, 4, 12


@pytest.fixture(scope="module")
def session():
    return ort.InferenceSession(SAMPLES["bright-targets"].graph(), providers=["CPUExecutionProvider"])


def detect(session, image):
    """Boxes as tuples of integers, and scores, of one `(height, width)` image."""
    boxes, scores, labels = session.run(None, {"reflectance": image[None, None].astype(np.float32)})
    assert boxes.shape == (1, min(100, image.size), 4)
    assert scores.shape == labels.shape == boxes.shape[:2]
    assert labels.dtype == np.int64
    assert not labels.any()
    found = scores[0] > 0
    assert not boxes[0][~found].any()
    return [tuple(box) for box in boxes[0][found].astype(int).tolist()], scores[0][found]


def calm(size, seed=0, level=0.02):
    """A calm surface: a tenth of its mean as noise, in steps of a Sentinel-2 number."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(level, level / 10, size), 1e-4).round(4)


def window(array, row, column, radius):
    return array[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]


def formula(image):
    """Score of every pixel by the published formula, pixel by pixel in float64; 0 where not detected."""
    signal, power = image > 0, np.where(image > 0, image, 0).astype(float)
    scores = np.zeros(image.shape)
    for row, column in itertools.product(*map(range, image.shape)):
        at = (row, column)
        number = window(signal, *at, TRAINING).sum() - window(signal, *at, GUARD).sum()
        if not number or not signal[at]:
            continue
        mean = (window(power, *at, TRAINING).sum() - window(power, *at, GUARD).sum()) / number
        threshold = number * (PFA ** (-1 / number) - 1) * mean
        scores[at] = power[at] / (power[at] + threshold) if power[at] > threshold else 0
    return scores


def targets(image):
    """`{box: score}` by the rules of the docstring, from the formula's scores."""
    scores, found = formula(image), {}
    power = np.where(scores > 0, image, 0)
    for row, column in np.argwhere(scores > 0).tolist():
        near = window(power, row, column, GUARD)
        corner = np.maximum([row - GUARD, column - GUARD], 0)
        first = np.argwhere(near == near.max())[0] + corner
        if first.tolist() == [row, column]:
            hits = np.argwhere(near > 0) + corner
            (top, left), (bottom, right) = hits.min(0), hits.max(0) + 1
            found[(left, top, right, bottom)] = scores[row, column]
    return found


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (9, 9), (33, 20), (64, 64)])
def test_boxes_and_scores_are_those_of_the_formula_in_speckle_with_holes(session, size):
    rng = np.random.default_rng(sum(size))
    image = (rng.exponential(0.02, size) * (rng.random(size) > 0.1)).astype(np.float32)
    image[rng.random(size) < 0.004] *= 60
    boxes, scores = detect(session, image)
    want = targets(image)
    assert dict(zip(boxes, scores, strict=True)) == pytest.approx(want, rel=1e-4)
    assert np.all(np.diff(scores) <= 0)


@pytest.mark.parametrize("height", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
@pytest.mark.parametrize("flat", [True, False])
def test_a_planted_target_gives_exactly_one_box_that_is_its_extent(session, height, width, flat):
    """Also in the corners and on the borders, whether all of its pixels are alike or none is."""
    rng = np.random.default_rng(height * 10 + width)
    places = itertools.product([0, 1, 30, 64 - height - 1, 64 - height], [0, 2, 31, 64 - width])
    for row, column in places:
        image = calm((64, 64))
        values = 0.6 if flat else rng.uniform(0.5, 0.9, (height, width))
        image[row : row + height, column : column + width] = values
        boxes, scores = detect(session, image)
        assert boxes == [(column, row, column + width, row + height)]
        assert 0.5 < scores[0] < 1


def test_many_targets_at_once_are_each_found_once(session):
    image, want = calm((300, 300), seed=3), set()
    rng = np.random.default_rng(4)
    for row, column in itertools.product(range(4, 290, 30), repeat=2):
        height, width = rng.integers(1, 4, 2)
        image[row : row + height, column : column + width] = rng.uniform(0.4, 0.9)
        want.add((column, row, column + width, row + height))
    boxes, _ = detect(session, image)
    assert len(boxes) == len(want) == 100
    assert set(boxes) == want


def test_two_targets_are_told_apart_from_four_pixels_between_them_on(session):
    for gap, count in [(5, 2), (4, 2), (3, 1), (1, 1)]:
        image = calm((40, 40))
        image[20, [15, 16 + gap]] = 0.5, 0.6
        assert len(detect(session, image)[0]) == count, gap


@pytest.mark.parametrize("size", [(1, 1), (5, 5), (12, 40), (300, 300)])
@pytest.mark.parametrize("level", [0.0, 1e-4, 0.02, 1.0])
def test_nothing_is_found_on_a_flat_surface(session, size, level):
    assert detect(session, np.full(size, level))[0] == []


@pytest.mark.parametrize("level", [5, 200])
def test_nothing_is_found_in_counting_noise(session, level):
    image = np.random.default_rng(level).poisson(level, (300, 300)) / 10000
    assert detect(session, image)[0] == []


def test_the_edge_of_the_data_raises_no_alarm(session):
    """A slanted swath edge, an island and a hole without data: windows there hold few pixels with signal."""
    image = calm((120, 120))
    rows, columns = np.indices(image.shape)
    image[columns > rows + 20] = 0
    image[60:90, 10:40] = 0
    image[70:74, 20:24] = 0.02
    assert detect(session, image)[0] == []


def test_false_alarms_in_exponential_clutter_come_at_the_stated_rate_and_at_the_stricter_one(session):
    """About 0.001 of the pixels, a few of them merged into one box; at score 2/3 (twice alpha) about 1e-6."""
    clutter = np.random.default_rng(11).exponential(0.02, (24, 1, 128, 128)).astype(np.float32)
    _, scores, _ = session.run(None, {"reflectance": clutter})
    assert (scores > 0).sum() / clutter.size == pytest.approx(1e-3, rel=0.15)
    assert (scores > 2 / 3).sum() <= 3
