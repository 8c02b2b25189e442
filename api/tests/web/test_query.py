"""Query parameters and the request's own deadline: read exactly, or refused with what is legal."""

from __future__ import annotations

import contextlib
import time
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_inference.contract.card import Offset, Scale
from ml_inference.contract.options import PredictOptions
from ml_inference.errors import ContractMismatch, InvalidRequest, ProcessorError
from ml_inference.web.query import deadline_of, parse_query


def test_no_query_leaves_everything_to_the_card():
    assert parse_query(b"") == type(parse_query(b""))(PredictOptions(), None)


def test_every_parameter_is_read():
    query = parse_query(
        urlencode(
            {
                "output": "probabilities",
                "threshold": "0.25",
                "bands": "B04, B03,B02",
                "scaling": "offset:1000+divide:10000",
                "version": "3",
            }
        ).encode()
    )
    assert query.version == "3"
    assert query.options == PredictOptions(
        output="probabilities",
        threshold=0.25,
        bands=("B04", "B03", "B02"),
        scaling=((Offset(value=1000),), (Scale(value=10000),)),
    )


def test_a_plus_that_the_client_did_not_escape_still_chains_scalings():
    assert parse_query(b"scaling=offset:1000+divide:10000").options.scaling == (
        (Offset(value=1000),),
        (Scale(value=10000),),
    )


def test_scaling_none_is_not_the_same_as_no_scaling():
    assert parse_query(b"scaling=none").options.scaling == ()
    assert parse_query(b"").options.scaling is None


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            "treshold=0.5",
            "unknown query parameter 'treshold': expected bands, output, scaling, threshold, version",
        ),
        ("output=labels&output=raw", "'output' comes twice"),
        ("output=", "'output' is empty"),
        ("output=everything", "labels, probabilities, raw"),
        ("threshold=half", "finite number"),
        ("threshold=nan", "finite number"),
        ("threshold=inf", "finite number"),
        ("threshold=1e999", "finite number"),
        ("threshold=1_0", "finite number"),
        ("bands=B04,,B02", "names of the file's bands"),
        ("bands=" + "x" * 65, "names of the file's bands"),
        ("bands=" + ",".join(map(str, range(257))), "names of the file's bands"),
        ("bands=B04%00", "names of the file's bands"),
        ("bands=B04,B03,B04", "B04 more than once"),
        ("&".join(f"x{n}=1" for n in range(100)), "too many"),
    ],
)
def test_an_illegal_query_names_what_is_legal(query, said):
    with pytest.raises(InvalidRequest) as caught:
        parse_query(query.encode())
    assert said in str(caught.value)


def test_an_illegal_scaling_is_a_mismatch_in_that_field():
    with pytest.raises(ContractMismatch) as caught:
        parse_query(b"scaling=multiply:3")
    assert caught.value.field == "scaling"


@given(st.binary(max_size=300))
def test_any_query_is_read_or_refused(query):
    with contextlib.suppress(ProcessorError):
        parse_query(query)


def test_the_deadline_is_the_setting_unless_the_header_is_sooner():
    now = time.monotonic()
    assert deadline_of(None, 30) == pytest.approx(now + 30, abs=1)
    assert deadline_of("2000", 30) == pytest.approx(now + 2, abs=1)
    assert deadline_of("999999999", 30) == pytest.approx(now + 30, abs=1)


@pytest.mark.parametrize("header", ["0", "-1", "1.5", "", "soon", "1e3", "\u0663", "1" * 10, "inf"])
def test_an_illegal_deadline_is_refused(header):
    with pytest.raises(InvalidRequest, match="X-Request-Timeout-Ms"):
        deadline_of(header, 30)
