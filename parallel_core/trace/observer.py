"""Turns the events of one call into slices, counters and instants of a trace.

::

    BatchSubmitted ──▶ _Batch ──▶ BatchAnswered ──▶ slices on the worker's row: the batch, its tasks
    TasksPulled, CallerWaited ────────────────────▶ slices on the row of the thread of the call
    WorkersSeen, completed ───────────────────────▶ counters
    retries, failures, steals, starts, deaths ────▶ instants
    CallStarted, CallEnded ───────────────────────▶ one bar for the call

A viewer drops slices that overlap within a row without one being inside the other. So both ends
are rounded to whole nanoseconds, never the length, and none begins before the end of the last.
"""

from __future__ import annotations

import functools
import json
import os
from collections import deque
from time import monotonic_ns

from parallel_core.observe.events import (
    BatchAnswered,
    BatchSubmitted,
    CallEnded,
    CallerWaited,
    CallStarted,
    Event,
    ResultsResumed,
    Span,
    TaskFailed,
    TaskRetried,
    TasksPulled,
    TasksStolen,
    WorkerEnded,
    WorkersSeen,
    WorkerStarted,
)
from parallel_core.trace.file import TraceFile
from parallel_core.trace.rows import Row

_LOOK_SECONDS = 0.1
_COUNT_NS = 5_000_000  # between two values of a counter
_LEAST_LOADING = 20e-6  # seconds from which it is worth a slice
_CLOCK_SLACK_NS = 1_000_000  # by which clocks of one machine never differ
_RECENT = 64  # answers of which it is known who gave them
_SHORT = 5e-4  # seconds: tasks that are shorter are told together
_LONGEST = 300  # characters of an error


@functools.lru_cache(1024)
def _quoted(text: str) -> str:
    """Return text as JSON, with letters as they are: Perfetto shows their escapes."""
    return json.dumps(text, ensure_ascii=False)


def _args(named: dict[str, object]) -> str:
    return json.dumps(named, ensure_ascii=False)


class _Batch:
    """Tasks that were submitted together."""

    __slots__ = (
        "began",
        "ended",
        "first",
        "function",
        "left",
        "loading",
        "nbytes",
        "pickling",
        "seconds",
        "submitted",
        "tasks",
    )

    def __init__(self, event: BatchSubmitted, submitted: int) -> None:
        self.first = event.first
        self.function = event.function
        self.nbytes = event.nbytes
        self.seconds = event.seconds
        self.submitted = submitted  #: when it had been submitted
        self.left = event.tasks  #: tasks without an outcome
        self.tasks = 0  #: tasks with one
        self.began: int | None = None
        self.ended = 0
        self.loading = self.pickling = 0.0


