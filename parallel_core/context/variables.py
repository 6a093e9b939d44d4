"""Variables of `contextvars`, and two things that are kept in some without a name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any

from memmapping.modules import loaded
from parallel_core.context.item import PROCESSES, ContextItem, Dumps, Entered, Part, Place
from parallel_core.serialization.variables import Identity, identity_of, variable_of

_OURS = "parallel_core_"
_UNNAMED = ("decimal_context", "numpy.ufunc.extobj")  # in C code, and carried by value
_DECIMAL_DEFAULT = (
    "Context(prec=28, rounding=ROUND_HALF_EVEN, Emin=-999999, Emax=999999, capitals=1, clamp=0, "
    "flags=[], traps=[InvalidOperation, DivisionByZero, Overflow])"
)


def captured(place: Place) -> list[ContextItem]:
    """Return what is set in the caller's context now, for tasks that run at `place`."""
    items: list[ContextItem] = []
    context = copy_context()
    if context:
        values = [
            (variable, value)
            for variable, value in context.items()
            if not variable.name.startswith(_OURS) and variable.name not in _UNNAMED
        ]
        if values:
            items.append(Variables(values))
        decimal = loaded("decimal")
        if decimal is not None:
            items += _decimal(context, decimal, place)
    numpy = loaded("numpy")
    if numpy is not None:
        state = numpy.geterr()
        if state != _NUMPY_DEFAULT:
            items.append(NumpyErrors(state))
    return items


def _decimal(context: Context, decimal: Any, place: Place) -> list[ContextItem]:
    for value in context.values():
        if isinstance(value, decimal.Context):
            current = value.copy()
            current.clear_flags()
            # A thread has the caller's very object otherwise, a process a new one in each task.
            if place is Place.THREAD or repr(current) != _DECIMAL_DEFAULT:
                return [DecimalContext(current)]
    return []


class Variables(ContextItem):
    """Context variables with their values.

    In threads they hold anyway: a thread begins with a copy of the caller's context.
    """

    name = "contextvars"

    def __init__(self, values: list[tuple[ContextVar[Any], Any]]) -> None:
        self._values = values

    def packed(self, dumps: Dumps) -> ContextItem | None:
        """Return those that pickle; what does not is left out."""
        told: list[tuple[Identity, bytes]] = []
        for variable, value in self._values:
            try:
                data = dumps(value)
            except Exception:
                continue
            told.append((identity_of(variable), data))
        return ToldVariables(told) if told else None

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Set them."""
        for variable, value in self._values:
            variable.set(value)
        return None


class ToldVariables(ContextItem):
    """Context variables as they travel; those that another process does not know are left out."""

    name = "contextvars"
    places = (*PROCESSES, Place.THREAD)  # the threads of an executor were there before

    def __init__(self, told: list[tuple[Identity, bytes]]) -> None:
        self._told = told

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Set them, to values of this batch alone."""
        for identity, data in self._told:
            try:
                variable, value = variable_of(identity), pickle.loads(data)
            except Exception:
                continue
            variable.set(value)
        return None


class DecimalContext(ContextItem):
    """The context of `decimal`, which C code keeps in a variable of its own.

    It is an object that tasks change, so each gets a copy.
    """

    name = "decimal"
    places = (Place.THREAD, *PROCESSES)

    def __init__(self, context: Any) -> None:
        self._context = context

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Return what sets a copy of it."""
        return _DecimalPart(self._context)


class _DecimalPart(Part):
    def __init__(self, context: Any) -> None:
        self._context = context

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        from decimal import setcontext

        copied = self._context.copy

        def call(*args: Any, **kwargs: Any) -> Any:
            setcontext(copied())
            return function(*args, **kwargs)

        return call


_NUMPY_DEFAULT = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


class NumpyErrors(ContextItem):
    """How numpy handles floating-point errors."""

    name = "numpy.errstate"
    places = (Place.THREAD, *PROCESSES)

    def __init__(self, state: dict[str, str]) -> None:
        self._state = state

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Have numpy handle them so until the end of the batch."""
        import numpy

        return Entered(numpy.errstate(**self._state))  # type: ignore[arg-type]  # as geterr says
