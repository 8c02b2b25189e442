"""Band arithmetic from a model's metadata, read by a whitelist and never executed as code.

`gdal-calc`: numpy syntax in which `A`, `B`, … are the bands in listed order (after `Z`: `a`, `b`, …).
`rio-calc`: infix with the bands' own names, as MLM items write it; rasterio's s-expressions are not read.
Everything is computed in float32. A result that is not finite (division by zero, `log(0)`) is NaN: no valid value there.
"""

from __future__ import annotations

import ast
import re
import string
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ml_inference.contract.card import Expression

type Values = Mapping[str, NDArray[np.float32]]
type Evaluator = Callable[[Values], Any]

MAX_LENGTH = 1000
MAX_NODES = 200
MAX_DEPTH = 32
MAX_EXPONENT = 64.0
_LARGEST = float(np.finfo(np.float32).max)
LETTERS = string.ascii_uppercase + string.ascii_lowercase
"""What `gdal-calc` calls the bands, in listed order."""

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.FloorDiv: np.floor_divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "where": (3, lambda c, a, b: np.where(np.not_equal(c, 0), a, b)),
    "logical_and": (2, np.logical_and),
    "logical_or": (2, np.logical_or),
    "logical_not": (1, np.logical_not),
    "minimum": (2, np.minimum),
    "maximum": (2, np.maximum),
    "clip": (3, lambda x, low, high: np.minimum(np.maximum(x, low), high)),
    "sqrt": (1, np.sqrt),
    "exp": (1, np.exp),
    "log": (1, np.log),
    "log10": (1, np.log10),
    "abs": (1, np.abs),
}
_LEGAL = re.compile(r"[A-Za-z0-9_.,+\-*/%()<>=!\s]*")
# Python's own tokenizer only warns about "1and 2"; here it is an error before it gets there.
_RUN_TOGETHER = re.compile(
    r"(?<![A-Za-z0-9_])(?:\d[\d.]*(?![eE][+-]?\d)[A-Za-z_]|[\d.]+[eE][+-]?\d+[A-Za-z_])"
)


