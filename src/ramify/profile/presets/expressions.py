"""Shapes as presets write them: numbers, names of sizes, and arithmetic on both."""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from typing import Any

from ramify.core.errors import ConfigError, expected_got

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


def evaluate(expression: int | str, names: Mapping[str, Any]) -> int:
    """The number that an expression stands for.

    Args:
        expression: a number, or a text such as `(frames-1)/4+1`; divisions must come out even.
        names: sizes by name, themselves expressions; `config` is a mapping, its fields reached
            with a dot.
    Raises:
        ConfigError: an unknown name, anything but + - * /, or a division with a rest.
    """
    if isinstance(expression, int):
        return expression
    return _number(ast.parse(expression, mode="eval").body, expression, names)


def _number(node: ast.expr, text: str, names: Mapping[str, Any]) -> int:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name) if name in names:
            return evaluate(names[name], names)
        case ast.Attribute(value=ast.Name(id=holder), attr=name) if name in names.get(holder, {}):
            return evaluate(names[holder][name], names)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _quotient(_number(left, text, names), _number(right, text, names), text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            sides = _number(left, text, names), _number(right, text, names)
            return int(_OPERATORS[type(op)](*sides))
    wanted = "numbers, + - * / and the sizes " + ", ".join(names)
    raise ConfigError(expected_got("shape", wanted, repr(text)))


def _quotient(left: int, right: int, text: str) -> int:
    if right == 0 or left % right:
        raise ConfigError(expected_got(f"shape {text!r}", "a division without rest", (left, right)))
    return left // right
