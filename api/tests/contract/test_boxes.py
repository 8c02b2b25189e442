"""Boxes: every layout, suppression against a plain loop, and the way back to the image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pixel_cards import DEFAULTS, PLACE, make_card, make_input, make_output, make_pixels

from ml_inference.contract.card import Axis, BoxSpec, ClassLabel, Task
from ml_inference.contract.interpret import interpret
from ml_inference.contract.interpret.boxes import Candidates, intersection_over_union, suppress
from ml_inference.contract.options import PredictOptions
from ml_inference.contract.predictions import Tensors
from ml_inference.contract.prepare import prepare
from ml_inference.contract.raster import Raster
from ml_inference.errors import CardInvalid, ContractMismatch, InferenceFailed

ROWS = (Axis.BATCH, Axis.BOX, Axis.VALUE)
YOLO = (Axis.BATCH, Axis.VALUE, Axis.BOX)
PARTS = {"boxes": "boxes", "scores": "scores", "labels": "labels"}


def detect(tensors, *, options=DEFAULTS, size=(100, 100), valid=None, fit=None, **more):
    spec = BoxSpec(**{key: more.pop(key) for key in list(more) if key in BoxSpec.model_fields})
    card = make_card(
        make_input(**(fit or {})),
        output=make_output(
            Task.DETECTION, **({"name": next(iter(tensors)), "boxes": spec, "activation": "none"} | more)
        ),
    )
    raster = Raster(make_pixels((1, *size)), None if valid is None else valid[None], georeference=PLACE)
    frame = prepare(raster, card, DEFAULTS).frame
    return interpret({name: np.asarray(array) for name, array in tensors.items()}, card, frame, options)


def rows(*boxes, **more):
    tensor = np.array(boxes, dtype=np.float32).reshape(1, -1, 6)
    return detect({"y": tensor}, layout="rows", axes=ROWS, **more)


# ---- overlap and suppression ----------------------------------------------------------------------------------------


def plain_iou(a, b) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = width * height
    either = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / either if either > 0 else 0.0


def plain_suppression(boxes, scores, labels, threshold, limit) -> list[int]:
    """The textbook loop: best first, drop what overlaps a kept box of its class too much."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        rivals = [k for k in kept if labels[k] == labels[i]]
        if all(plain_iou(boxes[k], boxes[i]) <= threshold for k in rivals):
            kept.append(i)
    return kept[:limit]


@st.composite
def heaps(draw):
    count = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 9999)))
    corner = rng.integers(0, 12, (count, 2))
    boxes = np.hstack([corner, corner + rng.integers(1, 10, (count, 2))]).astype(np.float64)
    return Candidates(boxes, rng.integers(0, 6, count).astype(np.float32) / 5, rng.integers(0, 3, count))


@given(heap=heaps(), threshold=st.sampled_from([0, 0.2, 0.45, 0.5, 1]), limit=st.integers(1, 20))
def test_suppression_equals_the_plain_loop(heap, threshold, limit):
    kept = suppress(heap, threshold, limit).tolist()
    assert kept == plain_suppression(
        heap.boxes.tolist(), heap.scores.tolist(), heap.labels.tolist(), threshold, limit
    )


@given(heap=heaps(), threshold=st.floats(0, 1))
def test_what_is_kept_does_not_overlap_and_what_goes_has_a_better_rival(heap, threshold):
    kept = suppress(heap, threshold, 1000)
    assert (np.diff(heap.scores[kept]) <= 0).all()
    for n, i in enumerate(kept):
        same = [k for k in kept[:n] if heap.labels[k] == heap.labels[i]]
        assert all(plain_iou(heap.boxes[k], heap.boxes[i]) <= threshold for k in same)
    for i in set(range(len(heap.boxes))) - set(kept.tolist()):
        rivals = [k for k in kept if heap.labels[k] == heap.labels[i] and heap.scores[k] >= heap.scores[i]]
        assert any(plain_iou(heap.boxes[k], heap.boxes[i]) > threshold for k in rivals)


@given(heap=heaps(), scale=st.sampled_from([0.5, 4, 1000]))
def test_overlap_does_not_depend_on_the_unit(heap, scale):
    overlap = intersection_over_union(heap.boxes, heap.boxes)
    np.testing.assert_allclose(
        overlap, intersection_over_union(heap.boxes * scale, heap.boxes * scale), atol=1e-12
    )
    plain = [[plain_iou(a, b) for b in heap.boxes] for a in heap.boxes]
    np.testing.assert_allclose(overlap, np.reshape(plain, overlap.shape), atol=1e-12)


@pytest.mark.parametrize("limit", [5, 300, 5000])
def test_many_more_boxes_than_one_block_equal_the_plain_loop_too(limit):
    rng = np.random.default_rng(3)
    corner = rng.integers(0, 150, (1500, 2))
    boxes = np.hstack([corner, corner + rng.integers(4, 30, (1500, 2))]).astype(np.float64)
    heap = Candidates(boxes, rng.random(1500, dtype=np.float32), rng.integers(0, 4, 1500))
    kept = suppress(heap, 0.3, limit).tolist()
    assert kept == plain_suppression(boxes.tolist(), heap.scores.tolist(), heap.labels.tolist(), 0.3, limit)


