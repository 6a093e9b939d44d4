"""``pre_dispatch``: a number, or arithmetic that is parsed and never run as code."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def check_pre_dispatch(given: object) -> None:
    """Raise ValueError for a value that is invalid with any number of jobs."""
    if isinstance(given, str) and "n_jobs" in given:
        _evaluate(given, 1 << 20)
    else:
        resolve_pre_dispatch(given, 1)


def resolve_pre_dispatch(given: object, n_jobs: int) -> int | None:
    """Return how many batches may be pulled ahead, at least 1; None for no limit.

    An expression may use numbers, ``n_jobs``, ``+ - * / // %``, ``min``, ``max`` and parentheses.
    It is parsed, and never evaluated as code. Other values raise ValueError.

    >>> resolve_pre_dispatch("1.5*n_jobs", 2)
    3
    """
    if given == "all":
        return None
    if isinstance(given, str):
        if given == "2*n_jobs" or given == "2 * n_jobs":
            return 2 * n_jobs
        value = _evaluate(given, n_jobs)
    elif isinstance(given, (int, float)) and not isinstance(given, bool):
        value = given
    else:
        try:
            if isinstance(given, bool):
                raise TypeError
            value = operator.index(given)  # type: ignore[arg-type]  # the TypeError is the answer
        except TypeError:
            raise ValueError(_wrong_pre_dispatch(given, "it is no number")) from None
    if value in (math.inf, -math.inf) or value != value:
        raise ValueError(_wrong_pre_dispatch(given, f"it comes to {value:g}"))
    if int(value) < 1:
        raise ValueError(_wrong_pre_dispatch(given, f"it comes to {value}, which is less than 1"))
    return int(value)


def _evaluate(text: str, n_jobs: int) -> float:
    try:
        if len(text) > 200:
            raise ValueError("it is too long")
        return _value(ast.parse(text.strip(), mode="eval").body, n_jobs)
    except ZeroDivisionError:
        return 0
    except (
        SyntaxError,
        ValueError,
        ArithmeticError,
        TypeError,
        RecursionError,
        MemoryError,
    ) as error:
        raise ValueError(_wrong_pre_dispatch(text, str(error))) from None


def _value(node: ast.AST, n_jobs: int) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]  # just checked
    if isinstance(node, ast.Name) and node.id == "n_jobs":
        return n_jobs
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, n_jobs), _value(node.right, n_jobs)
        return float(_OPERATORS[type(node.op)](left, right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        value = _value(node.operand, n_jobs)
        return -value if isinstance(node.op, ast.USub) else value
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("min", "max", "int")
        and node.args
        and not node.keywords
    ):
        values = [_value(argument, n_jobs) for argument in node.args]
        if node.func.id == "int":
            if len(values) > 1:
                raise ValueError("int() takes one number")
            return int(values[0])
        return min(values) if node.func.id == "min" else max(values)
    raise ValueError(
        f"{ast.unparse(node)!r} is not understood; use numbers, n_jobs, + - * / // %, min, max "
        "and int"
    )


def _wrong_pre_dispatch(given: object, why: str) -> str:
    return (
        f"pre_dispatch must be 'all', a number or an expression such as '2*n_jobs', "
        f"not {given!r}: {why}"
    )
