"""Requests that lie: each gets 400 (413 when too large) with the tensor's name, and the next one is answered as ever."""

from __future__ import annotations

import gzip
import http.client
import json
import struct
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from rpc.odd_models import write_odd_models
from system.conftest import start, stop

LIMIT = 20_000_000
PATH = "/v2/models/landcover-share/infer"
LENGTH = "Inference-Header-Content-Length"
NAME = "reflectance"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_odd_models(folder)
    running = start(
        tmp_path_factory.mktemp("service"),
        MODEL_SOURCES=f"samples:,{folder}",
        MAX_BODY_BYTES=str(LIMIT),
        GRPC_PORT="off",
        PYTHONWARNINGS="error",
    )
    yield running
    assert stop(running) == 0


def document(**changed):
    """A good request in JSON, but for what is changed; None takes a member away."""
    tensor = {"name": NAME, "datatype": "FP32", "shape": [1, 4, 2, 2], "data": [0.25] * 16}
    tensor.update(changed)
    return {"inputs": [{key: value for key, value in tensor.items() if value is not None}]}


def text(value):
    return json.dumps(value).encode()


def binary(size=64, rest=64, shape=(1, 4, 2, 2), length=0, **more):
    """A request with `rest` bytes behind its JSON, which says `size`; its length is told `length` too long."""
    body = bytes(rest) if isinstance(rest, int) else rest
    head = text(document(data=None, shape=shape, parameters={"binary_data_size": size}, **more))
    return head + body, {LENGTH: str(len(head) + length)}


def spliced(member, literal):
    """The good request with the text of one member replaced."""
    whole = json.dumps(document(**{member: "@@"}))
    return whole.replace('"@@"', literal).encode()


