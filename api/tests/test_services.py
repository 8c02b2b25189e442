"""The services: what the settings become, that everything opens, drains and closes, and what lint says."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ml_inference.contract.card import Severity
from ml_inference.contract.options import PredictOptions
from ml_inference.contract.raster import Raster
from ml_inference.engine.status import ModelState
from ml_inference.errors import CardInvalid, ConfigurationInvalid, ModelNotFound
from ml_inference.services import (
    decode_limits,
    engine_config,
    lint_item,
    open_services,
    source_options,
    write_samples,
)
from ml_inference.settings import load_settings

SOON = 30.0


def settings_of(tmp_path, **variables):
    """Settings that know the samples alone and write into the test's own folder."""
    given = {"MODEL_SOURCES": "samples:", "EOTDL_DOWNLOAD_PATH": str(tmp_path / "cache")}
    return load_settings({**given, **variables}, env_file=None)


def soon():
    return time.monotonic() + SOON


async def ready(registry):
    async with asyncio.timeout(SOON):
        while registry.unready():
            await asyncio.sleep(0.01)


def test_a_sample_model_answers_through_the_open_services(tmp_path):
    red = np.linspace(100, 4000, 64, dtype=np.uint16).reshape(8, 8)
    near = red[::-1, ::-1].copy()

    async def run():
        async with open_services(settings_of(tmp_path)) as services:
            model = await services.registry.get("ndvi", None, soon())
            raster = Raster(np.stack([red, near]), bands=("B04", "B08"))
            return await model.predict(raster, PredictOptions(), soon())

    answer = asyncio.run(run())
    red, near = red.astype(np.float64), near.astype(np.float64)
    np.testing.assert_allclose(answer.prediction.values[0], (near - red) / (near + red), rtol=0, atol=1e-6)


def test_it_is_ready_only_when_the_models_named_are_loaded(tmp_path):
    async def run():
        async with open_services(settings_of(tmp_path, MODELS="ndvi,bright-targets")) as services:
            await asyncio.sleep(0)
            before = services.registry.unready()
            await ready(services.registry)
            return before, [s.name for s in services.registry.statuses() if s.state is ModelState.READY]

    before, loaded = asyncio.run(run())
    assert before
    assert loaded == ["bright-targets", "ndvi"]


def test_a_model_named_that_is_nowhere_keeps_it_unready_and_is_named(tmp_path):
    async def run():
        async with open_services(settings_of(tmp_path, MODELS="ndvy")) as services:
            async with asyncio.timeout(SOON):
                while not services.registry.preload_failures:
                    await asyncio.sleep(0.01)
            return services.registry.unready()

    assert any("ndvy" in reason for reason in asyncio.run(run()))


def test_nothing_is_loaded_where_nobody_asks_for_readiness(tmp_path):
    async def run():
        async with open_services(settings_of(tmp_path, MODELS="ndvi"), preload=False) as services:
            await asyncio.sleep(0.2)
            return {status.state for status in services.registry.statuses()}

    assert asyncio.run(run()) == {ModelState.KNOWN}


def test_closing_leaves_no_thread_and_no_task_even_in_the_middle_of_a_preload(tmp_path):
    before = threading.active_count()

    async def run():
        async with open_services(settings_of(tmp_path, MODELS="ndvi,landcover-share")) as services:
            await asyncio.get_running_loop().run_in_executor(services.pool, int)
        await asyncio.sleep(0.01)  # what was cancelled takes a turn of the loop to end
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert not asyncio.run(run())
    end = time.monotonic() + SOON
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_closing_answers_what_was_accepted(tmp_path):
    async def run():
        async with open_services(settings_of(tmp_path)) as services:
            model = await services.registry.get("landcover-share", None, soon())
            raster = Raster(np.full((4, 64, 64), 900, np.uint16), bands=("B02", "B03", "B04", "B08"))
            tasks = [asyncio.create_task(model.predict(raster, PredictOptions(), soon())) for _ in range(16)]
            await asyncio.sleep(0.05)
            services.registry.start_draining()
            assert "draining" in services.registry.unready()
        return await asyncio.gather(*tasks)

    answers = asyncio.run(run())
    assert len(answers) == 16
    assert len({answer.prediction.label.name for answer in answers}) == 1


def test_fetching_tells_whoever_wants_to_know(tmp_path):
    seen = []

    async def run():
        settings = settings_of(tmp_path)
        async with open_services(
            settings, preload=False, progress=lambda *step: seen.append(step)
        ) as services:
            await services.registry.get("ndvi", None, soon())

    asyncio.run(run())
    (path,) = (tmp_path / "cache").rglob("ndvi/*.onnx")
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MODEL_SOURCES", "samples:,ftp://x/", "MODEL_SOURCES"),
        ("MODEL_SOURCES", "samples:,/no/such/folder", "/no/such/folder"),
        ("DEVICE", "cuda:7", "DEVICE=cuda:7"),
    ],
)
def test_what_this_machine_does_not_have_stops_the_start(tmp_path, name, value, words):
    async def run():
        async with open_services(settings_of(tmp_path, **{name: value})):
            pass

    if name == "DEVICE":
        runtime = pytest.importorskip("onnxruntime")
        if "CUDAExecutionProvider" in runtime.get_available_providers():
            pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigurationInvalid, match=words):
        asyncio.run(run())


