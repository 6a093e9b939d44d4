"""What a backend by joblib's conventions runs whose workers share the memory of the caller."""

from __future__ import annotations

import contextvars
from time import monotonic
from typing import Any, NamedTuple

from parallel_core import config
from parallel_core.backends.base import Backend, Completion, Failure
from parallel_core.context.aspect import Place
from parallel_core.context.envelope import Capsule, ContextFailed, Envelope, SealedEnvelope
from parallel_core.errors import add_note
from parallel_core.tasks.batch import Batch
from parallel_core.tasks.failure import exited


class Outcomes(NamedTuple):
    """What came of consecutive tasks.

    Attributes
    ----------
    values : list
        Results; None in the place of a task that failed.
    failures : list of tuple
        Of the index of each that did, and its exception.
    seconds : float
        What they took.
    broken : BaseException or None
        What ends the call: something that was to hold inside the tasks failed.
    """

    values: list[Any]
    failures: list[tuple[int, BaseException]]
    seconds: float
    broken: BaseException | None = None


class HeldCall:
    """A batch whose tasks are the caller's own objects; see `BatchCall`.

    Parameters
    ----------
    name : str
        Of the user's function.
    batch : Batch
        Of such tasks.
    level : int
        Their nesting level.
    carry_on : bool
        Whether to go on after a task that failed.
    nested : tuple, optional
        The backend for calls within the tasks, and their number of jobs.
    context : bytes
        What is to hold inside them.
    """

    def __init__(
        self,
        name: str,
        batch: Batch,
        level: int,
        carry_on: bool,
        nested: tuple[Backend | str, int | None] | None,
        context: bytes = b"",
    ) -> None:
        self.__name__ = self.__qualname__ = name
        self._batch = batch
        self._level = level
        self._carry_on = carry_on
        self._nested = nested
        self._context = context

    def __call__(self) -> list[Outcomes]:
        """Run the tasks."""
        return [self._run(0, self._batch.size)]

    def __len__(self) -> int:
        return self._batch.size

    @property
    def items(self) -> list[tuple[Any, tuple[int, int], dict[str, Any]]]:
        """Its tasks as ``(function, args, kwargs)``, to be called one by one."""
        return [(self._run, (index, index + 1), {}) for index in range(self._batch.size)]

    def _run(self, first: int, end: int) -> Outcomes:
        return contextvars.copy_context().run(self._run_here, first, end)

    def _run_here(self, first: int, end: int) -> Outcomes:
        config.enter_task(self._level)
        if self._nested is not None:
            config.push_settings({"backend": self._nested[0], "n_jobs": self._nested[1]}, {})
        running = [self._batch.start + first]
        if not self._context:
            return self._run_within(Envelope((), Place.THREAD), first, end, running)
        envelope = SealedEnvelope(Capsule(self._context, Place.ENGINE))
        try:
            envelope.begin(lambda: running[0])
            try:
                return self._run_within(envelope, first, end, running)
            finally:
                envelope.end()
        except ContextFailed as failed:
            return Outcomes([], [], 0.0, failed.error)

    def _run_within(self, envelope: Envelope, first: int, end: int, running: list[int]) -> Outcomes:
        """Run tasks within the `envelope`; the position of each is noted in `running`."""
        values: list[Any] = []
        failures: list[tuple[int, BaseException]] = []
        began = monotonic()
        for index in range(first, end):
            function, args, kwargs = self._batch.call(index)
            running[0] = self._batch.start + index
            try:
                called = envelope.bind(function, running[0])
                values.append(contextvars.copy_context().run(called, *args, **kwargs))
            except BaseException as error:
                values.append(None)
                failures.append((index, _named(error, self._batch.describe(index))))
                if not self._carry_on:
                    break
        return Outcomes(values, failures, monotonic() - began)


def completion_of(batch: Batch, out: list[Outcomes]) -> Completion:
    """Return the end of `batch`; with a failure after which it was not to go on, not all of it."""
    values: list[Any] = []
    failures: list[Failure] = []
    broken = None
    for outcomes in out:
        broken = outcomes.broken
        if broken is not None:
            break
        values += outcomes.values
        failures += [Failure(batch.start + index, error) for index, error in outcomes.failures]
    seconds = sum(outcomes.seconds for outcomes in out)
    completion = Completion(batch, batch.start, values, seconds, True, failures)
    completion.broken = broken
    return completion


def _named(error: BaseException, what: str) -> BaseException:
    """Return what to raise for a task that raised `error`."""
    if isinstance(error, SystemExit):
        return exited(error, what)
    add_note(error, what)
    return error
