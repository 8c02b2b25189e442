"""Which asset is the model, and what its publisher promises."""

from __future__ import annotations

import hashlib
import json

import pytest

from ml_inference.errors import CardInvalid
from ml_inference.sources.assets import Mismatch, ModelAsset, choose_model_asset
from ml_inference.sources.checksums import Checksum, hash_file, parse_multihash, parse_plain
from ml_inference.sources.items import asset_key, parse_item

MODEL = ["mlm:model"]
OFFICIAL = [
    "item_bands_expression",
    "item_basic",
    "item_datacube_variables",
    "item_eo_and_raster_bands",
    "item_eo_bands",
    "item_eo_bands_summarized",
    "item_multi_io",
    "item_pytorch_geo_unet",
    "item_raster_bands",
]


def asset(href: str = "model.bin", **fields: object) -> dict:
    return {"href": href, **fields}


CHOSEN = {
    "only asset": ({"x": asset()}, "x"),
    "key model among unknowns": ({"x": asset(), "model": asset()}, "model"),
    "key model before a name": ({"x": asset("x.onnx"), "model": asset()}, "model"),
    "file name": ({"x": asset("x.onnx"), "y": asset()}, "x"),
    "file name in an address": ({"x": asset("https://h/a%2Fb.ONNX?sig=.pt"), "y": asset()}, "x"),
    "media type": ({"x": asset(type="application/octet-stream; framework=onnx"), "y": asset()}, "x"),
    "role": ({"x": asset(roles=MODEL), "y": asset("y.onnx")}, "x"),
    "role, and ONNX among two": (
        {
            "x": asset("x.pt", roles=MODEL, **{"mlm:artifact_type": "torch.save"}),
            "y": asset(roles=[*MODEL, "mlm:compiled"], **{"mlm:artifact_type": "ONNX"}),
        },
        "y",
    ),
    "role, unknown kind beside a foreign one": (
        {"x": asset("x.pth", roles=MODEL), "y": asset("y", roles=MODEL)},
        "y",
    ),
    "no role speaks for it, one against": ({"x": asset("x.png", roles=["thumbnail"]), "y": asset()}, "y"),
    "foreign ones aside": ({"model": asset("m.pt"), "x": asset("m.bin")}, "x"),
}


@pytest.mark.parametrize(("assets", "key"), CHOSEN.values(), ids=CHOSEN)
def test_the_model_is_chosen(assets, key):
    assert choose_model_asset({"assets": assets}).key == key


REFUSED = {
    "no assets": ({}, "no assets"),
    "assets are a list": ([1], "no assets"),
    "an asset is text": ({"x": "model.onnx"}, "an asset is a JSON object"),
    "ambiguous": ({"x": asset(), "y": asset()}, "name one in the profile"),
    "ambiguous, both ONNX": ({"x": asset("x.onnx"), "y": asset("y.onnx")}, "name one in the profile"),
    "two with the role": ({"model": asset(roles=MODEL), "y": asset(roles=MODEL)}, "name one in the profile"),
    "torch": ({"x": asset(**{"mlm:artifact_type": "torch.export.save"})}, r"PyTorch \(`torch.export.save`\)"),
    "tensorflow": ({"x": asset(roles=MODEL, **{"mlm:artifact_type": "tf.keras.Model.save"})}, "TensorFlow"),
    "pickle by name": ({"x": asset("a/model.pkl")}, "a Python pickle"),
    "unknown artifact type": ({"x": asset(**{"mlm:artifact_type": "jax"})}, "`jax`"),
    "only code": ({"x": asset(roles=["mlm:source_code"])}, "names no model"),
    "no href": ({"x": {"type": "onnx"}}, "no href"),
    "size is a fraction": ({"x": asset(**{"file:size": 1.5})}, "whole number"),
    "size is true": ({"x": asset(size=True)}, "whole number"),
    "sizes differ": ({"x": asset(size=1, **{"file:size": 2})}, "differ"),
    "broken checksum": ({"x": asset(**{"file:checksum": "zz"})}, "multihash"),
}


