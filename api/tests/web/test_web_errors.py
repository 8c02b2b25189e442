"""The one error shape: every class has its status, and no message carries more than it should."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from fastapi.exceptions import RequestValidationError
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException
from structlog.testing import capture_logs

from ml_inference import errors
from ml_inference.errors import (
    CardInvalid,
    ContractMismatch,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Unauthorised,
)
from ml_inference.protocol.failures import clean
from ml_inference.web.errors import problem_of, status_of

# interface.md's table, and what the domain's classes mean by it
STATUSES = {
    "InvalidRequest": 400,
    "ContractMismatch": 400,
    "CorruptImage": 400,
    "Undecodable": 415,
    "TooLarge": 413,
    "Unauthorised": 401,
    "Forbidden": 403,
    "ModelNotFound": 404,
    "Unavailable": 503,
    "Overloaded": 503,
    "NotReady": 503,
    "DeadlineExceeded": 504,
    "ClientGone": 499,
    "SourceFailed": 502,
    "CardInvalid": 500,
    "InferenceFailed": 500,
    "ConfigurationInvalid": 500,
    "ProcessorError": 500,
}


def shown(error, request_id="id-1"):
    problem = problem_of(error, request_id)
    members = json.loads(problem.encode())
    assert members["status"] == problem.status
    assert members["error"] == members["detail"]
    assert {"type", "title", "status", "detail", "error", "instance"} <= members.keys()
    return problem, members


def test_the_table_knows_every_class_of_error():
    found = {
        name: status_of(each("x", field="f", expected=1, got=2) if name == "ContractMismatch" else each("x"))
        for name, each in vars(errors).items()
        if isinstance(each, type) and issubclass(each, errors.ProcessorError)
    }
    assert found == STATUSES


def test_a_class_that_is_not_in_the_table_has_its_parents_status():
    class Odd(ModelNotFound):
        pass

    assert status_of(Odd("x")) == 404


def test_a_contract_mismatch_says_field_expected_and_got():
    error = ContractMismatch("4 bands wanted", field="bands", expected=("B02", "B03"), got=np.int64(3))
    _, members = shown(error)
    assert (members["field"], members["expected"], members["got"]) == ("bands", ["B02", "B03"], "3")
    assert members["title"] == "Contract mismatch"
    assert members["type"] == "urn:ml-inference:contract-mismatch"


def test_what_a_client_sent_is_echoed_short_and_harmless():
    error = ContractMismatch(
        "x" * 5000 + "\r\n\x1b[31m", field="f" * 5000, expected=math.nan, got=["\x00" * 9999] * 999
    )
    problem, members = shown(error)
    assert len(problem.encode()) < 80_000
    assert members["detail"].isprintable()
    assert members["expected"] is None
    assert len(members["got"]) == 64


def test_a_card_that_cannot_be_served_lists_its_problems_and_an_id_that_is_in_the_log():
    with capture_logs() as logs:
        _, members = shown(CardInvalid("cannot be served", (("/properties/mlm:input/0", "no bands"),)))
    assert members["problems"] == [{"pointer": "/properties/mlm:input/0", "message": "no bands"}]
    assert [line["error_id"] for line in logs] == [members["error_id"]]


def test_an_unexpected_exception_tells_nothing_but_an_id_that_is_in_the_log_with_the_traceback():
    error = RuntimeError("/srv/secret/path key=abc")
    with capture_logs() as logs:
        problem, members = shown(error)
    assert problem.status == 500
    assert "secret" not in problem.encode().decode()
    assert logs[0]["error_id"] == members["error_id"]
    assert members["error_id"] in members["detail"]
    assert logs[0]["exc_info"] is error


@pytest.mark.parametrize(
    ("wait", "header"), [(0.01, "1"), (1.0, "1"), (1.2, "2"), (math.inf, "1"), (math.nan, "1")]
)
def test_retry_after_is_whole_seconds_rounded_up(wait, header):
    assert shown(NotReady("later", retry_after=wait))[0].headers["Retry-After"] == header


def test_unauthorised_names_the_scheme():
    assert shown(Unauthorised("key"))[0].headers["WWW-Authenticate"].startswith("Bearer")


def test_the_frameworks_own_errors_take_the_same_shape():
    problem, members = shown(HTTPException(405, headers={"Allow": "GET"}))
    assert (problem.status, problem.headers) == (405, {"Allow": "GET"})
    assert "GET" in members["detail"]
    assert shown(HTTPException(404))[1]["title"] == "Not Found"
    validation = RequestValidationError([{"loc": ("query", "x"), "msg": "bad", "type": "t"}])
    assert shown(validation)[0].status == 400


def test_the_instance_is_a_uri_whatever_the_request_id():
    assert shown(InvalidRequest("x"), 'a b"<>/?#')[1]["instance"] == "urn:request:a%20b%22%3C%3E%2F%3F%23"


@given(st.text())
def test_clean_text_is_printable_and_bounded(text):
    assert clean(text, 50).isprintable()
    assert len(clean(text, 50)) <= 50
    assert clean(clean(text, 50), 50) == clean(text, 50)
