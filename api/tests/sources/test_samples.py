"""`samples:` builds its models once, whole, beside any number of others, and needs nothing but a folder."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import orjson
import pystac
import pytest

from ml_inference import __version__
from ml_inference.contract.card import Axis, BoxSpec, Scale, Severity, Task
from ml_inference.contract.mlm import read_card
from ml_inference.contract.profile import parse_profile
from ml_inference.errors import ModelNotFound, SourceFailed
from ml_inference.sources.base import ModelReference
from ml_inference.sources.samples import SamplesSource, sample_tile
from ml_inference.sources.samples.items import SAMPLES, stac_item

NAMES = ["bright-targets", "landcover-share", "ndvi", "spectral-landcover"]
FETCH = """
import pathlib, sys
from ml_inference.sources.base import ModelReference
from ml_inference.sources.samples import SamplesSource
source = SamplesSource(pathlib.Path(sys.argv[1]))
for _ in range(20):
    for name in source.names():
        bundle = source.fetch(ModelReference(name))
        assert bundle.notice is None
        print(name, bundle.sha256)
"""


@pytest.fixture
def source(tmp_path):
    source = SamplesSource(tmp_path)
    yield source
    source.close()


def fetch(source, name, version=None):
    return source.fetch(ModelReference(name, version))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_names_and_versions(source):
    assert source.names() == NAMES
    assert [source.versions(name) for name in NAMES] == [["1"]] * 4
    assert source.versions("nothing") == []


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_a_folder_of_a_model_whose_item_tells_the_truth_about_the_file(source, name, tmp_path):
    reports = []
    bundle = source.fetch(ModelReference(name, "1"), lambda *report: reports.append(report))
    folder = tmp_path / "samples" / __version__ / name
    size = bundle.model_path.stat().st_size
    assert (bundle.name, bundle.version, bundle.source, bundle.notice) == (name, "1", "samples:", None)
    assert bundle.model_path == folder / "model.onnx"
    assert bundle.sha256 == digest(bundle.model_path)
    assert orjson.loads((folder / "item.json").read_bytes()) == bundle.item
    assert (folder / "profile.toml").read_text() == bundle.profile
    assert {path.name for path in folder.iterdir()} == {"item.json", "model.onnx", "profile.toml"}
    asset = bundle.item["assets"]["model"]
    assert (folder / asset["href"]).samefile(bundle.model_path)
    assert (asset["file:size"], asset["file:checksum"]) == (size, "1220" + bundle.sha256)
    assert reports == [(size, size)]


@pytest.mark.parametrize("name", NAMES)
def test_an_item_is_stac_and_says_the_shapes_and_names_of_its_graph(name):
    model = SAMPLES[name].graph()
    item = stac_item(name, SAMPLES[name], model)
    read = pystac.Item.from_dict(item, preserve_dict=True)
    assert (read.id, read.geometry, read.bbox, read.datetime) == (name, None, None, None)
    assert read.common_metadata.start_datetime < read.common_metadata.end_datetime
    graph = onnx.load_from_string(model).graph
    properties = item["properties"]
    for declared, tensors, key in [
        ("mlm:input", graph.input, "input"),
        ("mlm:output", graph.output, "result"),
    ]:
        assert [each["name"] for each in properties[declared]] == [each.name for each in tensors]
        for entry, tensor in zip(properties[declared], tensors, strict=True):
            dims = tensor.type.tensor_type.shape.dim
            element = onnx.helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type)
            assert entry[key]["shape"] == [dim.dim_value or -1 for dim in dims]
            assert entry[key]["data_type"] == element.name


@pytest.mark.parametrize("name", NAMES)
def test_an_item_keeps_the_rules_of_mlm_1_5(name):
    """The rules of the specification's schema that concern these items, said once more in Python."""
    item = stac_item(name, SAMPLES[name], b"")
    properties, (asset,) = item["properties"], item["assets"].values()
    assert "https://stac-extensions.github.io/mlm/v1.5.1/schema.json" in item["stac_extensions"]
    assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", properties["mlm:name"])
    assert {"mlm:architecture", "mlm:tasks", "mlm:input", "mlm:output"} <= properties.keys()
    assert "mlm:model" in asset["roles"]
    assert asset["mlm:artifact_type"] == "onnx"
    assert not {"mlm:name", "mlm:input", "mlm:output", "mlm:hyperparameters"} & asset.keys()
    # MLM looks for bands in the properties, STAC 1.1 forbids them there unless an asset has them.
    assert properties["bands"] == asset["bands"]
    defined = [band["name"] for band in properties["bands"]]
    for entry, structure in [(each, each["input"]) for each in properties["mlm:input"]] + [
        (each, each["result"]) for each in properties["mlm:output"]
    ]:
        assert len(structure["shape"]) == len(structure["dim_order"]) == len(set(structure["dim_order"]))
        assert ("bands" in structure["dim_order"]) == bool(entry.get("bands"))
    for entry in properties["mlm:input"]:
        assert entry["bands"] == defined
        assert entry["value_scaling"] == [{"type": "scale", "value": 10000}]
    for label in (c for entry in properties["mlm:output"] for c in entry.get("classification:classes", [])):
        assert label["description"]
        assert re.fullmatch(r"[0-9A-F]{6}", label["color_hint"])


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_is_legal_and_leaves_the_values_as_the_graph_gives_them(name):
    (output,) = parse_profile(SAMPLES[name].profile).output
    if name == "bright-targets":
        assert output.boxes == BoxSpec(
            layout="xyxy",
            boxes="boxes",
            scores="scores",
            labels="labels",
            score_threshold=0.5,
            max_detections=100,
            nms=False,
        )
    else:
        assert output.activation == "none"


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("bright-targets", Task.DETECTION),
        ("landcover-share", Task.CLASSIFICATION),
        ("ndvi", Task.REGRESSION),
        ("spectral-landcover", Task.SEGMENTATION),
    ],
)
def test_item_and_profile_are_read_into_a_card_without_a_warning(name, task):
    sample = SAMPLES[name]
    card = read_card(stac_item(name, sample, sample.graph()), parse_profile(sample.profile))
    assert card.task == task
    assert {remark.severity for remark in card.diagnostics} <= {Severity.INFO}
    assert card.inputs[0].scaling == ((Scale(value=10000),),)
    assert tuple(band.name for band in card.inputs[0].bands) == sample.bands
    assert Axis.OTHER not in {axis for tensor in (*card.inputs, *card.outputs) for axis in tensor.axes}


