"""A folder as platforms mount it: one model at its root, a model's own folder, or Triton's repository."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from sources.onnx_models import bias_model

from ml_inference.errors import ConfigurationInvalid, ModelNotFound
from ml_inference.sources import ModelReference, SourceOptions, open_source

ITEM = json.dumps({"type": "Feature", "id": "m", "assets": {"model": {"href": "model.onnx"}}})

LAYOUTS = {
    "item at the root": {"item.json": ITEM, "model.onnx": 1},
    "item and another file's name": {"item.json": ITEM.replace("model.onnx", "w.onnx"), "w.onnx": 1},
    "model.onnx at the root": {"model.onnx": 1},
    "any one onnx at the root": {"roads-v3.onnx": 1, "README.md": "text"},
    "model.onnx among others": {"model.onnx": 1, "older.onnx": 9},
    "versions at the root": {"1/item.json": ITEM, "1/model.onnx": 9, "2/item.json": ITEM, "2/model.onnx": 1},
    "numbered files at the root": {"9/model.onnx": 9, "10/model.onnx": 1, "config.pbtxt": "name: 'x'"},
    "its own folder": {"given/item.json": ITEM, "given/model.onnx": 1, "other/model.onnx": 9},
    "its own folder of versions": {"given/v1/item.json": ITEM, "given/v1/model.onnx": 1},
    "its own bare file": {"given.onnx": 1, "other.onnx": 9},
    "one folder of another name": {"landcover/item.json": ITEM, "landcover/model.onnx": 1},
    "Triton's repository": {"landcover/config.pbtxt": "x", "landcover/1/model.onnx": 9, "landcover/2/model.onnx": 1},
}  # fmt: skip


def lay(folder: Path, files: dict[str, object]) -> Path:
    """Write texts as they are, and numbers as models that add so much."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else bias_model(content))
    return folder


def opened(address: str):
    return open_source(address, SourceOptions(cache_dir=Path("/nonexistent")))


@pytest.mark.parametrize("form", ["{}#given", "file://{}#given"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_named_folder_serves_its_one_model_by_the_given_name(layout, form, tmp_path):
    source = opened(form.format(lay(tmp_path, LAYOUTS[layout])))
    assert "given" in source.names()
    bundle = source.fetch(ModelReference("given"))
    assert bundle.name == "given"
    assert bundle.sha256 == hashlib.sha256(bias_model(1)).hexdigest()
    assert bundle.version == source.versions("given")[-1]
    assert (bundle.item is None) == (not any(name.endswith("item.json") for name in LAYOUTS[layout]))
    assert (bundle.notice is not None) == any("pbtxt" in name for name in LAYOUTS[layout])


def test_the_files_of_a_model_at_the_root_are_no_models_of_their_own(tmp_path):
    lay(tmp_path, {"item.json": ITEM, "model.onnx": 1, "encoder.onnx": 2})
    assert opened(f"{tmp_path}#given").names() == ["given"]


def test_without_a_name_a_model_at_the_root_is_called_as_its_folder(tmp_path):
    folder = lay(tmp_path / "roads", {"item.json": ITEM, "model.onnx": 1})
    for address in (str(folder), f"{folder.as_uri()}/", f"{folder.as_uri()}#"):
        source = opened(address)
        assert source.names() == ["roads"]
        assert source.fetch(ModelReference("roads")).item["id"] == "m"
    numbered = opened(str(lay(tmp_path / "ships", {"7/model.onnx": 1, "plain.onnx": 2})))
    assert numbered.names() == ["plain", "ships"]
    assert numbered.versions("ships") == ["7"]


def test_without_a_name_a_bare_file_keeps_its_own(tmp_path):
    assert opened(str(lay(tmp_path / "roads", {"model.onnx": 1}))).names() == ["model"]


def test_a_folder_whose_own_name_no_model_may_have_serves_what_lies_in_it(tmp_path):
    folder = lay(tmp_path / "2024", {"item.json": ITEM, "model.onnx": 1, "ships/model.onnx": 2})
    assert opened(str(folder)).names() == ["ships"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no model"),
        ({"README.md": "x", "lost+found/x": "x"}, "holds no model"),
        ({"a/model.onnx": 1, "b/model.onnx": 2}, r"several models \(a, b\)"),
        ({"a.onnx": 1, "b.onnx": 2}, r"several models \(a, b\)"),
    ],
)
def test_a_named_folder_without_its_model_says_what_was_expected(files, words, tmp_path):
    source = opened(f"{lay(tmp_path, files)}#given")
    assert "given" in source.names()
    with pytest.raises(ModelNotFound, match=words) as refused:
        source.fetch(ModelReference("given"))
    assert "item.json" in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("name", ["9lives", "a/b", "..", "a b"])
def test_a_name_that_no_model_may_have_is_refused_at_the_start(name, tmp_path):
    with pytest.raises(ConfigurationInvalid, match="no model may be called"):
        opened(f"{tmp_path}#{name}")


def test_an_item_rules_out_bare_files_beside_it(tmp_path):
    """A folder of weights beneath an item is no newer version of its model."""
    lay(tmp_path, {"m/item.json": ITEM, "m/model.onnx": 1, "m/2/weights.onnx": 2})
    assert opened(str(tmp_path)).versions("m") == ["1"]


def test_a_triton_configuration_is_told_and_not_read(tmp_path):
    lay(tmp_path, {"m/config.pbtxt": "\0 not even text", "m/3/model.onnx": 1})
    bundle = opened(str(tmp_path)).fetch(ModelReference("m"))
    assert (bundle.version, bundle.item) == ("3", None)
    assert "config.pbtxt is not read" in bundle.notice


def test_files_are_found_through_the_links_of_a_mounted_volume(tmp_path):
    """Kubernetes lays a volume out as links into a folder that it swaps."""
    data = lay(tmp_path / "..2026", {"item.json": ITEM, "model.onnx": 1})
    (tmp_path / "..data").symlink_to(data.name)
    for name in ("item.json", "model.onnx"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    bundle = opened(f"{tmp_path}#given").fetch(ModelReference("given"))
    assert bundle.sha256 == hashlib.sha256(bias_model(1)).hexdigest()


def test_a_folder_behind_the_root_of_a_process_is_read_where_it_stands(tmp_path):
    """KServe mounts the image of a model as `/proc/PID/root/models`, an address that only the kernel can follow."""
    folder = lay(tmp_path / "models", {"item.json": ITEM, "model.onnx": 1})
    mounted = tmp_path / "mounted"
    mounted.symlink_to(f"/proc/{os.getpid()}/root{folder}")
    bundle = opened(f"{mounted}#given").fetch(ModelReference("given"))
    assert bundle.model_path == mounted / "model.onnx"
