"""Card and graph: the graph says what runs, the card what it means, and what contradicts is refused in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlm_items import make_graph, make_input, make_item, make_output

from ml_inference.contract.card import ANY, Axis, BoxSpec, GraphSignature, Severity, Task, TensorSpec
from ml_inference.contract.mlm import read_card
from ml_inference.contract.profile import parse_profile
from ml_inference.contract.reconcile import card_of_graph, reconcile
from ml_inference.errors import CardInvalid

B, C, H, W, T, BOX, VALUE, OTHER = (
    Axis.BATCH,
    Axis.CHANNEL,
    Axis.HEIGHT,
    Axis.WIDTH,
    Axis.TIME,
    Axis.BOX,
    Axis.VALUE,
    Axis.OTHER,
)


def settle(item=None, graph=None, profile=""):
    return reconcile(read_card(item or make_item(), parse_profile(profile)), graph or make_graph())


def refusal(item=None, graph=None, profile=""):
    with pytest.raises(CardInvalid) as caught:
        settle(item, graph, profile)
    return dict(caught.value.problems)


def remarks(card, severity=Severity.WARNING):
    return [d.message for d in card.diagnostics if d.severity is severity and d.pointer.startswith("onnx:")]


# --- inputs


def test_names_become_the_graphs_and_nothing_else_changes():
    before = read_card(make_item())
    card = reconcile(before, make_graph())
    assert (card.inputs[0].name, card.outputs[0].name) == ("x", "y")
    assert card.inputs[0] == before.inputs[0].model_copy(update={"name": "x"})
    assert card.outputs[0] == before.outputs[0].model_copy(update={"name": "y"})
    assert remarks(card) == []


def test_inputs_are_matched_by_name_first_and_by_position_for_the_rest():
    item = make_item(
        inputs=[make_input(name="b", bands=["B08"], shape=[-1, 1, -1, -1]), make_input(name="other")]
    )
    graph = make_graph([("a", (-1, 3, -1, -1)), ("b", (-1, 1, -1, -1))])
    card = settle(item, graph)
    assert [spec.name for spec in card.inputs] == ["b", "a"]
    assert [spec.size(C) for spec in card.inputs] == [1, 3]
    assert len(remarks(card)) == 1  # with several inputs, a match by position deserves a look


@pytest.mark.parametrize("count", [0, 2])
def test_another_number_of_inputs_is_refused(count):
    found = refusal(graph=make_graph([(f"x{i}", (-1, 3, -1, -1)) for i in range(count)]))
    ((pointer, message),) = found.items()
    assert pointer == ("onnx:x0" if count else "onnx:")
    assert f"the graph has {count}" in message


SHAPES = {
    "open in both": ((-1, 3, -1, -1), (-1, 3, -1, -1), (-1, 3, -1, -1)),
    "fixed in the graph": ((-1, 3, -1, -1), (1, 3, 256, 256), (1, 3, 256, 256)),
    "fixed in the item": ((-1, 3, 64, 64), (-1, -1, -1, -1), (-1, 3, 64, 64)),
    "open channels follow the bands": ((-1, -1, -1, -1), (-1, -1, -1, -1), (-1, 3, -1, -1)),
    "the graph's batch wins": ((8, 3, -1, -1), (1, 3, -1, -1), (1, 3, -1, -1)),
    "an open rank": ((-1, 3, 64, 64), (), (-1, 3, 64, 64)),
}


@pytest.mark.parametrize(("said", "real", "merged"), SHAPES.values(), ids=SHAPES.keys())
def test_shapes_are_merged_and_the_graph_wins_where_it_is_fixed(said, real, merged):
    card = settle(make_item(inputs=[make_input(shape=list(said))]), make_graph([("x", real)]))
    assert card.inputs[0].shape == merged


CONTRADICTIONS = {
    "another rank": ((-1, 3, 64), "another number of axes"),
    "another height": ((-1, 3, 128, 64), "height is 64 in the item and 128 in the graph"),
    "another number of channels": ((-1, 4, 64, 64), "channel is 3 in the item and 4 in the graph"),
    "channels last": ((-1, 64, 64, 3), "channel is 3 in the item and 64 in the graph"),
}


@pytest.mark.parametrize(("real", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_an_input_that_contradicts_the_graph_is_refused_with_both_shapes_in_words(real, words):
    item = make_item(inputs=[make_input(shape=[-1, 3, 64, 64])])
    found = refusal(item, make_graph([("x", real)]))
    assert list(found) == ["onnx:x"]
    assert words in found["onnx:x"]
    assert "[batch ?, channel 3, height 64, width 64]" in found["onnx:x"]
    assert str(list(real)).replace("-1", "?") in found["onnx:x"]


def test_axes_of_one_that_carry_nothing_are_left_out_where_the_graph_has_none():
    names = ["batch", "level", "bands", "height", "width"]
    item = make_item(inputs=[make_input(dim_order=names, shape=[-1, 1, 3, -1, -1])])
    assert settle(item).inputs[0].axes == (B, C, H, W)
    kept = settle(item, make_graph([("x", (-1, 1, 3, -1, -1))]))
    assert kept.inputs[0].axes == (B, OTHER, C, H, W)


def test_a_wider_element_type_is_a_warning_and_a_narrower_one_a_refusal():
    graph = make_graph([("x", (-1, 3, -1, -1), "float32")])
    card = settle(make_item(inputs=[make_input(data_type="uint16")]), graph)
    assert card.inputs[0].dtype == "float32"
    assert "uint16" in remarks(card)[0]
    for said, real in [
        ("float32", "uint8"),
        ("float32", "float16"),
        ("float64", "float32"),
        ("uint8", "int8"),
    ]:
        item = make_item(inputs=[make_input(data_type=said)])
        graph = make_graph([("x", (-1, 3, -1, -1), real)])
        assert f'data_type = "{real}"' in refusal(item, graph)["onnx:x"]
        assert settle(item, graph, f'[input]\ndata_type = "{real}"').inputs[0].dtype == real


def test_a_tensor_of_text_cannot_be_fed():
    assert "cannot be fed" in refusal(graph=make_graph([("x", (-1, 3, -1, -1), None)]))["onnx:x"]


def test_bands_must_fill_the_graphs_channels_unless_functions_make_them():
    open_channels = make_input(shape=[-1, -1, -1, -1])
    assert (
        "make 3 channels, the graph takes 4"
        in refusal(make_item(inputs=[open_channels]), make_graph([("x", (-1, 4, -1, -1))]))["onnx:x"]
    )
    ndvi = {"format": "gdal-calc", "expression": "(A - B) / (A + B)"}
    one = make_item(inputs=[open_channels | {"pre_processing_function": ndvi}])
    assert settle(one, make_graph([("x", (-1, 1, -1, -1))])).inputs[0].size(C) == 1
    assert "make 1 channels, the graph takes 3" in refusal(one, make_graph())["onnx:x"]
    each = make_item(inputs=[open_channels | {"pre_processing_function": ndvi | {"expression": "A / 255"}}])
    assert settle(each).inputs[0].size(C) == 3


def test_functions_of_the_profile_are_checked_against_the_bands_too():
    text = '[input]\nprocessing = [{ format = "gdal-calc", expression = "A + D" }]'
    assert "'D'" in refusal(profile=text)["onnx:x"]


def test_scaling_for_another_number_of_channels_is_refused_once_the_graph_tells_it():
    three = [{"type": "scale", "value": v} for v in (1, 2, 3)]
    item = make_item(inputs=[make_input(bands=[], shape=[-1, -1, -1, -1], value_scaling=three)])
    assert settle(item).inputs[0].size(C) == 3
    assert refusal(item, make_graph([("x", (-1, 4, -1, -1))])) == {
        "onnx:x": "scaling for 3 channels, and there are 4"
    }


def test_a_model_of_several_dates_is_served_for_tensors_with_a_warning():
    item = make_item(
        inputs=[make_input(dim_order=["batch", "time", "bands", "height", "width"], shape=[-1, 4, 3, -1, -1])]
    )
    card = settle(item, make_graph([("x", (-1, 4, 3, -1, -1))]))
    assert "4 dates" in remarks(card)[0]


# --- outputs

OUTPUTS = {
    "a raster": ("semantic-segmentation", (-1, 2, -1, -1), (B, C, H, W)),
    "a raster, channels last": ("semantic-segmentation", (-1, 64, 64, 2), (B, H, W, C)),
    "a raster of labels": ("semantic-segmentation", (-1, -1, -1), (B, H, W)),
    "one vector": ("classification", (-1, 2), (B, C)),
    "one label": ("classification", (-1,), (B,)),
    "a vector with points": ("classification", (-1, 2, 1, 1), (B, C, OTHER, OTHER)),
    "a value": ("regression", (-1,), (B,)),
    "values": ("regression", (-1, 5), (B, C)),
    "a field": ("regression", (-1, -1, -1), (B, H, W)),
    "fields": ("regression", (-1, 5, -1, -1), (B, C, H, W)),
}


@pytest.mark.parametrize(("task", "shape", "axes"), OUTPUTS.values(), ids=OUTPUTS.keys())
def test_axes_of_an_output_are_told_from_its_task_and_rank(task, shape, axes):
    dtype = "int64" if C not in axes else "float32"
    item = make_item(outputs=[make_output(tasks=[task], result=None)], tasks=[task])
    card = settle(item, make_graph(outputs=[("y", shape, dtype)]))
    assert (card.outputs[0].axes, card.outputs[0].shape, str(card.task)) == (axes, shape, task)


def test_declared_axes_stand_where_the_rank_is_right():
    item = make_item(
        outputs=[make_output(dim_order=["batch", "height", "width", "classes"], shape=[-1, -1, -1, 2])]
    )
    card = settle(item, make_graph(outputs=[("y", (-1, -1, -1, -1))]))
    assert (card.outputs[0].axes, card.outputs[0].shape) == ((B, H, W, C), (-1, -1, -1, 2))


def test_a_declared_result_of_another_rank_is_dropped_with_a_warning():
    flat = make_output(shape=[-1, 2], dim_order=["batch", "classes"], tasks=["classification"])
    card = settle(
        make_item(outputs=[flat], tasks=["classification"]), make_graph(outputs=[("y", (-1, 2, 1, 1))])
    )
    assert card.outputs[0].axes == (B, C, OTHER, OTHER)
    assert "the item's is dropped" in remarks(card)[0]


def test_a_task_that_the_rank_forbids_gives_way_to_the_rank():
    flat = settle(graph=make_graph(outputs=[("y", (-1, 2))]))
    assert (flat.task, flat.outputs[0].axes) == (Task.CLASSIFICATION, (B, C))
    label = make_output(tasks=["classification"], result=None)
    raster = settle(
        make_item(outputs=[label], tasks=["classification"]), make_graph(outputs=[("y", (-1, 2, -1, -1))])
    )
    assert (raster.task, raster.outputs[0].axes) == (Task.SEGMENTATION, (B, C, H, W))
    odd = settle(graph=make_graph(outputs=[("y", (-1, 2, 3, 4, 5))]))
    assert odd.task is Task.RAW
    assert all(any("by its rank" in m for m in remarks(card)) for card in (flat, raster, odd))


def test_the_graphs_sizes_and_type_win_over_the_declared_ones_with_a_warning():
    output = make_output(shape=[-1, 2, 64, 64], data_type="uint8")
    card = settle(make_item(outputs=[output]), make_graph(outputs=[("y", (-1, 2, 32, 32))]))
    assert (card.outputs[0].shape, card.outputs[0].dtype) == ((-1, 2, 32, 32), "float32")
    assert len(remarks(card)) == 2


def test_more_outputs_declared_than_there_are_is_a_warning_and_fewer_are_served_raw():
    two = make_item(outputs=[make_output(), make_output(name="second")])
    card = settle(two)
    assert [o.name for o in card.outputs] == ["y"]
    assert "'second' has no tensor" in remarks(card)[0]
    card = settle(graph=make_graph(outputs=[("y", (-1, 2, -1, -1)), ("z", (-1, 7))]))
    assert [(o.name, o.task, o.axes) for o in card.outputs] == [
        ("y", Task.SEGMENTATION, (B, C, H, W)),
        ("z", Task.RAW, (B, VALUE)),
    ]


def test_the_declared_output_is_found_by_name_among_several_and_stays_first():
    item = make_item(outputs=[make_output(name="mask")])
    card = settle(item, make_graph(outputs=[("aux", (-1, 5)), ("mask", (-1, 2, -1, -1))]))
    assert [o.name for o in card.outputs] == ["mask", "aux"]


def test_an_output_that_no_array_carries_is_left_out_unless_it_is_the_answer():
    card = settle(graph=make_graph(outputs=[("y", (-1, 2, -1, -1)), ("text", (-1,), None)]))
    assert [o.name for o in card.outputs] == ["y"]
    assert "cannot be carried" in refusal(graph=make_graph(outputs=[("y", (-1,), None)]))["onnx:y"]
    assert "no outputs" in refusal(graph=make_graph(outputs=[]))["onnx:"]


# --- classes


def classified(names, shape, dtype="float32", profile=""):
    classes = [
        {"value": i, "name": n} | ({"nodata": True} if n == "nodata" else {}) for i, n in enumerate(names)
    ]
    item = make_item(outputs=[make_output(**{"result": None, "classification:classes": classes})])
    return item, make_graph(outputs=[("y", shape, dtype)]), profile


def test_classes_that_do_not_fit_the_channels_are_refused_and_the_profile_may_name_others():
    found = refusal(*classified(["a", "b", "c"], (-1, 10, -1, -1)))
    assert (
        "3 classes are declared and the tensor [batch ?, channel 10, height ?, width ?] has 10"
        in found["onnx:y"]
    )
    ten = json.dumps([str(i) for i in range(10)])
    card = settle(*classified(["a", "b", "c"], (-1, 10, -1, -1), profile=f"[output]\nclasses = {ten}"))
    assert len(card.outputs[0].classes) == 10


FITTING = {
    "as many": (["a", "b", "c"], (-1, 3, -1, -1), "float32"),
    "an open axis": (["a", "b", "c"], (-1, -1, -1, -1), "float32"),
    "without the one for nodata": (["a", "b", "nodata"], (-1, 2, -1, -1), "float32"),
    "labels in one channel": (["a", "b", "c"], (-1, 1, -1, -1), "int64"),
    "labels without channels": (["a", "b", "c"], (-1, -1, -1), "uint8"),
    "two by one score": (["a", "b"], (-1, 1, -1, -1), "float32"),
    "one by one score": (["a"], (-1, 1, -1, -1), "float32"),
    "none": ([], (-1, 5, -1, -1), "float32"),
}


@pytest.mark.parametrize(("names", "shape", "dtype"), FITTING.values(), ids=FITTING.keys())
def test_classes_that_can_be_told_apart_are_kept(names, shape, dtype):
    card = settle(*classified(names, shape, dtype))
    assert [c.name for c in card.outputs[0].classes] == names


def test_one_score_without_a_rule_is_a_warning_that_names_the_override():
    item, graph, _ = classified(["no", "yes"], (-1, 1, -1, -1))
    assert "`activation` or `threshold`" in remarks(settle(item, graph))[0]
    for rule in ('activation = "sigmoid"', "threshold = 0.5"):
        assert remarks(settle(item, graph, f"[output]\n{rule}")) == []


def test_post_processing_that_does_not_fit_the_tensor_leaves_it_raw():
    function = {"format": "gdal-calc", "expression": "A - C"}
    item = make_item(outputs=[make_output(post_processing_function=function, shape=[-1, -1, -1, -1])])
    assert settle(item).task is Task.RAW
    fits = settle(item, make_graph(outputs=[("y", (-1, 3, -1, -1))]), "[output]\nclasses = []")
    assert (fits.task, len(fits.outputs[0].processing)) == (Task.SEGMENTATION, 1)


# --- detection


def detector(classes=0, profile=""):
    listed = [{"value": i, "name": str(i)} for i in range(classes)]
    output = make_output(**{"tasks": ["object-detection"], "result": None, "classification:classes": listed})
    return make_item(outputs=[output], tasks=["object-detection"]), profile


def detect(outputs, classes=0, profile=""):
    item, text = detector(classes, profile)
    return settle(item, make_graph(outputs=outputs), text)


LAYOUTS = {
    "yolo, wider than high": ([("o", (-1, 84, 8400))], 0, "yolo", (B, VALUE, BOX)),
    "yolo, by its classes": ([("o", (-1, 84, -1))], 80, "yolo", (B, VALUE, BOX)),
    "yolo of two classes": ([("o", (1, 6, 8400))], 2, "yolo", (B, VALUE, BOX)),
    "rows": ([("o", (-1, 300, 6))], 0, "rows", (B, BOX, VALUE)),
    "rows of any number": ([("o", (-1, -1, 6))], 3, "rows", (B, BOX, VALUE)),
    "rows without a batch": ([("o", (-1, 6))], 0, "rows", (BOX, VALUE)),
    "yolo beside masks": (
        [("o", (-1, 84, 8400)), ("protos", (-1, 32, 160, 160))],
        80,
        "yolo",
        (B, VALUE, BOX),
    ),
}


@pytest.mark.parametrize(("outputs", "classes", "layout", "axes"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_the_layout_of_one_tensor_is_told_from_its_sizes(outputs, classes, layout, axes):
    card = detect(outputs, classes)
    assert (card.outputs[0].boxes.layout, card.outputs[0].axes) == (layout, axes)


XYXY = {
    "by name": [("boxes", (-1, 100, 4)), ("scores", (-1, 100)), ("labels", (-1, 100), "int64")],
    "by name in another order": [
        ("det_labels", (-1, 100)),
        ("det_scores", (-1, 100)),
        ("det_boxes", (-1, 100, 4)),
    ],
    "by rank and type": [("a", (-1, 100, 4)), ("b", (-1, 100), "int64"), ("c", (-1, 100))],
    "without a batch": [("boxes", (-1, 4)), ("labels", (-1,), "int64"), ("scores", (-1,))],
    "with a count": [
        ("num_dets", (-1, 1), "int32"),
        ("det_boxes", (-1, 100, 4)),
        ("det_scores", (-1, 100)),
        ("det_classes", (-1, 100), "int32"),
    ],
}


@pytest.mark.parametrize("outputs", XYXY.values(), ids=XYXY.keys())
def test_boxes_scores_and_labels_are_told_by_names_ranks_and_types(outputs):
    card = detect(outputs, classes=3)
    spec = card.outputs[0].boxes
    shapes = {name: (shape, *kind) for name, shape, *kind in outputs}
    assert spec.layout == "xyxy"
    assert shapes[spec.boxes][0][-1] == 4
    assert len({spec.boxes, spec.scores, spec.labels}) == 3
    assert shapes[spec.scores][1:] == ()  # floats
    assert spec.labels in {"labels", "det_labels", "b", "det_classes"}
    assert len(card.outputs[0].classes) == 3
    for output in card.outputs:
        assert len(output.axes) == len(output.shape)
    assert [o.task for o in card.outputs[1:]] == [Task.RAW] * (len(outputs) - 1)


AMBIGUOUS = {
    "open sizes": [("o", (-1, -1, -1))],
    "84 values of any number": [("o", (-1, 84, -1))],
    "values last, as YOLOv5 has them": [("o", (-1, 25200, 85))],
    "both layouts fit": [("o", (-1, 5, 6))],
    "a raster": [("o", (-1, 1, 64, 64))],
    "nothing": [("o", ())],
    "a vector": [("o", (-1,))],
    "two candidates for scores": [("boxes", (-1, 9, 4)), ("p", (-1, 9)), ("q", (-1, 9))],
    "no labels": [("boxes", (-1, 9, 4)), ("scores", (-1, 9))],
}


@pytest.mark.parametrize("outputs", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_a_layout_that_cannot_be_told_is_refused_naming_the_override(outputs):
    item, _ = detector()
    ((pointer, message),) = refusal(item, make_graph(outputs=outputs)).items()
    assert pointer == f"onnx:{outputs[0][0]}"
    assert "profile" in message
    assert "[N, 4+C, A]" in message


def test_the_profile_settles_a_layout_and_its_names():
    text = '[output.boxes]\nlayout = "yolo"\nscore_threshold = 0.6'
    assert detect([("o", (-1, 84, -1))], profile=text).outputs[0].boxes == BoxSpec(
        layout="yolo", score_threshold=0.6
    )
    text = '[output.boxes]\nlayout = "xyxy"\nscores = "p"'
    card = detect([("boxes", (-1, 9, 4)), ("p", (-1, 9)), ("q", (-1, 9))], profile=text)
    assert (card.outputs[0].boxes.scores, card.outputs[0].boxes.labels) == ("p", "q")


BAD_LAYOUTS = {
    "yolo with other classes": ([("o", (-1, 85, 8400))], 80, 'layout = "yolo"', "leaves 81 classes"),
    "yolo without classes": ([("o", (-1, 4, 8400))], 0, 'layout = "yolo"', "leaves 0 classes"),
    "rows of seven": ([("o", (-1, 9, 7))], 0, 'layout = "rows"', "no layout `rows`"),
    "a raster as rows": ([("o", (-1, 1, 6, 6))], 0, 'layout = "rows"', "no layout `rows`"),
    "a vector as yolo": ([("o", (-1,))], 0, 'layout = "yolo"', "no layout `yolo`"),
    "xyxy of one tensor": ([("o", (-1, 9, 6))], 0, 'layout = "xyxy"', "needs outputs for boxes"),
    "a name that is not there": ([("o", (-1, 9, 6))], 0, 'boxes = "nobody"', "names outputs ['nobody']"),
    "scores of the boxes' rank": (
        [("boxes", (-1, 9, 4)), ("p", (-1, 9, 1)), ("labels", (-1, 9))],
        0,
        'layout = "xyxy"\nscores = "p"',
        "needs outputs for boxes",
    ),
}


@pytest.mark.parametrize(
    ("outputs", "classes", "told", "words"), BAD_LAYOUTS.values(), ids=BAD_LAYOUTS.keys()
)
def test_a_layout_that_the_tensors_do_not_have_is_refused(outputs, classes, told, words):
    item, _ = detector(classes)
    assert (
        words
        in refusal(item, make_graph(outputs=outputs), f"[output.boxes]\n{told}")[f"onnx:{outputs[0][0]}"]
    )


# --- metadata of the file

NAMES = json.dumps({"0": "sea", "1": "land"})


def unnamed(tasks=("semantic-segmentation",)):
    return make_item(
        outputs=[make_output(**{"classification:classes": ..., "tasks": list(tasks)})], tasks=list(tasks)
    )


def test_class_names_of_the_file_fill_what_nothing_else_declares_and_are_told():
    card = settle(unnamed(), make_graph(metadata={"class_names": NAMES}))
    assert [(c.value, c.name) for c in card.outputs[0].classes] == [(0, "sea"), (1, "land")]
    assert any("classes of output 'y'" in m for m in remarks(card, Severity.INFO))
    kept = settle(make_item(), make_graph(metadata={"class_names": NAMES}))
    assert [c.name for c in kept.outputs[0].classes] == ["no", "yes"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        "7",
        '{"a": "b"}',
        '{"0": 1, "1": 2}',
        '{"1": "a", "2": "b"}',
        '["a"]',
        '["a", "b", "c"]',
    ],
)
def test_class_names_that_are_none_are_ignored(text):
    assert settle(unnamed(), make_graph(metadata={"class_names": text})).outputs[0].classes == ()


def test_thresholds_of_the_file_are_the_weakest():
    graph = make_graph(outputs=[("y", (-1, 1, -1, -1))], metadata={"seg_thresh": "0.7", "class_names": NAMES})
    item = make_item(outputs=[make_output(**{"classification:classes": ..., "result": None})])
    assert settle(item, graph).outputs[0].threshold == 0.7
    assert settle(item, graph, "[output]\nthreshold = 0.2").outputs[0].threshold == 0.2
    item, _ = detector()
    graph = make_graph(outputs=[("o", (-1, 9, 6))], metadata={"det_conf": "0.3", "det_iou_thresh": "0.9"})
    boxes = settle(item, graph, "[output.boxes]\niou_threshold = 0.1").outputs[0].boxes
    assert (boxes.score_threshold, boxes.iou_threshold) == (0.3, 0.1)
    graph = make_graph(outputs=[("o", (-1, 9, 6))], metadata={"det_conf": "30", "det_iou_thresh": "NaN"})
    assert settle(item, graph).outputs[0].boxes == BoxSpec(layout="rows")


def test_a_threshold_of_the_file_is_for_scores_and_may_be_zero():
    """A graph that ends in an argmax answers classes: a threshold of 0.5 would make class 1 of all but the first."""
    item = make_item(outputs=[make_output(**{"classification:classes": ..., "result": None})])
    for dtype, expected in (("float32", 0), ("int64", None)):
        graph = make_graph(outputs=[("y", (-1, 1, -1, -1), dtype)], metadata={"seg_thresh": "0"})
        assert settle(item, graph).outputs[0].threshold == expected


def test_a_model_type_of_the_file_that_contradicts_is_told():
    card = settle(graph=make_graph(metadata={"model_type": '"Detector"'}))
    assert any("model_type" in m for m in remarks(card))
    assert remarks(settle(graph=make_graph(metadata={"model_type": "Segmentor"}))) == []


# --- bare graphs, and any graph


def test_a_bare_graph_becomes_a_raw_card():
    card = card_of_graph(
        "net", make_graph([("x", (-1, 4)), ("k", (3,), "int64")], [("y", (1, 2, 2)), ("s", ())])
    )
    assert (card.name, card.item_id, card.task) == ("net", None, Task.RAW)
    assert [(s.name, s.axes, s.shape, s.dtype) for s in card.inputs] == [
        ("x", (B, VALUE), (-1, 4), "float32"),
        ("k", (VALUE,), (3,), "int64"),
    ]
    assert [o.axes for o in card.outputs] == [(B, VALUE, VALUE), ()]


@pytest.mark.parametrize(
    "graph",
    [
        make_graph(inputs=[]),
        make_graph(outputs=[]),
        make_graph([("x", (1,), None)]),
        make_graph(outputs=[("y", (1,), None)]),
    ],
)
def test_a_bare_graph_that_no_array_can_feed_is_refused(graph):
    with pytest.raises(CardInvalid) as caught:
        card_of_graph("net", graph)
    assert caught.value.problems[0][0].startswith("onnx:")


SIZES = st.lists(st.sampled_from([ANY, 1, 2, 3, 4, 6, 64]), max_size=5).map(tuple)
TENSOR_LISTS = st.lists(
    st.builds(
        TensorSpec,
        name=st.sampled_from(["x", "y", "boxes", "scores", "labels", ""]),
        shape=SIZES,
        dtype=st.sampled_from(["float32", "uint8", "int64", None]),
    ),
    max_size=4,
    unique_by=lambda tensor: tensor.name,
).map(tuple)
ITEMS = [
    make_item(),
    detector(2)[0],
    unnamed(["classification"]),
    unnamed(["regression"]),
    unnamed(["generative"]),
]


@given(st.sampled_from(ITEMS), st.builds(GraphSignature, inputs=TENSOR_LISTS, outputs=TENSOR_LISTS))
def test_any_graph_is_settled_or_refused_and_axes_fit_shapes(item, graph):
    try:
        card = settle(item, graph)
    except CardInvalid as error:
        found = error.problems
    else:
        found = None
        assert {s.name for s in card.inputs} == {t.name for t in graph.inputs}
        for output in card.outputs:
            assert len(output.axes) == len(output.shape)
            assert len(set(output.axes) - {VALUE, OTHER}) == sum(a not in {VALUE, OTHER} for a in output.axes)
    assert found is None or all(pointer.startswith("onnx:") and message for pointer, message in found)