@dataclass(frozen=True, slots=True)
class CompiledExpression:
    """An expression that has been checked and can be evaluated any number of times, from any thread.

    Attributes:
        source: as the metadata has it.
        names: the bands it uses, in order of first use: the keys that `evaluate` needs.
    """

    source: str
    names: tuple[str, ...]
    _root: Evaluator = field(repr=False, compare=False)

    def evaluate(self, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Compute the expression pixel by pixel.

        Args:
            arrays: one array for each of `names`, all of one shape, any real dtype.

        Returns:
            float32 of that shape; NaN where the result is not finite.

        Raises:
            ValueError: an array is missing, or their shapes differ.
        """
        missing = [name for name in self.names if name not in arrays]
        if missing:
            raise ValueError(f"expression {self.source!r} needs {missing}")
        values = {name: np.asarray(arrays[name], dtype=np.float32) for name in self.names}
        shapes = {value.shape for value in values.values()}
        if len(shapes) != 1:
            raise ValueError(
                f"expression {self.source!r} got arrays of shapes {sorted(shapes)}, all must be equal"
            )
        with np.errstate(all="ignore"):
            result = np.array(self._root(values), dtype=np.float32)
        result[~np.isfinite(result)] = np.nan
        return result


def compile_expression(expression: Expression, names: Sequence[str] | None = None) -> CompiledExpression:
    """Check an expression and make it ready to run.

    Args:
        expression: format and text.
        names: the bands it may use, in listed order. `gdal-calc` letters stand for them (`A` is `names[0]`), and
            `CompiledExpression.names` then holds the band's name, not the letter. None accepts any name, which
            `CompiledExpression.names` then reports, and leaves letters as they are.

    Raises:
        ValueError: not in the whitelist, too long, too deep, or a name that is not there; says which.
    """
    return _compiled(expression, None if names is None else tuple(names))


@lru_cache(maxsize=256)
def _compiled(expression: Expression, names: tuple[str, ...] | None) -> CompiledExpression:
    tree = _parse(expression.expression)
    _bounded(tree)
    compiler = _Compiler(expression.format, names)
    root = compiler.build(tree)
    if not compiler.used:
        raise ValueError(f"expression {expression.expression!r} uses no band")
    return CompiledExpression(expression.expression, tuple(compiler.used), root)


def _parse(text: str) -> ast.expr:
    if len(text) > MAX_LENGTH:
        raise ValueError(f"expression is {len(text)} characters long, {MAX_LENGTH} at most")
    if not _LEGAL.fullmatch(text):
        bad = next(c for c in text if not _LEGAL.fullmatch(c))
        raise ValueError(
            f"expression {text!r} holds {bad!r}: only names, numbers, + - * / % ( ) , . < > = ! are read"
        )
    if _RUN_TOGETHER.search(text):
        raise ValueError(f"expression {text[:80]!r}: a number runs into a word")
    try:
        return ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(
            f"expression {text[:80]!r} is not infix arithmetic such as (B08 - B04) / (B08 + B04)"
        ) from None


def _bounded(tree: ast.expr) -> None:
    """Refuse size before any recursion of ours walks the tree."""
    level: list[ast.AST] = [tree]
    count = depth = 0
    while level:
        count, depth = count + len(level), depth + 1
        if depth > MAX_DEPTH:
            raise ValueError(f"expression is nested more than {MAX_DEPTH} deep")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if count > MAX_NODES * 2:  # operators and load marks are nodes of their own
        raise ValueError(f"expression has too many terms: {MAX_NODES} at most")


class _Compiler:
    """Turns whitelisted syntax into closures over ufuncs; anything else is a ValueError."""

    def __init__(self, format_: str, names: tuple[str, ...] | None) -> None:
        self.lettered = format_ == "gdal-calc"
        self.names = names
        self.used: dict[str, None] = {}

    def build(self, node: ast.AST) -> Evaluator:
        match node:
            case ast.Constant(value=bool() | complex()):
                raise ValueError("expression holds a constant that is no real number")
            case ast.Constant(value=int() | float() as value):
                return self._constant(value)
            case ast.Name(id=name):
                return self._band(name)
            case ast.UnaryOp(op=op, operand=operand):
                return self._apply(op, operand)
            case ast.BinOp(left=left, op=op, right=right):
                if isinstance(op, ast.Pow):
                    _bounded_exponent(right)
                return self._apply(op, left, right)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self._apply(op, left, right)
            case ast.Compare():
                raise ValueError("expression chains comparisons: write logical_and(a < b, b < c)")
            case ast.Call(func=func, args=args, keywords=[]):
                return self._call(func, args)
            case _:
                raise ValueError(f"expression uses {type(node).__name__}, which is not in the whitelist")

    def _constant(self, value: float) -> Evaluator:
        if abs(value) > _LARGEST:
            raise ValueError("expression holds a number too large for float32")
        number = np.float32(value)
        return lambda _: number

    def _band(self, identifier: str) -> Evaluator:
        name = self._resolve(identifier)
        self.used[name] = None
        return lambda values: values[name]

    def _resolve(self, identifier: str) -> str:
        if identifier in _FUNCTIONS:
            raise ValueError(f"expression uses the function {identifier!r} as a band")
        if self.names is None:
            return identifier
        if self.lettered and len(identifier) == 1 and LETTERS.find(identifier) in range(len(self.names)):
            return self.names[LETTERS.index(identifier)]
        if identifier in self.names:
            return identifier
        raise ValueError(f"expression uses {identifier!r}, and there are only {self._choices()}")

    def _choices(self) -> str:
        names = self.names or ()
        shown = [f"{a}={b}" for a, b in zip(LETTERS, names, strict=False)] if self.lettered else list(names)
        return ", ".join(shown[:16]) or "no bands"

    def _apply(self, op: ast.AST, *operands: ast.expr) -> Evaluator:
        function = _OPERATORS.get(type(op))
        if function is None:
            raise ValueError(
                f"expression uses the operator {type(op).__name__}, which is not in the whitelist"
            )
        return self._bind(function, operands)

    def _call(self, func: ast.expr, args: Sequence[ast.expr]) -> Evaluator:
        match func:
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="numpy" | "np"), attr=name):
                pass
            case _:
                raise ValueError("expression calls something that is not a plain function")
        if name not in _FUNCTIONS:
            raise ValueError(f"expression calls {name!r}; known are {', '.join(_FUNCTIONS)}")
        count, function = _FUNCTIONS[name]
        if len(args) != count:
            raise ValueError(f"expression calls {name} with {len(args)} arguments, it takes {count}")
        return self._bind(function, args)

    def _bind(self, function: Callable[..., Any], operands: Sequence[ast.expr]) -> Evaluator:
        parts = tuple(self.build(operand) for operand in operands)

        def evaluate(values: Values) -> Any:
            # Comparisons give bools, on which numpy has no arithmetic: one type throughout.
            return np.asarray(function(*(part(values) for part in parts)), dtype=np.float32)

        return evaluate


def _bounded_exponent(node: ast.expr) -> None:
    inner = node.operand if isinstance(node, ast.UnaryOp) else node
    match inner:
        case ast.BinOp(op=ast.Pow()):
            raise ValueError("expression has a power in an exponent")
        case ast.Constant(value=int() | float() as value) if abs(value) > MAX_EXPONENT:
            raise ValueError(f"expression has an exponent above {MAX_EXPONENT:g}")
        case _:
            return
