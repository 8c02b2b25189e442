"""GDAL as this service sets it up, in a process of its own: the setup happens once, before anything is opened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings

import pytest
import rasterio
from imagery.image_files import GRID, LIMITS, UTM, noise, written
from rasterio.errors import NotGeoreferencedWarning

from ml_inference.errors import ProcessorError
from ml_inference.imagery import decode
from ml_inference.imagery.gdal import prepare_thread

ASK = """
import json, os
import ml_inference.imagery
import rasterio
from rasterio.env import get_gdal_config
with rasterio.Env() as env:
    print(json.dumps({"drivers": sorted(env.drivers()), "pam": get_gdal_config("GDAL_PAM_ENABLED"),
                      "cache": get_gdal_config("GDAL_CACHEMAX")}))
"""


def asked(**environment):
    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(answer.stdout)


def test_only_the_drivers_in_use_are_registered():
    assert asked()["drivers"] == ["GTiff", "JP2OpenJPEG", "JPEG", "MEM", "PNG"]


def test_an_inherited_environment_opens_nothing_again():
    state = asked(GDAL_SKIP="PNG", GDAL_PAM_ENABLED="YES", GDAL_DISABLE_READDIR_ON_OPEN="FALSE")
    assert state["drivers"] == ["GTiff", "JP2OpenJPEG", "JPEG", "MEM", "PNG"]
    assert state["pam"] == "NO"


def test_the_block_cache_is_small_unless_the_operator_says_otherwise():
    assert asked()["cache"] == 64 << 20
    assert asked(GDAL_CACHEMAX="128")["cache"] == 128 << 20


def test_a_thread_is_ready_after_its_first_image_and_stays_so():
    found = []

    def work():
        for _ in range(2):
            decode(written(noise(1), crs=UTM, transform=GRID), LIMITS)
            found.append(rasterio.env.hasenv())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, True]


def test_the_warning_about_plain_pictures_is_silenced_once():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        prepare_thread()
        size = len(warnings.filters)
        prepare_thread()
        assert len(warnings.filters) == size
        warnings.warn("no place", NotGeoreferencedWarning, stacklevel=1)
    assert heard == []


def test_a_file_beside_the_image_is_never_read(tmp_path, monkeypatch):
    """A world file and a mask that would fit any name in the working folder change nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("tile.tfw", "tile.tif.msk", "tile.tif.ovr", "tile.tif.aux.xml"):
        (tmp_path / name).write_text("1\n0\n0\n-1\n5\n5\n")
    assert decode(written(noise(1)), LIMITS).georeference is None


@pytest.mark.parametrize("driver", ["GTiff", "PNG"])
def test_nothing_of_an_image_stays_in_gdals_memory(driver):
    data = written(noise(1, dtype="uint8"), driver)
    decode(data, LIMITS)
    with pytest.raises(ProcessorError):
        decode(data[: len(data) // 2], LIMITS)
    with rasterio.Env() as env:
        assert not env._dump_vsimem()
