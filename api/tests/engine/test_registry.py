"""The registry and the served model, over sources that the test lets go of, and real graphs."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from ml_inference.contract.options import PredictOptions
from ml_inference.contract.raster import Raster
from ml_inference.engine.model import EngineConfig
from ml_inference.engine.registry import ModelRegistry
from ml_inference.engine.status import ModelState
from ml_inference.errors import (
    CardInvalid,
    ConfigurationInvalid,
    ContractMismatch,
    ModelNotFound,
    NotReady,
    SourceFailed,
)
from ml_inference.sources.base import ModelReference
from ml_inference.sources.samples import SamplesSource
from ml_inference.telemetry import Metrics

pytestmark = pytest.mark.anyio


class Slow:
    """A source in front of the samples: counts, waits at a gate, fails on demand."""

    scheme = "slow:"

    def __init__(self, folder, error=None):
        self._samples = SamplesSource(folder)
        self.gate = threading.Event()
        self.gate.set()
        self.error = error
        self.fetched = []

    def names(self):
        return self._samples.names()

    def versions(self, name):
        return self._samples.versions(name)

    def fetch(self, reference, progress=None):
        self.fetched.append(reference)
        assert self.gate.wait(20)
        if self.error:
            raise self.error
        return self._samples.fetch(reference, progress)

    def close(self):
        self._samples.close()


@pytest.fixture
def source(tmp_path):
    return Slow(tmp_path)


@pytest.fixture
async def registry(source):
    registry = ModelRegistry([source], EngineConfig(device="cpu"), Metrics())
    yield registry
    await registry.close()


def soon(seconds=20.0):
    return time.monotonic() + seconds


def tile(height=8, width=9):
    pixels = np.random.default_rng(0).integers(1, 5000, (2, height, width), dtype=np.uint16)
    return Raster(pixels, bands=("B04", "B08"))


async def test_twenty_callers_share_one_load(registry, source):
    source.gate.clear()
    calls = [asyncio.create_task(registry.get("ndvi", None, soon())) for _ in range(20)]
    await asyncio.sleep(0.05)
    assert [status.state for status in registry.statuses() if status.name == "ndvi"] == [ModelState.LOADING]
    source.gate.set()
    models = await asyncio.gather(*calls)
    assert len({id(model) for model in models}) == 1
    assert source.fetched == [ModelReference("ndvi", None)]


async def test_newest_and_named_version_are_one_model(registry):
    newest, named = await asyncio.gather(
        registry.get("ndvi", None, soon()), registry.get("ndvi", "1", soon())
    )
    assert newest is named
    assert registry.loaded("ndvi") is newest


async def test_a_load_outlives_the_deadline_of_who_asked_for_it(registry, source):
    source.gate.clear()
    with pytest.raises(NotReady) as early:
        await registry.get("ndvi", None, soon(0.05))
    assert early.value.retry_after > 0
    source.gate.set()
    assert (await registry.get("ndvi", None, soon())).name == "ndvi"
    assert len(source.fetched) == 1


async def test_a_caller_who_leaves_does_not_cancel_the_load_of_the_others(registry, source):
    source.gate.clear()
    leaves, stays = (asyncio.create_task(registry.get("ndvi", None, soon())) for _ in range(2))
    await asyncio.sleep(0.02)
    leaves.cancel()
    source.gate.set()
    assert (await stays).name == "ndvi"


async def test_the_first_source_that_knows_a_name_serves_it(tmp_path):
    first, second = Slow(tmp_path / "a", ModelNotFound("not here")), Slow(tmp_path / "b")
    first.names = list
    registry = ModelRegistry([first, second], EngineConfig(device="cpu"), Metrics())
    await registry.get("ndvi", None, soon())
    assert (len(first.fetched), len(second.fetched)) == (1, 1)
    await registry.close()


@pytest.mark.parametrize("name", ["no-such-model", "..", "../ndvi", "a/b", "x" * 10_000, "", "1st", "a\0b"])
async def test_an_unknown_or_impossible_name_is_not_found(registry, name):
    with pytest.raises(ModelNotFound) as unknown:
        await registry.get(name, None, soon())
    assert len(str(unknown.value)) < 300


async def test_an_unknown_version_names_those_there_are(registry):
    with pytest.raises(ModelNotFound, match="it has 1"):
        await registry.get("ndvi", "7", soon())


async def test_a_refused_model_is_listed_with_its_reasons_and_the_source_not_asked_again_at_once(
    registry, source
):
    source.error = CardInvalid("cannot be served", (("/properties", "nothing of MLM"),))
    for _ in range(3):
        with pytest.raises(CardInvalid):
            await registry.get("ndvi", None, soon())
    assert len(source.fetched) == 1
    (status,) = [status for status in registry.statuses() if status.name == "ndvi"]
    assert (status.state, status.problems) == (ModelState.REFUSED, (("/properties", "nothing of MLM"),))


async def until(condition):
    """Wait until it holds, for some seconds at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SourceFailed("the hub is away"), "model ndvi: the hub is away"),
        (PermissionError("/srv/models"), "model ndvi: it could not be loaded (PermissionError); the log tells more"),
    ],
)  # fmt: skip
async def test_a_preload_that_fails_keeps_the_service_unready_until_the_cause_has_gone(source, error, reason):
    registry = ModelRegistry([source], EngineConfig(device="cpu"), Metrics(), remember_seconds=0.05)
    source.error = error
    preload = asyncio.create_task(registry.preload(["ndvi"]))
    await until(lambda: registry.unready() == [reason])
    source.error = None
    await until(lambda: not registry.unready())
    await preload
    assert registry.loaded("ndvi") is not None
    await registry.close()


