"""A request against a card: everything that the graph would not take is refused, with the tensor's name."""

from __future__ import annotations

import numpy as np
import pytest
from pixel_cards import make_card, make_input, make_output

from ml_inference.contract.card import Axis
from ml_inference.errors import ContractMismatch, InvalidRequest
from ml_inference.protocol.checks import check_outputs, check_request, image_elements
from ml_inference.protocol.parameters import requested_output, schedule_of
from ml_inference.protocol.tensors import InferInput, InferRequest, RequestedOutput

CARD = make_card(
    make_input("B04 B03", shape=(-1, 2, -1, -1), size_multiple=4),
    make_input(name="when", axes=(Axis.BATCH, Axis.VALUE), shape=(-1, 1), dtype="int64"),
)


def tensor(name, array, datatype=None):
    words = {"float32": "FP32", "int64": "INT64", "float64": "FP64"}
    return InferInput(name, datatype or words[array.dtype.name], array.shape, array)


def pixels(*shape, dtype="float32"):
    return tensor("x", np.zeros(shape or (3, 2, 8, 4), dtype))


WHEN = tensor("when", np.zeros((3, 1), np.int64))


def refused(*inputs, outputs=(), card=CARD, check=check_request):
    with pytest.raises(ContractMismatch) as caught:
        check(card, InferRequest("m", inputs, outputs=outputs))
    return caught.value


def test_a_request_that_fits_gives_its_own_arrays():
    inputs = (WHEN, pixels())
    tensors = check_request(CARD, InferRequest("m", inputs))
    assert tensors["x"] is inputs[1].data
    assert tensors["when"] is inputs[0].data


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ((), "inputs.x"),
        ((pixels(),), "inputs.when"),
        ((pixels(), WHEN, pixels()), "inputs.x"),
        ((pixels(), WHEN, tensor("y", np.zeros((3, 1), np.int64))), "inputs.y"),
        ((pixels(dtype="float64"), WHEN), "inputs.x"),
        ((pixels(3, 2, 8), WHEN), "inputs.x"),
        ((pixels(3, 4, 8, 4), WHEN), "inputs.x"),
        ((pixels(3, 2, 8, 5), WHEN), "inputs.x"),
        ((pixels(3, 2, 0, 4), WHEN), "inputs.x"),
        ((pixels(0, 2, 8, 4), tensor("when", np.zeros((0, 1), np.int64))), "inputs.x"),
        ((pixels(2, 2, 8, 4), WHEN), "inputs"),
    ],
)
def test_what_does_not_fit_is_named(inputs, field):
    assert refused(*inputs).field == field


def test_rows_are_free_even_where_the_graph_fixes_its_batch():
    card = make_card(make_input("B04 B03", shape=(4, 2, 8, 8)))
    for rows in (1, 4, 9):
        assert check_request(card, InferRequest("m", (pixels(rows, 2, 8, 8),)))["x"].shape[0] == rows


def test_a_tensor_without_rows_must_be_exactly_as_the_graph_says():
    card = make_card(make_input(axes=(Axis.HEIGHT, Axis.WIDTH), shape=(2, 3)))
    assert check_request(card, InferRequest("m", (pixels(2, 3),)))
    assert refused(pixels(1, 3), card=card).expected == "[2, 3]"


def test_bf16_is_taken_for_fp32_which_holds_all_its_values_and_for_nothing_else():
    given = InferInput("x", "BF16", (1, 2, 4, 4), np.zeros((1, 2, 4, 4), np.float32))
    check_request(make_card(make_input("B04 B03")), InferRequest("m", (given,)))
    assert refused(given, card=make_card(make_input("B04 B03", dtype="float64"))).expected == "FP64"


def test_outputs_are_chosen_by_name_all_of_them_by_default():
    card = make_card(others=(make_output(name="z"),))
    assert [each.name for each in check_outputs(card, InferRequest("m", ()))] == ["y", "z"]
    only = (RequestedOutput("z", binary=True),)
    assert check_outputs(card, InferRequest("m", (), outputs=only)) == only
    for names in (["q"], ["z", "z"]):
        outputs = tuple(map(RequestedOutput, names))
        assert refused(outputs=outputs, card=card, check=check_outputs).field == f"outputs.{names[0]}"


def test_encoded_images_come_in_one_bytes_input_of_n_elements():
    for name, shape in (("image", (2,)), ("x", (2, 1))):
        given = InferInput(name, "BYTES", shape, [b"a", b"b"])
        assert image_elements(CARD, InferRequest("m", (given,))) == [b"a", b"b"]
    assert image_elements(CARD, InferRequest("m", (pixels(), WHEN))) is None


@pytest.mark.parametrize(
    "inputs",
    [
        (InferInput("when", "BYTES", (1,), [b"a"]),),
        (InferInput("image", "BYTES", (1,), [b"a"]), WHEN),
        (InferInput("image", "BYTES", (1, 2), [b"a", b"b"]),),
        (InferInput("image", "BYTES", (0,), []),),
        (InferInput("image", "BYTES", (), [b"a"]),),
        (InferInput("image", "BYTES", (1, 1, 1), [b"a"]),),
    ],
)
def test_other_bytes_inputs_are_refused(inputs):
    assert refused(*inputs, check=image_elements).field == f"inputs.{inputs[0].name}"


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, (0, None)),
        ({"priority": 3, "timeout": 1500}, (3, 1500)),
        ({"timeout": 0, "sequence_id": 4, "anything": "else"}, (0, None)),
    ],
)
def test_priority_and_timeout_are_read_and_strange_parameters_left(parameters, expected):
    assert schedule_of(parameters) == expected


@pytest.mark.parametrize("value", [-1, 1.5, "1", True, None, 2**70])
@pytest.mark.parametrize("name", ["priority", "timeout"])
def test_priority_and_timeout_are_whole_numbers(name, value):
    with pytest.raises(InvalidRequest, match=name):
        schedule_of({name: value})


@pytest.mark.parametrize(
    "parameters",
    [{"binary_data": 1}, {"classification": -1}, {"classification": "2"}, {"shared_memory_region": "r"}],
)
def test_an_outputs_parameters_are_checked_with_its_name(parameters):
    with pytest.raises(InvalidRequest, match="'scores'"):
        requested_output("scores", parameters)
