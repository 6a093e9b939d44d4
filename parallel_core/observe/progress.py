"""The progress of a call, as a bar, as lines of a log, or for a function of the user.

::

    progress=... ──▶ Wanted ── a call begins ──▶ ProgressObserver ── ten times a second ──▶ Display
                                    events of the call ──▶ │ Meter: rate, remaining time      │
                                                           └──────────▶ Progress ─────────────┘

An observer of the call keeps the numbers, in the thread that waits for the results; no thread of
its own draws. `bars` has the displays.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple, Protocol

from parallel_core import config
from parallel_core.observe.events import (
    BatchAnswered,
    CallEnded,
    CallStarted,
    Event,
    ResultsResumed,
    TaskFailed,
    TaskRetried,
    WorkersSeen,
)

#: What may be passed as `progress`.
ProgressLike = bool | str | Callable[["Progress"], object] | Mapping[str, Any] | None
VARIABLE = "PARALLEL_CORE_PROGRESS"
STYLES = ("tqdm", "rich", "notebook", "log")
LOOK_SECONDS = 0.1

_AUTO = "auto"
_MEMORY_SECONDS = 15.0  # in which the weight of what was measured for the rate falls to a third
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False}
_WORDS |= {"no": False, "off": False}


class Progress(NamedTuple):
    """Progress of a call: what a function gets that was passed as `progress`.

    Attributes
    ----------
    label : str
        The `Parallel` object in words.
    completed : int
        Number of tasks that are done: with results, failed, or resumed from a journal.
    total : int or None
        Number of tasks, if it is known.
    seconds : float
        Time since the call began.
    rate : float or None
        Tasks per second, with more weight on recent ones; None at first.
    remaining : float or None
        Estimated seconds until the end, if `total` is known.
    busy, workers : int
        Numbers of workers that have something to do, and of all workers. Both are 0 if the engine
        does not tell.
    failed, retried, resumed : int
        Numbers of tasks that failed, of retries, and of results from the journal.
    is_over : bool
        Whether the call has ended.
    error : BaseException or None
        Exception that ended it.

    Examples
    --------
    >>> from parallel_core import Parallel, delayed
    >>> seen = []
    >>> Parallel(n_jobs=2, progress=seen.append)(delayed(abs)(x) for x in range(3))
    [0, 1, 2]
    >>> seen[-1].completed, seen[-1].total, seen[-1].is_over
    (3, 3, True)
    """

    label: str
    completed: int = 0
    total: int | None = None
    seconds: float = 0.0
    rate: float | None = None
    remaining: float | None = None
    busy: int = 0
    workers: int = 0
    failed: int = 0
    retried: int = 0
    resumed: int = 0
    is_over: bool = False
    error: BaseException | None = None


class Wanted(NamedTuple):
    """What is to be shown, checked: a style, or a function or class, and options."""

    style: Any = _AUTO
    options: Mapping[str, Any] = {}

    @property
    def draws(self) -> bool:
        """Whether it is written somewhere, and not for a function of the user alone."""
        return isinstance(self.style, str) or is_bar_class(self.style)


def check_progress(given: Any, whose: str = "progress") -> Wanted | None:
    """Return what is to be shown; None for nothing. Raise unless it is known and can be had."""
    if given is None or given is False:
        return None
    if isinstance(given, Wanted):
        return given
    options: dict[str, Any] = {}
    style: Any = given
    if isinstance(given, Mapping):
        options = dict(given)
        if not all(isinstance(name, str) for name in options):
            raise TypeError(f"{whose}: names of options must be strings, not {given!r}")
        style = options.pop("style", True)
        whose += "['style']"
    if style is True:
        style = _AUTO
    elif isinstance(style, str):
        if style not in STYLES:
            known = ", ".join(map(repr, STYLES))
            raise ValueError(
                f"{whose} must be True, False, a function or one of {known}, not {style!r}"
            )
    elif not callable(style):
        raise TypeError(
            f"{whose} must be True, False, the name of a style, a function of a Progress, a class "
            f"of tqdm's, or a dictionary of options, not {given!r}"
        )
    _check_options(style, options)
    _check_installed(style, whose)
    return Wanted(style, options)


def _check_options(style: Any, options: dict[str, Any]) -> None:
    total = options.get("total")
    if total is not None and (not isinstance(total, int) or isinstance(total, bool) or total < 0):
        raise ValueError(f"progress['total'] must be a number of tasks or None, not {total!r}")
    if style == "log":
        known = {"total", "interval", "file", "logger", "disable"}
    elif isinstance(style, str) or is_bar_class(style):
        return  # they are the bar's own
    else:
        known = {"total", "interval"}
    if unknown := sorted(options.keys() - known):
        raise TypeError(
            f"progress has no option {unknown[0]!r} here; known are "
            f"{', '.join(map(repr, sorted(known)))}"
        )
    interval = options.get("interval", 1.0)
    if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not interval > 0:
        raise ValueError(f"progress['interval'] must be a number of seconds, not {interval!r}")


def _check_installed(style: Any, whose: str) -> None:
    for_style: dict[str, tuple[str, ...]] = {_AUTO: ("tqdm",), "tqdm": ("tqdm",), "rich": ("rich",)}
    for_style["notebook"] = ("tqdm", "ipywidgets")
    needed = for_style.get(style, ()) if isinstance(style, str) else ()
    missing = [name for name in needed if not is_installed(name)]
    if missing and not (style == _AUTO and is_installed("rich")):
        asked_for = "True" if style == _AUTO else repr(style)
        extra = "notebook" if "ipywidgets" in missing else "progress"
        raise ImportError(
            f"{whose}={asked_for} needs {' and '.join(missing)}: "
            f"pip install 'parallel-core[{extra}]'; progress='log' needs nothing"
        )


def is_installed(name: str) -> bool:
    """Whether a package can be imported."""
    if name in sys.modules:
        return sys.modules[name] is not None
    from importlib.util import find_spec

    try:
        return find_spec(name) is not None
    except ValueError:
        return False


def is_bar_class(given: object) -> bool:
    """Whether `given` is a class of tqdm's, or one that descends from it."""
    return isinstance(given, type) and any(
        base.__module__.partition(".")[0] == "tqdm" for base in given.__mro__
    )