async def test_a_preload_that_is_refused_is_told_and_forgotten_once_the_model_answers(source):
    registry = ModelRegistry([source], EngineConfig(device="cpu"), Metrics(), remember_seconds=0.05)
    source.error = CardInvalid("cannot be served")
    await registry.preload(["ndvi"])
    assert registry.unready() == ["model ndvi: cannot be served"]
    source.error = None
    await asyncio.sleep(0.1)
    await registry.get("ndvi", None, soon())
    assert registry.unready() == []
    await registry.unload("ndvi")
    assert registry.unready() == [], "unloaded by hand is no failure"
    await registry.close()


async def test_a_hub_that_keeps_its_callers_waiting_does_not_hold_up_other_sources(tmp_path):
    hub, own = Slow(tmp_path / "hub"), SamplesSource(tmp_path / "own")
    hub.gate.clear()
    registry = ModelRegistry([own, hub], EngineConfig(device="cpu"), Metrics())
    waiting = [asyncio.create_task(registry.get(f"unknown{n}", None, soon())) for n in range(20)]
    await until(lambda: hub.fetched)
    assert (await registry.get("ndvi", None, soon(10))).source == "samples:"
    hub.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in results} == {ModelNotFound}
    await registry.close()


async def test_readiness_waits_for_the_preload_and_ends_with_draining(registry, source):
    source.gate.clear()
    preload = asyncio.create_task(registry.preload(["ndvi"]))
    await asyncio.sleep(0.02)
    assert registry.unready() == ["loading the models named in MODELS"]
    source.gate.set()
    await preload
    assert registry.unready() == []
    registry.start_draining()
    assert registry.unready() == ["draining"]


async def test_cuda_that_is_missing_stops_the_start(source):
    with pytest.raises(ConfigurationInvalid, match="DEVICE=cuda"):
        ModelRegistry([source], EngineConfig(device="cuda"), Metrics())


async def test_a_prediction_equals_the_formula_and_tells_its_story(registry):
    model = await registry.get("ndvi", None, soon())
    image = tile()
    answer = await model.predict(image, PredictOptions(), soon())
    red, nir = image.pixels.astype(np.float32) / np.float32(10000)
    np.testing.assert_allclose(answer.prediction.values[0], (nir - red) / (nir + red), atol=1e-6)
    assert answer.applied == ("bands B04,B08", "divide by 10000")
    assert (answer.model, answer.version) == ("ndvi", "1")
    assert min(answer.timing.prepare, answer.timing.infer, answer.timing.interpret) > 0


async def test_large_and_small_images_are_answered_alike(registry):
    model = await registry.get("ndvi", None, soon())
    image = tile(200, 130)
    whole = await model.predict(image, PredictOptions(), soon())
    part = await model.predict(Raster(image.pixels[:, :5, :7], bands=image.bands), PredictOptions(), soon())
    np.testing.assert_array_equal(whole.prediction.values[:, :5, :7], part.prediction.values)


