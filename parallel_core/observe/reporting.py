"""Tells a dashboard of a call: an observer that sends what is new, ten times a second.

::

    events of the call ──▶ Reporter: numbers, spans, failures ── JSON ──▶ dashboard
                              │  ◀── commands: cancel, stack, end a worker ──┘
                              └─▶ WorkerControl, of the session

All of it happens in the thread that waits for the results, and none of it waits: what a dashboard
does not take in time is left out. One that ends costs nothing; the next one is found.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from time import monotonic
from typing import Any, NamedTuple, Protocol

from parallel_core import config
from parallel_core.errors import CallCancelledError, is_our_file, is_ours
from parallel_core.observe import listener
from parallel_core.observe.events import (
    BatchAnswered,
    BatchSubmitted,
    CallEnded,
    CallStarted,
    Event,
    TaskFailed,
    TasksStolen,
    WorkerEnded,
    WorkersSeen,
    WorkerView,
)
from parallel_core.observe.progress import Progress, ProgressObserver, Wanted

LOOK_SECONDS = 0.1
_MERGED_SECONDS = 0.025  # spans of a worker that are shorter than this together are one
_MOST_SPANS = 1500  # in a message
_MOST_WORKERS = 256
_MOST_FAILURES = 5
_LONGEST_TEXT = 6000
_STACK_SECONDS = 1.0  # for a worker to write its stack
_SHORT_CALLS = 20  # calls that are over before the first message, in a second

#: How far out of the frames that call this library the one is that a dashboard shows.
stacklevel = 1
#: When the latest short calls were told of, and how many have not been.
_told: deque[float] = deque(maxlen=_SHORT_CALLS)
_untold = 0


class WorkerControl(Protocol):
    """What can be done with single workers of a session, by their slots."""

    def ask_for_stack(self, slot: int) -> bool:
        """Have a worker write its stack; return whether it can."""

    def stack_of(self, slot: int) -> str:
        """Return what it has written since; empty if nothing."""

    def end_worker(self, slot: int) -> bool:
        """End a worker, and so its task; return whether that is possible."""


def find_reporter(label: str) -> Reporter | None:
    """Return what tells the dashboard of a call that begins or runs; None where there is none.

    Calls within tasks are not told of.
    """
    if config.nesting_level() or not listener.has_listener():
        return None
    return Reporter(label)


class Place(NamedTuple):
    """Where in the code of a program a call is made."""

    file: str
    line: int
    function: str


def place_of_call() -> Place | None:
    """Return where the caller of this library is; None in a thread that only this library uses."""
    frame = sys._getframe(1)
    while is_ours(frame):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    for _ in range(stacklevel - 1):
        frame = frame.f_back or frame
    code = frame.f_code
    if code.co_name == "run" and frame.f_globals.get("__name__") == "threading":
        return None
    return Place(code.co_filename, frame.f_lineno, code.co_name)


class Reporter:
    """Observer that tells a dashboard of one call, and does what that asks for."""

    look_seconds = LOOK_SECONDS

    def __init__(self, label: str) -> None:
        self.control: WorkerControl | None = None  #: of the session, once there is one
        self._place = place_of_call()
        self._started = CallStarted(0, "", 1, label)
        self._began = monotonic()
        self._began_at = time.time()
        wanted = Wanted(self, {"interval": LOOK_SECONDS})
        self._progress = ProgressObserver(wanted, lambda wanted, now: self)
        self._connection: listener.Connection | None = None
        self._connect_again = 0.0
        self._is_cancelled = False
        self._in_flight = 0
        self._functions: dict[str, int] = {}  # by name, their numbers
        self._new_functions: list[str] = []
        self._function_at: dict[int, int] = {}  # by the first position of batches at workers
        self._function_of: dict[int | None, int] = {}  # by worker
        self._spans: list[list[Any]] = []
        self._latest: dict[int | None, list[Any]] = {}  # the span of each worker that may grow
        self._left_out = 0
        self._batches: list[tuple[float, int]] = []
        self._answer: BatchAnswered | None = None
        self._failures: list[dict[str, Any]] = []
        self._news: list[tuple[float, str]] = []
        self._workers: tuple[WorkerView, ...] = ()
        self._asked_stacks: list[tuple[int, int, float]] = []  # command, worker, until when
        self._answers: list[dict[str, Any]] = []
        self._ended: CallEnded | None = None

    def __repr__(self) -> str:
        return "the reporter to the dashboard"

    def join(self, started: CallStarted, began: float, completed: int) -> None:
        """Begin in the middle of a call, of which so many tasks are done."""
        self._started, self._began = started, began
        self._began_at -= monotonic() - began
        self._progress.join(started, began, completed)

    def notify(self, event: Event) -> None:
        """Take in what has happened, and send it if it is time to.

        Raises CallCancelledError where the dashboard has asked for that.
        """
        kind = type(event)
        if kind is BatchAnswered:
            self._note_answer(event)  # type: ignore[arg-type] # its type was compared
        elif kind is BatchSubmitted:
            self._note_batch(event)  # type: ignore[arg-type] # its type was compared
        elif isinstance(event, WorkersSeen):
            self._workers = event.workers
        elif isinstance(event, TaskFailed):
            self._note_failure(event)
        elif isinstance(event, TasksStolen):
            self._in_flight -= event.tasks
        elif isinstance(event, WorkerEnded):
            words = f"Worker {event.worker} (process {event.pid}) {event.reason}"
            self._news.append((self._now(), words))
        elif isinstance(event, CallStarted):
            self._started = event
        elif isinstance(event, CallEnded):
            self._ended = event
        self._progress.notify(event)
        if self._is_cancelled and isinstance(event, (BatchAnswered, WorkersSeen)):
            label = self._started.label
            raise CallCancelledError(f"the call of {label} was cancelled from the dashboard")

    def show(self, now: Progress) -> None:
        """Send what is new; called by the progress of the call, when it is time to."""
        if self._ended is not None and self._connection is None and not _may_tell_short(now):
            return
        try:
            if self._connection is not None or self._connect():
                self._follow_commands()
                self._send(now)
        except OSError:  # the dashboard has ended
            self._disconnect()

    def close(self, now: Progress) -> None:
        """Let go of the dashboard."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _now(self) -> float:
        """Return the seconds since the call began."""
        return round(monotonic() - self._began, 4)

    def _connect(self) -> bool:
        if monotonic() < self._connect_again:
            return False
        self._connection = listener.connect()
        if self._connection is None:
            self._connect_again = monotonic() + listener.LOOK_SECONDS
            return False
        self._new_functions = list(self._functions)
        if not self._connection.send(self._hello()):
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        self._connect_again = monotonic() + listener.LOOK_SECONDS
        if connection is not None:
            connection.close()

    def _hello(self) -> dict[str, Any]:
        global _untold
        untold, _untold = _untold, 0
        place, source = self._place, ""
        if place is not None:
            import linecache

            source = linecache.getline(place.file, place.line).strip()[:200]
        started = self._started
        return {
            "hello": 1,
            "pid": os.getpid(),
            "program": _program(),
            "label": started.label,
            "backend": started.backend,
            "n_jobs": started.n_jobs,
            "place": None if place is None else [*place, source],
            "began": self._began_at,
            "clock": self._began,
            "untold": untold,
        }

    def _note_batch(self, event: BatchSubmitted) -> None:
        self._in_flight += event.tasks
        number = self._functions.get(event.function)
        if number is None:
            number = self._functions[event.function] = len(self._functions)
            self._new_functions.append(event.function)
        self._function_at[event.first] = number
        if len(self._batches) < _MOST_SPANS:
            self._batches.append((self._now(), event.tasks))

    def _note_answer(self, event: BatchAnswered) -> None:
        worker, times = event.worker, event.times
        self._in_flight -= event.tasks
        self._answer = event
        if event.first in self._function_at:
            self._function_of[worker] = self._function_at.pop(event.first)
        function = self._function_of.get(worker, 0)
        until = monotonic() if times is None else times.ended
        if times is None or len(times.marks) <= 16 or not _is_worth_spans(event, len(times.marks)):
            self._add(worker, until - event.seconds, until, event.tasks, function, event.first)
            return
        for span in times.spans(event.first, event.tasks, event.seconds):
            self._add(worker, span.began, span.ended, span.tasks, function, span.first)

    def _add(
        self, worker: int | None, began: float, ended: float, tasks: int, function: int, first: int
    ) -> None:
        """Note when a worker ran tasks; what is short goes with what came before."""
        latest = self._latest.get(worker)
        if (
            latest is not None
            and ended - latest[1] < _MERGED_SECONDS
            and latest[3] == function
            and began >= latest[1]
        ):
            latest[2] = ended
            latest[4] += tasks
            latest[5] += ended - began
        elif len(self._spans) >= _MOST_SPANS:
            self._left_out += tasks
        else:
            latest = [worker, began, ended, function, tasks, ended - began, first]
            self._latest[worker] = latest
            self._spans.append(latest)

    def _note_failure(self, event: TaskFailed) -> None:
        if len(self._failures) >= _MOST_FAILURES:
            return  # they are counted all the same
        answer, worker = self._answer, None
        if answer is not None and answer.first <= event.position < answer.first + answer.tasks:
            worker = answer.worker
        shown = _shown(event.error)
        self._failures.append(
            {"position": event.position, "worker": worker, "at": self._now(), **shown}
        )

    def _follow_commands(self) -> None:
        assert self._connection is not None
        for command in self._connection.receive():
            self._follow(command)
        control, left = self.control, []
        for number, worker, until in self._asked_stacks:
            text = "" if control is None else control.stack_of(worker)
            if text:
                self._answers.append({"command": number, "done": True, "text": text[:20000]})
            elif monotonic() > until:
                words = f"worker {worker} has not written its stack"
                self._answers.append({"command": number, "done": False, "text": words})
            else:
                left.append((number, worker, until))
        self._asked_stacks = left

    def _follow(self, command: dict[str, Any]) -> None:
        number, what, worker = command.get("command"), command.get("do"), command.get("worker")
        if not isinstance(number, int):
            return
        is_done, words, control = False, "this call has no such workers", self.control
        if what == "cancel":
            self._is_cancelled = is_done = True
            words = "the call ends"
        elif control is not None and isinstance(worker, int):
            if what == "stack" and control.ask_for_stack(worker):
                until = monotonic() + _STACK_SECONDS
                self._asked_stacks.append((number, worker, until))
                return
            if what == "end" and control.end_worker(worker):
                is_done, words = True, f"worker {worker} is being ended"
        self._answers.append({"command": number, "done": is_done, "text": words})

    def _send(self, now: Progress) -> None:
        """Send everything that is new; keep it for the next time if there is no room."""
        assert self._connection is not None
        ended = self._ended
        message: dict[str, Any] = {
            "at": self._now(),
            "completed": now.completed,
            "total": now.total,
            "rate": now.rate,
            "remaining": now.remaining,
            "failed": now.failed,
            "retried": now.retried,
            "resumed": now.resumed,
            "queue": max(self._in_flight, 0),
            "functions": self._new_functions,
            "spans": [self._packed(span) for span in self._spans],
            "left_out": self._left_out,
            "batches": self._batches,
            "failures": self._failures,
            "news": self._news[-20:],
            "workers": [_packed_view(view) for view in self._workers[:_MOST_WORKERS]],
            "answers": self._answers,
        }
        if ended is not None:
            message["ended"] = True if ended.error is None else _shown(ended.error)
        if self._connection.send(message):
            self._failures, self._news, self._answers = [], [], []
            self._new_functions, self._left_out = [], 0
        else:
            self._left_out += sum(span[4] for span in self._spans)
            self._news = self._news[-20:]
        self._spans, self._batches, self._latest = [], [], {}

    def _packed(self, span: list[Any]) -> list[Any]:
        worker, began, ended, function, tasks, busy, first = span
        seconds = max(ended - began, 1e-6)
        start = round(began - self._began, 4)
        share = round(min(busy / seconds, 1.0), 2)
        return [
            -1 if worker is None else worker,
            start,
            round(seconds, 4),
            function,
            tasks,
            share,
            first,
        ]


