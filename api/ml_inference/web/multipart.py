"""`multipart/form-data` with images in it, read strictly over the complete body.

The usual form readers keep what they have when a body ends early: the last image then is silently missing. Here a form
without its closing boundary is an error, and so is every field this service does not know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ml_inference.errors import InvalidRequest, TooLarge
from ml_inference.protocol.failures import clean

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_IMAGES: Final = 64
MAX_PARTS: Final = MAX_IMAGES + 1
MAX_LABEL: Final = 100
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 §5.1.1
_PLAIN_TRANSFER: Final = frozenset({"", "binary", "8bit", "7bit"})


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a request.

    Attributes:
        label: the last part of the client's file name, made harmless: it names an entry of an answer, never a file.
        media_type: as the client declared it.
    """

    label: str
    data: memoryview
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Form:
    """What a request's form says."""

    images: tuple[Image, ...]
    version: str | None = None


def parse_form(body: bytes | bytearray, content_type: str) -> Form:
    """Read the form: one or more `image` files and at most one `version`.

    Raises:
        InvalidRequest: not a whole, well-formed form of these fields.
        TooLarge: more than 64 images.
    """
    boundary = _boundary(content_type)
    delimiter = b"--" + boundary
    first = 0 if body.startswith(delimiter) else body.find(b"\r\n" + delimiter) + 2
    if first == 1:
        raise InvalidRequest("the boundary that Content-Type names does not occur in the body")
    reader = _Reader(memoryview(body).toreadonly()[first:])
    try:
        parser = MultipartParser(boundary, reader.callbacks())
        parser.write(body[first:] if first else body)  # type: ignore[arg-type]  # a bytearray has all that it uses
    except FormParserError as error:
        raise InvalidRequest(f"the multipart body is malformed: {clean(str(error))}") from None
    if not reader.complete:
        raise InvalidRequest("the multipart body ends before its closing boundary: it was cut off on the way")
    return reader.form()


def _boundary(content_type: str) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequest("Content-Type multipart/form-data lacks a legal boundary parameter")
    return boundary


@dataclass
class _Part:
    headers: dict[str, str] = field(default_factory=dict)
    start: int = 0
    end: int = 0


class _Reader:
    """Collects parts as slices of the body; nothing is copied."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._parts: list[_Part] = []
        self._name = b""
        self._value = b""
        self.complete = False

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self._parts) == MAX_PARTS:
            raise TooLarge(f"more than {MAX_IMAGES} images in one request: send them in several")
        self._parts.append(_Part())

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name = self._name.decode("latin-1").lower()
        self._parts[-1].headers.setdefault(name, self._value.decode("utf-8", "replace"))
        self._name = self._value = b""

    def _data(self, _data: bytes, start: int, end: int) -> None:
        part = self._parts[-1]
        part.start, part.end = (part.start if part.end else start), end

    def _end(self) -> None:
        self.complete = True

    def form(self) -> Form:
        images: list[Image] = []
        version: str | None = None
        for part in self._parts:
            name, file_name = _disposition(part.headers)
            data = self._body[part.start : part.end]
            if name == "image":
                label = _label(file_name, len(images) + 1)
                images.append(Image(label, data, part.headers.get("content-type")))
            elif version is not None:
                raise InvalidRequest("the field 'version' comes twice: expected once at most")
            else:
                version = _text(data)
        if not images:
            raise InvalidRequest("the form has no image: expected one or more files in the field 'image'")
        if len(images) > MAX_IMAGES:
            raise TooLarge(f"more than {MAX_IMAGES} images in one request: send them in several")
        return Form(tuple(images), version)


def _disposition(headers: dict[str, str]) -> tuple[str, str]:
    """Field name and file name of a part."""
    kind, options = _parameters(headers.get("content-disposition", ""))
    name = options.get("name")
    if kind != "form-data" or name is None:
        raise InvalidRequest("a part of the form has no Content-Disposition: form-data with a name")
    if name not in {"image", "version"}:
        raise InvalidRequest(
            f"the form has an unknown field {clean(name, 40)!r}: expected 'image' and 'version'"
        )
    if headers.get("content-transfer-encoding", "").strip().lower() not in _PLAIN_TRANSFER:
        raise InvalidRequest(
            f"the field {name!r} has a Content-Transfer-Encoding: expected the bytes as they are"
        )
    return name, options.get("filename", "")


def _parameters(value: str) -> tuple[str, dict[str, str]]:
    """A header value and its parameters as text."""
    kind, options = parse_options_header(value.encode("utf-8").decode("latin-1"))
    named = {name.decode("latin-1"): text.decode("utf-8", "replace") for name, text in options.items()}
    return kind.decode("latin-1"), named


def _label(file_name: str, number: int) -> str:
    last = re.split(r"[/\\]", file_name)[-1]
    return clean(last, MAX_LABEL).strip() or f"image {number}"


def _text(data: memoryview) -> str:
    try:
        return bytes(data[:200]).decode().strip()
    except UnicodeDecodeError:
        raise InvalidRequest("the field 'version' is not UTF-8 text") from None
