"""Progress bars of maps, by MPIRE's parameters; `observe.bars` draws them."""

from __future__ import annotations

import sys
from typing import Any

from parallel_core.errors import warn_caller
from parallel_core.observe.bars import TqdmBar, bar_class
from parallel_core.observe.events import CallEnded, Event
from parallel_core.observe.progress import Progress, ProgressObserver, Wanted
from parallel_core.observe.terminal import terminal_of

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


def open_bar(style: str | None, options: dict[str, Any], total: int | None) -> MapBar | None:
    """Return the bar of a map, drawn once; None for a style that is shown elsewhere.

    What tqdm raises about options that it does not know is raised.
    """
    wanted = PROGRESS_BAR_DEFAULT_STYLE if style is None else style
    if wanted == "dashboard":
        return None
    return MapBar(TqdmBar(_kind_of_bar(wanted), total, options, terminal_of(sys.stderr)), total)


def _kind_of_bar(style: str) -> Any:
    """Return tqdm's class for `style`."""
    try:
        if style == "rich":
            from tqdm.rich import tqdm

            return bar_class(tqdm)
        return bar_class("tqdm" if style == "std" else style)
    except ImportError as error:
        raise ImportError("progress bars need tqdm: pip install tqdm") from error


class MapBar(ProgressObserver):
    """Shows the progress of a map by a bar that is there already."""

    def __init__(self, bar: TqdmBar, total: int | None) -> None:
        super().__init__(Wanted("tqdm", {"total": total}), lambda wanted, now: bar)
        self._bar = bar

    def notify(self, event: Event) -> None:
        """Take in what has happened; the bar says that a map failed, as MPIRE's does."""
        if isinstance(event, CallEnded) and event.error is not None:
            self._bar.describe("Exception occurred, terminating ...")
        super().notify(event)

    def close(self) -> None:
        """Draw the bar for the last time."""
        self._bar.close(Progress(""))