# ---- layouts --------------------------------------------------------------------------------------------------------

TWO = np.array([[10, 20, 30, 60], [50, 50, 90, 80]], dtype=np.float32)


def test_rows():
    found = rows([*TWO[0], 0.5, 3], [*TWO[1], 0.9, 1])
    np.testing.assert_array_equal(found.boxes, TWO[::-1])
    np.testing.assert_allclose(found.scores, [0.9, 0.5])
    assert found.labels.tolist() == [1, 3]
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert (found.height, found.width, found.georeference) == (100, 100, PLACE)


def test_rows_whose_sixth_number_is_no_class_are_another_layout():
    """One class of YOLOv5 gives `[N, A, 6]` too: centre, size, objectness and a probability."""
    with pytest.raises(InferenceFailed, match=r"0\.37.*boxes\.layout"):
        rows([*TWO[0], 0.5, 1], [*TWO[1], 0.9, 0.37])
    assert rows([*TWO[0], 0.5, 1], [0, 0, 0, 0, 0, 0.37]).labels.tolist() == [
        1
    ]  # an empty row may hold anything


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("label_type", [np.int64, np.float32])
def test_three_tensors(batch, label_type):
    tensors = {
        "boxes": TWO,
        "scores": np.array([0.5, 0.9], np.float32),
        "labels": np.array([3, 1], label_type),
    }
    axes = (Axis.BOX, Axis.VALUE)
    if batch:
        tensors, axes = {name: array[None] for name, array in tensors.items()}, ROWS
    found = detect(tensors, layout="xyxy", axes=axes, **PARTS)
    np.testing.assert_array_equal(found.boxes, TWO[::-1])
    assert found.labels.tolist() == [1, 3]


def yolo_tensor(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = boxes.T
    return np.vstack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, scores])[None].astype(np.float32)


def test_yolo_takes_the_best_class_of_each_anchor_and_its_value():
    scores = np.array([[0.1, 0.7], [0.8, 0.2], [0.3, 0.1]])
    classes = tuple(ClassLabel(value=value, name=f"v{value}") for value in (30, 10, 20))
    found = detect({"y": yolo_tensor(TWO, scores)}, layout="yolo", axes=YOLO, classes=classes)
    np.testing.assert_allclose(found.boxes, TWO)
    np.testing.assert_allclose(found.scores, [0.8, 0.7])
    assert found.labels.tolist() == [10, 30]


def test_declared_activation_makes_scores_of_logits():
    logits = np.array([[2.0, -3.0]])
    found = detect({"y": yolo_tensor(TWO, logits)}, layout="yolo", axes=YOLO, activation="sigmoid")
    np.testing.assert_allclose(found.scores, [1 / (1 + np.exp(-2))], rtol=1e-6)


def test_logits_without_a_declared_activation_are_refused():
    with pytest.raises(ContractMismatch, match="`activation`") as caught:
        rows([*TWO[0], 4.2, 0], activation=None)
    assert caught.value.field == "output"
    assert len(rows([*TWO[0], 0.9, 0], activation=None).boxes) == 1


def test_normalised_boxes_are_shares_of_the_models_grid():
    box = [0.125, 0.25, 0.5, 0.75, 0.9, 0]
    found = rows(box, normalized=True, size=(60, 100), fit={"size_multiple": 64})  # the grid is 64 by 128
    np.testing.assert_allclose(found.boxes, [[16, 16, 64, 48]])


