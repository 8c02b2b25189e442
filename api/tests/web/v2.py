"""The protocol as the HTTP tests speak it: bodies written by hand, answers held against its schema."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from jsonschema import Draft202012Validator

LENGTH = "Inference-Header-Content-Length"
SCHEMA = json.loads(
    (Path(__file__).parents[1] / "protocol" / "data" / "open_inference.schema.json").read_text()
)
DTYPES = {
    "FP32": "<f4",
    "FP64": "<f8",
    "INT64": "<i8",
    "UINT8": "u1",
    "BOOL": "?",
    "FP16": "<f2",
    "INT16": "<i2",
}


def valid(answer, kind, status=200):
    """The answer's JSON, which the schema must know as this kind."""
    assert answer.status_code == status, answer.text
    head = answer.content[: int(answer.headers.get(LENGTH, len(answer.content)))]
    told = json.loads(head)
    Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{kind}"}).validate(told)
    return told


def tensor(name, array, datatype="FP32", *, binary=False):
    """An input's JSON, and its bytes where it has any."""
    head = {"name": name, "datatype": datatype, "shape": list(array.shape)}
    if not binary:
        return {**head, "data": array.ravel().tolist()}, b""
    data = array.tobytes()
    return {**head, "parameters": {"binary_data_size": len(data)}}, data


def body(*tensors, **more):
    """A request's body and headers."""
    head = json.dumps({"inputs": [each for each, _ in tensors], **more}).encode()
    data = b"".join(each for _, each in tensors)
    return {"content": head + data, "headers": {LENGTH: str(len(head))} if data else {}}


def arrays(answer):
    """The tensors of an answer by name, wherever they stand in it."""
    told = valid(answer, "inference_response")
    rest = answer.content[int(answer.headers.get(LENGTH, len(answer.content))) :]
    found = {}
    for output in told["outputs"]:
        dtype = DTYPES[output["datatype"]]
        if "data" in output:
            values = np.array(output["data"], dtype)
        else:
            size = output["parameters"]["binary_data_size"]
            values, rest = np.frombuffer(rest[:size], dtype), rest[size:]
        found[output["name"]] = values.reshape(output["shape"])
    assert not rest
    return found
