"""KServe's V1: instances are rows, predictions are rows, and nothing else is translated."""

from __future__ import annotations

import numpy as np
import pytest
from protocol.sample_graphs import sample_session
from rpc.odd_models import KINDS, write_odd_models
from web.v2 import valid

pytestmark = pytest.mark.anyio

PREDICT = "/v1/models/landcover-share:predict"


def pixels(rows=2):
    return np.random.default_rng(0).random((rows, 4, 6, 5), np.float32)


async def test_instances_of_one_input_give_predictions_row_by_row(client, tmp_path):
    answer = await client.post(PREDICT, json={"instances": pixels(3).tolist()})
    expected = sample_session("landcover-share", tmp_path).run(None, {"reflectance": pixels(3)})[0]
    np.testing.assert_array_equal(np.array(answer.json()["predictions"], np.float32), expected)


async def test_instances_may_name_their_input(client):
    named = {"instances": [{"reflectance": each} for each in pixels().tolist()]}
    plain = {"instances": pixels().tolist()}
    assert (await client.post(PREDICT, json=named)).json() == (await client.post(PREDICT, json=plain)).json()


async def test_several_inputs_and_outputs_go_by_name(service, tmp_path):
    write_odd_models(tmp_path)
    names = [name for name in KINDS if name != "FP16"]
    row = {f"in_{name}": [True, False, True] if name == "BOOL" else [1, 0, 2] for name in names}
    async with service(model_sources=(str(tmp_path),)) as client:
        answer = await client.post("/v1/models/kinds:predict", json={"instances": [row, row]})
        assert "FP16" in valid(answer, "error", 400)["error"]
        wide = await client.post("/v1/models/wide:predict", json={"instances": [[0.5] * 100]})
        assert wide.json() == {"predictions": [[0.5] * 6400]}


async def test_predictions_are_at_the_card_of_each_model(client):
    value = await client.post("/v1/models/slow:predict", json={"instances": [[[[1.0, 2.0]]], [[[3.0, 4.0]]]]})
    assert value.json() == {"predictions": [[3.0], [7.0]]}  # version 2 answers mean times 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "instances"),
        ({"instances": []}, "instances"),
        ({"instances": {"a": 1}}, "instances"),
        ({"inputs": [[1]]}, "instances"),
        ({"instances": [[[[1.0, 2.0], [3.0]]]]}, "'reflectance'"),
        ({"instances": [1, 2]}, "'reflectance'"),
        ({"instances": [{"other": [1.0]}]}, "'other'"),
        ({"instances": [{"reflectance": [1.0]}, [1.0]]}, "objects"),
        ({"instances": [{"reflectance": [1.0]}, {"a": [1.0]}]}, "same inputs"),
        ({"instances": ["text"]}, "'reflectance'"),
        ({"instances": [[]]}, "'reflectance'"),
    ],
)
async def test_what_cannot_be_translated_is_refused_in_words(client, body, words):
    assert words in valid(await client.post(PREDICT, json=body), "error", 400)["error"]


async def test_what_has_no_form_in_json_is_refused(client):
    low = np.full(
        (1, 1, 2, 2), -3e38
    ).tolist()  # twice their mean, which model `slow` answers, is beyond float32
    answer = await client.post("/v1/models/slow:predict", json={"instances": low})
    assert "infinity" in valid(answer, "error", 400)["error"]


async def test_there_is_nothing_but_predict(client):
    for path in ("/v1/models/ndvi:explain", "/v1/models/ndvi", "/v1/models/ndvi/infer"):
        assert (await client.post(path, json={"instances": [1]})).status_code in {404, 405}
