"""What a dashboard knows of one call: numbers, spans of tasks, workers, failures.

Everything is bounded: of what there may be much, the latest is kept.
"""

from __future__ import annotations

import enum
import json
from collections import deque
from collections.abc import Mapping
from typing import Any

from parallel_core.dashboard.processes import Usage

_SPAN_BYTES = 1 << 20  # of JSON, for a call that runs
_SPAN_BYTES_AFTER = 200 << 10
_POINTS = 600
_USAGE_POINTS = 120
_FAILURES = 100
_NEWS = 200
_FUNCTIONS = 200
_NUMBERS = ("completed", "total", "rate", "remaining", "failed", "retried", "resumed", "queue")


class State(enum.Enum):
    """What became of a call."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


class Spans:
    """The latest spans of tasks, as pieces of JSON."""

    def __init__(self) -> None:
        self._pieces: deque[str] = deque()
        self._nbytes = 0
        self.limit = _SPAN_BYTES

    def add(self, spans: list[Any]) -> None:
        """Keep `spans`, and drop the oldest if that is too much."""
        if spans:
            piece = json.dumps(spans, separators=(",", ":"))[1:-1]
            self._pieces.append(piece)
            self._nbytes += len(piece)
        while self._nbytes > self.limit and self._pieces:
            self._nbytes -= len(self._pieces.popleft())

    def as_json(self) -> str:
        """Return all of them as a list in JSON."""
        return f"[{','.join(self._pieces)}]"


class WatchedCall:
    """One call of a program."""

    def __init__(self, number: int, hello: Mapping[str, Any], pid: int) -> None:
        self.number = number
        self.pid = pid
        self.state = State.RUNNING
        self.heard_at = 0.0  #: when the program has told something, `time.monotonic`
        place = hello.get("place")
        self._fixed = {
            "id": number,
            "pid": pid,
            "program": str(hello.get("program", ""))[:300],
            "label": str(hello.get("label", ""))[:300],
            "backend": str(hello.get("backend", ""))[:100],
            "n_jobs": int(hello.get("n_jobs", 1)),
            "place": [str(each)[:500] for each in place] if isinstance(place, list) else None,
            "began": float(hello.get("began", 0.0)),
            "clock": float(hello.get("clock", 0.0)),
            "untold": int(hello.get("untold", 0)),
        }
        self._numbers: dict[str, Any] = dict.fromkeys(_NUMBERS)
        self._seconds = 0.0
        self._error: dict[str, str] | None = None
        self._functions: list[str] = []
        self._workers: list[list[Any]] = []
        self._spans = Spans()
        self._left_out = 0
        self._failures: deque[dict[str, Any]] = deque(maxlen=_FAILURES)
        self._news: deque[Any] = deque(maxlen=_NEWS)
        self._batches: deque[Any] = deque(maxlen=_POINTS)
        self._queue: deque[Any] = deque(maxlen=_POINTS)
        self._usage: dict[int, deque[Any]] = {}  # by process
        self._fresh = _nothing()
        self.has_changed = True  #: since the last `summary`

    def take(self, message: Mapping[str, Any]) -> None:
        """Take in what the program has told; raise ValueError or the like for nonsense."""
        self._seconds = float(message["at"])
        for name in _NUMBERS:
            value = message[name]
            if value is not None and not isinstance(value, (int, float)):
                raise ValueError(f"{name} must be a number, not {value!r}")
            self._numbers[name] = value
        functions = [str(name)[:200] for name in message["functions"]]
        self._functions += functions[: _FUNCTIONS - len(self._functions)]
        spans = message["spans"]
        for span in spans:
            if not all(isinstance(value, (int, float)) for value in span):
                raise ValueError(f"a span must have numbers, not {span!r}")
        self._spans.add(spans)
        self._left_out += int(message["left_out"])
        self._failures.extend(message["failures"])
        self._news.extend(message["news"])
        points = [[round(self._seconds, 2), self._numbers["queue"]]]
        self._batches.extend(message["batches"])
        self._queue.extend(points)
        self._workers = [list(worker) for worker in message["workers"]]
        fresh = self._fresh
        fresh["functions"] += functions
        fresh["spans"] += spans
        fresh["failures"] += message["failures"]
        fresh["news"] += message["news"]
        fresh["batches"] += message["batches"]
        fresh["queue"] += points
        self.has_changed = True
        ended = message.get("ended")
        if ended is not None:
            self._end(ended)

    def _end(self, ended: Any) -> None:
        if ended is True:
            self.finish(State.FINISHED)
            return
        self._error = {name: str(ended[name]) for name in ("type", "message", "traceback")}
        is_cancelled = ended["type"] == "CallCancelledError"
        self.finish(State.CANCELLED if is_cancelled else State.FAILED)

    def finish(self, state: State) -> None:
        """Note that nothing more will be told."""
        if self.state is not State.RUNNING:
            return
        self.state = state
        self._numbers["rate"] = self._numbers["rate"] if state is State.FINISHED else None
        self._numbers["remaining"] = None
        self._workers = []
        self._spans.limit = _SPAN_BYTES_AFTER
        self._spans.add([])
        self.has_changed = True

    def pids(self) -> set[int]:
        """Return the processes that work for it, and that of the program."""
        return {self.pid, *(int(worker[1]) for worker in self._workers)}

    def note_usage(self, usage: Mapping[int, Usage]) -> None:
        """Take in what its processes use now."""
        pids = self.pids()
        for pid in [pid for pid in self._usage if pid not in pids]:
            del self._usage[pid]
        for pid in pids & usage.keys():
            now = usage[pid]
            points = self._usage.setdefault(pid, deque(maxlen=_USAGE_POINTS))
            point = [round(self._seconds, 1), now.memory, round(now.cpu, 2)]
            points.append(point)
            self._fresh["usage"][str(pid)] = point
        self.has_changed = True

    def summary(self, now: float) -> dict[str, Any]:
        """Return what a list of calls shows of it."""
        self.has_changed = False
        busy = sum(worker[4] != "IDLE" for worker in self._workers)
        quiet = now - self.heard_at if self.state is State.RUNNING else 0.0
        return {
            **self._fixed,
            **self._numbers,
            "state": self.state.value,
            "seconds": self._seconds,
            "busy": busy,
            "workers": len(self._workers),
            "functions": self._functions[:3],
            "n_functions": len(self._functions),
            "quiet": round(quiet, 1),
            "error": None
            if self._error is None
            else f"{self._error['type']}: {self._error['message']}",
        }

    def news(self) -> str:
        """Return in JSON what is new since the last time, for whoever looks at its details."""
        fresh, self._fresh = self._fresh, _nothing()
        fresh |= {"id": self.number, "at": self._seconds, "workers": self._workers}
        fresh["left_out"], fresh["error"] = self._left_out, self._error
        return json.dumps(fresh, separators=(",", ":"))

    def forget_news(self) -> None:
        """Note that nobody looks at its details."""
        self._fresh = _nothing()

    def details(self) -> str:
        """Return in JSON everything that is kept."""
        shown = {
            "id": self.number,
            "at": self._seconds,
            "workers": self._workers,
            "left_out": self._left_out,
            "error": self._error,
            "functions": self._functions,
            "failures": list(self._failures),
            "news": list(self._news),
            "batches": list(self._batches),
            "queue": list(self._queue),
            "usage": {str(pid): list(points) for pid, points in self._usage.items()},
        }
        text = json.dumps(shown, separators=(",", ":"))
        return f'{text[:-1]},"spans":{self._spans.as_json()}}}'


def _nothing() -> dict[str, Any]:
    """Return what is new of a call of which nothing is."""
    found: dict[str, Any] = {
        name: [] for name in ("functions", "spans", "failures", "news", "batches", "queue")
    }
    found["usage"] = {}
    return found
