"""Consecutive tasks: encoded, or as they are for workers that share our memory (`held`)."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from parallel_core.serialization.definitions import Definition
from parallel_core.serialization.opened import leave_opened
from parallel_core.serialization.preview import preview
from parallel_core.serialization.resolving import loads_referring
from parallel_core.tasks.description import describe_call, describe_task, function_name

if TYPE_CHECKING:
    from memmapping.reducer import BufferReference

#: `arity` of a run whose payload is one pickle of ``(args, kwargs)`` per task; where buffers of
#: it lie in shared memory, or it refers to large values, a tuple of the pickle and the list of
#: references of the buffers.
PICKLED = -1
#: `arity` of a run whose payload are ``(function, args, kwargs)``, for workers that share our
#: memory.
HELD = -2
#: `token` of a run whose pickles are ``(function, args, kwargs)``: no function in common.
NO_TOKEN = -1

#: A run: token of its function, arity, payload. With an arity of 2 the payload is
#: ``[a0, b0, a1, b1, ...]``; with 0 it is a list of None, one for each task.
Run = tuple[int, int, list[Any]]

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def run_length(run: Run) -> int:
    """Return how many tasks `run` holds."""
    _, arity, payload = run
    return len(payload) // arity if arity > 1 else len(payload)


def loads_task(data: bytes | tuple[bytes, list[BufferReference]]) -> Any:
    """Unpickle the arguments of a task; buffers that lie in shared memory are opened."""
    if isinstance(data, bytes):
        return pickle.loads(data)
    if not data[1]:
        return loads_referring(data[0])
    from memmapping.references import open_buffer

    return loads_referring(data[0], [open_buffer(*reference) for reference in data[1]])


class Batch:
    """Tasks ``start`` to ``start + size`` of a call, as they were when they were yielded."""

    __slots__ = (
        "definitions",
        "losses",
        "n_requeued",
        "nbytes",
        "nbytes_requeued",
        "runs",
        "size",
        "start",
        "uses",
    )

    def __init__(
        self,
        start: int,
        size: int,
        runs: list[Run],
        definitions: dict[int, Definition],
        nbytes: int = 0,
    ) -> None:
        self.start = start  #: position of the first task in the call
        self.size = size  #: number of tasks
        self.runs = runs  #: the tasks, grouped by function and form
        self.definitions = definitions  #: every function and class that the runs name by token
        #: About how many bytes of arguments it holds; small numbers are not counted.
        self.nbytes = nbytes
        self.losses = 0  #: how many workers ended with it before they had begun it
        #: How many of its tasks are to be run again, in batches of their own. A number, because
        #: those batches may be joined or taken apart before this one is done.
        self.n_requeued = 0
        self.nbytes_requeued = 0  #: how many bytes of arguments those tasks have
        #: What has to be kept until the batch is done: segments that the runs refer to, and
        #: descriptors of open files.
        self.uses: list[Any] = []

    def function_name(self) -> str:
        """Return the name of the function of the first task, if it can be told at no cost."""
        if not self.runs:
            return ""  # all of it was taken back
        token, arity, payload = self.runs[0]
        if token != NO_TOKEN:
            return function_name(self.definitions[token].obj)
        return function_name(payload[0][0]) if arity == HELD else ""

    def describe(self, index: int, call: str | None = None) -> str:
        """Return the words for task ``start + index``: its position and its shortened call.

        `call` is the latter as the worker put it; without it, what can be told here is told.
        """
        if call is not None:
            return describe_task(self.start + index, call)
        offset = index
        for run in self.runs:
            length = run_length(run)
            if offset < length:
                return describe_task(self.start + index, self._call(run, offset))
            offset -= length
        return f"task {self.start + index} of the call"

    def _call(self, run: Run, offset: int) -> str:
        token, arity, payload = run
        function: object = self.definitions[token].obj if token != NO_TOKEN else None
        if arity >= 0:
            return describe_call(function, payload[offset * arity : (offset + 1) * arity], {})
        try:
            held = arity == HELD
            *called, args, kwargs = payload[offset] if held else preview(payload[offset])
        except Exception:
            return f"{function_name(function)}(...), of which the arguments cannot be shown"
        return describe_call(called[0] if called else function, args, kwargs)

    def call(self, index: int) -> Call:
        """Return the function and the arguments of a task, unpickled here and now."""
        for token, arity, payload in self.part(index, index + 1).runs:
            function: Any = self.definitions[token].obj if token != NO_TOKEN else None
            if arity >= 0:
                return function, tuple(payload[:arity]), {}
            *called, args, kwargs = payload[0] if arity == HELD else loads_task(payload[0])
            leave_opened()
            return called[0] if called else function, args, kwargs
        raise IndexError(f"the batch has no task {index}")

    def part(self, first: int, end: int) -> Batch:
        """Return tasks ``start + first`` up to ``start + end`` as a batch of their own."""
        runs: list[Run] = []
        offset = 0
        for run in self.runs:
            token, arity, payload = run
            length = run_length(run)
            low, high = max(first - offset, 0), min(end - offset, length)
            if low < high:
                width = max(arity, 1)
                runs.append((token, arity, payload[low * width : high * width]))
            offset += length
        size = end - first
        part = Batch(
            self.start + first, size, runs, self.definitions, self.nbytes * size // self.size
        )
        part.uses = list(self.uses)
        return part

    def split_off(self, first: int) -> Batch:
        """Return the tasks from the one of index `first` on as a batch; keep those before it."""
        rest, kept = self.part(first, self.size), self.part(0, first)
        rest.losses = self.losses
        self.runs, self.size, self.nbytes = kept.runs, first, self.nbytes - rest.nbytes
        return rest

    def is_followed_by(self, other: Batch) -> bool:
        """Whether `other` begins where this one ends."""
        return other.start == self.start + self.size

    def join(self, following: Batch) -> None:
        """Append the tasks of the batch that begins where this one ends."""
        for run in following.runs:
            token, arity, payload = run
            if self.runs and self.runs[-1][:2] == (token, arity):
                self.runs[-1][2].extend(payload)
            else:
                self.runs.append(run)
        self.size += following.size
        self.definitions.update(following.definitions)
        self.nbytes += following.nbytes
        known = set(map(id, self.uses))
        self.uses += [use for use in following.uses if id(use) not in known]
