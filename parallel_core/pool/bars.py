"""Progress bars of maps, drawn by tqdm and rich from the events of a call."""

from __future__ import annotations

import functools
import threading
import warnings
from typing import Any

from parallel_core.errors import warn_caller
from parallel_core.observe.events import (
    BatchAnswered,
    CallEnded,
    Event,
    ResultsResumed,
)

#: The style of bars whose map names none; a program may assign another one.
PROGRESS_BAR_DEFAULT_STYLE = "std"

STYLES = ("std", "rich", "notebook", "dashboard")
_DEFAULTS = {"position": 0, "dynamic_ncols": True, "mininterval": 0.1, "maxinterval": 0.5}


def check_style(style: str | None, options: dict[str, Any] | None) -> dict[str, Any]:
    """Return the options of a bar, completed; raise unless they and its style can be had."""
    wanted = PROGRESS_BAR_DEFAULT_STYLE if style is None else style
    if wanted not in STYLES:
        known = ", ".join(map(repr, STYLES))
        raise ValueError(f"Invalid progress bar style: {wanted!r}; known are {known}, and None")
    if options is not None and not isinstance(options, dict):
        raise TypeError(f"progress_bar_options should be a dictionary, not {options!r}")
    given = dict(options or {})
    if wanted == "rich":
        _import_rich()
        if "position" in given:
            raise NotImplementedError("The progress bar style 'rich' has no option 'position'")
    for name, instead in (("total", "give iterable_len to the map"), ("leave", "bars stay")):
        if name in given:
            del given[name]
            warn_caller(
                f"the progress bar option {name!r} is overwritten: {instead}", RuntimeWarning
            )
    defaults = {
        name: value for name, value in _DEFAULTS.items() if wanted != "rich" or name != "position"
    }
    return {**defaults, **given, "leave": True}


def _import_rich() -> Any:
    try:
        import rich.progress

        return rich.progress
    except ImportError as error:
        raise ImportError("the progress bar style 'rich' needs rich: pip install rich") from error


def open_bar(style: str | None, options: dict[str, Any], total: int | None) -> ProgressBar | None:
    """Return the bar of a map, drawn once; None for a style that is shown elsewhere.

    What tqdm raises about options that it does not know is raised.
    """
    wanted = PROGRESS_BAR_DEFAULT_STYLE if style is None else style
    if wanted == "dashboard":
        return None
    kind = _kind_of_bar(wanted)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rich is experimental.*")
        return ProgressBar(kind(total=total, **options))


@functools.cache
def _kind_of_bar(style: str) -> Any:
    """Return tqdm's class for `style`, without its thread, and with a lock for this process.

    The thread would be copied into no forked worker, but the lock that it may hold would be; and a
    lock between processes costs a semaphore for bars that only this process draws.
    """
    try:
        if style == "notebook":
            from tqdm.notebook import tqdm
        elif style == "rich":
            from tqdm.rich import tqdm
        else:
            from tqdm.std import tqdm
    except ImportError as error:
        raise ImportError("progress bars need tqdm: pip install tqdm") from error
    kind = type("Bar", (tqdm,), {"monitor_interval": 0})
    made: Any = kind
    made.set_lock(threading.RLock())
    return made


class ProgressBar:
    """An observer of one call that draws its progress."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def notify(self, event: Event) -> None:
        """Show how far the call is."""
        if isinstance(event, (BatchAnswered, ResultsResumed)):
            self._show(event.completed, event.total)
        elif isinstance(event, CallEnded):
            self._show(event.completed, event.total if event.error is None else None)
            if event.error is not None:
                self._bar.set_description("Exception occurred, terminating ...", refresh=False)
            self.close()

    def _show(self, completed: int, total: int | None) -> None:
        bar = self._bar
        if total is not None and bar.total != total:
            bar.total = total
            bar.refresh()
        if completed > bar.n:
            bar.update(completed - bar.n)

    def close(self) -> None:
        """Draw it for the last time."""
        self._bar.close()
