"""The rows of a trace: one for each worker, each thread that waits for results, and each engine.

A viewer knows a row by two numbers: that of a process, here always the caller's, and that of a
thread. Worker processes and the caller's threads have their own numbers of the system; what has
none gets one that no process can have.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from typing import Any

_FIRST_NUMBER = 10_000_000  # above all that a system gives


class Row:
    """A row of the viewer."""

    __slots__ = ("batch", "end", "shift", "tid")

    def __init__(self, tid: int) -> None:
        self.tid = tid  #: its number in the file
        self.end = 0  #: the time at which its last slice ends
        self.shift = 0  #: what to add to times by the clock of its machine
        self.batch: Any = None  #: the batch whose tasks it shows now, of the observer's own type


class Rows:
    """The rows of one file; `add` writes an event to it."""

    def __init__(self, pid: int, add: Callable[[str, str], object]) -> None:
        self._pid = pid
        self._add = add
        self._rows: dict[tuple[object, ...], Row] = {}
        self._taken: set[int] = set()
        self._numbers = itertools.count(_FIRST_NUMBER)

    def clear(self) -> None:
        """Forget all rows."""
        self._rows.clear()
        self._taken.clear()

    def of_caller(self) -> Row:
        """Return the row of this thread, which waits for results."""
        tid = threading.get_native_id()
        name = "caller"
        if threading.current_thread() is not threading.main_thread():
            name += f", {threading.current_thread().name}"
        return self._row(("caller", tid, name), tid, name, 0)

    def of_process(self, slot: int | None, pid: int) -> Row:
        """Return the row of a worker process, or of a process of an engine without slots."""
        name = f"process {pid}" if slot is None else f"worker {slot} (pid {pid})"
        return self._row((slot, pid), pid, name, 0 if slot is None else slot)

    def of_thread(self, call: int, slot: int) -> Row:
        """Return the row of a thread; `call` counts the calls that run at the same time."""
        name = f"worker {slot} (thread)"
        if call:
            name += f" of call {call + 1}"
        return self._row(("thread", call, slot), None, name, slot)

    def of_engine(self, call: int, engine: str, began: int) -> Row:
        """Return a row for tasks of an engine that does not tell its workers.

        Its last slice ends before `began`.
        """
        for lane in itertools.count():
            row = self._row((engine, call, lane), None, f"{engine}, row {lane}", lane)
            if row.end <= began:
                return row
        raise AssertionError("unreachable")

    def drop(self, slot: int, pid: int) -> None:
        """Forget a worker that has ended: there may be very many in the course of a run."""
        row = self._rows.pop((slot, pid), None)
        if row is not None:
            self._taken.discard(row.tid)

    def _row(self, key: tuple[object, ...], tid: int | None, name: str, order: int) -> Row:
        row = self._rows.get(key)
        if row is None:
            if tid is None or tid in self._taken:
                tid = next(self._numbers)
            self._taken.add(tid)
            self._rows[key] = row = Row(tid)
            place = 0 if key[0] == "caller" else order + 1
            for what, args in (
                ("thread_name", {"name": name}),
                ("thread_sort_index", {"sort_index": place}),
            ):
                said = {"ph": "M", "pid": self._pid, "tid": tid, "name": what, "args": args}
                self._add("rows", json.dumps(said, ensure_ascii=False))
        return row
