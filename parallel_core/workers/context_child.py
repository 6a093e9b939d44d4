"""The first thing that a child of a `multiprocessing` context runs."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import Any

from parallel_core.output.records import forget_handlers, handlers
from parallel_core.workers.main import main
from parallel_core.workers.requests import inherit


def run(
    descriptors: list[Any], environment: tuple[tuple[str, str], ...], shared: Any = None
) -> None:
    """Become a worker.

    Parameters
    ----------
    descriptors : list of PassedDescriptor
        Those of `main`.
    environment : tuple of (str, str)
        Variables to set first.
    shared : object, optional
        What all workers of this one's session get.
    """
    os.environ.update(environment)
    inherit(shared)
    # multiprocessing forbids children to its daemons; tasks may have some.
    process: Any = multiprocessing.current_process()
    process._config["daemon"] = False  # there is no public way
    forget_handlers(handlers())  # of the caller, or made as his were: those get the records
    try:
        main(*(passed.descriptor for passed in descriptors))
    finally:
        try:
            sys.stdout.flush()
        except (AttributeError, OSError, ValueError):  # there is none, or it is closed
            pass