@functools.cache
def _of_environment() -> Wanted | None:
    """Return what the environment asks for; its programs do not fail for want of a package."""
    value = config.environment(VARIABLE)
    if value is None:
        return None
    given: Any = _WORDS.get(value.lower(), value)
    try:
        return check_progress(given, VARIABLE)
    except ImportError as error:
        from parallel_core.errors import warn_caller

        warn_caller(str(error), RuntimeWarning)
        return None


def wanted_progress(given: Any, is_explicit: bool) -> Wanted | None:
    """Return what a call is to show, of which `given` was said; None for nothing.

    What surrounds a program, settings and the environment, is for its outermost calls. A worker
    process has no terminal of its own: it draws nothing.
    """
    if is_explicit:
        wanted = check_progress(given)
        return None if wanted is not None and wanted.draws and config.in_worker() else wanted
    if config.nesting_level():
        return None
    return _of_environment() if given is None else check_progress(given)


class Display(Protocol):
    """Shows the progress of one call."""

    def show(self, now: Progress) -> None:
        """Show how far the call is."""

    def close(self, now: Progress) -> None:
        """Show it for the last time, or no more."""


class Meter:
    """Says how many tasks are done a second; what was long ago counts less."""

    def __init__(self) -> None:
        self._tasks = self._seconds = 0.0

    def add(self, tasks: int, seconds: float) -> None:
        """Note that `tasks` were done in `seconds`."""
        kept = math.exp(-seconds / _MEMORY_SECONDS)
        self._tasks = self._tasks * kept + tasks
        self._seconds = self._seconds * kept + seconds

    @property
    def rate(self) -> float | None:
        """Tasks a second; None where nothing is known."""
        return self._tasks / self._seconds if self._tasks > 0 < self._seconds else None