def _may_tell_short(now: Progress) -> bool:
    """Whether to tell of a call that is over already: not of each where there are very many."""
    global _untold
    if now.seconds >= LOOK_SECONDS:
        return True
    at = monotonic()
    if len(_told) == _SHORT_CALLS and at - _told[0] < 1.0:
        _untold += 1
        return False
    _told.append(at)
    return True


def _is_worth_spans(event: BatchAnswered, nbytes: int) -> bool:
    """Whether the tasks of an answer are long enough to be shown apart."""
    return event.seconds > _MERGED_SECONDS / 16 * (nbytes / 16)


def _packed_view(view: WorkerView) -> list[Any]:
    return [
        view.worker,
        view.pid,
        view.queued,
        view.memory,
        view.phase,
        view.position,
        round(view.seconds, 2),
        view.done,
    ]


def _shown(error: BaseException) -> dict[str, str]:
    """Return type, message and traceback of an error, of bounded size."""
    from traceback import TracebackException

    try:
        found: TracebackException | None = TracebackException.from_exception(error)
        shown = found
        while found is not None:  # frames of this library say nothing about a task
            found.stack[:] = [frame for frame in found.stack if not is_our_file(frame.filename)]
            found = found.__cause__
        assert shown is not None
        text, message = "".join(shown.format()), str(error)
    except Exception as raised:  # a class of the user
        text = message = f"(it cannot be shown: {type(raised).__name__})"
    if len(text) > _LONGEST_TEXT:
        half = _LONGEST_TEXT // 2
        text = f"{text[:half]}\n ... left out ...\n{text[-half:]}"
    return {"type": type(error).__name__, "message": message[:500], "traceback": text}


def _program() -> str:
    """Return what the user knows this program by."""
    if "ipykernel" in sys.modules:
        return "notebook"
    name = getattr(sys, "argv", None) or [""]
    return (name[0] if name[0] not in ("", "-c") else f"python {name[0]}".strip())[:300]
