"""Requests through real models: ONNX Runtime's own answer, labelled with the card's words, in time or not at all."""

from __future__ import annotations

import time

import numpy as np
import pytest
from pixel_cards import make_output
from protocol.sample_graphs import sample_session
from rpc.odd_models import KINDS
from web.tiles import BANDS, npy, tile

from ml_inference.contract.card import Axis, ClassLabel, Task
from ml_inference.errors import (
    ContractMismatch,
    DeadlineExceeded,
    InvalidRequest,
    TooLarge,
)
from ml_inference.protocol.images import decoder, image_options
from ml_inference.protocol.infer import classified, deadline_of, infer
from ml_inference.protocol.tensors import InferInput, InferRequest, RequestedOutput

pytestmark = pytest.mark.anyio


def pixels(rows=2, seed=0):
    return np.random.default_rng(seed).random((rows, 4, 16, 24), np.float32)


def tensor(name, array, datatype="FP32"):
    return InferInput(name, datatype, array.shape, array)


async def ask(services, model, *inputs, seconds=30.0, **more):
    deadline = time.monotonic() + seconds
    request = InferRequest(model.name, inputs, **more)
    return await infer(model, request, deadline, decoder(services, deadline))


def images(*files, name="image"):
    return InferInput(name, "BYTES", (len(files),), files)


async def test_tensors_give_what_onnx_runtime_gives_and_the_id_comes_back(opened, tmp_path):
    async with opened("landcover-share") as (services, model):
        answer = await ask(services, model, tensor("reflectance", pixels()), id="a b")
    session = sample_session("landcover-share", tmp_path)
    assert (answer.model_name, answer.model_version, answer.id) == ("landcover-share", "1", "a b")
    assert [each.name for each in answer.outputs] == ["shares"]
    np.testing.assert_array_equal(answer.outputs[0].data, session.run(None, {"reflectance": pixels()})[0])


async def test_tensors_of_every_type_go_through_a_graph_unchanged(opened):
    arrays = {f"in_{name}": np.array([[0, 1, 1]]).astype(kind) for name, (_, kind) in KINDS.items()}
    async with opened("kinds") as (services, model):
        inputs = [tensor(name, array, name.removeprefix("in_")) for name, array in arrays.items()]
        answer = await ask(services, model, *inputs)
    for output in answer.outputs:
        assert output.name == f"out_{output.datatype}"
        np.testing.assert_array_equal(output.data, arrays[f"in_{output.datatype}"], strict=True)


async def test_encoded_images_go_through_the_cards_preprocessing_and_answer_as_their_tensors_do(opened):
    first, second = tile(16, 24, seed=1), tile(16, 24, seed=2)
    by_hand = np.stack([first[0], second[0]]).astype(np.float32) / np.float32(10_000)
    async with opened("landcover-share") as (services, model):
        for name in ("image", "reflectance"):
            seen = await ask(services, model, images(first[1], second[1], name=name))
            told = await ask(services, model, tensor("reflectance", by_hand))
            np.testing.assert_array_equal(seen.outputs[0].data, told.outputs[0].data)


async def test_bands_of_an_image_that_names_none_are_named_by_the_request(opened):
    pixels_, data = tile(16, 24, bands=BANDS[::-1])
    plain = npy(pixels_)
    async with opened("landcover-share") as (services, model):
        named = await ask(services, model, images(plain), parameters={"bands": ",".join(BANDS[::-1])})
        itself = await ask(services, model, images(data))
    np.testing.assert_array_equal(named.outputs[0].data, itself.outputs[0].data)


@pytest.mark.parametrize(
    ("name", "value"), [("bands", 4), ("bands", "a,,b"), ("bands", "a,a"), ("scaling", "no")]
)
def test_options_of_images_are_checked(name, value):
    with pytest.raises(InvalidRequest, match=name):
        image_options({name: value})


async def test_images_are_refused_by_number_together_by_pixels_and_when_they_do_not_stack(opened):
    async with opened("landcover-share", max_pixels=1000) as (services, model):
        good = tile(16, 24)[1]
        with pytest.raises(ContractMismatch, match="image 2"):
            await ask(services, model, images(good, b"no image"))
        with pytest.raises(TooLarge, match="together"):
            await ask(services, model, images(good, good, good))
        with pytest.raises(ContractMismatch, match="one shape"):
            await ask(services, model, images(good, tile(8, 8)[1]))
        with pytest.raises(DeadlineExceeded):
            await ask(services, model, images(good), seconds=0)
        assert (await ask(services, model, images(good))).outputs[0].shape == (1, 5)


async def test_a_request_without_time_left_does_not_run(opened):
    async with opened("landcover-share") as (services, model):
        with pytest.raises(DeadlineExceeded):
            await ask(services, model, tensor("reflectance", pixels()), seconds=0)
        assert model.statistics().execution_count == 0


def test_a_timeout_counts_from_the_arrival_and_only_shortens():
    request = InferRequest("m", (), timeout_us=2_000_000)
    assert deadline_of(request, 10.0, 40.0) == 12.0
    assert deadline_of(request, 10.0, 11.0) == 11.0
    assert deadline_of(InferRequest("m", ()), 10.0, 40.0) == 40.0


async def test_classes_come_best_first_with_score_index_and_the_cards_names(opened):
    async with opened("landcover-share") as (services, model):
        asked = (RequestedOutput("shares", classification=2),)
        answer = await ask(services, model, tensor("reflectance", pixels(rows=3)), outputs=asked)
        scores = (await ask(services, model, tensor("reflectance", pixels(rows=3)))).outputs[0].data
        names = [each.name for each in model.card.outputs[0].classes]
    output = answer.outputs[0]
    assert (output.datatype, output.shape) == ("BYTES", (3, 2))
    for row, told in zip(scores, np.reshape([each.decode() for each in output.data], (3, 2)), strict=True):
        for place, text in zip(np.argsort(row)[::-1], told, strict=False):
            score, index, label = text.split(":")
            assert (float(score), int(index), label) == (
                pytest.approx(row[place], abs=1e-6),
                place,
                names[place],
            )


def test_classes_of_whole_numbers_without_rows_or_names_and_of_fewer_values_than_asked_for():
    plain = make_output(Task.RAW, axes=(Axis.VALUE,))
    told = classified(plain, np.array([3, 250, 7], np.uint8), 9, batched=False)
    assert (told.shape, list(told.data)) == ((3,), [b"250:1", b"7:2", b"3:0"])


def test_nan_is_never_the_best_class_and_a_class_for_nodata_has_no_channel():
    labels = (ClassLabel(value=0, name="none", nodata=True), ClassLabel(value=1, name="a"))
    output = make_output(Task.CLASSIFICATION, (*labels, ClassLabel(value=2, name="b")))
    told = classified(output, np.array([[np.nan, 0.25]], np.float32), 1, batched=True)
    assert list(told.data) == [b"0.250000:1:b"]
