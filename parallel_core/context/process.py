"""What is true of a whole process: warning filters, logging levels, folder and import path.

In a worker of ours they are put in place before each batch, where they differ, and stay: every
later call says what it wants. So whatever has ever differed from what a new worker has is told
with every call from then on. In the process of another engine they are put back after the batch.
"""

from __future__ import annotations

import operator
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from memmapping.modules import loaded
from parallel_core import config
from parallel_core.context.item import ContextItem, Dumps, Part, Place
from parallel_core.serialization.pickling import goes_by_value

#: As in `warnings.filters`: action, message, category, module, line.
Filter = tuple[str, Any, Any, Any, int]

_DEFAULT_FILTERS = [
    ("default", None, DeprecationWarning, "__main__", 0),
    ("ignore", None, DeprecationWarning, None, 0),
    ("ignore", None, PendingDeprecationWarning, None, 0),
    ("ignore", None, ImportWarning, None, 0),
    ("ignore", None, ResourceWarning, None, 0),
]
_ROOT = ""
_WARNING = 30  # the level of the root logger, unless somebody has changed it


class _Undo(Part):
    """Calls a function at the end."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo = undo

    def end(self) -> None:
        self._undo()


class Filters(ContextItem):
    """The filters of `warnings` in the caller."""

    name = "warnings.filters"
    is_kept = True

    def __init__(self, filters: list[Filter]) -> None:
        self.filters = filters

    def packed(self, dumps: Dumps) -> ContextItem:
        """Return it with categories by name: nothing is imported for the sake of a filter."""
        del dumps
        return ToldFilters([(*entry[:2], _told(entry[2]), *entry[3:]) for entry in self.filters])

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Put them in place."""
        return _FiltersPart(self.filters, place)


class ToldFilters(Filters):
    """They, as they travel."""

    def __init__(self, filters: list[Filter]) -> None:
        super().__init__(filters)
        self._known: list[Filter] | None = None

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Put them in place."""
        if self._known is None or any(type(entry[2]) is _Absent for entry in self._known):
            self._known = [(*entry[:2], _category(entry[2]), *entry[3:]) for entry in self.filters]
        return _FiltersPart(self._known, place)


class _FiltersPart(Part):
    def __init__(self, wanted: list[Any], place: Place) -> None:
        self._wanted = wanted
        self._before = None if place is Place.WORKER else list(warnings.filters)
        _set_filters(wanted)

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        """Put them in place again: modules that the function needs may have added theirs."""
        _set_filters(self._wanted)
        return function

    def end(self) -> None:
        if self._before is not None:
            _set_filters(self._before)


def _set_filters(wanted: list[Any]) -> None:
    if warnings.filters != wanted:
        # It tells C code, which keeps what it has decided for each place, that filters are others.
        with warnings.catch_warnings():
            pass
        warnings.filters[:] = wanted  # type: ignore[index]  # it is a list


class _Absent(type):
    """The class of stand-ins for categories whose module nobody has imported in this process.

    A filter with one of them meets the warnings that are meant, should their module be imported.
    """

    place: tuple[str, str]

    def __subclasscheck__(cls, subclass: type) -> bool:
        return any((base.__module__, base.__qualname__) == cls.place for base in subclass.__mro__)


def _told(category: type) -> Any:
    """Return how a category travels: as itself, where it is built in or goes by value."""
    if isinstance(category, _Absent):
        return category.place
    if category.__module__ == "builtins" or goes_by_value(category):
        return category
    return category.__module__, category.__qualname__


_absent: dict[tuple[str, str], type] = {}


def _category(told: Any) -> Any:
    if not isinstance(told, tuple):
        return told
    found: Any = sys.modules.get(told[0])
    for name in told[1].split("."):
        found = getattr(found, name, None)
    if isinstance(found, type):
        return found
    if told not in _absent:
        _absent[told] = _Absent(told[1], (Warning,), {"place": told})
    return _absent[told]


class Levels(ContextItem):
    """Levels of loggers by name, the root's by "", and the level that `logging.disable` has set."""

    name = "logging"
    is_kept = True

    def __init__(self, disabled: int, levels: dict[str, int]) -> None:
        self.disabled = disabled
        self.levels = levels
        self._loggers: list[Any] | None = None

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Put them in place."""
        import logging

        if self._loggers is None:
            self._loggers = [logging.getLogger(name or None) for name in self.levels]
        loggers, manager = self._loggers, logging.root.manager
        levels, disabled = list(map(_level_of, loggers)), manager.disable
        wanted = list(self.levels.values())
        if levels == wanted and disabled == self.disabled:
            return None
        _set_levels(loggers, wanted, self.disabled)
        if place is Place.WORKER:
            return None
        return _Undo(lambda: _set_levels(loggers, levels, disabled))


_level_of = operator.attrgetter("level")


def _set_levels(loggers: list[Any], levels: list[int], disabled: int) -> None:
    import logging

    logging.root.manager.disable = disabled
    for logger, level in zip(loggers, levels, strict=True):
        logger.level = level
    # Loggers keep in mind what they are enabled for; setting one level makes all forget it.
    logging.root.setLevel(logging.root.level)


class WorkingDirectory(ContextItem):
    """The working directory and ``sys.path``, for engines whose workers are not told otherwise."""

    name = "sys.path and working directory"
    places = (Place.FOREIGN_PROCESS,)

    def __init__(self, folder: str | None, path: list[str]) -> None:
        self._folder = folder
        self._path = path

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Go there."""
        path, folder = list(sys.path), _folder()
        _go(self._folder if self._folder != folder else None, self._path)
        return _Undo(lambda: _go(folder, path))


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _go(folder: str | None, path: list[str]) -> None:
    if sys.path != path:
        sys.path[:] = path
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError:
            pass


