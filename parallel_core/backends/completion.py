"""Outcomes of batches, as sessions return them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from parallel_core.serialization.batch import Batch

if TYPE_CHECKING:
    from parallel_core.observe.events import TaskTimes


class Failure(NamedTuple):
    """Failure of one task.

    Attributes
    ----------
    position : int
        Position of the task in the call.
    error : BaseException
        Exception for the caller.
    """

    position: int
    error: BaseException


class Completion:
    """Outcomes of a batch that have arrived.

    Attributes
    ----------
    batch : Batch
        Batch that this is about.
    first : int
        Position in the call of the first of `values`.
    values : list
        Consecutive results, with None in the place of a failed task. If results are folded, the
        values that they were folded to.
    seconds : float
        Time that the worker spent on them.
    finished : bool
        Whether nothing more will come for this batch.
    failures : list of Failure
        Failures of tasks among `values`.
    unrun : list of Batch
        Parts of the batch that were not run, or whose results are lost with their worker.
    folded : int or None
        Number of results that `values` were folded from; None if nothing is folded.
    nbytes : int
        Size of results that came back together; 0 if large results are sent one by one.
    fatal : BaseException or None
        Error that ends the call: of folding results, or of a setting that should apply in tasks.
    worker : int or None
        Slot of the worker; None if the engine does not tell.
    notes : tuple of tuple of str and object
        Values of context items from the worker, each with the name of the item. They come with the
        last completion of a batch.
    times : TaskTimes or None
        What the worker has measured; None if the engine does not tell.
    """

    __slots__ = (
        "batch",
        "failures",
        "fatal",
        "finished",
        "first",
        "folded",
        "nbytes",
        "notes",
        "seconds",
        "times",
        "unrun",
        "values",
        "worker",
    )

    def __init__(
        self,
        batch: Batch,
        first: int,
        values: list[Any],
        seconds: float,
        finished: bool,
        failures: Sequence[Failure] = (),
        unrun: Sequence[Batch] = (),
    ) -> None:
        self.batch = batch
        self.first = first
        self.values = values
        self.seconds = seconds
        self.finished = finished
        self.failures = failures
        self.unrun = list(unrun)
        self.folded: int | None = None
        self.nbytes = 0
        self.fatal: BaseException | None = None
        self.worker: int | None = None
        self.notes: tuple[tuple[str, object], ...] = ()
        self.times: TaskTimes | None = None

    @property
    def tasks(self) -> int:
        """Number of tasks from `first` on, including failed ones."""
        return len(self.values) if self.folded is None else self.folded + len(self.failures)


def all_failed(batch: Batch, error_of: Callable[[int], BaseException]) -> Completion:
    """Return the completion of a `batch` whose tasks all failed; `error_of` takes an index."""
    failures = [Failure(batch.start + index, error_of(index)) for index in range(batch.size)]
    return Completion(batch, batch.start, [None] * batch.size, 0.0, True, failures)
