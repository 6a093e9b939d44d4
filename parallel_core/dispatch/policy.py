"""What to do about a task that has failed.

::

    Failure ──▶ Policy.judge ──▶ Verdict: RAISE    the error ends the call
                 (on_error,               DELIVER  a value takes the place of the result
                  retries)                RETRY    the task runs again later
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from parallel_core.backends.completion import Failure
from parallel_core.errors import is_worker_death
from parallel_core.tasks.placeholders import SKIPPED
from parallel_core.workers.messages import AfterFailure

_LONGEST_BACKOFF = 60.0  # seconds


class Action(enum.Enum):
    """What to do with a failure."""

    RAISE = "raise"
    DELIVER = "deliver"
    RETRY = "retry"


class Verdict(NamedTuple):
    """The decision about one failure."""

    action: Action
    value: Any = None  #: to deliver
    seconds: float = 0.0  #: before the task runs again


class Replacement(NamedTuple):
    """The value of a decision to replace a failed result: see `TaskFailure.replace`."""

    value: Any


class TaskFailure(NamedTuple):
    """Failed task that is passed to a function `on_error`.

    Attributes
    ----------
    position : int
        Position of the task in the call.
    error : Exception
        Exception that the task raised, or a `WorkerDiedError`, `TaskTimeoutError` or
        `SerializationError`. Its message or a note names the task.
    attempts : int
        Number of attempts so far.
    """

    position: int
    error: BaseException
    attempts: int

    def replace(self, value: Any) -> Replacement:
        """Return the decision to put `value` in the place of the result."""
        return Replacement(value)


Handler = Callable[[TaskFailure], Any]
_RAISE = Verdict(Action.RAISE)


class Policy:
    """Decides about failures, and counts the attempts of each failed task."""

    def __init__(
        self,
        on_error: str | Handler = "raise",
        retries: int = 0,
        retry_on: tuple[type[BaseException], ...] = (),
        backoff: float = 0.1,
    ) -> None:
        self._on_error = on_error
        self._retries = retries
        self._retry_on = retry_on
        self._backoff = backoff
        self._attempts: dict[int, int] = {}

    @property
    def after_failure(self) -> AfterFailure:
        """What a worker does with the rest of a batch after a failure."""
        carries_on = self._on_error != "raise" or self._retries > 0
        return AfterFailure.CARRY_ON if carries_on else AfterFailure.STOP

    def judge(self, failure: Failure, may_retry: bool = True) -> Verdict:
        """Return the decision; a function `on_error` may raise."""
        position, error = failure
        if not isinstance(error, Exception):
            return _RAISE  # an interrupt is no failure of a task
        attempts = self._attempts.get(position, 0) + 1
        self._attempts[position] = attempts
        retriable = is_worker_death(error) or isinstance(error, self._retry_on)
        if may_retry and retriable and attempts <= self._retries:
            return self._retry(attempts)
        decision = self._on_error
        if callable(decision):
            decision = decision(TaskFailure(position, error, attempts))
        if decision == "retry" and may_retry and callable(self._on_error):
            return self._retry(attempts)
        del self._attempts[position]
        if isinstance(decision, Replacement):
            return Verdict(Action.DELIVER, decision.value)
        if decision == "return":
            return Verdict(Action.DELIVER, error)
        if decision == "skip":
            return Verdict(Action.DELIVER, SKIPPED)
        if decision in ("raise", "retry"):
            return _RAISE
        raise TypeError(
            "on_error must return 'raise', 'return', 'skip', 'retry' or what the failure's "
            f"replace(value) returns, not {decision!r}"
        ) from error

    def _retry(self, attempts: int) -> Verdict:
        seconds = math.ldexp(self._backoff, min(attempts - 1, 30))
        return Verdict(Action.RETRY, seconds=min(seconds, _LONGEST_BACKOFF))