@pytest.mark.parametrize(("name", "version"), [("unet", None), ("ndvi", "2"), ("NDVI", None)])
def test_an_unknown_name_or_version_is_not_found(source, name, version):
    with pytest.raises(ModelNotFound):
        fetch(source, name, version)


@pytest.mark.parametrize("damage", [b"", b"half a mod"])
def test_what_is_damaged_or_gone_is_made_again_and_what_is_whole_is_left_alone(source, damage):
    bundle = fetch(source, "ndvi")
    written = bundle.model_path.stat().st_mtime_ns
    assert fetch(source, "ndvi") == bundle
    assert bundle.model_path.stat().st_mtime_ns == written
    bundle.model_path.write_bytes(damage)
    (bundle.model_path.parent / "item.json").unlink()
    assert fetch(source, "ndvi") == bundle
    assert digest(bundle.model_path) == bundle.sha256
    assert (bundle.model_path.parent / "item.json").is_file()


def test_eight_threads_and_three_processes_building_at_once_leave_one_whole_set(source, tmp_path):
    command = [sys.executable, "-c", FETCH, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        bundles = list(pool.map(lambda i: fetch(source, NAMES[i % 4]), range(160)))
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    sums = {bundle.name: digest(bundle.model_path) for bundle in bundles}
    assert {(bundle.name, bundle.sha256) for bundle in bundles} == set(sums.items())
    assert {tuple(line.split()) for output in outputs for line in output.splitlines()} == set(sums.items())
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == 4 * 3


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder_until_the_end(tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    source = SamplesSource(tmp_path / "file")
    bundle = fetch(source, "ndvi")
    assert bundle.model_path.read_bytes() == SAMPLES["ndvi"].graph()
    assert "temporary" in bundle.notice
    assert str(tmp_path) not in bundle.notice
    assert fetch(source, "ndvi") == bundle
    source.close()
    source.close()
    assert not bundle.model_path.exists()


def test_nowhere_to_write_is_a_failed_source_in_words_without_a_path(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way of a folder")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file" / "gone"))
    with pytest.raises(SourceFailed, match="neither to the cache nor to a temporary folder") as caught:
        fetch(SamplesSource(tmp_path / "file"), "ndvi")
    assert str(tmp_path) not in str(caught.value)


def test_the_sample_tile_is_a_real_chip_of_four_named_bands():
    pixels, bands = sample_tile()
    assert bands == ("B02", "B03", "B04", "B08")
    assert (pixels.shape, pixels.dtype) == ((4, 300, 300), np.uint16)
    assert pixels.min() > 0
    assert pixels.max() <= 10000
    blue, _, red, nir = pixels.astype(float)
    assert np.median((nir - red) / (nir + red)) > 0.3
    assert np.corrcoef(blue[:, 1:].ravel(), blue[:, :-1].ravel())[0, 1] > 0.9


def test_the_sample_tile_is_read_without_importing_the_package_that_carries_it():
    code = "import sys; from ml_inference.sources.samples import sample_tile; sample_tile(); print('spyndex' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "False"
