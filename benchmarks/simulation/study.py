"""How far one dispatcher goes: makespan beside the ideal, and what a task costs it."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.simulation.drive import dispatch_on, plan_for, results_of
from benchmarks.simulation.ideal import ideal_makespan
from benchmarks.simulation.model import Model
from benchmarks.simulation.session import SimulatedSession, feed

MEAN_SECONDS = 0.1
LATENCY = 1e-4
BATCH_SECONDS = 3e-5  # as our own pool has it, measured on two cores
SUBMIT_SECONDS = ANSWER_SECONDS = 2e-5
PULL_SECONDS = 4e-7

Durations = Callable[[np.random.Generator, int], Any]


def constant(rng: np.random.Generator, n_tasks: int) -> Any:
    return np.full(n_tasks, MEAN_SECONDS)


def exponential(rng: np.random.Generator, n_tasks: int) -> Any:
    return rng.exponential(MEAN_SECONDS, n_tasks)


def heavy_tail(rng: np.random.Generator, n_tasks: int) -> Any:
    """Return a bounded Pareto with an index of 1.5: the longest are 1000 times the shortest."""
    alpha, ratio = 1.5, 1000.0
    cut = 1.0 - ratio**-alpha
    mean = alpha / (alpha - 1) * (1 - ratio ** (1 - alpha)) / cut
    least = MEAN_SECONDS / mean
    return least * (1.0 - rng.random(n_tasks) * cut) ** (-1 / alpha)


def drifting(rng: np.random.Generator, n_tasks: int) -> Any:
    return np.linspace(0.1, 1.9, n_tasks) * MEAN_SECONDS


def bimodal(rng: np.random.Generator, n_tasks: int) -> Any:
    return np.where(rng.random(n_tasks) < 0.05, 16.2, 0.2) * MEAN_SECONDS


KINDS: dict[str, Durations] = {
    "constant": constant,
    "exponential": exponential,
    "heavy tail": heavy_tail,
    "drifting": drifting,
    "bimodal": bimodal,
}


@dataclass(frozen=True)
class Case:
    """One simulation."""

    n_workers: int
    n_tasks: int
    kind: str
    takes_back: bool = True
    flush_seconds: float | None = None


@dataclass(frozen=True)
class Figures:
    """What came of it; seconds of the virtual clock, but for the last, of this processor."""

    n_workers: int
    n_tasks: int
    kind: str
    takes_back: bool
    flush_seconds: float | None
    makespan: float
    ideal: float
    batches: int
    answers: int
    taken_back: int
    busy_share: float
    cpu_seconds_per_task: float

    @property
    def ratio(self) -> float:
        """The makespan beside the ideal."""
        return self.makespan / self.ideal

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": self.ratio}


class MeasuredSession(SimulatedSession):
    """Measures its own time, so that the rest of a call is the dispatcher's."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.seconds, self.calls, self.answers, self.busy = 0.0, 0, 0, 0.0

    def _measured(self, act: Callable[..., Any], *args: Any) -> Any:
        began = time.thread_time()
        try:
            return act(*args)
        finally:
            self.calls += 1
            self.seconds += time.thread_time() - began

    def has_capacity(self, queued: int) -> bool:
        return bool(self._measured(super().has_capacity, queued))

    def submit(self, batch: Any) -> None:
        self.busy += self._model.submit_seconds
        self._measured(super().submit, batch)

    def steal(self, task_seconds: float) -> Any:
        return self._measured(super().steal, task_seconds)

    def wait(self, seconds: float | None) -> Any:
        news = self._measured(super().wait, seconds)
        self.answers += len(news)
        self.busy += self._model.answer_seconds * len(news)
        return news

    @cached_property
    def call_seconds(self) -> float:
        """What measuring one call costs whoever calls."""
        seconds, calls = self.seconds, self.calls
        began = time.thread_time()
        for _ in range(2000):
            self._measured(bool)
        overhead = (time.thread_time() - began - (self.seconds - seconds)) / 2000
        self.seconds, self.calls = seconds, calls
        return overhead


_ideals: dict[tuple[int, int, str], tuple[array[float], float]] = {}


def work(case: Case) -> tuple[array[float], float]:
    """Return the tasks of `case` and the ideal makespan; the last ones are kept."""
    key = case.n_workers, case.n_tasks, case.kind
    if key not in _ideals:
        _ideals.clear()
        durations = KINDS[case.kind](np.random.default_rng(1), case.n_tasks)
        starts = array("d", bytes(8))
        starts.frombytes(np.cumsum(durations).tobytes())
        _ideals[key] = starts, ideal_makespan(starts, case.n_workers)
    return _ideals[key]


def run(case: Case) -> Figures:
    """Simulate `case`."""
    starts, ideal = work(case)
    model = Model(
        starts,
        case.n_workers,
        LATENCY,
        BATCH_SECONDS,
        SUBMIT_SECONDS,
        ANSWER_SECONDS,
        PULL_SECONDS,
        case.flush_seconds,
        takes_back=case.takes_back,
    )
    session = MeasuredSession(model)
    plan = plan_for(session)
    began = time.thread_time()
    results = results_of(dispatch_on(session, feed(session, model), plan), plan)
    seconds = time.thread_time() - began - session.seconds - session.calls * session.call_seconds
    assert results == list(range(case.n_tasks)), "each task has its outcome, in its place"
    seconds -= _generator_seconds(model)
    return Figures(
        **asdict(case),
        makespan=session.now,
        ideal=ideal,
        batches=session.n_submitted,
        answers=session.answers,
        taken_back=session.n_taken_back,
        busy_share=(session.busy + PULL_SECONDS * case.n_tasks) / session.now,
        cpu_seconds_per_task=seconds / case.n_tasks,
    )


def _generator_seconds(model: Model) -> float:
    """Return what the caller's generator takes by itself."""
    session = SimulatedSession(model)
    began = time.thread_time()
    for _ in feed(session, model):
        pass
    return time.thread_time() - began
