"""What a worker measures while it runs tasks: when they began, and what it spends beside them.

::

    hot loop ── mark, at most every MARK_SECONDS ──▶ Recorder ── take ──▶ Answer.times
    frames, functions, arguments, results ── seconds ──▶ │

Tiny tasks are not measured one by one, since reading the clock would take as long as the task. A
*mark* says which task began when. There is one for each task that takes `MARK_SECONDS` or more; the
tasks between two others are told together.

Unpickling an argument or pickling a result is measured for each task where tasks take longer than
`_EACH_SECONDS`; else between two marks now and then, and estimated in between.
"""

from __future__ import annotations

import os
from array import array
from time import monotonic
from typing import Any

MARK_SECONDS = 5e-4
_EACH_SECONDS = 5e-5
_ONE_IN = 16  # of the times between two marks, where tasks are shorter
_SOON_SECONDS = 1e-4  # after which the first task of an answer needs no mark
#: Numbers in the marks of one answer. Where answers are rare, what comes later is told as one.
_MOST = 1 << 13


class Recorder:
    """What is measured of one worker, or of one batch where the worker belongs to an engine."""

    __slots__ = (
        "_at",
        "_began",
        "_ended",
        "_intervals",
        "_marks",
        "_number",
        "_pid",
        "_shares",
        "_spent",
        "is_timing",
        "loading",
        "pickling",
        "sending",
        "unpickled",
        "unpickling",
    )

    def __init__(self) -> None:
        #: Seconds that the next batch took to unpickle as a message.
        self.unpickled = 0.0
        #: Seconds since the last answer: of loading the batch and functions, of unpickling
        #: arguments, of pickling results, and of sending that answer.
        self.loading = self.unpickling = self.pickling = self.sending = 0.0
        #: Whether each task is measured until the next mark.
        self.is_timing = True
        self._pid = os.getpid()
        self._marks = array("d")
        self._began = self._at = 0.0  # of this answer, and of the time since the last mark
        self._ended = 0.0  # when the last batch was done with
        self._number = 0  # of the task at the last mark
        self._intervals = 0
        self._spent = 0.0, 0.0  # on unpickling and pickling, up to the last mark
        self._shares = 0.0, 0.0  # of the time that was measured last

    def begin(self, now: float, number: int) -> float:
        """Begin a batch after task `number`; return since when this worker was busy with it."""
        self._at, self._number, self._began = now, number, now
        if self.unpickled:
            spent = max(min(self.unpickled, now - self._ended), 0.0)
            self.unpickled = 0.0
            self.loading += spent
            self._began -= spent
        return self._began

    def add(self, index: int, at: float) -> None:
        """Note that the task of an index in the next answer began then."""
        marks = self._marks
        if index <= 0 and (index < 0 or at - self._began < _SOON_SECONDS):
            return
        if (not marks or marks[-1] < index) and len(marks) < _MOST:
            marks.append(at)
            marks.append(index)

    def end_interval(self, now: float, number: int) -> None:
        """Take in the time up to the mark at task `number`, and decide about the time after it."""
        elapsed, tasks = now - self._at, number - self._number
        if elapsed > 0:
            if self.is_timing:
                before = self._spent
                self._shares = (
                    (self.unpickling - before[0]) / elapsed,
                    (self.pickling - before[1]) / elapsed,
                )
            else:
                self.unpickling += self._shares[0] * elapsed
                self.pickling += self._shares[1] * elapsed
            self._intervals += 1
            self.is_timing = elapsed > _EACH_SECONDS * tasks or not self._intervals % _ONE_IN
        self._at, self._number = now, number
        self._spent = self.unpickling, self.pickling

    def take(self, ended: float, number: int, nbytes: int) -> tuple[Any, ...]:
        """Return the fields of the `TaskTimes` of an answer after task `number`, and begin anew."""
        if not self.is_timing:
            self.end_interval(ended, number)
        self._number, self._began = number, ended
        loading, pickling = self.loading + self.unpickling, self.pickling
        sending, marks = self.sending, self._marks
        if not (loading or pickling or nbytes or marks or sending > MARK_SECONDS):
            return self._pid, ended
        self.loading = self.unpickling = self.pickling = self.sending = 0.0
        self._spent = 0.0, 0.0
        self._marks = array("d")
        return self._pid, ended, loading, pickling, sending, nbytes, marks.tobytes()

    def resume(self, ended: float) -> None:
        """Go on, after an answer that was ready at `ended` was sent."""
        self._at = self._ended = now = monotonic()
        self.sending += now - ended
