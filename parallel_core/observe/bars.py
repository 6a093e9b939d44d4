"""Displays of progress: bars by tqdm and rich, lines of a log, a function of the user."""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable
from importlib import import_module
from time import monotonic
from typing import Any

from parallel_core.observe.messages import duration
from parallel_core.observe.progress import (
    Display,
    Progress,
    ProgressObserver,
    Wanted,
    is_bar_class,
    is_installed,
    words_of,
)
from parallel_core.observe.terminal import begin_above, end_above, terminal_of

_REDRAW_SECONDS = 0.5  # a bar on which nothing moves still has a clock
_OF_OURS = ("style", "disable", "total", "desc", "description", "columns", "console", "file")


def observer_of(wanted: Wanted) -> ProgressObserver:
    """Return what shows the progress of one call."""
    return ProgressObserver(wanted, open_display)


def open_display(wanted: Wanted, now: Progress) -> Display | None:
    """Return the display of a call that begins; None where nobody would see it."""
    style, options = wanted.style, dict(wanted.options)
    total = options.pop("total", None)
    if not isinstance(style, str) and not is_bar_class(style):
        return _Function(style)
    disable = options.pop("disable", None)
    if disable:
        return None
    if style == "log":
        return _Log(options)
    file = terminal_of(options.pop("file", None) or sys.stderr)
    in_notebook = _is_notebook()
    if file is None or (disable is None and not in_notebook and not _is_watched(file)):
        return None
    if style == "auto":
        style = "tqdm" if is_installed("tqdm") else "rich"
        if in_notebook and style == "tqdm" and is_installed("ipywidgets"):
            style = "notebook"
    if style == "rich":
        return _RichBar(_rich_screen(file, options), options, now)
    total = now.total if total is None else total
    return TqdmBar(bar_class(style), total, {"leave": None, **options}, file)


def _is_watched(file: Any) -> bool:
    """Whether `file` is a terminal at which somebody looks, and that can draw."""
    try:
        is_terminal = bool(file.isatty())
    except (AttributeError, ValueError, OSError):
        return False
    return is_terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def _is_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    module: Any = sys.modules.get("IPython")
    shell = None if module is None else module.get_ipython()
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


class _Function:
    """Passes on the progress to a function."""

    def __init__(self, function: Callable[[Progress], object]) -> None:
        self._function = function

    def show(self, now: Progress) -> None:
        self._function(now)

    def close(self, now: Progress) -> None:
        pass