TWICE = {"inputs": document()["inputs"] * 2}
BAD = {
    # name: (body, headers, words of the message)
    "not enough bytes for the shape": (*binary(size=60, rest=60), NAME),
    "too many bytes for the shape": (*binary(size=68, rest=68), NAME),
    "a size beyond the body": (*binary(size=128), NAME),
    "a size that leaves bytes behind": (*binary(rest=65), NAME),
    "a negative size": (*binary(size=-64), NAME),
    "a size that is a text": (*binary(size="64"), NAME),
    "a size that is true": (*binary(size=True, rest=1, shape=[1]), NAME),
    "a size of many digits": (*binary(size=10**30), NAME),
    "data and a size": (text(document(parameters={"binary_data_size": 0})), {}, NAME),
    "neither data nor a size": (text(document(data=None)), {}, NAME),
    "a size without bytes": (text(document(data=None, parameters={"binary_data_size": 64})), {}, NAME),
    "a header length beyond the body": (*binary(length=1000), LENGTH),
    "a header length into the bytes": (*binary(length=3), "JSON"),
    "a header length that cuts the JSON": (*binary(length=-3), "JSON"),
    "a negative header length": (text(document()), {LENGTH: "-1"}, LENGTH),
    "a header length in words": (text(document()), {LENGTH: "ten"}, LENGTH),
    "a header length of two": (text(document()), {LENGTH: "1, 1"}, LENGTH),
    "a header length in other digits": (
        text(document()),
        {LENGTH: "\N{FULLWIDTH DIGIT ONE}".encode()},
        LENGTH,
    ),
    "a header length of many digits": (text(document()), {LENGTH: "9" * 100}, LENGTH),
    "a shape that does not multiply out": (text(document(shape=[1, 4, 2, 3])), {}, NAME),
    "a negative dimension": (text(document(shape=[-1, 4, 2, 2])), {}, NAME),
    "an enormous dimension": (text(document(shape=[2**62, 4, 2, 2])), {}, NAME),
    "dimensions that overflow": (text(document(shape=[2**33, 2**33, 4])), {}, NAME),
    "dimensions that overflow to the right size": (text(document(shape=[2**32, 2**32, 4, 16])), {}, NAME),
    "dimensions that overflow but for a zero": (
        text(document(shape=[2**31 - 1] * 4 + [0], data=[])),
        {},
        NAME,
    ),
    "a dimension of 0": (text(document(shape=[0, 4, 2, 2], data=[])), {}, NAME),
    "a fractional dimension": (text(document(shape=[1.0, 4, 2, 2])), {}, NAME),
    "a dimension that is true": (text(document(shape=[True, 4, 2, 2])), {}, NAME),
    "too many dimensions": (text(document(shape=[1] * 100 + [16])), {}, NAME),
    "a shape that is a number": (text(document(shape=16)), {}, NAME),
    "no shape": (text(document(shape=None)), {}, NAME),
    "another rank": (text(document(shape=[4, 2, 2])), {}, NAME),
    "other channels": (text(document(shape=[1, 2, 4, 2])), {}, NAME),
    "an unknown input": (text(document(name="other")), {}, "other"),
    "a missing input": (text({"inputs": []}), {}, "inputs"),
    "no inputs": (text({}), {}, "inputs"),
    "two inputs of the same name": (text(TWICE), {}, NAME),
    "an unknown output": (text(document() | {"outputs": [{"name": "other"}]}), {}, "other"),
    "an output asked for twice": (text(document() | {"outputs": [{"name": "shares"}] * 2}), {}, "shares"),
    "another datatype": (text(document(datatype="FP64")), {}, NAME),
    "a datatype of numpy's": (text(document(datatype="V1000000000")), {}, NAME),
    "a datatype that is a number": (text(document(datatype=32)), {}, NAME),
    "FP16 in JSON": (text(document(datatype="FP16")), {}, NAME),
    "a name that is a number": (text(document(name=7)), {}, "name"),
    "ragged lists": (text(document(data=[[[[1, 2], [3]]]])), {}, NAME),
    "lists nested otherwise": (text(document(data=[[0.5] * 4] * 4)), {}, NAME),
    "texts for numbers": (text(document(data=["0.5"] * 16)), {}, NAME),
    "null for a number": (text(document(data=[None] * 16)), {}, NAME),
    "objects for numbers": (text(document(data=[{}] * 16)), {}, NAME),
    "booleans for numbers": (text(document(data=[True] * 16)), {}, NAME),
    "data that is an object": (text(document(data={})), {}, NAME),
    "a number beyond FP32": (text(document(data=[1e39] * 16)), {}, NAME),
    "the token NaN": (spliced("data", "[NaN]"), {}, "JSON"),
    "the token Infinity": (spliced("data", "[Infinity]"), {}, "JSON"),
    "a number beyond every float": (spliced("data", "[1e999]"), {}, "JSON"),
    "10 MB of digits": (spliced("data", f"[{'1' * 10_000_000}]"), {}, "JSON"),
    "deep nesting": (spliced("data", "[" * 100_000 + "]" * 100_000), {}, "JSON"),
    "deep nesting that never ends": (b"[" * 1_000_000, {}, "JSON"),
    "invalid UTF-8": (text(document()).replace(b"reflectance", b"reflec\xfftance"), {}, "JSON"),
    "half a surrogate": (text(document()).replace(b"reflectance", b"\\ud800"), {}, "JSON"),
    "a body that is cut off": (text(document())[:-9], {}, "JSON"),
    "an empty body": (b"", {}, "JSON"),
    "a list": (b"[]", {}, "object"),
    "inputs that are no list": (b'{"inputs": {}}', {}, "inputs"),
    "inputs that are numbers": (b'{"inputs": [1]}', {}, "inputs"),
    "an id that is a number": (text(document() | {"id": 7}), {}, "id"),
    "parameters that are a list": (text(document() | {"parameters": [1]}), {}, "parameters"),
    "a parameter that is an object": (text(document() | {"parameters": {"a": {}}}), {}, "parameters"),
    "a negative priority": (text(document() | {"parameters": {"priority": -1}}), {}, "priority"),
    "a timeout in words": (text(document() | {"parameters": {"timeout": "soon"}}), {}, "timeout"),
    "a negative timeout": (text(document() | {"parameters": {"timeout": -5}}), {}, "timeout"),
    "shared memory in": (text(document(parameters={"shared_memory_region": "r"})), {}, "shared memory"),
    "shared memory out": (
        text(document() | {"outputs": [{"name": "shares", "parameters": {"shared_memory_region": "r"}}]}),
        {},
        "shared memory",
    ),
    "elements whose lengths lie": (
        *binary(12, struct.pack("<I", 2**32 - 1) + bytes(8), [1], name="image", datatype="BYTES"),
        "image",
    ),
    "more elements than data": (
        text(document(name="image", datatype="BYTES", shape=[2**31 - 1], data=["a"])),
        {},
        "image",
    ),
    "an element that is no image": (
        text(document(name="image", datatype="BYTES", shape=[1], data=["a"])),
        {},
        "image",
    ),
    "gzip that is none": (text(document()), {"Content-Encoding": "gzip"}, "gzip"),
    "gzip that is cut off": (gzip.compress(text(document()))[:-5], {"Content-Encoding": "gzip"}, "gzip"),
    "gzip with more behind it": (gzip.compress(text(document())) * 2, {"Content-Encoding": "gzip"}, "gzip"),
    "deflate without its frame": (
        zlib.compress(text(document()))[2:-4],
        {"Content-Encoding": "deflate"},
        "deflate",
    ),
    "a raw request of odd size": (bytes(10), {LENGTH: "0"}, NAME),
    "a query that no route knows": (text(document()), {"path": f"{PATH}?fast=1"}, "fast"),
}
TOO_LARGE = {
    "a body over the cap": (bytes(LIMIT + 1), {}),
    "a bomb in gzip": (gzip.compress(bytes(LIMIT * 50)), {"Content-Encoding": "gzip"}),
    "a bomb in deflate": (zlib.compress(bytes(LIMIT * 50)), {"Content-Encoding": "deflate"}),
    "millions of empty lists": (b'{"inputs": [' + b"[]," * 6_000_000 + b"[]]}", {}),
}


