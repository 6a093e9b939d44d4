"""Events of a call.

::

    Call ─────── CallStarted, CallEnded ─────────────────────────┐
    loop ─────── TasksPulled, BatchSubmitted, TasksStolen, ──────┤
                 WorkersSeen, CallerWaited                       │
    outcomes ─── BatchAnswered, ResultsResumed,                  ├──▶ emit ──▶ each observer
                 TaskFailed, TaskRetried ────────────────────────┤
    session ──── WorkerStarted, WorkerEnded ─────────────────────┘

Who observes them: see `observers`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import NamedTuple


class CallStarted(NamedTuple):
    """A call begins.

    Attributes
    ----------
    call : int
        Number of the call, unique in this process. Every event has it.
    backend : str
        Name of the backend.
    n_jobs : int
        Number of workers.
    label : str
        The `Parallel` object in words.
    total : int or None
        Number of tasks, if the iterable tells its length.
    """

    call: int
    backend: str
    n_jobs: int
    label: str
    total: int | None = None


class TasksPulled(NamedTuple):
    """Consecutive tasks were taken from the iterable of the call, and their arguments encoded.

    Attributes
    ----------
    call : int
        Number of the call.
    first : int
        Position of the first task.
    tasks : int
        Number of tasks; 0 at the end of the iterable.
    seconds : float
        Time that this took, mostly in the code of the iterable.
    ended : float
        Time at which it ended, by `time.monotonic`.
    """

    call: int
    first: int
    tasks: int
    seconds: float
    ended: float


class CallerWaited(NamedTuple):
    """The thread that waits for results had nothing else to do.

    Attributes
    ----------
    call : int
        Number of the call.
    seconds : float
        Time that it waited.
    ended : float
        Time at which it went on, by `time.monotonic`.
    """

    call: int
    seconds: float
    ended: float


class BatchSubmitted(NamedTuple):
    """Consecutive tasks were handed to a worker or an engine.

    Tasks are submitted again if an idle worker steals them from a busy one, or if they are retried.

    Attributes
    ----------
    call : int
        Number of the call.
    first : int
        Position of the first task.
    tasks : int
        Number of tasks.
    nbytes : int
        Approximate size of the arguments in bytes; small numbers do not count.
    function : str
        Name of the function of the first task; empty if it is not known.
    seconds : float
        Time that handing over took.
    """

    call: int
    first: int
    tasks: int
    nbytes: int
    function: str = ""
    seconds: float = 0.0


class TasksStolen(NamedTuple):
    """Tasks that a busy worker had not begun were taken back, to be submitted again.

    Attributes
    ----------
    call : int
        Number of the call.
    first : int
        Position of the first task.
    tasks : int
        Number of tasks.
    """

    call: int
    first: int
    tasks: int


class Span(NamedTuple):
    """Time in which a worker ran consecutive tasks.

    Attributes
    ----------
    first : int
        Position of the first task.
    tasks : int
        Number of tasks; tasks shorter than half a millisecond are told together.
    began, ended : float
        Times by `time.monotonic` of the worker's machine, in seconds.
    """

    first: int
    tasks: int
    began: float
    ended: float


class TaskTimes(NamedTuple):
    """What a worker has measured while it ran the tasks of an answer.

    Attributes
    ----------
    pid : int
        Process id of the worker.
    ended : float
        Time at which it sent the answer, by `time.monotonic` of its machine, in seconds.
    loading : float
        Seconds that it spent on unpickling functions and arguments.
    pickling : float
        Seconds that it spent on pickling results.
    sending : float
        Seconds that it spent on sending the answers before this one, as far as no other has told.
    nbytes : int
        Size of the answer in bytes; small values do not count.
    marks : bytes
        Pairs of float64: the time at which a task began, and its index among the tasks of the
        answer. There is one for each task of half a millisecond or more, and another at most as
        often as that; see `spans`. Threads tell none unless an observer without `look_seconds`, or
        with `records_each`, is there.
    """

    pid: int
    ended: float
    loading: float = 0.0
    pickling: float = 0.0
    sending: float = 0.0
    nbytes: int = 0
    marks: bytes = b""

    def spans(self, first: int, tasks: int, seconds: float) -> list[Span]:
        """Return when the tasks of an answer ran.

        Parameters
        ----------
        first, tasks, seconds : int, int, float
            Fields of the `BatchAnswered`.

        Returns
        -------
        list of Span
            Consecutive spans without overlap. A task of half a millisecond or more has a span of
            its own.

        Examples
        --------
        >>> from parallel_core import TaskTimes
        >>> from array import array
        >>> marks = array("d", [10.0, 0, 10.5, 3]).tobytes()
        >>> for span in TaskTimes(1, 11.0, marks=marks).spans(first=20, tasks=4, seconds=1.0):
        ...     print(span)
        Span(first=20, tasks=3, began=10.0, ended=10.5)
        Span(first=23, tasks=1, began=10.5, ended=11.0)
        """
        if not tasks:
            return []
        marks = array("d")
        marks.frombytes(self.marks)
        begun = [(0, self.ended - seconds)]
        for at, index in zip(marks[::2], marks[1::2], strict=True):
            if index > begun[-1][0]:
                begun.append((int(index), at))
            else:
                begun[-1] = (int(index), at)
        ends = [*begun[1:], (tasks, self.ended)]
        return [
            Span(first + index, following - index, at, until)
            for (index, at), (following, until) in zip(begun, ends, strict=True)
        ]


class BatchAnswered(NamedTuple):
    """Outcomes of consecutive tasks have arrived. A batch may be answered in several parts.

    Attributes
    ----------
    call : int
        Number of the call.
    worker : int or None
        Slot of the worker; None if the engine does not tell, or if there are no workers.
    first : int
        Position of the first task.
    tasks : int
        Number of tasks, including failed ones.
    seconds : float
        Time that the worker spent on them.
    completed : int
        Number of tasks of the call that have an outcome now.
    total : int or None
        Number of tasks of the call, if that is known.
    notes : tuple of tuple of str and object
        Values from the worker, each with a name: bytes, numbers, text, or containers of these. They
        come with the last part of a batch.
    times : TaskTimes or None
        What the worker has measured; None if the engine does not tell.
    function : str
        Name of the function of the batch's first task; empty if it is not known.
    """

    call: int
    worker: int | None
    first: int
    tasks: int
    seconds: float
    completed: int
    total: int | None
    notes: tuple[tuple[str, object], ...] = ()
    times: TaskTimes | None = None
    function: str = ""


class ResultsResumed(NamedTuple):
    """The journal had the result of a task.

    Attributes
    ----------
    call : int
        Number of the call.
    position : int
        Position of the task.
    completed : int
        Number of tasks of the call that have an outcome now.
    total : int or None
        Number of tasks of the call, if that is known.
    """

    call: int
    position: int
    completed: int
    total: int | None


class TaskFailed(NamedTuple):
    """A task has failed and will not be retried.

    Attributes
    ----------
    call : int
        Number of the call.
    position : int
        Position of the task.
    error : BaseException
        Exception of the task, or an error such as `WorkerDiedError`.
    """

    call: int
    position: int
    error: BaseException


class TaskRetried(NamedTuple):
    """A task has failed and will run again.

    Attributes
    ----------
    call : int
        Number of the call.
    position : int
        Position of the task.
    error : BaseException
        Exception of the task, or an error such as `WorkerDiedError`.
    seconds : float
        Waiting time before the next attempt.
    """

    call: int
    position: int
    error: BaseException
    seconds: float


class WorkerStarted(NamedTuple):
    """A worker process is ready for the call.

    Attributes
    ----------
    call : int
        Number of the call.
    worker : int
        Slot of the worker, from 0. A worker that replaces another takes its slot.
    pid : int
        Process id of the worker.
    """

    call: int
    worker: int
    pid: int


class WorkerEnded(NamedTuple):
    """A worker process of the call has ended.

    Attributes
    ----------
    call : int
        Number of the call.
    worker : int
        Slot of the worker.
    pid : int
        Process id of the worker.
    reason : str
        Reason in words.
    """

    call: int
    worker: int
    pid: int
    reason: str


class WorkerView(NamedTuple):
    """State of one worker.

    Attributes
    ----------
    worker : int
        Slot of the worker.
    pid : int
        Process id of the worker.
    queued : int
        Number of batches that it has, including the one that it runs.
    memory : int
        Bytes that it held when it looked last.
    phase : str
        ``"RUNNING"``, ``"UNPICKLING"``, ``"IDLE"`` and so on.
    position : int or None
        Position of the task that it runs.
    seconds : float
        Time since that task or phase began; 0 if that is not known.
    done : int
        Number of tasks that it has finished and whose outcomes have not arrived yet.
    """

    worker: int
    pid: int
    queued: int = 0
    memory: int = 0
    phase: str = "IDLE"
    position: int | None = None
    seconds: float = 0.0
    done: int = 0


class WorkersSeen(NamedTuple):
    """The engine has looked at its workers.

    It does so only where an observer asks for it, by an attribute `look_seconds`.

    Attributes
    ----------
    call : int
        Number of the call.
    completed : int
        Number of tasks of the call that have an outcome now.
    total : int or None
        Number of tasks of the call, if that is known.
    workers : tuple of WorkerView
        States of the workers; empty if the engine does not tell.
    """

    call: int
    completed: int
    total: int | None
    workers: tuple[WorkerView, ...]


class CallEnded(NamedTuple):
    """A call has ended.

    Attributes
    ----------
    call : int
        Number of the call.
    completed : int
        Number of tasks that have an outcome.
    total : int or None
        Number of tasks, if that became known.
    resumed : int
        Number of results that came from the journal.
    error : BaseException or None
        Exception that ended the call early.
    """

    call: int
    completed: int
    total: int | None
    resumed: int
    error: BaseException | None


Event = (
    CallStarted
    | TasksPulled
    | BatchSubmitted
    | TasksStolen
    | BatchAnswered
    | ResultsResumed
    | TaskFailed
    | TaskRetried
    | WorkerStarted
    | WorkerEnded
    | WorkersSeen
    | CallerWaited
    | CallEnded
)
Emit = Callable[[Event], None]
