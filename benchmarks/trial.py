"""A program in which something goes wrong, and which tells what it still has.

It is started by `benchmarks.watch` as ``python -m benchmarks.trial MODULE:CLASS CONTESTANT N_JOBS
OPTIONS DESCRIPTOR`` and writes lines of JSON to the descriptor. What it has told counts, whatever
becomes of it later: it may hang, and it may be killed.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.askers import ASKERS, Asker

END = {"end": True}


class Trial(ABC):
    """What one contestant goes through.

    Parameters
    ----------
    key : str
        The contestant.
    n_jobs : int
        Number of workers.
    options : dict
        Which variant of the trial this is.
    descriptor : int
        Where to tell.
    """

    def __init__(self, key: str, n_jobs: int, options: dict[str, Any], descriptor: int) -> None:
        self.key = key
        self.n_jobs = n_jobs
        self.options = options
        self._descriptor = descriptor

    @abstractmethod
    def run(self) -> None:
        """Go through it, and tell."""

    def asker(self, **options: Any) -> Asker:
        """Return the contestant, which is imported here."""
        return ASKERS[self.key](self.n_jobs, **options)

    def tell(self, what: dict[str, Any]) -> None:
        """Tell something that counts from now on."""
        os.write(self._descriptor, json.dumps(what).encode() + b"\n")

    def tell_results(self, results: Iterable[Any]) -> None:
        """Tell every result as it comes; errors in the place of one, or of all, by their words."""
        with self.telling_errors():
            for result in results:
                if isinstance(result, BaseException):
                    self.tell_error(result)
                else:
                    self.tell({"result": result})

    @contextmanager
    def telling_errors(self) -> Iterator[None]:
        """Have an error told, and go on behind the block."""
        try:
            yield
        except Exception as error:
            self.tell_error(error)

    def tell_error(self, error: BaseException) -> None:
        """Tell the class of an error and all that it says."""
        words = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]
        self.tell({"error": "\n".join(words), "timeout": isinstance(error, _timeouts())})


def _timeouts() -> tuple[type[BaseException], ...]:
    """Return what is called a time-out."""
    import multiprocessing

    return TimeoutError, multiprocessing.TimeoutError


def main(arguments: list[str]) -> None:
    """Run the trial, and go on as programs do; who watches puts an end to it."""
    target, key, n_jobs, options, descriptor = arguments
    os.set_inheritable(int(descriptor), False)
    module, _, name = target.partition(":")
    trial: Trial = getattr(importlib.import_module(module), name)(
        key, int(n_jobs), json.loads(options), int(descriptor)
    )
    try:
        trial.run()
    except Exception as error:
        trial.tell({"broken": f"{type(error).__name__}: {error}"})
        raise
    trial.tell(END)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