def post(place, body, headers):
    headers = dict(headers)
    path = headers.pop("path", PATH)
    return httpx.post(f"{place.url}{path}", content=body, headers=headers, timeout=60)


def good(place):
    pixels = np.linspace(0, 1, 16, dtype=np.float32)
    answer = post(place, text(document(data=pixels.tolist())), {})
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"]


@pytest.mark.parametrize("name", BAD)
def test_a_lie_is_told_by_its_name_and_changes_nothing(place, name):
    body, headers, words = BAD[name]
    before = good(place)
    answer = post(place, body, headers)
    assert answer.status_code == 400, answer.text
    told = answer.json()
    assert words in told["error"], told["error"]
    assert len(told["error"]) <= 1000
    assert good(place) == before


@pytest.mark.parametrize("name", TOO_LARGE)
def test_what_is_too_large_is_413_and_changes_nothing(place, name):
    body, headers = TOO_LARGE[name]
    before = good(place)
    try:
        answer = post(place, body, headers)
    except httpx.WriteError:  # refused before it was sent in full
        pass
    else:
        assert answer.status_code == 413, answer.text
        assert answer.json()["error"]
    assert good(place) == before


def test_two_header_lengths_are_one_too_many(place):
    address = urlsplit(place.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
    body = text(document())
    connection.putrequest("POST", PATH)
    for name, value in ((LENGTH, len(body)), (LENGTH, len(body)), ("Content-Length", len(body))):
        connection.putheader(name, str(value))
    connection.endheaders(body)
    answer = connection.getresponse()
    assert answer.status == 400
    assert LENGTH in json.loads(answer.read())["error"]
    connection.close()


def test_bombs_take_no_memory_to_speak_of(place):
    """Resident memory after forty of each is what it was after the first few, within 60 MB."""

    def resident():
        status = Path(f"/proc/{place.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    bombs = [TOO_LARGE["a bomb in gzip"], BAD["10 MB of digits"][:2], BAD["deep nesting"][:2]]
    for body, headers in bombs * 5:
        post(place, body, headers)
    before = resident()
    for body, headers in bombs * 15:
        post(place, body, headers)
    assert resident() - before < 60
