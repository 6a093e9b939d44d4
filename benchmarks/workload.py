"""What a work is made of, and how the works are found."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from benchmarks.bars import Bar
from benchmarks.conditions import Conditions
from benchmarks.contestants import CONTESTANTS, Contestant

Sample = dict[str, float]
"""What one fresh process measured: values of the figures, by key. Further keys are kept as remarks
in the JSON (the chunk size that was best, say)."""


@dataclass(frozen=True)
class Figure:
    """One number that a work yields, and one row of the table.

    Attributes
    ----------
    key : str
        Its name in samples.
    unit : str
        Its unit, empty for ratios.
    bars : tuple of Bar
        What is to be reached.
    label : str
        What the row says beyond the title of the work.
    ceiling : float or None
        Where waiting for it ended; what reaches it is shown as more than that.
    """

    key: str
    unit: str
    bars: tuple[Bar, ...] = ()
    label: str = ""
    ceiling: float | None = None


class Workload:
    """Base of all works.

    A subclass has one method for each contestant that makes sense, named by the contestant's key
    (``ours``, ``joblib``, ``mpire``, ``futures``, ``pool``, ``loop``). The method runs in a fresh
    process, imports what it needs itself, warms up, measures, checks what was computed and returns
    a `Sample`.

    Attributes
    ----------
    name : str
        What ``--only`` looks at.
    place : int
        Where its rows stand in the table, counted from the top.
    section : str
        Heading of the part of the table that it is in, if it is not in the first one.
    title : str
        Row in the table; ``{tasks}`` stands for the number of tasks.
    figures : tuple of Figure
        What samples hold.
    tasks, quick_tasks : int
        Number of tasks of a full and of a quick run.
    nbytes, quick_nbytes : int
        Size of what a work is about, if it is about anything large; ``{size}`` in the title.
    most_rounds : int or None
        A work that takes long has no more rounds than this.
    timeout : float
        Seconds after which a fresh process is given up.
    entry : str
        Module that the fresh process runs as ``__main__``.

    Parameters
    ----------
    conditions : Conditions
        What holds for the run.
    """

    name: ClassVar[str]
    place: ClassVar[int]
    section: ClassVar[str] = ""
    title: ClassVar[str]
    figures: ClassVar[tuple[Figure, ...]]
    tasks: ClassVar[int]
    quick_tasks: ClassVar[int]
    nbytes: ClassVar[int] = 0
    quick_nbytes: ClassVar[int] = 0
    most_rounds: ClassVar[int | None] = None
    timeout: ClassVar[float] = 60.0
    entry: ClassVar[str] = "benchmarks.child"

    def __init__(self, conditions: Conditions) -> None:
        self.n_jobs = conditions.n_jobs
        self.n_tasks = self.quick_tasks if conditions.quick else self.tasks
        self.size = self.quick_nbytes if conditions.quick else self.nbytes
        self.rounds = min(conditions.rounds, self.most_rounds or conditions.rounds)
        self.quick = conditions.quick

    @property
    def heading(self) -> str:
        """The title with the number of tasks of this run, and with its size."""
        return self.title.format(tasks=spaced(self.n_tasks), size=binary(self.size))

    @classmethod
    def contestants(cls) -> tuple[Contestant, ...]:
        """Return who is measured, in the order of columns."""
        return tuple(who for key, who in CONTESTANTS.items() if hasattr(cls, key))

    def measure(self, contestant: Contestant) -> Sample:
        """Measure one contestant here and now."""
        sample: Sample = getattr(self, contestant.key)()
        return sample

    def command(self, contestant: Contestant, conditions: Conditions) -> list[str]:
        """Return the command line of a fresh process that measures one contestant."""
        target = f"{type(self).__module__}:{type(self).__qualname__}"
        return [
            sys.executable,
            "-m",
            self.entry,
            target,
            contestant.key,
            conditions.to_argument(),
        ]


_registered: dict[str, type[Workload]] = {}
_W = TypeVar("_W", bound=Workload)


def register(workload: type[_W]) -> type[_W]:
    """Class decorator: take a work into the runs."""
    if workload.name in _registered:
        raise ValueError(f"two workloads are named {workload.name!r}")
    _registered[workload.name] = workload
    return workload


def discover() -> tuple[type[Workload], ...]:
    """Import every module of ``benchmarks.workloads`` and return what they registered."""
    package = importlib.import_module("benchmarks.workloads")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return tuple(sorted(_registered.values(), key=lambda workload: workload.place))


def select(workloads: tuple[type[Workload], ...], wanted: list[str]) -> Iterator[type[Workload]]:
    """Yield the works whose name contains any of `wanted`, or all if nothing is wanted."""
    for workload in workloads:
        if not wanted or any(part in workload.name for part in wanted):
            yield workload


def spaced(number: int) -> str:
    """Return `number` with its thousands apart."""
    return f"{number:,}".replace(",", " ")


def binary(nbytes: int) -> str:
    """Return a size in the largest unit in which it is a whole number."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB"):
        if nbytes == 0 or nbytes % 1024:
            break
        nbytes, unit = nbytes // 1024, larger
    return f"{nbytes} {unit}"
