"""What surrounds each job where it runs, and how it is run by a map function of the user's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextvars import copy_context
from copy import deepcopy
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from parallel_core.context.batch_context import call_within
from parallel_core.context.item import ContextItem, Part, Place
from parallel_core.output.capture import TaskOutput

if TYPE_CHECKING:
    from parallel_core.scripting.jobs import Job

#: Attribute of an exception that a job raised: the seconds that the job took.
SECONDS = "job_seconds"


class JobOutcome(NamedTuple):
    """The outcome of one job."""

    job: int  #: its index
    value: Any = None
    error: BaseException | None = None
    seconds: float = 0.0
    stdout: str = ""


class TimesJobs(ContextItem):
    """Each job returns its index, its result and its seconds: a plain tuple travels fastest."""

    name = "job times"
    places = tuple(Place)
    is_kept = True

    def begin(self, position: Callable[[], int], place: Place) -> Part:
        """Return what does that to the jobs of a batch."""
        return _Around(partial(_timed, position))


class CopiesArguments(ContextItem):
    """Each job gets copies of its arguments, where it would get the caller's own objects."""

    name = "copied arguments"
    places = (Place.CALLER, Place.THREAD)
    is_kept = True

    def begin(self, position: Callable[[], int], place: Place) -> Part:
        """Return what does that to the jobs of a batch."""
        return _Around(_copied)


class _Around(Part):
    """Calls each job through another function."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        return partial(self._call, function)


def _timed(
    position: Callable[[], int], function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> tuple[int, Any, float]:
    began = perf_counter()
    try:
        return position(), function(*args, **kwargs), perf_counter() - began
    except Exception as error:
        with contextlib.suppress(Exception):  # some have no room for attributes
            setattr(error, SECONDS, perf_counter() - began)
        raise


def _copied(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    shared = {name: kwargs.pop(name) for name in ("globaldict",) if name in kwargs}
    args, kwargs = deepcopy((args, kwargs))
    return function(*args, **kwargs, **shared)


def outcome_of(value: Any) -> JobOutcome:
    """Return the outcome in what a job within the items has returned, or in its place."""
    stdout = ""
    if type(value) is TaskOutput:
        value, stdout = value.value, value.stdout
    if type(value) is JobOutcome:
        return value
    index, result, seconds = value
    return JobOutcome(index, result, None, seconds, stdout)


def failed_outcome(index: int, error: BaseException) -> JobOutcome:
    """Return the outcome of a job that raised `error`."""
    output = getattr(error, "task_output", None)
    stdout = output.stdout if type(output) is TaskOutput else ""
    return JobOutcome(index, None, error, getattr(error, SECONDS, 0.0), stdout)


class MappedJob:
    """A function of one argument for a map function of the user's, such as that of a pool."""

    def __init__(
        self, func: Callable[..., Any], items: Sequence[ContextItem], keeps_errors: bool
    ) -> None:
        self._func = func
        self._items = items
        self._keeps_errors = keeps_errors

    def __call__(self, numbered: tuple[int, Job]) -> JobOutcome:
        """Run a job, given its index and arguments; return its outcome."""
        index, (args, kwargs) = numbered
        try:
            within = copy_context()  # where the user's function runs jobs here, nothing stays
            items, func = self._items, self._func
            return outcome_of(within.run(call_within, items, index, func, args, kwargs, []))
        except Exception as error:
            if not self._keeps_errors:
                raise
            return failed_outcome(index, error)
