"""What one worker has done in a call, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from parallel_core.observe.events import TaskTimes

#: What the loop keeps of an answer: when it came, by whom, first task, number of tasks, seconds
#: that the worker was busy, and what it has measured.
Answer = tuple[float, "int | None", int, int, float, "TaskTimes | None"]

_MOST_SLICES = 400  # of one worker
_FIRST_WIDTH = 1e-4  # seconds; what is shorter is not told apart
_LATE_SECONDS = 60.0  # an answer that takes so long to arrive has the time of another machine


class Slice(NamedTuple):
    """Time in which a worker was busy, for a picture."""

    began: float
    ended: float
    tasks: int


def key_of(answer: Answer) -> object:
    """Return what tells the worker of an answer from others."""
    _, worker, _, _, _, times = answer
    if worker is not None:
        return worker
    return None if times is None else ("pid", times.pid)


class WorkerTotals:
    """Sums over the answers of one worker."""

    __slots__ = (
        "_shift",
        "_width",
        "answers",
        "began",
        "ended",
        "loading",
        "nbytes",
        "number",
        "pickling",
        "pid",
        "sending",
        "slices",
        "slot",
        "start_up",
        "tasks",
        "waiting",
        "working",
    )

    def __init__(self, answer: Answer, call_began: float, is_local: bool) -> None:
        at, worker, _, _, seconds, times = answer
        self.slot = -1 if worker is None else worker  #: -1 where the engine tells none
        self.number = self.slot
        self.pid = 0 if times is None else times.pid
        self._shift = 0.0  # from its clock to ours
        if times is not None and not is_local:
            late = at - times.ended
            self._shift = late if not 0 <= late < _LATE_SECONDS else 0.0
        #: Seconds of each part. `start_up` is what `Figures` takes from the first waiting.
        self.start_up = self.waiting = self.loading = self.working = 0.0
        self.pickling = self.sending = 0.0
        self.tasks = self.answers = self.nbytes = 0
        self.began = self._ended_of(at, times) - seconds  #: when its first task did, about
        self.ended = call_began  #: when its last answer was made
        self.slices: list[Slice] = []
        self._width = _FIRST_WIDTH

    def _ended_of(self, at: float, times: TaskTimes | None) -> float:
        return at if times is None else times.ended + self._shift

    def take(self, answer: Answer) -> None:
        """Add an answer."""
        at, _, first, tasks, seconds, times = answer
        ended = self._ended_of(at, times)
        began = ended - seconds
        gap = max(began - self.ended, 0.0)
        busy = seconds
        self.tasks += tasks
        self.answers += 1
        if times is not None:
            self.pid = times.pid
            self.nbytes += times.nbytes
            # Sending an answer belongs to the time before a batch, or to that of the next answer.
            sending = min(times.sending, gap + busy)
            before = min(sending, gap)
            gap -= before
            busy -= sending - before
            self.sending += sending
            loading = min(times.loading, busy)
            pickling = min(times.pickling, busy - loading)
            self.loading += loading
            self.pickling += pickling
            busy -= loading + pickling
        self.waiting += gap
        self.working += busy
        self.ended = max(ended, self.ended)
        if times is None or not times.marks or seconds < self._width:
            self._draw(Slice(began, ended, tasks))
        else:
            for span in times.spans(first, tasks, seconds):
                self._draw(Slice(span.began + self._shift, span.ended + self._shift, span.tasks))

    def _draw(self, new: Slice) -> None:
        """Add a slice; short ones that follow each other are one."""
        slices = self.slices
        last = slices[-1] if slices else None
        if (
            last is not None
            and new.began - last.ended < self._width
            and min(new.ended - new.began, last.ended - last.began) < self._width
        ):
            slices[-1] = Slice(last.began, max(last.ended, new.ended), last.tasks + new.tasks)
        else:
            slices.append(new)
        while len(slices) > _MOST_SLICES:
            self._width *= 2
            slices[:], before = [], list(slices)
            for one in before:
                self._join(one)

    def _join(self, new: Slice) -> None:
        slices = self.slices
        last = slices[-1] if slices else None
        if last is not None and new.ended - last.began < self._width:
            slices[-1] = Slice(last.began, max(last.ended, new.ended), last.tasks + new.tasks)
        else:
            slices.append(new)
