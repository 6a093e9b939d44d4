"""`imap` and `as_completed` beside scinexus's: each backend, and a first result of a cold start."""

from __future__ import annotations

import importlib
import statistics
from typing import Any, ClassVar

from benchmarks import payloads
from benchmarks.bars import AtMostTimes, TimesFaster
from benchmarks.contestants import SCINEXUS
from benchmarks.measure import median_seconds, run_interpreter
from benchmarks.workload import Figure, Sample, Workload, register


class MappingWork(Workload):
    """Base of these works: the same program, with its import changed."""

    section = "imap and as_completed, beside scinexus"

    def measured(self, module: str) -> Sample:
        """Measure the library whose functions are in `module`."""
        raise NotImplementedError

    def ours(self) -> Sample:
        return self.measured("parallel_core.compat.scinexus.parallel")

    def scinexus(self) -> Sample:
        return self.measured("scinexus.parallel")


class Quick(MappingWork):
    """``math.sqrt`` of whole numbers, through an iterator.

    Attributes
    ----------
    method : str
        Name of the function.
    backend : str
        Name of the backend.
    """

    tasks = 100_000
    quick_tasks = 5_000
    most_rounds = 3
    timeout = 240.0
    method: ClassVar[str]
    backend: ClassVar[str] = "multiprocess"

    def measured(self, module: str) -> Sample:
        library = importlib.import_module(module)
        library.set_parallel_backend(self.backend)
        call = getattr(library, self.method)
        expected = sorted(map(payloads.sqrt, range(self.n_tasks)))

        def run(count: int) -> list[float]:
            return list(call(payloads.sqrt, range(count), max_workers=self.n_jobs))

        def check(results: list[float]) -> None:
            if sorted(results) != expected:
                raise AssertionError("wrong results")

        run(100)
        seconds = median_seconds(lambda: run(self.n_tasks), check=check, at_most=3)
        return {"time": seconds / self.n_tasks * 1e6}


class Imap(Quick):
    """In order."""

    method = "imap"
    title = "{tasks} × sqrt by imap, a task"
    figures = (Figure("time", "µs", (TimesFaster(5, SCINEXUS),)),)


class AsCompleted(Quick):
    """In the order of completion."""

    method = "as_completed"
    title = "{tasks} × sqrt by as_completed, a task"
    figures = (Figure("time", "µs", (TimesFaster(5, SCINEXUS),)),)


@register
class ImapMultiprocess(Imap):
    """With processes."""

    name = "imap-multiprocess"
    place = 600
    title = f"{Imap.title}, multiprocess"


@register
class ImapLoky(Imap):
    """With loky's."""

    name = "imap-loky"
    place = 601
    title = f"{Imap.title}, loky"
    backend = "loky"


@register
class ImapThreads(Imap):
    """With threads."""

    name = "imap-threads"
    place = 602
    title = f"{Imap.title}, threads"
    backend = "threads"


@register
class AsCompletedMultiprocess(AsCompleted):
    """With processes."""

    name = "as-completed-multiprocess"
    place = 603
    title = f"{AsCompleted.title}, multiprocess"


@register
class AsCompletedLoky(AsCompleted):
    """With loky's."""

    name = "as-completed-loky"
    place = 604
    title = f"{AsCompleted.title}, loky"
    backend = "loky"


@register
class AsCompletedThreads(AsCompleted):
    """With threads."""

    name = "as-completed-threads"
    place = 605
    title = f"{AsCompleted.title}, threads"
    backend = "threads"


PROGRAM = """
from time import perf_counter
begin = perf_counter()
from math import sqrt
from {module} import imap
results = imap(sqrt, range(100), max_workers={n_jobs})
first = next(results)
elapsed = perf_counter() - begin
assert [first, *results] == [sqrt(x) for x in range(100)]
print(elapsed)
"""


@register
class FirstResult(MappingWork):
    """A new interpreter imports the library, starts workers, and has a first result."""

    name = "imap-first-result"
    place = 606
    title = "import, imap, first result"
    figures = (Figure("time", "s", (AtMostTimes(0.2, SCINEXUS),)),)
    tasks = quick_tasks = 100
    rounds_within = 3

    def measured(self, module: str) -> Sample:
        program = PROGRAM.format(module=module, n_jobs=self.n_jobs)
        outputs: list[Any] = [run_interpreter(program)[1] for _ in range(self.rounds_within)]
        return {"time": statistics.median(map(float, outputs))}