class TraceObserver:
    """Writes what happens in one call to a file."""

    look_seconds = _LOOK_SECONDS
    records_each = True

    def __init__(self, file: TraceFile) -> None:
        self._own = file
        self._file: TraceFile | None = None  # while the call runs
        self._pid = os.getpid()
        self._number = 0
        self._lane = 0  # among the calls that write the file at the same time
        self._backend = ""
        self._caller = Row(0)
        self._began = 0
        self._in_flight: dict[int, _Batch] = {}  # by the position of the next task
        self._pids: dict[int, int] = {}  # of worker processes, by slot
        self._open_rows: list[Row] = []  # on which a batch is open
        self._recent: deque[tuple[int, int, Row]] = deque(maxlen=_RECENT)
        self._short: tuple[Span, str] | None = None  # short tasks of the caller, not written yet
        self._waited: tuple[int, int] | None = None  # from when to when; it may go on
        self._counted = 0
        self._submitted = 0  # the position behind all that was submitted

    def __repr__(self) -> str:
        return repr(self._own)

    def open(self) -> None:
        """Open the file; raise OSError if it cannot be written."""
        self._file = self._own.open()

    def notify(self, event: Event) -> None:
        """Write what has happened."""
        file = self._file
        if file is None:
            return
        try:
            with file.lock:
                self._take(event, file)
        except Exception:
            self._close()
            raise
        if isinstance(event, CallEnded):
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with file.lock:
                file.calls.discard(self._lane)
            file.close()

    def _take(self, event: Event, file: TraceFile) -> None:
        now = monotonic_ns() - file.began
        if not isinstance(event, (CallerWaited, WorkersSeen)):
            self._end_waiting(file)
        if self._short is not None and not isinstance(event, BatchAnswered):
            self._end_short(file)
        if isinstance(event, BatchAnswered):
            self._answered(event, file, now)
        elif isinstance(event, BatchSubmitted):
            self._submit(event, file, now)
        elif isinstance(event, TasksPulled):
            ended = _since(file, event.ended)
            self._on_caller(
                file, "pull", ended, event.seconds, f'"task":{event.first},"tasks":{event.tasks}'
            )
        elif isinstance(event, CallerWaited):
            self._wait(event, file)
        elif isinstance(event, WorkersSeen):
            self._seen(event, file, now)
        elif isinstance(event, ResultsResumed):
            self._count(file, now, event.completed)
        elif isinstance(event, TasksStolen):
            self._stolen(event, file, now)
        elif isinstance(event, (TaskFailed, TaskRetried)):
            self._failed(event, file, now)
        elif isinstance(event, (WorkerStarted, WorkerEnded)):
            self._worker(event, file, now)
        elif isinstance(event, CallStarted):
            self._start(event, file, now)
        elif isinstance(event, CallEnded):
            self._end(event, file, now)
        file.write_if_due(now)

    def _start(self, event: CallStarted, file: TraceFile, now: int) -> None:
        self._number, self._backend, self._began = event.call, event.backend, now
        self._lane = next(lane for lane in range(len(file.calls) + 1) if lane not in file.calls)
        file.calls.add(self._lane)
        self._caller = file.rows.of_caller()
        about = {"backend": event.backend, "n_jobs": event.n_jobs, "tasks": event.total}
        self._call(file, "b", now, event.label, _args(about))
        self._count(file, now, 0, is_forced=True)

    def _end(self, event: CallEnded, file: TraceFile, now: int) -> None:
        if not self._number:
            return  # it never began
        for row in tuple(self._open_rows):
            self._end_batch(row, file)
        self._count(file, now, event.completed, is_forced=True)
        about: dict[str, object] = {"completed": event.completed, "resumed": event.resumed}
        if event.error is not None:
            about["error"] = _words(event.error)
        self._call(file, "e", now, "", _args(about))

    def _call(self, file: TraceFile, phase: str, now: int, name: str, args: str) -> None:
        """Begin or end the bar of the call; those of several calls may overlap."""
        file.add(
            "calls",
            f'{{"ph":"{phase}","cat":"call","id2":{{"local":"{self._number:#x}"}},"pid":{self._pid},'
            f'"tid":{self._caller.tid},"ts":{_us(now)},"name":{_quoted(name or "call")},'
            f'"args":{args}}}',
        )

    def _submit(self, event: BatchSubmitted, file: TraceFile, now: int) -> None:
        self._submitted = max(self._submitted, event.first + event.tasks)
        self._in_flight[event.first] = _Batch(event, now)
        args = f'"task":{event.first},"tasks":{event.tasks},"bytes":{event.nbytes}'
        self._on_caller(file, "submit", now, event.seconds, args)

    def _wait(self, event: CallerWaited, file: TraceFile) -> None:
        """Note that the thread of the call waited; pauses in which it looked at workers go on."""
        ended = _since(file, event.ended)
        began = max(ended - _ns(event.seconds), self._began)
        if self._waited is not None:
            began = self._waited[0]
        self._waited = began, ended

    def _end_waiting(self, file: TraceFile) -> None:
        waited, self._waited = self._waited, None
        if waited is not None:
            self._slice(file, self._caller, "wait", "caller", *waited)

    def _on_caller(self, file: TraceFile, name: str, ended: int, seconds: float, args: str) -> None:
        began = max(ended - _ns(seconds), self._began)
        self._slice(file, self._caller, name, "caller", began, ended, args)

    def _answered(self, event: BatchAnswered, file: TraceFile, now: int) -> None:
        first, tasks, times = event.first, event.tasks, event.times
        batch = self._in_flight.pop(first, None)
        if times is None:
            ended = (now + file.began) / 1e9
            spans = [Span(first, tasks, ended - event.seconds, ended)] if tasks else []
            loading = pickling = 0.0
        else:
            spans = times.spans(first, tasks, event.seconds)
            loading, pickling = times.loading, times.pickling
        row = self._row_of(event, file, spans)
        if batch is not None:
            batch.left -= tasks
            if batch.left > 0:  # the rest comes with the next answer
                self._in_flight.setdefault(first + tasks, batch)
        if spans:
            self._recent.append((first, first + tasks, row))
            if row is self._caller:
                batch = None  # there are no batches
            else:
                self._set_clock(row, batch, spans, file, now)
                self._begin_batch(row, batch, spans[0], loading, file)
            function = event.function or ("" if batch is None else batch.function) or "task"
            for span in spans:
                if row is self._caller and span.ended - span.began < _SHORT:
                    self._short_task(span, function, file)
                else:
                    self._end_short(file)
                    self._task(row, span, function, file)
        if batch is not None:
            batch.tasks += tasks
            batch.loading += loading
            batch.pickling += pickling
            batch.ended = row.end
            if batch.left <= 0 and row.batch is batch:
                self._end_batch(row, file)
        self._count(file, now, event.completed)

    def _row_of(self, event: BatchAnswered, file: TraceFile, spans: list[Span]) -> Row:
        slot = event.worker
        pid = None if event.times is None else event.times.pid
        if pid == self._pid:
            pid = None
        if pid is None and slot is not None:
            pid = self._pids.get(slot)
        if pid is not None or slot is not None:
            return self._row(file, slot, pid)
        if self._backend == "sequential":
            return self._caller
        began = max(_since(file, spans[0].began), 0) if spans else 0
        return file.rows.of_engine(self._lane, self._backend, began)

    def _row(self, file: TraceFile, slot: int | None, pid: int | None) -> Row:
        """Return the row of a worker; those that are threads have the caller's process id."""
        if pid is not None and pid != self._pid:
            return file.rows.of_process(slot, pid)
        assert slot is not None
        return file.rows.of_thread(self._lane, slot)

    def _set_clock(
        self, row: Row, batch: _Batch | None, spans: list[Span], file: TraceFile, now: int
    ) -> None:
        """Notice a worker whose clock is another one, on another machine."""
        least = self._began if batch is None else batch.submitted
        began, ended = _since(file, spans[0].began), _since(file, spans[-1].ended)
        slack = _CLOCK_SLACK_NS + (0 if batch is None else _ns(batch.seconds))
        latest = now + _CLOCK_SLACK_NS
        if not row.shift and least - slack <= began and ended <= latest:
            return
        if not row.shift or not least - slack <= ended + row.shift <= latest:
            row.shift = now - ended

    def _begin_batch(
        self, row: Row, batch: _Batch | None, span: Span, loading: float, file: TraceFile
    ) -> None:
        """Begin the slice of a batch with its first task; the slice is written when it ends."""
        if row.batch is not None and row.batch is not batch:
            self._end_batch(row, file)
        if batch is None or row.batch is batch:
            return
        task_began = max(_since(file, span.began) + row.shift, row.end)
        batch.began = max(task_began - _ns(loading), row.end)
        batch.tasks = 0
        row.batch = batch
        self._open_rows.append(row)
        if loading > _LEAST_LOADING and batch.began < task_began:
            row.end = task_began
            self._slice(file, row, "load", "batch", batch.began, task_began)

    def _end_batch(self, row: Row, file: TraceFile) -> None:
        batch, row.batch = row.batch, None
        if row in self._open_rows:
            self._open_rows.remove(row)
        if batch is None or batch.began is None:
            return
        name = f"batch of {batch.tasks}"
        args = f'"task":{batch.first},"tasks":{batch.tasks},"bytes":{batch.nbytes}'
        if batch.loading or batch.pickling:
            args += f',"loading_us":{batch.loading * 1e6:.1f}'
            args += f',"pickling_us":{batch.pickling * 1e6:.1f}'
        self._slice(file, row, name, "batch", batch.began, batch.ended, args)
        submitted = max(batch.submitted - _ns(batch.seconds), self._began)
        if batch.seconds and submitted <= batch.ended:  # an arrow from there
            flow = file.next_flow()
            began = max(batch.began, submitted)
            ends = ('s"', self._caller, submitted), ('f","bp":"e"', row, began)
            for phase, row_of_end, ts in ends:
                file.add(
                    "arrows",
                    f'{{"ph":"{phase},"cat":"batch","name":"batch","id":{flow},'
                    f'"pid":{self._pid},"tid":{row_of_end.tid},"ts":{_us(ts)}}}',
                )
        batch.began = None  # what more comes of it begins anew

    def _short_task(self, span: Span, function: str, file: TraceFile) -> None:
        """Tell tasks together that the plain loop tells one by one."""
        short = self._short
        if short is not None:
            last, name = short
            if (
                name == function
                and span.first == last.first + last.tasks
                and span.began - last.ended < _SHORT / 10
                and span.ended - last.began < 2 * _SHORT
            ):
                last = last._replace(tasks=last.tasks + span.tasks, ended=span.ended)
                self._short = last, name
                return
            self._end_short(file)
        self._short = span, function

    def _end_short(self, file: TraceFile) -> None:
        short, self._short = self._short, None
        if short is not None:
            self._task(self._caller, *short, file)

    def _task(self, row: Row, span: Span, function: str, file: TraceFile) -> None:
        began = _since(file, span.began) + row.shift
        ended = _since(file, span.ended) + row.shift
        if row is not self._caller:  # there, calls within tasks have slices of their own
            began = max(began, row.end)
            ended = row.end = max(ended, began)
        name = function if span.tasks == 1 else f"{function} ×{span.tasks}"
        args = f'"task":{span.first},"tasks":{span.tasks}'
        self._slice(file, row, name, "task", began, ended, args, count=span.tasks)

    def _slice(
        self,
        file: TraceFile,
        row: Row,
        name: str,
        kind: str,
        began: int,
        ended: int,
        args: str = "",
        count: int = 1,
    ) -> None:
        began = max(began, 0)
        length = max(ended - began, 0)
        file.add(
            f"{kind}s" if kind != "batch" else "batches",
            f'{{"ph":"X","pid":{self._pid},"tid":{row.tid},"ts":{_us(began)},"dur":{_us(length)},'
            f'"name":{_quoted(name)},"cat":"{kind}","args":{{{args}}}}}',
            count,
        )

    def _instant(
        self, file: TraceFile, row: Row, now: int, name: str, args: dict[str, object]
    ) -> None:
        file.add(
            "instants",
            f'{{"ph":"i","s":"t","pid":{self._pid},"tid":{row.tid},"ts":{_us(now)},'
            f'"name":{_quoted(name)},"cat":"event","args":{_args(args)}}}',
        )

    def _stolen(self, event: TasksStolen, file: TraceFile, now: int) -> None:
        for position, batch in self._in_flight.items():
            if position <= event.first < position + batch.left:
                batch.left = event.first - position
                if not batch.left:
                    del self._in_flight[position]
                    for row in [row for row in self._open_rows if row.batch is batch]:
                        self._end_batch(row, file)
                break
        args: dict[str, object] = {"task": event.first, "tasks": event.tasks}
        self._instant(file, self._caller, now, "steal", args)

    def _failed(self, event: TaskFailed | TaskRetried, file: TraceFile, now: int) -> None:
        position = event.position
        row = self._caller
        for first, behind, known in reversed(self._recent):
            if first <= position < behind:
                row = known
                break
        args: dict[str, object] = {"task": position, "error": _words(event.error)}
        what = "failure"
        if isinstance(event, TaskRetried):
            what, args["seconds"] = "retry", event.seconds
        # In a batch that is still open, a task may follow that began before.
        at = min(now, row.end) if row is not self._caller and row.end else now
        self._instant(file, row, at, f"{what}: {type(event.error).__name__}", args)

    def _worker(self, event: WorkerStarted | WorkerEnded, file: TraceFile, now: int) -> None:
        row = self._row(file, event.worker, event.pid)
        args: dict[str, object] = {"worker": event.worker, "pid": event.pid}
        if isinstance(event, WorkerStarted):
            self._pids[event.worker] = event.pid
            self._instant(file, row, now, "worker is ready", args)
            return
        self._end_batch(row, file)
        self._instant(file, row, now, "worker ended", {**args, "reason": event.reason})
        if self._pids.get(event.worker) == event.pid:
            del self._pids[event.worker]
        file.rows.drop(event.worker, event.pid)

    def _seen(self, event: WorkersSeen, file: TraceFile, now: int) -> None:
        if event.workers:
            busy = sum(view.phase != "IDLE" for view in event.workers)
            self._counter(file, now, "workers busy", busy)
            if memory := sum(view.memory for view in event.workers):
                self._counter(file, now, "memory of workers (MB)", round(memory / 1e6, 3))
        self._count(file, now, event.completed)

    def _count(self, file: TraceFile, now: int, completed: int, is_forced: bool = False) -> None:
        """Write how far the call is, now and then."""
        if is_forced or now - self._counted >= _COUNT_NS:
            self._counted = now
            waiting = max(self._submitted - completed, 0)
            self._counter(file, now, "tasks done", completed)
            self._counter(file, now, "tasks submitted, not done", waiting)

    def _counter(self, file: TraceFile, now: int, name: str, value: float) -> None:
        if self._lane:
            name += f", call {self._lane + 1}"
        file.add(
            "counters",
            f'{{"ph":"C","pid":{self._pid},"ts":{_us(now)},"name":{_quoted(name)},'
            f'"args":{{"value":{value}}}}}',
        )


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _since(file: TraceFile, at: float) -> int:
    """Return a time by `time.monotonic` as nanoseconds since the file was begun."""
    return _ns(at) - file.began


def _us(nanoseconds: int) -> str:
    """Return nanoseconds as the microseconds of the format, to the last digit."""
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03d}"


def _words(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # whatever the user's class does
        text = type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
