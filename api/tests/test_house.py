"""The house rules that no linter counts: size of functions and modules, nothing left for later."""

from __future__ import annotations

import ast
import re
import statistics
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "ml_inference"
MODULES = sorted(PACKAGE.rglob("*.py"))


def functions():
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path.relative_to(PACKAGE), node.name, node.end_lineno - node.lineno + 1


def test_functions_are_short_and_none_is_long():
    found = list(functions())
    assert [f for f in found if f[2] > 60] == []
    assert statistics.median(length for _, _, length in found) <= 10


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_one_thing(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    assert not re.search(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", text)
    assert ast.get_docstring(ast.parse(text)), "a module says what it is for"
