"""What a call counts while it runs."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Sequence
from operator import sub
from time import monotonic, process_time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from parallel_core.insights.totals import Answer, WorkerTotals
    from parallel_core.serialization.batch import Batch
    from parallel_core.serialization.repeats import RepeatedArguments

_MOST_ANSWERS = 1024  # that wait to be added up
_MOST_BATCHES = 1024  # that are told apart
_MOST_DEATHS = 32
_REPEATED = 3  # times that an argument is pickled, until that is worth a word
SLOWEST = 5
_LOOK_SECONDS = 0.05  # of a call, for it to be worth a look at its workers
_SLOW_SECONDS = 0.002  # a task that takes less is not worth its words
#: A task is among the slowest if it takes this much longer than the last of them: tasks that take
#: ever longer would all be described otherwise.
_LONGER = 1.05


class SlowTask(NamedTuple):
    """One of the tasks that took longest."""

    seconds: float
    position: int
    call: str  #: the call in words
    worker: int | None
    began: float
    ended: float


#: Batches that were submitted one after the other: when the first was, how many there are, and
#: their tasks and bytes.
Batches = tuple[float, int, int, int]


class RepeatedArgument(NamedTuple):
    """A large object that was pickled for task after task."""

    name: int | str  #: the position of the argument, or its name
    kind: str  #: the name of its type
    nbytes: int  #: of one pickle
    times: int
    seconds: float  #: of pickling, in all


class CallRecord:
    """The record of one call. Its size is bounded, and it keeps no argument and no result."""

    #: Seconds of the thread that runs the loop: in taking workers, in the caller's iterable, in
    #: pickling arguments, in handing batches over, in waiting for workers, and in reading what they
    #: sent.
    starting = pulling = encoding = submitting = waiting = reading = 0.0
    polling = 0.0  #: waiting and reading
    ended = 0.0
    #: Seconds that all threads of this process computed during a call on threads.
    processor_seconds = 0.0
    #: Seconds for which `min_free_memory` held tasks back.
    held_back = 0.0
    n_workers = 0
    completed = failed = retried = resumed = 0
    total: int | None = None
    submitted_nbytes = shared_nbytes = 0
    #: Whether workers run on this machine, so that they have its clock.
    is_local = True
    #: Whether tasks run in threads of this process.
    runs_here = False
    #: Whether batches hold the caller's own objects.
    is_held = False
    #: Whether the caller takes results while the call runs.
    is_stream = False
    repeated: RepeatedArgument | None = None
    #: Threads that workers have besides their own, and share of their processor time.
    library_threads: tuple[int, float] = (0, 0.0)
    cores = 0

    def __init__(self, backend: str, n_jobs: int, label: str, began: float) -> None:
        self.backend = backend
        self.n_jobs = n_jobs
        self.label = label
        self.began = began
        #: Answers that were not added up yet.
        self.answers: list[Answer] = []
        self.batches: list[Batches] = []
        #: Seconds from which the answer of a worker may have one of the slowest tasks.
        self.slow_seconds = _SLOW_SECONDS
        self._slowest: list[SlowTask] = []  # a heap
        self._workers: dict[object, WorkerTotals] = {}
        #: When workers got ready that were started in this call, by their slots.
        self.ready_at: dict[int, float] = {}
        self.deaths: list[tuple[int, str]] = []

    def begin_here(self) -> None:
        """Note that the tasks run in threads of this process."""
        self.runs_here = True
        self.processor_seconds = -process_time()

    def submit(self, at: float, seconds: float, tasks: int, nbytes: int) -> None:
        """Take in that a batch was submitted, which took so long."""
        batches = self.batches
        self.submitting += seconds
        self.submitted_nbytes += nbytes
        batches.append((at, 1, tasks, nbytes))
        if len(batches) >= _MOST_BATCHES:
            pairs = zip(batches[::2], batches[1::2], strict=True)
            self.batches = [
                (at, number + other[1], tasks + other[2], nbytes + other[3])
                for (at, number, tasks, nbytes), other in pairs
            ]

    def take(self, answer: Answer, batch: Batch) -> None:
        """Take in an answer about tasks of `batch`."""
        answers = self.answers
        answers.append(answer)
        if answer[4] > self.slow_seconds:
            self._note_slow(answer, batch)
        if len(answers) >= _MOST_ANSWERS:
            self._add_up()

    def _add_up(self) -> None:
        from parallel_core.insights.totals import WorkerTotals, key_of

        answers, self.answers = self.answers, []
        workers = self._workers
        for answer in answers:
            key = key_of(answer)
            totals = workers.get(key)
            if totals is None:
                totals = workers[key] = WorkerTotals(answer, self.began, self.is_local)
            totals.take(answer)

    def _note_slow(self, answer: Answer, batch: Batch) -> None:
        """Look for tasks among the slowest in an answer that took longer than `slow_seconds`."""
        _, worker, first, tasks, seconds, times = answer
        if times is None:
            return
        if times.marks and tasks > 1:
            marks = array("d")
            marks.frombytes(times.marks)
            at = (times.ended - seconds, *marks[::2], times.ended)
            if max(map(sub, at[1:], at)) <= self.slow_seconds:
                return
        elif tasks != 1:
            return
        from parallel_core.insights.words import words_for

        for span in times.spans(first, tasks, seconds):
            took = span.ended - span.began
            if span.tasks != 1 or took <= self.slow_seconds:
                continue
            words = words_for(batch, span.first - batch.start, self.is_held)
            entry = SlowTask(took, span.first, words, worker, span.began, span.ended)
            if len(self._slowest) < SLOWEST:
                heapq.heappush(self._slowest, entry)
            else:
                heapq.heapreplace(self._slowest, entry)
            if len(self._slowest) == SLOWEST:
                self.slow_seconds = self._slowest[0].seconds * _LONGER

    def note_deaths(self, deaths: Sequence[tuple[int, str]]) -> None:
        """Take in which workers have died in this call, and why."""
        self.deaths = list(deaths[:_MOST_DEATHS])

    @property
    def sent_nbytes(self) -> int:
        """Bytes of arguments that were sent, without those in shared memory."""
        return max(self.submitted_nbytes - self.shared_nbytes, 0)

    def note_repeated(self, repeats: RepeatedArguments) -> None:
        """Take in which large argument was pickled again and again."""
        if repeats.times >= _REPEATED and repeats.kind:
            seconds = self.encoding * min(repeats.nbytes / max(self.sent_nbytes, 1), 1.0)
            nbytes = repeats.nbytes // repeats.times
            self.repeated = RepeatedArgument(
                repeats.name, repeats.kind, nbytes, repeats.times, seconds
            )

    def end(self) -> bool:
        """Note the end of the call; return whether it took so long that more is worth a look."""
        global _latest
        _latest = self
        self.ended = monotonic()
        if self.runs_here:
            self.processor_seconds += process_time()
        return self.ended - self.began >= _LOOK_SECONDS

    @property
    def seconds(self) -> float:
        """Duration of the call, or its time so far."""
        return (self.ended or monotonic()) - self.began

    @property
    def slowest(self) -> list[SlowTask]:
        """The slowest tasks, slowest first."""
        return sorted(self._slowest, reverse=True)

    def workers(self) -> list[WorkerTotals]:
        """Return what is known of each worker, by number."""
        self._add_up()
        found = sorted(self._workers.values(), key=lambda totals: (totals.slot, totals.began))
        for number, totals in enumerate(found):
            totals.number = totals.slot if totals.slot >= 0 else number
        return found


#: That of the call which ended last.
_latest: CallRecord | None = None


def latest_record() -> CallRecord | None:
    """Return the record of the call of this process that ended last."""
    return _latest
