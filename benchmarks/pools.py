"""What the works share that measure `WorkerPool` beside MPIRE's, in the same words for both."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks.workload import Sample, Workload

#: Makes a pool, given its parameters.
Make = Callable[..., Any]


class PoolWork(Workload):
    """Base of these works.

    Attributes
    ----------
    start_method : str
        How workers are started.
    """

    section = "pools, beside MPIRE"
    start_method: ClassVar[str] = "fork"

    def measured(self, make: Make, is_ours: bool) -> Sample:
        """Measure the pools that `make` makes, which are `ours` or MPIRE's."""
        raise NotImplementedError

    def make(self, module: str) -> Make:
        """Return what makes pools of a library."""
        found = importlib.import_module(module).WorkerPool
        return functools.partial(found, self.n_jobs, start_method=self.start_method)

    def ours(self) -> Sample:
        return self.measured(self.make("parallel_core"), True)

    def mpire(self) -> Sample:
        return self.measured(self.make("mpire"), False)
