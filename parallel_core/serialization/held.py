"""Batches of tasks as they are, for workers that share the memory of the caller.

Where the tasks of a batch have one function and as many arguments, they are taken apart: the batch
keeps the arguments. A tuple and a dictionary less for each task are less for Python's cyclic
garbage collector to look through, which else takes longer than calling a short function.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from parallel_core.serialization.batch import HELD, NO_TOKEN, PICKLED, Batch
from parallel_core.serialization.definitions import Definition, Definitions
from parallel_core.serialization.encoding import BatchBuilder


class HeldBuilder(BatchBuilder):
    """Gathers the tasks of one call into batches, and pickles nothing.

    As with its base class, the loop that pulls extends `payload` itself while `function` and
    `arity` fit. Once they did not, the rest of the batch is whole tasks, and `arity` is `HELD`.

    Bytes are not counted. What is ahead is bounded by time, that of pulling a batch and that of
    running it, and so by what the producer of arguments, and their tasks, get through in it.
    """

    def __init__(self, definitions: Definitions) -> None:
        super().__init__(definitions)
        self._tokens = itertools.count()

    def begin(self, start: int) -> None:
        """Start a batch whose first task has position `start`."""
        self._start = start
        self._runs = []
        self._closed = 0
        self._used = {}
        self.function = None
        self.arity = PICKLED  # there is no run yet

    def finish(self, size: int) -> Batch:
        """Return the batch of the `size` tasks added since `begin`."""
        return Batch(self._start, size, self._runs, self._used)

    def add(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Add one task."""
        if not self._runs and not kwargs:
            self._open_for(function, len(args))
        elif kwargs or function is not self.function or len(args) != self.arity:
            if self.arity != HELD:
                self._open(NO_TOKEN, HELD)
                self.function = None
            self.payload.append((function, args, kwargs))
            return
        self.payload += args or (None,)

    def _open_for(self, function: Callable[..., Any], arity: int) -> None:
        """Start a run of the arguments of `function`."""
        definition = self._definition
        if definition is None or definition.obj is not function:
            definition = Definition(next(self._tokens), function, b"", (), None)
        self.function, self._definition = function, definition
        self._open(definition.token, arity)
