"""What the caller can set up, and how tasks look at it."""

from __future__ import annotations

import contextlib
import decimal
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from parallel_core import parallel_config
from parallel_core.config import current_settings

GREETING: ContextVar[Any] = ContextVar("GREETING_IN_TESTS", default="nothing")
LOGGER = "parallel-core-tests.context"


class OwnWarning(UserWarning):
    """A category that a worker can import."""


def what_holds(_: object) -> dict[str, Any]:
    """Look at everything that is carried without being asked for."""
    return {
        "variable": GREETING.get(),
        "levels": (
            logging.getLogger(LOGGER).level,
            logging.root.level,
            logging.root.manager.disable,
        ),
        "enabled": logging.getLogger(LOGGER).isEnabledFor(logging.DEBUG),
        "filters": [(*entry[:2], entry[2].__name__, *entry[3:]) for entry in warnings.filters[:2]],
        "precision": decimal.getcontext().prec,
        "errors": np.geterr(),
        "folder": os.getcwd(),
        "path": sys.path[-1],
        "max_nbytes": current_settings().values.get("max_nbytes"),
    }


@contextlib.contextmanager
def everything_else(folder: Path) -> Iterator[None]:
    logger, folder_before, path = logging.getLogger(LOGGER), Path.cwd(), list(sys.path)
    before = logger.level, logging.root.level, logging.root.manager.disable
    token = GREETING.set(["hello"])
    try:
        logger.setLevel(logging.DEBUG)
        logging.root.setLevel(logging.ERROR)
        logging.disable(3)
        os.chdir(folder)
        sys.path.append(str(folder))
        with (
            warnings.catch_warnings(),
            decimal.localcontext() as numbers,
            np.errstate(divide="raise", under="print"),
            parallel_config(max_nbytes=77),
        ):
            warnings.filterwarnings("ignore", "something", OwnWarning)
            numbers.prec = 7
            yield
    finally:
        GREETING.reset(token)
        logger.setLevel(before[0])
        logging.root.setLevel(before[1])
        logging.disable(before[2])
        os.chdir(folder_before)
        sys.path[:] = path


def set_and_tell(value: Any, more: Any = None) -> tuple[Any, Any]:
    before = GREETING.get()
    GREETING.set(value)
    return before, GREETING.get()
