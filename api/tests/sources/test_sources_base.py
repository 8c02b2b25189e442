"""Names, versions, and which source an entry of `MODEL_SOURCES` means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_inference.errors import ConfigurationInvalid, ModelNotFound
from ml_inference.sources import ModelReference, SourceOptions, open_source
from ml_inference.sources.base import choose_version, version_key

ILLEGAL = [
    "",
    "..",
    "a..b",
    "..%2F",
    "a/b",
    "a\\b",
    "/etc",
    "1model",
    "_x",
    "a b",
    "é",
    "a\n",
    "a\0",
    "a" * 129,
]


@pytest.mark.parametrize("name", ILLEGAL)
def test_an_illegal_name_is_no_model(name):
    with pytest.raises(ModelNotFound, match="a name begins with a letter"):
        ModelReference(name)


def test_a_name_of_ten_thousand_letters_is_not_repeated_in_full():
    with pytest.raises(ModelNotFound) as refused:
        ModelReference("a" * 10_000)
    assert len(str(refused.value)) < 300
    assert "10000 characters" in str(refused.value)


@given(st.text())
def test_whatever_passes_for_a_name_is_one_plain_part_of_a_path(name):
    try:
        ModelReference(name)
    except ModelNotFound:
        return
    assert not set(name) & set("/\\%?#\0 \n")
    assert ".." not in name
    assert name.isascii()


@pytest.mark.parametrize("version", ["..", "1/2", "", "v 1", "-1", "1" * 129])
def test_an_illegal_version_is_no_version(version):
    with pytest.raises(ModelNotFound, match="no version"):
        ModelReference("model", version)


def test_newest_is_the_highest_number_then_the_last_name_as_people_sort():
    assert max(["2", "10", "9"], key=version_key) == "10"
    assert max(["v2", "v10", "v9"], key=version_key) == "v10"
    assert max(["v99", "1"], key=version_key) == "1"
    assert sorted(["2024-10", "2024-9", "a1b", "a"], key=version_key) == ["2024-9", "2024-10", "a", "a1b"]


def test_an_absent_version_is_answered_with_those_there_are():
    with pytest.raises(ModelNotFound, match="has no version '7'; it has 1, 2, 10"):
        choose_version("model", ["10", "2", "1"], "7")


def test_a_path_and_a_file_address_mean_the_same_folder(tmp_path):
    folder = tmp_path / "my models"
    folder.mkdir()
    (folder / "a.onnx").write_bytes(b"")
    options = SourceOptions(cache_dir=tmp_path)
    for url in (str(folder), folder.as_uri()):
        assert open_source(url, options).names() == ["a"]


@pytest.mark.parametrize(
    "url", ["", "eotdl", "models", "./models", "s3://b/k", "https://u:secret@h/x", "file:x", "file://host/x"]
)
def test_any_other_entry_is_refused_with_the_legal_forms(url, tmp_path):
    with pytest.raises(ConfigurationInvalid, match=r"legal are `samples:`, `eotdl:`, `/a/folder`") as refused:
        open_source(url, SourceOptions(cache_dir=tmp_path))
    assert "secret" not in str(refused.value)


def test_an_absent_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationInvalid, match="there is no folder"):
        open_source(str(tmp_path / "absent"), SourceOptions(cache_dir=tmp_path))


def test_options_do_not_show_the_key(tmp_path):
    assert "secret" not in repr(SourceOptions(cache_dir=tmp_path, eotdl_key="secret"))