def test_the_first_source_that_knows_a_name_serves_it(tmp_path):
    folder = tmp_path / "models"

    async def source_of(order, name):
        async with open_services(settings_of(tmp_path, MODEL_SOURCES=order), preload=False) as services:
            return (await services.registry.get(name, None, soon())).source

    asyncio.run(source_of("samples:", "ndvi"))
    (built,) = (tmp_path / "cache").rglob("ndvi")
    folder.mkdir()
    built.rename(folder / "ndvi")
    assert asyncio.run(source_of(f"samples:,{folder}", "ndvi")) == "samples:"
    assert asyncio.run(source_of(f"{folder},samples:", "ndvi")) != "samples:"
    assert asyncio.run(source_of(f"{folder},samples:", "landcover-share")) == "samples:"


def test_settings_reach_the_engine_the_sources_and_the_decoder(tmp_path):
    settings = settings_of(
        tmp_path,
        BATCH_SIZE="auto",
        BATCH_TIMEOUT="0.25",
        BATCH_POLICY="fixed",
        DEVICE="cpu",
        QUEUE_SIZE="7",
        QUEUE_BYTES="3MiB",
        MAX_PIXELS="1000",
        EOTDL_API_KEY="k",
        EOTDL_API_URL="http://127.0.0.1:1",
        EOTDL_ALLOWED_HOSTS="minio:9000",
        EOTDL_CACHE_PATH="/mnt/shared",
    )
    engine, sources, limits = engine_config(settings), source_options(settings), decode_limits(settings)
    assert (engine.batch_size, engine.batch_timeout, engine.batch_policy) == (None, 0.25, "fixed")
    assert (engine.device, engine.queue_size, engine.queue_bytes) == ("cpu", 7, 3 << 20)
    assert engine_config(settings_of(tmp_path, BATCH_SIZE="5")).batch_size == 5
    assert (sources.eotdl_key, sources.eotdl_url) == ("k", "http://127.0.0.1:1/")
    assert (sources.allowed_hosts, sources.eotdl_shared_cache) == (("minio:9000",), Path("/mnt/shared"))
    assert sources.cache_dir == tmp_path / "cache"
    assert limits.max_pixels == 1000
    limits.check(20, 50, 16, 2)  # sixteen bands of two bytes fit the pixels that are allowed


def test_a_model_that_is_nowhere_is_not_found(tmp_path):
    async def run():
        async with open_services(settings_of(tmp_path), preload=False) as services:
            await services.registry.get("ndvy", None, soon())

    with pytest.raises(ModelNotFound):
        asyncio.run(run())


# ---- lint


def sample_item(tmp_path):
    async def run():
        async with open_services(settings_of(tmp_path), preload=False) as services:
            return (await services.registry.get("ndvi", None, soon())).item

    return json.loads(json.dumps(asyncio.run(run())))


def test_an_item_that_is_served_has_no_errors(tmp_path):
    report = lint_item(json.dumps(sample_item(tmp_path)).encode())
    assert Severity.ERROR not in {each.severity for each in report}


def test_errors_of_item_assets_and_profile_come_together_and_first(tmp_path):
    item = sample_item(tmp_path)
    item["properties"]["mlm:input"][0]["input"]["shape"] = [1]
    item["assets"] = {"weights": {"href": "model.pt", "roles": ["mlm:model"]}}
    report = lint_item(json.dumps(item).encode(), "[input]\nsize_multiple = 0\n")
    errors = [each for each in report if each.severity is Severity.ERROR]
    assert list(report[: len(errors)]) == errors
    pointers = {each.pointer for each in errors}
    assert any(pointer.startswith("/properties/mlm:input/0") for pointer in pointers)
    assert any(pointer.startswith("/assets") for pointer in pointers)
    assert any(pointer.startswith("profile:/input") for pointer in pointers)
    assert len({(each.pointer, each.message) for each in report}) == len(report)


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"null", b"{", b'{"a": NaN}', b"\xff", b"{}", b'{"properties": 3}', b"[" * 5000]
)
def test_whatever_is_no_item_is_an_error_and_never_an_exception(document):
    report = lint_item(document)
    assert report[0].severity is Severity.ERROR
    assert report[0].message


def test_lint_agrees_with_the_registry_on_every_published_item(shared_data, tmp_path):
    """An item that lint passes may fail later on its graph; one that lint refuses is never served."""
    folder = tmp_path / "models"
    for path in sorted(shared_data("mlm").glob("*.json")):
        if path.name == "collection.json":
            continue
        name = "m-" + path.stem.replace("_", "-")
        (folder / name).mkdir(parents=True)
        (folder / name / "item.json").write_bytes(path.read_bytes())
        refused = any(each.severity is Severity.ERROR for each in lint_item(path.read_bytes()))

        async def run(name=name):
            async with open_services(
                settings_of(tmp_path, MODEL_SOURCES=str(folder)), preload=False
            ) as services:
                await services.registry.get(name, None, soon())

        if refused:
            with pytest.raises(CardInvalid):
                asyncio.run(run())


# ---- samples


def test_the_sample_tile_is_never_half_there(tmp_path):
    """Many write it at once: a reader sees one whole file, always the same."""
    whole = write_samples(tmp_path / "first").read_bytes()
    threads = [threading.Thread(target=write_samples, args=(tmp_path / "many",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in (tmp_path / "many").iterdir()] == ["sample.tif"]
    assert (tmp_path / "many" / "sample.tif").read_bytes() == whole