class ProgressObserver:
    """Shows the progress of one call."""

    def __init__(
        self, wanted: Wanted, open_display: Callable[[Wanted, Progress], Display | None]
    ) -> None:
        self._wanted = wanted
        self._open_display = open_display
        self._display: Display | None = None
        self._meter = Meter()
        self._now = Progress("")
        self._done = 0  # tasks with an outcome
        self._done_here = 0  # tasks that were shown and not resumed
        self._ahead = 0  # tasks without one that workers have done, as their boards say
        self._began = self._drawn = 0.0
        self._due = math.inf
        self.look_seconds = _interval(wanted)

    def __repr__(self) -> str:
        return f"progress={self._wanted.style!r}"

    def join(self, event: CallStarted, began: float, completed: int) -> None:
        """Start in the middle of a call that `began` before, with so many tasks done."""
        self._begin(event)
        self._began = began
        self._done = self._done_here = completed

    def notify(self, event: Event) -> None:
        """Take in what has happened, and show it if it is time to."""
        try:
            self._take(event)
        except Exception:
            self._close()
            raise

    def _take(self, event: Event) -> None:
        now = self._now
        if isinstance(event, (BatchAnswered, WorkersSeen, ResultsResumed)):
            self._done = event.completed
            if event.total is not None and event.total != now.total:
                self._now = now = now._replace(total=event.total)
            if isinstance(event, ResultsResumed):
                self._now = now._replace(resumed=now.resumed + 1)
            elif isinstance(event, WorkersSeen):
                self._ahead = sum(view.done for view in event.workers)
                busy = sum(view.phase != "IDLE" for view in event.workers)
                self._now = now._replace(busy=busy, workers=len(event.workers))
            else:
                self._ahead = 0  # what it was of is among `completed` now, or will be soon
            if monotonic() >= self._due:
                self._show()
        elif isinstance(event, TaskFailed):
            self._now = now._replace(failed=now.failed + 1)
        elif isinstance(event, TaskRetried):
            self._now = now._replace(retried=now.retried + 1)
        elif isinstance(event, CallStarted):
            self._begin(event)
        elif isinstance(event, CallEnded):
            self._end(event)

    def _begin(self, event: CallStarted) -> None:
        total = self._wanted.options.get("total")
        self._now = Progress(event.label, total=event.total if total is None else total)
        self._began = self._drawn = monotonic()
        self._display = self._open_display(self._wanted, self._now)
        if self._display is not None:
            self._due = self._began + self.look_seconds

    def _end(self, event: CallEnded) -> None:
        if self._display is None:
            return
        self._done, self._ahead = event.completed, 0
        total = event.total
        if total is None:
            total = event.completed if event.error is None else self._now.total
        self._now = self._now._replace(
            completed=0, busy=0, resumed=max(event.resumed, self._now.resumed),
            total=total, is_over=True, error=event.error,
        )  # fmt: skip
        self._show()
        self._close()

    def _show(self) -> None:
        display, now, at = self._display, self._now, monotonic()
        if display is None:
            return
        completed = self._done + self._ahead
        if now.total is not None and not now.is_over:
            completed = min(completed, now.total)
        completed = max(completed, now.completed)  # a worker that died takes nothing back
        done_here = completed - now.resumed
        self._meter.add(max(done_here - self._done_here, 0), at - self._drawn)
        self._done_here, self._drawn = done_here, at
        rate = self._meter.rate
        remaining = None
        if rate is not None and now.total is not None:
            remaining = max(now.total - completed, 0) / rate
        self._now = now._replace(
            completed=completed, seconds=at - self._began, rate=rate, remaining=remaining
        )
        self._due = at + self.look_seconds
        display.show(self._now)

    def _close(self) -> None:
        display, self._display = self._display, None
        self._due = math.inf
        if display is not None:
            display.close(self._now)


def _interval(wanted: Wanted) -> float:
    """Return how often, in seconds, there is something to show."""
    options = wanted.options
    given = options.get("interval") if not is_bar(wanted.style) else options.get("mininterval")
    if isinstance(given, (int, float)) and given > 0:
        return float(given)
    return 10.0 if wanted.style == "log" else LOOK_SECONDS


def is_bar(style: Any) -> bool:
    """Whether a style is one of bars."""
    return style != "log" and (isinstance(style, str) or is_bar_class(style))


def words_of(now: Progress) -> str:
    """Return what a bar says besides numbers, rate and times."""
    told = [f"{now.busy}/{now.workers} busy"] if now.workers and not now.is_over else []
    for count, what in (
        (now.failed, "failed"),
        (now.retried, "retried"),
        (now.resumed, "resumed"),
    ):
        if count:
            told.append(f"{count} {what}")
    if now.error is not None:
        told.append(f"ended by {type(now.error).__name__}")
    return ", ".join(told)