@pytest.mark.parametrize("layout", ["rows", "yolo", "xyxy"])
def test_nothing_found_is_an_answer(layout):
    empty = {
        "rows": ({"y": np.zeros((1, 0, 6), np.float32)}, ROWS),
        "yolo": ({"y": np.zeros((1, 6, 0), np.float32)}, YOLO),
        "xyxy": (
            {
                "boxes": np.zeros((1, 0, 4), np.float32),
                "scores": np.zeros((1, 0), np.float32),
                "labels": np.zeros((1, 0), np.int64),
            },
            ROWS,
        ),
    }
    tensors, axes = empty[layout]
    found = detect(tensors, layout=layout, axes=axes, **PARTS)
    assert (found.boxes.shape, found.scores.shape, found.labels.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize(
    ("layout", "tensors", "error"),
    [
        ("rows", {"y": np.zeros((1, 2, 5))}, InferenceFailed),
        ("yolo", {"y": np.zeros((1, 4, 9))}, InferenceFailed),
        (
            "xyxy",
            {"boxes": np.zeros((1, 2, 4)), "scores": np.zeros((1, 3)), "labels": np.zeros((1, 2))},
            InferenceFailed,
        ),
        ("xyxy", {"boxes": np.zeros((1, 2, 4)), "scores": np.zeros((1, 2))}, CardInvalid),
        (None, {"y": np.zeros((1, 2, 6))}, CardInvalid),
    ],
)
def test_tensors_of_another_shape_than_their_layout_fail(layout, tensors, error):
    with pytest.raises(error):
        detect(tensors, layout=layout, axes=(), **PARTS)


def test_a_softmax_over_boxes_is_the_cards_fault():
    with pytest.raises(CardInvalid, match="softmax"):
        rows([*TWO[0], 0.5, 0], activation="softmax")


def test_raw_gives_the_tensors():
    found = rows([*TWO[0], 0.5, 3], options=PredictOptions(output="raw"))
    assert isinstance(found, Tensors)
    assert found.tensors["y"].shape == (1, 6)


# ---- selection ------------------------------------------------------------------------------------------------------


def test_the_requests_threshold_wins_over_the_profiles():
    boxes = [[*TWO[0], 0.5, 0], [*TWO[1], 0.2, 0]]
    assert len(rows(*boxes).scores) == 1
    assert len(rows(*boxes, score_threshold=0.1).scores) == 2
    assert len(rows(*boxes, options=PredictOptions(threshold=0.6)).scores) == 0


def test_overlapping_boxes_of_one_class_become_one_and_of_two_classes_stay():
    shifted = TWO[0] + 1
    assert len(rows([*TWO[0], 0.5, 0], [*shifted, 0.9, 0]).scores) == 1
    assert len(rows([*TWO[0], 0.5, 0], [*shifted, 0.9, 1]).scores) == 2
    assert len(rows([*TWO[0], 0.5, 0], [*shifted, 0.9, 0], nms=False).scores) == 2


def test_at_most_so_many_detections_and_the_best_of_them():
    boxes = [[10 * i, 0, 10 * i + 5, 5, 0.3 + i / 20, 0] for i in range(8)]
    found = rows(*boxes, max_detections=3)
    np.testing.assert_allclose(found.scores, [0.65, 0.6, 0.55], rtol=1e-6)
    assert len(rows(*boxes, max_detections=3, nms=False).scores) == 3


@pytest.mark.parametrize(
    "bad",
    [
        [np.nan, 0, 10, 10, 0.9, 0],
        [0, 0, np.inf, 10, 0.9, 0],
        [0, 0, 10, 10, np.nan, 0],
        [0, 0, 10, 10, 0.9, np.nan],
        [10, 10, 10, 20, 0.9, 0],
        [20, 10, 10, 20, 0.9, 0],
        [-30, 0, -10, 10, 0.9, 0],
        [0, 100, 10, 130, 0.9, 0],
    ],
)
def test_what_is_no_box_of_the_image_is_dropped_and_takes_no_ones_place(bad):
    found = rows([*TWO[0], 0.5, 2], bad, max_detections=1)
    assert found.labels.tolist() == [2]


def test_boxes_are_cut_at_the_edge_of_the_image():
    found = rows([-5, 90, 10, 130, 0.9, 0], size=(100, 80))
    assert found.boxes.tolist() == [[0, 90, 10, 100]]


def test_a_box_on_nothing_but_nodata_is_dropped():
    valid = np.ones((100, 100), dtype=bool)
    valid[:, :40] = False
    inside, across = [5, 5, 40, 20, 0.9, 1], [5, 30, 40.5, 50, 0.8, 2]
    assert rows(inside, across, valid=valid).labels.tolist() == [2]
    assert rows(inside, valid=np.zeros((100, 100), dtype=bool)).labels.size == 0


# ---- the way back ---------------------------------------------------------------------------------------------------


@given(
    height=st.integers(8, 60),
    width=st.integers(8, 60),
    fit=st.sampled_from(["multiple", "pad", "crop", "resize"]),
    corners=st.tuples(st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.5, 1), st.floats(0.5, 1)),
)
def test_a_box_around_an_object_comes_back_to_the_object(height, width, fit, corners):
    more = {
        "multiple": {"size_multiple": 32},
        "pad": {"shape": (-1, 1, 64, 64), "resize": "pad"},
        "crop": {"shape": (-1, 1, 8, 8), "resize": "crop"},
        "resize": {"shape": (-1, 1, 32, 48), "resize": "interpolation-linear"},
    }[fit]
    if fit == "crop":  # the object lies in the part that the model sees
        top, left, rows_seen, columns_seen = (height - 8) // 2, (width - 8) // 2, 8, 8
    else:
        top, left, rows_seen, columns_seen = 0, 0, height, width
    shares = np.array(corners)
    truth = np.array(
        [
            left + shares[0] * columns_seen,
            top + shares[1] * rows_seen,
            left + shares[2] * columns_seen,
            top + shares[3] * rows_seen,
        ]
    )
    size = {"resize": (32, 48), "crop": (8, 8)}.get(fit, (height, width))
    on_grid = [shares[0] * size[1], shares[1] * size[0], shares[2] * size[1], shares[3] * size[0]]
    found = rows([*on_grid, 0.9, 0], size=(height, width), fit=more)
    np.testing.assert_allclose(found.boxes, [truth], atol=1e-3)
