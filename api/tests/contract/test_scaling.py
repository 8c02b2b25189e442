"""The short spelling of scaling."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_inference.contract.card import Clip, MinMax, Offset, Scale, ZScore
from ml_inference.contract.scaling import parse_scaling
from ml_inference.errors import ContractMismatch

CASES = {
    "none": (),
    " none ": (),
    "divide:10000": ((Scale(value=10000),),),
    "divide:1e+4": ((Scale(value=10000),),),
    "offset:-1000": ((Offset(value=-1000),),),
    "min-max:0,10000": ((MinMax(minimum=0, maximum=10000),),),
    "z-score:0.5,0.25": ((ZScore(mean=0.5, stddev=0.25),),),
    "clip:0,1": ((Clip(minimum=0, maximum=1),),),
    "offset:1000+divide:10000+clip:0,1": (
        (Offset(value=1000),),
        (Scale(value=10000),),
        (Clip(minimum=0, maximum=1),),
    ),
    # A query string turns + into a space.
    "offset:1000 divide:1e4": ((Offset(value=1000),), (Scale(value=1e4),)),
}


@pytest.mark.parametrize("text", CASES)
def test_a_spelling_means_its_steps_in_order(text):
    assert parse_scaling(text) == CASES[text]


WRONG = {
    "": "not known",
    "dvide:10": "did you mean 'divide'",
    "divide": "not a finite number",
    "divide:": "not a finite number",
    "divide:ten": "'ten' is not a finite number",
    "divide:nan": "not a finite number",
    "divide:inf": "not a finite number",
    "divide:0": "division by zero",
    "divide:1,2": "has 2 numbers, divide takes 1",
    "min-max:5": "has 1 numbers, min-max takes 2",
    "min-max:5,5": "division by zero",
    "z-score:1,0": "greater than 0",
    "clip:2,1": "above maximum",
    "none+divide:2": "stands alone",
    "divide:2+none": "stands alone",
    "+".join(["divide:2"] * 9): "9 steps",
    "divide:" + "1" * 500: "characters long",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_spelling_says_what_is_wrong_and_what_is_legal(text):
    with pytest.raises(ContractMismatch, match="legal: none") as caught:
        parse_scaling(text)
    assert WRONG[text] in str(caught.value)
    assert caught.value.field == "scaling"
    assert len(str(caught.value)) < 400


@given(st.text(max_size=600))
def test_any_text_is_read_or_refused_as_scaling(text):
    try:
        steps = parse_scaling(text)
    except ContractMismatch:
        return
    assert all(len(step) == 1 for step in steps)


@given(st.floats(allow_nan=False, allow_infinity=False).filter(bool))
def test_a_number_survives_its_spelling(value):
    ((step,),) = parse_scaling(f"divide:{value!r}")
    assert math.isclose(step.value, value, rel_tol=0, abs_tol=0)
