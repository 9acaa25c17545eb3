"""Arithmetic in scenario files: a string that begins with ``=`` is computed from parameters.

``"=2 * n - 2"`` with ``n = 4`` is 6; ``"=duties[i % 2]"`` takes from a list. There are numbers,
parameters, ``+ - * / // %``, comparisons, ``a if b else c``, subscripts, and ``min max sum len
round``; nothing else, so a file from a stranger can do no harm.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

Parameters = Mapping[str, Any]

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_CALLS: Mapping[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "sum": sum,
    "len": len,
    "round": round,
}


class ExpressionError(ValueError):
    """An expression can't be computed; the message quotes it."""


def substitute(value: Any, parameters: Parameters) -> Any:
    """Return a TOML value with every expression in it computed. Raises ``ExpressionError``."""
    if isinstance(value, str) and value.startswith("=") and value != "==":
        return evaluate(value[1:], parameters)
    if isinstance(value, Mapping):
        return {key: substitute(item, parameters) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, parameters) for item in value]
    return value


def evaluate(text: str, parameters: Parameters) -> Any:
    """Return what an expression comes to. Raises ``ExpressionError``."""
    try:
        return _value(ast.parse(text.strip(), mode="eval").body, parameters)
    except ExpressionError as error:
        raise ExpressionError(f"{error} in {text.strip()!r}") from error
    except (SyntaxError, TypeError, ZeroDivisionError, LookupError, ValueError) as error:
        raise ExpressionError(f"can't compute {text.strip()!r}: {error}") from error


def _value(node: ast.expr, parameters: Parameters) -> Any:
    def of(part: ast.expr) -> Any:
        return _value(part, parameters)

    result: Any
    match node:
        case ast.Constant(value=int() | float() | str() as result):
            pass
        case ast.Name(id=name):
            if name not in parameters:
                raise ExpressionError(f"no parameter {name!r}")
            result = parameters[name]
        case ast.IfExp():
            result = of(node.body if of(node.test) else node.orelse)
        case ast.Subscript():
            result = of(node.value)[of(node.slice)]
        case ast.List():
            result = [of(item) for item in node.elts]
        case _:
            result = _operation(node, of)
    return result


def _operation(node: ast.expr, of: Callable[[ast.expr], Any]) -> Any:
    match node:
        case ast.BinOp() if type(node.op) in _BINARY:
            return _BINARY[type(node.op)](of(node.left), of(node.right))
        case ast.UnaryOp(op=ast.USub()):
            return -of(node.operand)
        case ast.Compare(ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return _COMPARE[type(op)](of(node.left), of(right))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _CALLS:
            return _CALLS[name](*map(of, node.args))
    raise ExpressionError(f"{ast.unparse(node)!r} is not allowed")
