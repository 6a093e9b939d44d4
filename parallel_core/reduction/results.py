"""What is asked for where a call returns one value, folded from the results of all its tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_core.reduction.tree import (
    EMPTY,
    Fold,
    FoldFailed,
    Folding,
    FoldTree,
)
from parallel_core.serialization.definitions import Definition, Definitions
from parallel_core.serialization.pickling import explain
from parallel_core.tasks.description import function_name
from parallel_core.tasks.placeholders import NO_RESULT, Placeholder


class Reduction(NamedTuple):
    """How the results of one call are folded."""

    function: Callable[[Any, Any], Any]  #: takes two values, returns one
    initial: Any  #: the leftmost value; or `NO_RESULT`

    def begin(self) -> FoldedResults:
        """Return what takes in the results of a call."""
        return FoldedResults(self)


class FoldedResults:
    """What the results of a call were folded to so far."""

    def __init__(self, reduction: Reduction) -> None:
        self._function = reduction.function
        self._initial = reduction.initial
        self._tree = FoldTree(self._function)

    def define(self, definitions: Definitions) -> tuple[Folding, dict[int, Definition]]:
        """Return what workers are told, and the definitions that each batch has to bring."""
        try:
            definition = definitions.define_once(self._function)
        except Exception as error:
            name = f"reduce={function_name(self._function)}"
            raise explain("the call", self._function, name, error) from error
        needed = {needed.token: needed for needed in (definition, *definition.requires)}
        return Folding(definition.token), needed

    def aligned(self, first: int, size: int) -> int:
        """Return how many tasks, at most `size`, to have in a batch, so that few nodes are left.

        It is to end at a multiple of the greatest power of two that it may hold.
        """
        if size < 2:
            return size
        step = 1 << (size.bit_length() - 1)
        return max((first + size) // step * step - first, 1)

    def fold(self, first: int) -> Fold:
        """Return what folds the results of consecutive tasks."""
        return Fold(self._function, first)

    def put(self, first: int, count: int, values: list[Any]) -> BaseException | None:
        """Take in what came of some tasks; return what ends the call, if anything does."""
        try:
            self._tree.put(first, count, values)
        except FoldFailed as failed:
            return failed.noted()
        return None

    @staticmethod
    def leaf(value: Any, error: BaseException) -> Any:
        """Return what is folded in the place of a task that failed, where `value` is to stand.

        Raises
        ------
        ValueError
            When that is the exception itself.
        """
        if value is error:
            raise ValueError(
                "on_error must not return 'return' in a call with reduce, which would fold the "
                "exception as if it were a result: 'skip' it, or return failure.replace(value)"
            ) from error
        return EMPTY if type(value) is Placeholder else value

    def finish(self, n_tasks: int) -> Any:
        """Return what the call returns; all of so many tasks are there.

        Raises
        ------
        ValueError
            When there is no value at all.
        BaseException
            What the function raises.
        """
        try:
            value = self._tree.result()
        except FoldFailed as failed:
            cause = failed.noted()
        else:
            if self._initial is not NO_RESULT:
                return self._initial if value is EMPTY else self._after_initial(value)
            if value is not EMPTY:
                return value
            why = "every task was skipped" if n_tasks else "there are no tasks"
            cause = ValueError(
                f"reduce has nothing to return: {why}; give reduce_initial for that case"
            )
        raise cause

    def _after_initial(self, value: Any) -> Any:
        try:
            return self._function(self._initial, value)
        except Exception as error:
            what = f"reduce={function_name(self._function)} was being applied"
            error.add_note(f"{what} to reduce_initial and what all results had come to")
            raise
