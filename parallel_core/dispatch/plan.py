"""What a call was asked to do, checked and resolved."""

from __future__ import annotations

import ast
import enum
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from parallel_core.dispatch.policy import Policy

if TYPE_CHECKING:
    from parallel_core.config import Settings
    from parallel_core.context.aspect import Aspect
    from parallel_core.dispatch.interruption import Interruption
    from parallel_core.dispatch.memory import MemoryGate
    from parallel_core.dispatch.reduction import Reduction
    from parallel_core.journal.store import Journal

#: Called when the counters of a dispatch have changed.
Progress = Callable[[], None]


class ReturnAs(enum.Enum):
    """What the caller gets."""

    LIST = "list"
    GENERATOR = "generator"
    UNORDERED = "generator_unordered"


class Counters(NamedTuple):
    """How far a call came.

    Attributes
    ----------
    dispatched, completed : int
        Numbers of tasks.
    total : int or None
        How many there are, if that became known.
    """

    dispatched: int
    completed: int
    total: int | None


class CallPlan(NamedTuple):
    """The parameters of one call.

    Attributes
    ----------
    n_jobs : int
        Number of workers.
    policy : Policy
        What becomes of tasks that fail.
    return_as : ReturnAs
        What the caller gets.
    pre_dispatch : int or None
        How many batches may be pulled ahead; None for all.
    batch_size : int or None
        Tasks in a batch; None to adapt.
    timeout : float or None
        Seconds for a task.
    progress : callable or None
        Told after every completion.
    call_timeout : float or None
        Seconds for the whole call.
    stop_when : callable or None
        Says of a result whether it is all that is wanted.
    pre_dispatch_nbytes : int or None
        How many bytes of arguments may be pulled ahead.
    most_tasks : int or None
        The most that a batch may have, whatever its size should be.
    gate : MemoryGate or None
        Says when there is too little memory for more.
    journal : Journal or None
        Where results are kept.
    reduction : Reduction or None
        How results are folded to the one that the call returns.
    aspects : tuple of Aspect
        What the caller has set up, and that is to hold inside the tasks.
    settings : Settings or None
        What of the configuration holds inside the tasks, in threads of this process.
    interruption : Interruption or None
        Set by another thread when the call is to end.
    """

    n_jobs: int
    policy: Policy
    return_as: ReturnAs = ReturnAs.LIST
    pre_dispatch: int | None = None
    batch_size: int | None = None
    timeout: float | None = None
    progress: Progress | None = None
    call_timeout: float | None = None
    stop_when: Callable[[Any], object] | None = None
    pre_dispatch_nbytes: int | None = None
    most_tasks: int | None = None
    gate: MemoryGate | None = None
    journal: Journal | None = None
    reduction: Reduction | None = None
    aspects: tuple[Aspect, ...] = ()
    settings: Settings | None = None
    interruption: Interruption | None = None


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def check_pre_dispatch(given: object) -> None:
    """Raise ValueError for what no number of jobs would make valid."""
    if isinstance(given, str) and "n_jobs" in given:
        _evaluate(given, 1 << 20)
    else:
        resolve_pre_dispatch(given, 1)


def resolve_pre_dispatch(given: object, n_jobs: int) -> int | None:
    """Return how many batches may be pulled ahead of the workers.

    Parameters
    ----------
    given : "all", int or str
        An expression may use numbers, ``n_jobs``, ``+ - * / // %``, ``min``, ``max``, parentheses.
    n_jobs : int
        Value of ``n_jobs`` in the expression.

    Returns
    -------
    int or None
        At least 1; None for no limit.

    Raises
    ------
    ValueError
        For anything else. The expression is parsed, never evaluated as code.

    Examples
    --------
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


def check_batch_size(given: object) -> int | None:
    """Return `given` as a positive integer, or None for ``"auto"``; else raise ValueError."""
    if given == "auto":
        return None
    if not isinstance(given, (str, bytes, bool, float)):
        try:
            size = operator.index(given)  # type: ignore[arg-type]  # the TypeError is the answer
        except TypeError:
            size = 0
        if size > 0:
            return size
    raise ValueError(f"batch_size must be 'auto' or a positive integer, not {given!r}")


def check_timeout(given: object, name: str = "timeout") -> float | None:
    """Return `given` as seconds, or None; else raise ValueError or TypeError about `name`."""
    if given is None:
        return None
    if isinstance(given, bool) or not hasattr(given, "__float__"):
        raise TypeError(f"{name} must be a number of seconds or None, not {given!r}")
    try:
        seconds = float(given)
    except OverflowError:
        raise ValueError(f"{name} must be a number of seconds or None, not {given!r}") from None
    if not seconds > 0:
        raise ValueError(f"{name} must be a positive number of seconds or None, not {given!r}")
    return None if math.isinf(seconds) else seconds


def check_return_as(given: object) -> ReturnAs:
    """Return `given` as a member of `ReturnAs`; else raise ValueError."""
    if given == "list":
        return ReturnAs.LIST
    try:
        return ReturnAs(given)
    except ValueError:
        known = ", ".join(repr(member.value) for member in ReturnAs)
        raise ValueError(f"return_as must be one of {known}, not {given!r}") from None
