"""The form reader: whole forms are read exactly, and nothing less than a whole form is read at all."""

from __future__ import annotations

import contextlib
from email import message_from_bytes
from email.policy import HTTP

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_inference.errors import InvalidRequest, TooLarge
from ml_inference.web.multipart import MAX_IMAGES, parse_form

BOUNDARY = "edge"
KIND = f"multipart/form-data; boundary={BOUNDARY}"


def part(data: bytes, name: str = "image", file_name: str | None = "tile.tif", extra: str = "") -> bytes:
    file = "" if file_name is None else f'; filename="{file_name}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{extra}\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def contents(body: bytes, kind: str = KIND) -> list[bytes]:
    return [bytes(image.data) for image in parse_form(body, kind).images]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_what_a_stock_client_sends_is_read_back(images):
    request = httpx.Request("POST", "http://x", files=[("image", ("a.tif", data)) for data in images])
    body = request.read()
    assert contents(body, request.headers["content-type"]) == images


@given(
    st.lists(
        st.sampled_from([b"\r\n", b"--edge", b"\r\n--edge", b"-", b"--", b"\r", b"x", b"\r\n--edgy"]),
        max_size=12,
    )
)
def test_image_bytes_that_resemble_the_boundary_survive(pieces):
    data = b"".join(pieces)
    if f"\r\n--{BOUNDARY}".encode() in b"\r\n" + data:
        return  # then it is the boundary, and the client has broken RFC 2046
    assert contents(form(part(data), part(b"second"))) == [data, b"second"]


def test_a_form_agrees_with_the_standard_librarys_reader():
    body = form(part(b"\x00\x01binary\xff"), part(b"2", "version", None), part(b"last"))
    message = message_from_bytes(f"Content-Type: {KIND}\r\n\r\n".encode() + body, policy=HTTP)
    expected = [each.get_payload(decode=True) for each in message.iter_parts()]
    read = parse_form(body, KIND)
    assert [bytes(read.images[0].data), (read.version or "").encode(), bytes(read.images[1].data)] == expected


def test_every_truncation_of_a_form_is_refused():
    """No prefix of a form passes for a smaller form: an image is never silently dropped."""
    body = form(part(b"first image"), part(b"7", "version", None), part(b"second image"))
    whole = body.index(f"--{BOUNDARY}--".encode()) + len(f"--{BOUNDARY}--")
    for length in range(whole):
        with pytest.raises(InvalidRequest):
            parse_form(body[:length], KIND)
    assert len(parse_form(body[:whole], KIND).images) == 2


def test_preamble_and_epilogue_are_skipped():
    body = b"for readers without MIME\r\n" + form(part(b"one"), part(b"two")) + b"epilogue --edge"
    assert contents(body) == [b"one", b"two"]


def test_a_bytearray_is_read_without_copying():
    body = bytearray(form(part(b"pixels")))
    image = parse_form(body, KIND).images[0]
    assert image.data.readonly
    assert image.data.obj is body
    assert bytes(image.data) == b"pixels"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (form(), "no image"),
        (form(part(b"1", "version", None)), "no image"),
        (form(part(b"x"), part(b"1", "version", None), part(b"1", "version", None)), "twice"),
        (form(part(b"x", "imgae")), "'image' and 'version'"),
        (form(part(b"x", "imgae\x1b[31m")), "'image' and 'version'"),
        (b"--edge\r\n\r\nx\r\n--edge--\r\n", "Content-Disposition"),
        (
            b"--edge\r\nContent-Disposition: attachment; name=image\r\n\r\nx\r\n--edge--\r\n",
            "Content-Disposition",
        ),
        (form(part(b"eA==", extra="Content-Transfer-Encoding: base64\r\n")), "Content-Transfer-Encoding"),
        (form(part(b"\xff\xfe", "version", None)), "UTF-8"),
        (form(part(b"x", extra="X: " + "y" * 5000 + "\r\n")), "malformed"),
        (form(part(b"x", extra="".join(f"X-{n}: y\r\n" for n in range(20)))), "malformed"),
        (form(part(b"x", extra="no colon here\r\n")), "malformed"),
        (b"", "boundary"),
        (b"just bytes", "boundary"),
    ],
)
def test_a_form_that_is_not_ours_is_refused_in_words(body, said):
    with pytest.raises(InvalidRequest, match=said) as caught:
        parse_form(body, KIND)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        "multipart/form-data; boundary=" + "x" * 71,
        'multipart/form-data; boundary="a\u00e9"',
    ],
)
def test_a_content_type_without_a_legal_boundary_is_refused(kind):
    with pytest.raises(InvalidRequest, match="boundary"):
        parse_form(form(part(b"x")), kind)


def test_a_quoted_boundary_is_a_boundary():
    body = b'--a b:c\r\nContent-Disposition: form-data; name="image"\r\n\r\nx\r\n--a b:c--'
    assert contents(body, 'multipart/form-data; charset=utf-8; boundary="a b:c"') == [b"x"]


def test_two_thousand_parts_are_refused_at_the_first_too_many():
    with pytest.raises(TooLarge, match=str(MAX_IMAGES)):
        parse_form(form(*[part(b"x")] * 2000), KIND)


def test_as_many_images_as_allowed_and_a_version_are_read():
    read = parse_form(form(*[part(b"x")] * MAX_IMAGES, part(b"3", "version", None)), KIND)
    assert (len(read.images), read.version) == (MAX_IMAGES, "3")


def test_one_image_too_many_is_refused():
    with pytest.raises(TooLarge):
        parse_form(form(*[part(b"x")] * (MAX_IMAGES + 1)), KIND)


@pytest.mark.parametrize(
    ("file_name", "label"),
    [
        ("tile.tif", "tile.tif"),
        ("../../etc/passwd", "passwd"),
        ("C:\\\\tiles\\\\a.tif", "a.tif"),
        ("K\u00f6ln.tif", "K\u00f6ln.tif"),
        ("a\x1b[31mb.tif", "a\N{REPLACEMENT CHARACTER}[31mb.tif"),
        ("", "image 1"),
        (None, "image 1"),
        ("x" * 5 + "/", "image 1"),
    ],
)
def test_a_file_name_is_a_label_and_nothing_more(file_name, label):
    assert parse_form(form(part(b"x", file_name=file_name)), KIND).images[0].label == label


def test_a_long_file_name_is_shortened():
    assert len(parse_form(form(part(b"x", file_name="x" * 4000)), KIND).images[0].label) == 100


@given(st.binary(max_size=400))
def test_any_bytes_are_a_form_or_refused(data):
    with contextlib.suppress(InvalidRequest, TooLarge):
        parse_form(b"--edge\r\n" + data, KIND)