class Configuration(ContextItem):
    """What of the `parallel_config` in force holds inside tasks."""

    name = "parallel_config"
    places = (Place.WORKER, Place.FOREIGN_PROCESS, Place.THREAD)

    def __init__(self, settings: config.Settings) -> None:
        self._settings = settings

    def says(self, settings: config.Settings) -> bool:
        """Whether it says the same as `settings`."""
        mine = self._settings
        return (mine.values, mine.cores, mine.threads) == (
            settings.values,
            settings.cores,
            settings.threads,
        )

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Have it in force."""
        level, mine = config.nesting_level(), self._settings
        if place is Place.WORKER:
            config.enter_worker(level, mine)
            return None
        known = config.current_settings()  # what the engine has said of calls within tasks
        values = {**mine.values, **known.values}
        config.enter_task(
            level, config.Settings(values, known.backend_params, mine.cores, mine.threads)
        )
        return None


_filters: Filters | None = None
_levels: Levels | None = None
_entries: list[Any] = []  # of the manager of loggers, when `_loggers` was made of them
_loggers: list[Any] = []
_values: list[Any] = []
_told_levels: set[str] = set()
_configuration: Configuration | None = None


def captured() -> list[ContextItem]:
    """Return the filters and levels of this process, as far as a worker has to be told."""
    global _filters
    items: list[ContextItem] = []
    filters: Any = warnings.filters
    if _filters is not None or filters != _DEFAULT_FILTERS or sys.warnoptions:
        if _filters is None or _filters.filters != filters:
            _filters = Filters(list(filters))
        items.append(_filters)
    logging = loaded("logging")
    if logging is not None:
        levels = _captured_levels(logging)
        if levels is not None:
            items.append(levels)
    return items


def _captured_levels(logging: Any) -> Levels | None:
    """Return the levels; as quickly as can be where no logger has come and no level has changed."""
    global _levels, _entries, _loggers, _values
    root, manager = logging.root, logging.root.manager
    entries = list(manager.loggerDict.values())
    if entries != _entries:
        _loggers = [entry for entry in entries if hasattr(entry, "level")]  # others hold a place
        _entries, _values = entries, []
    values = list(map(_level_of, _loggers))
    values += root.level, manager.disable
    if values == _values:
        return _levels
    levels = {
        logger.name: logger.level
        for logger in _loggers
        if logger.level or logger.name in _told_levels
    }
    if root.level != _WARNING or _ROOT in _told_levels:
        levels[_ROOT] = root.level
    if levels or manager.disable or _levels is not None:
        _told_levels.update(levels)
        _levels = Levels(manager.disable, levels)
    _values = values
    return _levels


def configuration(settings: config.Settings, tells_all: bool) -> list[ContextItem]:
    """Return what workers have to be told of `settings`; unless `tells_all`, as little as can be.

    Workers that have a share of the cores of their own know how many they have.
    """
    global _configuration
    if tells_all:
        return [Configuration(settings)]
    if _configuration is None and not settings.values:
        return []
    if _configuration is None or not _configuration.says(settings):
        _configuration = Configuration(settings)
        _configuration.is_kept = True
    return [_configuration]


def working_directory() -> WorkingDirectory:
    """Return the folder and the import path of this process."""
    return WorkingDirectory(_folder(), list(sys.path))
