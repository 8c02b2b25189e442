"""Is this file an ONNX graph that may be given to the runtime?

The runtime follows what a graph names: files with external data, operators of other libraries. Both are decided here,
before it sees the graph; it lets external data through hard links, and looks for them in its own working folder when it
is given bytes. A model that passed is loaded by its path.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError

from ml_inference.errors import CardInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

type Problem = tuple[str, str]

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Operator sets whose code is the runtime's own."""

_REFUSED_OPERATORS = {"EPContext": "a compiled blob of one device", "PythonOp": "Python code"}
_IN_MEMORY = "_ORT_MEM_ADDR_"
_PROBLEMS_SHOWN = 20
_HEAD = 16
_KINDS = (
    (0, b"PK\x03\x04", "a zip archive, as `torch.save` writes it"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes it"),
    (0, b"version https://", "a Git LFS pointer, not the file it stands for"),
    (0, b"<", "an HTML or XML page"),
    (0, b"{", "JSON text"),
    (4, b"ORTM", "in ONNX Runtime's own format"),
    (4, b"TFL3", "a TensorFlow Lite model"),
)
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


def check_onnx(path: Path, *, external_data: bool) -> None:
    """Refuse a file that is no ONNX graph, or one that names what it must not.

    `external_data` says whether tensors may lie in other files: plain files with one link, in the folder of `path` or
    beneath it. Every tensor is looked at: initializers, sparse ones, attributes, in subgraphs and functions too.

    Raises:
        CardInvalid: its problems point at tensors and operators (`onnx:NAME`).
    """
    model = _parse(path)
    problems: list[Problem] = []
    for tensor in _tensors(model):
        if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
            problem = (
                _external(tensor, path.parent)
                if external_data
                else "lies outside the file, which this source has not"
            )
            if problem:
                problems.append(
                    (f"onnx:{tensor.name}", f"external data of tensor `{tensor.name}`: {problem}")
                )
    problems += _operators(model)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CardInvalid(f"the model is refused: {problems[0][1]}{more}", tuple(problems[:_PROBLEMS_SHOWN]))


def _parse(path: Path) -> onnx.ModelProto:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise _not_onnx("it is empty")
    for offset, magic, kind in _KINDS:
        if head[offset:].startswith(magic):
            raise _not_onnx(f"it is {kind}")
    if head.startswith(_PICKLES):
        raise _not_onnx("it is a Python pickle")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise _not_onnx("it cannot be parsed; it may be cut short") from error
    if not (model.ir_version and model.opset_import and model.graph.output):
        raise _not_onnx("it has no graph with an output")
    return model


def _not_onnx(why: str) -> CardInvalid:
    message = f"the model's file is not an ONNX model: {why}"
    return CardInvalid(message, (("onnx:", message),))


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto | onnx.GraphProto]:
    """Give every node and every graph, subgraphs and functions included; no recursion, whatever the nesting."""
    pending = [model.graph, *model.functions]
    for training in model.training_info:
        pending += [training.initialization, training.algorithm]
    while pending:
        part = pending.pop()
        if isinstance(part, onnx.GraphProto):
            yield part
        attributes = list(part.attribute_proto) if isinstance(part, onnx.FunctionProto) else []
        for node in part.node:
            yield node
            attributes += node.attribute
        for attribute in attributes:
            pending += [attribute.g] if attribute.HasField("g") else []
            pending += attribute.graphs


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    defaults = [a for function in model.functions for a in function.attribute_proto]
    yield from _attribute_tensors(defaults)
    for part in _nodes(model):
        if isinstance(part, onnx.GraphProto):
            yield from part.initializer
            yield from _dense(part.sparse_initializer)
        else:
            yield from _attribute_tensors(part.attribute)


def _attribute_tensors(attributes: list[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        if attribute.HasField("sparse_tensor"):
            yield from _dense([attribute.sparse_tensor])
        yield from attribute.tensors
        yield from _dense(attribute.sparse_tensors)


def _dense(sparse: list[onnx.SparseTensorProto]) -> Iterator[onnx.TensorProto]:
    for one in sparse:
        yield one.values
        yield one.indices


def _external(tensor: onnx.TensorProto, folder: Path) -> str | None:
    """Say what is wrong with where a tensor's data lies, or None."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    problem = _bad_location(location)
    if problem:
        return problem
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "0"))
    except ValueError:
        return "offset and length are whole numbers"
    size = _plain_size(folder, PurePosixPath(location))
    if size is None:
        return f"`{location[:80]}` is not a plain file of its own beside the model"
    if offset < 0 or length < 0 or offset + length > size:
        return f"bytes {offset} to {offset + length} are asked of a file of {size}"
    return None


def _bad_location(location: str) -> str | None:
    if not location:
        return "it names no file"
    path, windows = PurePosixPath(location), PureWindowsPath(location)
    rooted = path.is_absolute() or windows.drive or windows.root
    if rooted or ".." in path.parts or "\\" in location or "\0" in location:
        return "it must lie in the model's folder, by a relative path without `..`"
    return "it names an address in memory" if _IN_MEMORY in location else None


def _plain_size(folder: Path, location: PurePosixPath) -> int | None:
    """Give the size of a regular file with one link, reached without a symbolic link; else None."""
    place = folder
    try:
        for part in location.parts:
            place /= part
            info = place.lstat()
            if stat.S_ISLNK(info.st_mode):
                return None
    except (OSError, ValueError):
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 else None


def _operators(model: onnx.ModelProto) -> list[Problem]:
    own = {(function.domain, function.name) for function in model.functions}
    problems = {}
    for node in _nodes(model):
        if isinstance(node, onnx.NodeProto) and (node.domain, node.op_type) not in own:
            problem = _bad_operator(node)
            if problem:
                problems[node.domain, node.op_type] = (f"onnx:{node.name or node.op_type}", problem)
    return list(problems.values())


def _bad_operator(node: onnx.NodeProto) -> str | None:
    what = f"operator `{node.op_type}` of node `{node.name}`"
    if node.domain not in DOMAINS:
        known = ", ".join(sorted(filter(None, DOMAINS)))
        return f"{what} belongs to domain `{node.domain}`; only {known} are served"
    kind = _REFUSED_OPERATORS.get(node.op_type)
    return f"{what} holds {kind}, which is never run" if kind else None
