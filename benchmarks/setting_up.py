"""What a caller sets up around a call, and what its tasks see of that."""

from __future__ import annotations

import decimal
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.mishaps import FOLDER
from benchmarks.payloads import variable

SEEN_BY_TASKS = (
    "warning filter",
    "context variable",
    "log level",
    "decimal context",
    "errstate",
    "folder",
    "import path",
)
SEEN_HERE = ("log record", "print", "standard error")
ALL = (*SEEN_BY_TASKS, *SEEN_HERE)

_SET = "set up"
_LOGGER = "benchmarks.setting_up"
_DIGITS = 7


def seen(number: int) -> list[str]:
    """Return what holds inside this task, and say something in each of three ways."""
    import numpy

    logger = logging.getLogger(_LOGGER)
    folder = os.environ[FOLDER]
    held = {
        "context variable": variable.get("") == _SET,
        "log level": logger.getEffectiveLevel() == logging.DEBUG,
        "decimal context": decimal.getcontext().prec == _DIGITS,
        "errstate": numpy.geterr()["divide"] == "raise",
        "folder": os.path.realpath(os.getcwd()) == os.path.realpath(folder),
        "import path": folder in sys.path,
    }
    logger.warning("task %d", number)
    print(f"task {number}")
    print(f"task {number}", file=sys.stderr)
    try:
        warnings.warn("an old way", FutureWarning, stacklevel=1)
    except FutureWarning:
        held["warning filter"] = True
    return [name for name, holds in held.items() if holds]


class Ears(logging.Handler):
    """Hears what tasks log and print.

    Attributes
    ----------
    logged : list of str
        Messages of records that this handler was given.
    out, err : io.StringIO
        What was written to the standard streams.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logged: list[str] = []
        self.out = io.StringIO()
        self.err = io.StringIO()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message."""
        self.logged.append(record.getMessage())

    def heard(self, count: int) -> list[str]:
        """Return the ways in which all of `count` tasks were heard, each of them once."""
        expected = sorted(f"task {number}" for number in range(count))
        ways = {
            "log record": self.logged,
            "print": self.out.getvalue().splitlines(),
            "standard error": [
                line for line in self.err.getvalue().splitlines() if line.startswith("task ")
            ],
        }
        return [name for name, lines in ways.items() if sorted(lines) == expected]


@contextmanager
def everything_set_up() -> Iterator[Ears]:
    """Set up all that `seen` looks for; the program is its caller's alone."""
    import numpy

    ears, logger = Ears(), logging.getLogger(_LOGGER)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("error", FutureWarning)
        stack.callback(variable.reset, variable.set(_SET))
        stack.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.DEBUG)
        stack.callback(logger.removeHandler, ears)
        logger.addHandler(ears)
        context: Any = stack.enter_context(decimal.localcontext())
        context.prec = _DIGITS
        stack.enter_context(numpy.errstate(divide="raise"))
        stack.callback(os.chdir, Path.cwd())
        os.chdir(os.environ[FOLDER])
        sys.path.append(os.environ[FOLDER])
        stack.callback(sys.path.remove, os.environ[FOLDER])
        stack.enter_context(redirect_stdout(ears.out))
        stack.enter_context(redirect_stderr(ears.err))
        yield ears