async def test_requests_are_accounted_for_by_their_end(source):
    metrics = Metrics()
    registry = ModelRegistry([source], EngineConfig(device="cpu"), metrics)
    model = await registry.get("ndvi", None, soon())
    with model.accounting():
        await model.predict(tile(), PredictOptions(), soon())
    bad = Raster(tile().pixels, bands=("B02", "B03"))
    with pytest.raises(ContractMismatch), model.accounting():
        await model.predict(bad, PredictOptions(), soon())
    with pytest.raises(asyncio.CancelledError), model.accounting():
        raise asyncio.CancelledError
    labels = {"model": "ndvi", "version": "1"}
    value = metrics.registry.get_sample_value
    assert value("model_counter_total", labels) == 3
    assert value("model_inference_errors_total", {**labels, "error_type": "ContractMismatch"}) == 1
    assert value("model_inference_rejected_total", {**labels, "reason": "cancelled"}) == 1
    assert value("model_inference_duration_seconds_count", labels) == 1
    assert value("model_ready", labels) == 1
    await registry.close()
    assert value("model_ready", labels) == 0
    assert value("model_inference_pending_requests", labels) == 0


async def test_a_model_that_nobody_loaded_makes_no_series(source):
    metrics = Metrics()
    registry = ModelRegistry([source], EngineConfig(device="cpu"), metrics)
    with pytest.raises(ModelNotFound):
        await registry.get("invented-by-a-stranger", None, soon())
    assert b"invented" not in metrics.render()[0]
    await registry.close()


async def test_batch_size_is_the_operators_or_the_models_suggestion_at_most(source):
    for asked, expected in [(None, 8), (3, 3)]:
        registry = ModelRegistry([source], EngineConfig(device="cpu", batch_size=asked), Metrics())
        model = await registry.get("ndvi", None, soon())
        assert model.describe()["batching"]["size"] == expected
        await registry.close()


class Versions:
    """A source whose one model has as many versions as the test says; each is another sample model."""

    scheme = "versions:"

    def __init__(self, folder):
        self._samples = SamplesSource(folder)
        self.available = ["ndvi"]
        self.error = None

    def names(self):
        return ["model"]

    def versions(self, name):
        return [str(i) for i, _ in enumerate(self.available, 1)] if name == "model" else []

    def fetch(self, reference, progress=None):
        if reference.name != "model":
            raise ModelNotFound(reference.name)
        if self.error:
            raise self.error
        version = reference.version or str(len(self.available))
        bundle = self._samples.fetch(ModelReference(self.available[int(version) - 1]))
        return replace(bundle, name="model", version=version)

    def close(self):
        self._samples.close()


@pytest.fixture
def versions(tmp_path):
    return Versions(tmp_path)


@pytest.fixture
async def versioned(versions):
    registry = ModelRegistry([versions], EngineConfig(device="cpu"), Metrics())
    yield registry
    await registry.close()


async def test_a_new_version_takes_over_while_the_old_one_finishes_what_holds_it(versioned, versions):
    async with versioned.use("model", None, soon()) as old:
        versions.available.append("landcover-share")
        new = await versioned.load("model", soon())
        assert (old.version, new.version) == ("1", "2")
        assert await versioned.get("model", None, soon()) is new
        answer = await old.predict(tile(), PredictOptions(), soon())
        assert answer.version == "1"
    async with asyncio.timeout(10):
        while old.healthy:
            await asyncio.sleep(0.01)
    states = {(s.name, s.version): s.state for s in versioned.statuses()}
    assert states == {("model", "2"): ModelState.READY}


async def test_a_failing_load_keeps_what_answers(versioned, versions):
    old = await versioned.get("model", None, soon())
    versions.error = SourceFailed("the hub is away")
    with pytest.raises(SourceFailed):
        await versioned.load("model", soon())
    assert await versioned.get("model", None, soon()) is old
    assert old.healthy


async def test_loading_what_has_not_changed_changes_nothing(versioned):
    old = await versioned.get("model", None, soon())
    assert await versioned.load("model", soon()) is old


async def test_the_same_version_with_another_file_is_replaced_and_stays_ready_in_the_metrics(versions):
    metrics = Metrics()
    registry = ModelRegistry([versions], EngineConfig(device="cpu"), metrics)
    old = await registry.get("model", None, soon())
    versions.available[0] = "landcover-share"
    new = await registry.load("model", soon())
    assert new is not old
    assert new.card.task.value == "classification"
    async with asyncio.timeout(10):
        while old.healthy:
            await asyncio.sleep(0.01)
    ready = metrics.registry.get_sample_value("model_ready", {"model": "model", "version": "1"})
    assert ready == 1
    await registry.close()


