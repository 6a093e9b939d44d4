"""What happens in a simulation, and when."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate


@dataclass
class Model:
    """Workers and tasks; all times are seconds of the virtual clock.

    Attributes
    ----------
    starts : array of float
        Position by position, the sum of the durations of the tasks before; see `sums`.
    n_workers : int
        How many there are.
    latency : float
        From sending a message until it is there, either way.
    batch_seconds : float
        What a worker needs for a batch, besides its tasks.
    submit_seconds, answer_seconds : float
        What the dispatcher's side needs to send a batch and to read an answer.
    pull_seconds : float
        What the dispatcher needs for a task of the iterable; see `session.feed`.
    flush_seconds : float or None
        How old a worker's last answer may be before it sends what it has; None: only at the end.
    starts : sequence of float
        When each of the first workers is there; those beyond are there from the start.
    birth_seconds : float
        From a worker's death until another one is there in its place.
    is_replaced : bool
        Whether there is one.
    takes_back : bool
        Whether tasks are taken back.
    has_barriers : bool
        Whether they are had at once; else with the answer, when the task before them is done.
    failures, kills : dict of int to int
        Position of a task, and how many times it fails, or kills its worker.
    deaths : sequence of (float, int)
        When which worker dies.
    """

    starts: array[float]
    n_workers: int
    latency: float = 0.0
    batch_seconds: float = 0.0
    submit_seconds: float = 0.0
    answer_seconds: float = 0.0
    pull_seconds: float = 0.0
    flush_seconds: float | None = 0.02
    births: Sequence[float] = ()
    birth_seconds: float = 0.05
    is_replaced: bool = True
    takes_back: bool = True
    has_barriers: bool = True
    failures: Mapping[int, int] = field(default_factory=dict)
    kills: Mapping[int, int] = field(default_factory=dict)
    deaths: Sequence[tuple[float, int]] = ()

    @property
    def n_tasks(self) -> int:
        """How many tasks there are."""
        return len(self.starts) - 1


def sums(durations: Iterable[float]) -> array[float]:
    """Return the sums of the durations of the tasks before each, and of all of them."""
    return array("d", accumulate(durations, initial=0.0))


def sums_of(duration: Callable[[int], float], n_tasks: int) -> array[float]:
    """Return the same where a function tells how long the task at a position takes."""
    return sums(map(duration, range(n_tasks)))
