"""What clients read of the service: read back by Triton's own message classes, which know every field and its type."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from tritonclient.grpc import model_config_pb2, service_pb2

from ml_inference import __version__
from ml_inference.engine.status import ModelState, ModelStatus
from ml_inference.protocol.describe import (
    model_config,
    model_metadata,
    model_statistics,
    repository_index,
    server_metadata,
)

pytestmark = pytest.mark.anyio


def through(message, told):
    """What Triton's message class makes of it; raises for a field that it does not know or of another type."""
    return MessageToDict(
        ParseDict(told, message), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def test_the_server_names_what_it_has():
    told = through(service_pb2.ServerMetadataResponse(), server_metadata())
    assert told["version"] == __version__
    assert {"statistics", "model_configuration", "binary_tensor_data"} <= set(told["extensions"])
    assert not {"trace", "logging", "system_shared_memory", "sequence"} & set(told["extensions"])


async def test_metadata_and_config_agree_on_shapes_but_for_the_rows(opened):
    async with opened("landcover-share", batch_size=4, batch_timeout=0.002) as (_, model):
        metadata, config = model_metadata(model, ["7"]), model_config(model)
    assert metadata["versions"] == ["1", "7"]
    assert metadata["inputs"] == [{"name": "reflectance", "datatype": "FP32", "shape": [-1, 4, -1, -1]}]
    assert metadata["outputs"] == [{"name": "shares", "datatype": "FP32", "shape": [-1, 5]}]
    told = through(model_config_pb2.ModelConfig(), config)
    assert told["max_batch_size"] == 4
    assert told["input"][0]["data_type"] == "TYPE_FP32"
    for tensor, row in zip(
        (*told["input"], *told["output"]), (*metadata["inputs"], *metadata["outputs"]), strict=True
    ):
        assert [int(each) for each in tensor["dims"]] == row["shape"][1:]
    assert told["dynamic_batching"]["max_queue_delay_microseconds"] == "2000"
    assert told["model_transaction_policy"]["decoupled"] is False


async def test_the_card_is_told_beside_the_tensors(opened):
    async with opened("spectral-landcover") as (_, model):
        told = model_metadata(model)["parameters"]
        card = model.card
    assert told["bands"] == {card.inputs[0].name: ["B02", "B03", "B04", "B08"]}
    assert told["classes"][card.outputs[0].name] == [
        {"value": each.value, "name": each.name} for each in card.outputs[0].classes
    ]
    assert told["item"] == "/spectral-landcover?version=1"


async def test_a_bare_graph_has_all_its_types_and_no_item(opened):
    async with opened("kinds") as (_, model):
        metadata, config = model_metadata(model), model_config(model)
    assert {each["datatype"] for each in metadata["inputs"]} == {
        each["name"].removeprefix("in_") for each in metadata["inputs"]
    }
    assert "item" not in metadata["parameters"]
    through(model_config_pb2.ModelConfig(), config)


async def test_one_row_at_a_time_is_no_dynamic_batching(opened):
    async with opened("landcover-share", batch_size=1) as (_, model):
        config = model_config(model)
    assert config["max_batch_size"] == 1
    assert "dynamic_batching" not in config


async def test_statistics_are_what_ran_with_every_key_that_readers_take_for_granted(opened):
    async with opened("landcover-share") as (_, model):
        for rows in (1, 3):
            with model.accounting():
                await model.infer({"reflectance": np.zeros((rows, 4, 8, 8), np.float32)}, float("inf"))
        told = through(service_pb2.ModelStatisticsResponse(), model_statistics([model]))["model_stats"][0]
    assert (told["name"], told["version"]) == ("landcover-share", "1")
    assert (told["inference_count"], told["execution_count"]) == ("4", "2")
    assert told["inference_stats"]["success"]["count"] == "2"
    assert (
        int(told["inference_stats"]["success"]["ns"])
        > int(told["inference_stats"]["compute_infer"]["ns"])
        > 0
    )
    assert {each["batch_size"] for each in told["batch_stats"]} == {"1", "3"}
    assert set(told["inference_stats"]) == {
        *("success", "fail", "queue", "compute_input", "compute_infer", "compute_output"),
        *("cache_hit", "cache_miss"),
    }


def test_the_index_has_the_protocols_states_and_a_reason_for_each_model_that_does_not_answer():
    statuses = [ModelStatus(state.value, None, "", state) for state in ModelState]
    told = {each["name"]: each for each in repository_index(statuses)}
    assert {name: each["state"] for name, each in told.items()} == {
        "known": "UNAVAILABLE",
        "loading": "LOADING",
        "ready": "READY",
        "refused": "UNAVAILABLE",
        "failed": "UNAVAILABLE",
        "unloaded": "UNAVAILABLE",
    }
    assert all(each["reason"] for each in told.values() if each["state"] == "UNAVAILABLE")
    assert [each["name"] for each in repository_index(statuses, ready=True)] == ["ready"]
    for each in told.values():
        through(service_pb2.RepositoryIndexResponse.ModelIndex(), each)