async def test_an_unloaded_model_is_gone_until_it_is_loaded_again(versioned):
    async with versioned.use("model", None, soon()) as held:
        unloading = asyncio.create_task(versioned.unload("model"))
        await asyncio.sleep(0.05)
        assert not unloading.done(), "who holds the model is waited for"
        assert (await held.predict(tile(), PredictOptions(), soon())).version == "1"
    await unloading
    with pytest.raises(ModelNotFound, match="unloaded"):
        await versioned.get("model", None, soon())
    assert [s.state for s in versioned.statuses()] == [ModelState.UNLOADED]
    assert (await versioned.load("model", soon())).healthy
    assert (await versioned.get("model", None, soon())).healthy


async def test_what_nobody_knows_cannot_be_unloaded(versioned):
    with pytest.raises(ModelNotFound):
        await versioned.unload("stranger")


async def test_statistics_count_what_ran(versioned):
    model = await versioned.get("model", None, soon())
    for _ in range(3):
        with model.accounting():
            await model.predict(tile(), PredictOptions(), soon())
    with pytest.raises(ContractMismatch), model.accounting():
        await model.predict(Raster(tile().pixels, bands=("B02", "B03")), PredictOptions(), soon())
    seen = model.statistics()
    assert (seen.inference_count, seen.execution_count) == (3, 3)
    assert (seen.success.count, seen.fail.count, seen.queue.count) == (3, 1, 3)
    assert seen.success.ns > seen.compute_infer.ns > 0
    assert [(b.batch_size, b.compute_infer.count) for b in seen.batches] == [(1, 3)]
    assert abs(seen.last_inference_ms / 1000 - time.time()) < 60


async def test_images_of_one_shape_become_one_batch_of_tensors(versioned):
    model = await versioned.get("model", None, soon())
    images = [tile(), Raster(tile().pixels[:, ::-1], bands=("B04", "B08"))]
    tensors = await model.prepare_images(images, PredictOptions(), soon())
    expected = np.stack([image.pixels for image in images]).astype(np.float32) / np.float32(10000)
    np.testing.assert_array_equal(tensors["reflectance"], expected)
    with pytest.raises(ContractMismatch, match="one shape"):
        await model.prepare_images([tile(), tile(5, 5)], PredictOptions(), soon())


async def test_an_unload_ends_a_load_that_is_under_way(registry, source):
    source.gate.clear()
    waiting = asyncio.create_task(registry.get("ndvi", None, soon()))
    await asyncio.sleep(0.05)
    await registry.unload("ndvi")
    with pytest.raises(ModelNotFound, match="unloaded"):
        await waiting
    source.gate.set()
    await asyncio.sleep(0.1)
    assert registry.loaded("ndvi") is None
    assert (await registry.load("ndvi", soon())).healthy


async def test_a_time_out_inside_a_source_is_not_taken_for_the_requests_own(registry, source):
    source.error = TimeoutError("inside")
    with pytest.raises(TimeoutError, match="inside"):
        await registry.get("ndvi", None, soon())


async def test_names_that_only_strangers_knew_are_forgotten(tmp_path):
    source = Slow(tmp_path, SourceFailed("the hub is away"))
    registry = ModelRegistry([source], EngineConfig(device="cpu"), Metrics(), remember_seconds=0.05)
    for name in ("ndvi", "a-strangers-guess"):
        with pytest.raises(SourceFailed):
            await registry.get(name, None, soon())
    assert {"ndvi", "a-strangers-guess"} <= {s.name for s in registry.statuses()}
    await asyncio.sleep(0.1)
    assert "a-strangers-guess" not in {s.name for s in registry.statuses()}
    await registry.close()


async def test_a_name_that_only_the_silent_source_might_know_is_told_so(tmp_path):
    source = Slow(tmp_path, SourceFailed("hub.example has no address"))
    registry = ModelRegistry([source], EngineConfig(device="cpu"), Metrics())
    with pytest.raises(SourceFailed, match="slow: could not be asked: hub"):
        await registry.get("perhaps", None, soon())
    await registry.close()


async def test_an_unload_goes_on_when_who_asked_for_it_leaves(versioned):
    async with versioned.use("model", None, soon()) as held:
        unloading = asyncio.create_task(versioned.unload("model"))
        await asyncio.sleep(0.02)
        unloading.cancel()
        await asyncio.sleep(0.02)
        assert (await held.predict(tile(), PredictOptions(), soon())).version == "1"
    async with asyncio.timeout(10):
        while held.healthy:
            await asyncio.sleep(0.01)
    assert [status.state for status in versioned.statuses()] == [ModelState.UNLOADED]


async def test_a_misspelt_name_is_told_the_one_that_was_meant(registry):
    with pytest.raises(ModelNotFound, match="did you mean landcover-share"):
        await registry.get("landcover-sahre", None, soon())