class _Log:
    """Writes a line each time, to a file or a logger."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._file = options.get("file")
        self._logger = options.get("logger")

    def show(self, now: Progress) -> None:
        parts = [f"{now.completed} of {now.total}" if now.total is not None else f"{now.completed}"]
        if now.rate is not None:
            parts.append(f"{now.rate:.3g} tasks/s")
        if now.is_over:
            parts.append(f"took {duration(now.seconds).strip()}")
        elif now.remaining is not None:
            parts.append(f"{duration(now.remaining).strip()} left")
        line = f"[{now.label}]: {', '.join(filter(None, [*parts, words_of(now)]))}"
        if self._logger is not None:
            self._logger.info("%s", line)
            return
        file = self._file or sys.stderr
        if file is not None:
            file.write(line + "\n")
            file.flush()

    def close(self, now: Progress) -> None:
        pass


@functools.cache
def bar_class(style: Any) -> Any:
    """Return tqdm's class for `style`, without its thread, and with a lock for this process.

    A style may be a class already. The thread would be copied into no forked worker, but the lock
    that it may hold would be; and a lock between processes costs a semaphore for bars that only
    this process draws. Bars of the user that are there already share theirs.
    """
    base = style
    if isinstance(style, str):
        module = "tqdm.notebook" if style == "notebook" else "tqdm.std"
        base = import_module(module).tqdm
    lock = getattr(base, "_lock", None)
    kind: Any = type("Bar", (base,), {"monitor_interval": 0, "is_ours": isinstance(style, str)})
    kind.set_lock(threading.RLock() if lock is None else lock)
    return kind


class TqdmBar:
    """A bar by a class of tqdm's; it draws itself, and no thread does."""

    def __init__(self, kind: Any, total: int | None, options: dict[str, Any], file: Any) -> None:
        self._kind = kind
        self._file = file
        if kind.is_ours:  # when to draw is said here
            options = {**options, "mininterval": 0, "miniters": options.get("miniters", 1)}
            if "ncols" not in options and not {"TQDM_NCOLS", "TQDM_DYNAMIC_NCOLS"} & {*os.environ}:
                options.setdefault("dynamic_ncols", True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*rich is experimental.*")
            self._bar = kind(total=total, file=file, **options)
        self._postfix = getattr(self._bar, "postfix", None)  # the user's
        self._words = ""
        self._resumed = 0
        self._drawn = monotonic()
        # A bar that is no line of text needs no room among lines.
        self._is_text = not getattr(self._bar, "gui", False) and not self._bar.disable
        if self._is_text:
            begin_above(self._write)

    def _write(self, stream: Any, lines: str) -> None:
        with self._kind.external_write_mode(file=self._file):
            stream.write(lines)
            stream.flush()

    def show(self, now: Progress) -> None:
        """Show how far the call is."""
        bar = self._bar
        if bar.disable:
            return
        bar.total = now.total
        if now.resumed != self._resumed:  # what was there already says nothing of the rate
            new, self._resumed = now.resumed - self._resumed, now.resumed
            bar.initial += new
            bar.n += new
            bar.last_print_n += new
        words = words_of(now)
        is_new = words != self._words
        if is_new:
            self._words = words
            bar.postfix = ", ".join(filter(None, [self._postfix, words])) or None
        at = monotonic()
        if now.completed >= bar.n:
            is_drawn = bar.update(now.completed - bar.n)
        else:  # as the call ends, what was not handed in counts no more
            bar.n = now.completed
            is_drawn = False
        if is_drawn:
            self._drawn = at
        elif at > self._drawn + _REDRAW_SECONDS or (is_new and self._kind.is_ours):
            self._drawn = at
            bar.refresh()

    def describe(self, words: str) -> None:
        """Put `words` in front, from when it is drawn next."""
        if not self._bar.disable:
            self._bar.set_description(words, refresh=False)

    def close(self, now: Progress) -> None:
        """Leave it where it is, if it is the first one or the call failed."""
        if self._is_text:
            self._is_text = False
            end_above(self._write)
        if now.error is not None:
            self._bar.leave = True
        elif getattr(self._bar, "leave", True) is None:  # which in a notebook means never
            self._bar.leave = not self._bar.pos
        self._bar.close()


class _RichScreen:
    """The one display of rich, for all calls that draw at a time."""

    def __init__(self, file: Any, options: dict[str, Any]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

        columns = options.get("columns") or (
            "[progress.description]{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            "[progress.data.speed]{task.fields[rate]}",
            TimeElapsedColumn(),
            "[progress.remaining]{task.fields[remaining]}",
            "{task.fields[words]}",
        )
        passed = {name: value for name, value in options.items() if name not in _OF_OURS}
        self.console = options.get("console") or Console(file=file)
        # It draws when a call has news, and not by a thread; lines above it come by `terminal`.
        own = {"auto_refresh": False, "redirect_stdout": False, "redirect_stderr": False}
        self.progress: Any = Progress(*columns, console=self.console, **{**passed, **own})
        self.n_open = 0

    def write(self, stream: Any, lines: str) -> None:
        """Write lines above the bars."""
        from rich.text import Text

        del stream  # the same terminal
        self.console.print(Text.from_ansi(lines[:-1]), soft_wrap=True)


_rich_lock = threading.RLock()
_rich: _RichScreen | None = None


def _rich_screen(file: Any, options: dict[str, Any]) -> _RichScreen:
    global _rich
    with _rich_lock:
        if _rich is None:
            _rich = _RichScreen(file, options)
            _rich.progress.start()
            begin_above(_rich.write)
        _rich.n_open += 1
        return _rich


class _RichBar:
    """A row in the display of rich."""

    def __init__(self, screen: _RichScreen, options: dict[str, Any], now: Progress) -> None:
        self._screen = screen
        self._is_nested = screen.n_open > 1
        self._row = screen.progress.add_task(
            str(options.get("description", options.get("desc", ""))),
            total=now.total,
            rate="",
            remaining="",
            words="",
        )
        screen.progress.refresh()

    def show(self, now: Progress) -> None:
        remaining = "" if now.remaining is None else f"{duration(now.remaining).strip()} left"
        words = words_of(now)
        self._screen.progress.update(
            self._row,
            completed=now.completed,
            total=now.total,
            rate="" if now.rate is None else f"{now.rate:.3g}/s",
            remaining="" if now.is_over else remaining,
            words=f"[red]{words}[/red]" if now.error is not None else words,
            refresh=True,
        )

    def close(self, now: Progress) -> None:
        global _rich
        screen = self._screen
        with _rich_lock:
            screen.n_open -= 1
            if not screen.n_open:
                end_above(screen.write)
                _rich = None
                screen.progress.stop()
            elif self._is_nested and now.error is None:
                screen.progress.remove_task(self._row)
            else:
                screen.progress.stop_task(self._row)