@pytest.mark.parametrize(("assets", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_one_onnx_model_is_refused_in_words(assets, words):
    with pytest.raises(CardInvalid, match=words) as refused:
        choose_model_asset({"assets": assets})
    assert refused.value.problems[0][0].startswith("/assets")


def test_a_profile_decides_and_cannot_make_a_foreign_model_servable():
    item = {"assets": {"x": asset("x.onnx"), "y": asset("y.onnx"), "z/~": asset("z.pt")}}
    assert choose_model_asset(item, asset_key('asset = "y"\nother = 1')).key == "y"
    with pytest.raises(CardInvalid, match="asks for asset `n`, the item has `x`, `y`"):
        choose_model_asset(item, "n")
    with pytest.raises(CardInvalid, match="is PyTorch; only ONNX models are served") as refused:
        choose_model_asset(item, "z/~")
    assert refused.value.problems[0][0] == "/assets/z~1~0"


@pytest.mark.parametrize(("text", "words"), [("asset = 1", "a string, not a int"), ("asset =", "not TOML")])
def test_a_broken_profile_is_refused(text, words):
    with pytest.raises(CardInvalid, match=words) as refused:
        asset_key(text)
    assert refused.value.problems[0][0].startswith("profile:/")


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_specifications_own_items_name_no_onnx_model(name, shared_data):
    item = json.loads((shared_data("mlm") / f"{name}.json").read_text())
    with pytest.raises(CardInvalid, match=r"no asset is an ONNX model: .*PyTorch \(`torch.save`\)"):
        choose_model_asset(item)


def test_the_published_items_name_theirs(shared_data):
    folder = shared_data("mlm")
    chosen = choose_model_asset(json.loads((folder / "eotdl_EuroSAT-RGB-Q2.json").read_text()))
    promise = Checksum("sha1", "8ea24e7dec1898c44a115a3b991cb63271c5bfb3", "checksum")
    assert (chosen.key, chosen.size, chosen.checksums) == ("asset", 44718018, (promise,))
    chosen = choose_model_asset(json.loads((folder / "eotdl_RoadSegmentationQ2.json").read_text()))
    assert (chosen.key, chosen.size, chosen.checksums) == ("model", None, ())


# Code and length of each kind as varints, from the multiformats table; digests by hashlib.
KINDS = {
    "sha256": ("1220", hashlib.sha256),
    "sha512": ("1340", hashlib.sha512),
    "sha384": ("2030", hashlib.sha384),
    "sha3_256": ("1620", hashlib.sha3_256),
    "sha3_512": ("1440", hashlib.sha3_512),
    "sha1": ("1114", hashlib.sha1),
    "md5": ("d50110", hashlib.md5),
    "blake2b-256": ("a0e40220", lambda data: hashlib.blake2b(data, digest_size=32)),
    "blake2b-512": ("c0e40240", hashlib.blake2b),
}


@pytest.mark.parametrize(("algorithm", "kind"), KINDS.items(), ids=KINDS)
def test_a_multihash_of_each_kind_is_read_and_kept(algorithm, kind, tmp_path):
    head, make = kind
    file = tmp_path / "file"
    file.write_bytes(b"some bytes")
    checksum = parse_multihash(head + make(b"some bytes").hexdigest().upper())
    assert checksum.algorithm == algorithm
    assert hash_file(file, [algorithm])[algorithm] == checksum.digest
    model = ModelAsset("model", "file", 10, (checksum,))
    assert model.verify(file) == (hashlib.sha256(b"some bytes").hexdigest(), f"size, {algorithm}")
    file.write_bytes(b"some Bytes")
    with pytest.raises(Mismatch, match=f"promises \\({algorithm} {checksum.digest}"):
        model.verify(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "hex"),
        ("122", "hex"),
        ("not hex", "hex"),
        ("1220" + "00" * 31, "not a whole multihash"),
        ("1210" + "00" * 16, "has 32 bytes, this one 16"),
        ("00" * 32, "needs `1220` before it"),
        ("ffffffffffffffffffff", "ends within its head"),
        ("1714" + "00" * 20, "not a whole multihash"),
    ],
)
def test_what_is_no_whole_multihash_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        parse_multihash(text)


def test_a_bare_digest_is_known_by_its_length():
    assert parse_plain("AB" * 20) == Checksum("sha1", "ab" * 20, "checksum")
    assert parse_plain("ab" * 32).algorithm == "sha256"
    assert parse_plain("sha256:ab") is None


def test_nothing_promised_is_unverified_and_a_wrong_size_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    assert ModelAsset("m", "file", None, ()).verify(file)[1] == "unverified"
    with pytest.raises(Mismatch, match="4 bytes; it has 3 bytes"):
        ModelAsset("m", "file", 4, ()).verify(file)


BROKEN = {
    "cut": (b'{"a": [1,\n  2', "line 2, column 4"),
    "text": (b"hello", "line 1, column 1"),
    "list": (b"[]", "is a list"),
    "not UTF-8": (b'{\n"a": "\xff"}', "line 2"),
    "NaN": (b'{"a": NaN}', "NaN is not JSON"),
    "deep": (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "nested more than 64"),
    "very deep": (b"[" * 200_000, "nested too deeply"),
    "long number": (b'{"a": ' + b"1" * 5000 + b"}", "digits"),
}


@pytest.mark.parametrize(("data", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_item_is_refused_with_the_place(data, words):
    with pytest.raises(CardInvalid, match=words) as refused:
        parse_item(data)
    assert str(refused.value).startswith("item.json is broken: ")


def test_an_item_may_begin_with_a_byte_order_mark():
    assert parse_item(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
