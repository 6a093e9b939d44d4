"""The shipped dispatcher keeps its promises on any workers, in simulated time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("benchmarks", reason="the fast subset has only what is installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulation.drive import dispatch_on, plan_for, results_of
from benchmarks.simulation.ideal import ideal_makespan
from benchmarks.simulation.model import Model, sums, sums_of
from benchmarks.simulation.session import AllDead, SimulatedError, SimulatedSession, feed
from parallel_core.backends.placement import WORTH_SECONDS
from parallel_core.dispatch.limits import ReturnAs
from parallel_core.dispatch.policy import Policy
from parallel_core.errors import TaskTimeoutError, WorkerDiedError

some = settings(max_examples=150, deadline=None)
SLACK = 4 * WORTH_SECONDS  # twice not worth it, and looked at again
SECONDS = st.sampled_from([0.0, 1e-7, 1e-5, 1e-3, 0.01, 0.1, 1.0])
DURATIONS = st.lists(SECONDS | st.floats(0.0, 2.0), max_size=60)
SHORT = st.sampled_from([0.0, 0.0, 1e-5, 1e-3, 0.05])
BIRTHS = st.just(()) | st.lists(st.sampled_from([0.0, 0.03, 0.05, 1.0]), max_size=12)


@st.composite
def models(draw: Any, is_kind: bool = False) -> Model:
    durations = draw(DURATIONS)
    n_workers = draw(st.integers(1, 8))
    options: dict[str, Any] = {}
    if not is_kind:
        counts = st.dictionaries(st.integers(0, 60), st.integers(1, 3), max_size=4)
        death = st.tuples(st.floats(0.0, 5.0), st.integers(0, n_workers - 1))
        options = {
            "failures": draw(st.just({}) | counts),
            "kills": draw(st.just({}) | counts),
            "deaths": draw(st.just([]) | st.lists(death, max_size=5)),
            "is_replaced": draw(st.sampled_from([True, True, False])),
        }
    return Model(
        sums(durations),
        n_workers,
        latency=draw(SHORT),
        batch_seconds=draw(SHORT),
        submit_seconds=draw(SHORT),
        answer_seconds=draw(SHORT),
        pull_seconds=draw(SHORT),
        flush_seconds=draw(st.sampled_from([None, 0.02])),
        births=draw(BIRTHS),
        takes_back=draw(st.booleans()),
        has_barriers=draw(st.booleans()),
        **options,
    )


SIZES = st.none() | st.integers(1, 20)
AHEAD = st.none() | st.integers(1, 20)
RETURNS = st.sampled_from(list(ReturnAs))


class Consumer:
    """Notes how far pulling is ahead of what was finished, or taken."""

    def __init__(self, model: Model, **options: Any) -> None:
        self.model = model
        self.session = SimulatedSession(model, options.pop("reports_running_task", True))
        self.lists = options.pop("lists", False)
        self.plan = plan_for(self.session, **options)
        self.most_ahead = self.taken = 0

    def tasks(self) -> Iterator[Any]:
        for position, task in enumerate(feed(self.session, self.model)):
            is_list = self.plan.return_as is ReturnAs.LIST
            done = self.dispatch.outcomes.completed if is_list else self.taken
            self.most_ahead = max(self.most_ahead, position + 1 - done)
            yield task

    def run(self, aim_seconds: float = 0.01) -> list[Any]:
        tasks: Any = self.tasks()
        if self.lists:
            tasks = list(feed(self.session, self.model))
        self.dispatch = dispatch_on(self.session, tasks, self.plan, aim_seconds)
        if self.plan.return_as is ReturnAs.LIST:
            return results_of(self.dispatch, self.plan)
        self.dispatch.start()
        results: list[Any] = []
        for chunk in self.dispatch.chunks():
            results += chunk
            self.taken = len(results)
        return results


@given(models(), SIZES, AHEAD, RETURNS, st.sampled_from(["skip", "return", "raise"]), st.data())
@some
def test_every_task_has_one_outcome(
    model: Model, size: int | None, ahead: int | None, kind: ReturnAs, on_error: str, data: Any
) -> None:
    retries = data.draw(st.integers(0, 2))
    backoff = data.draw(st.sampled_from([0.0, 0.05]))
    policy = Policy(on_error, retries, (SimulatedError,), backoff=backoff)
    timeout = data.draw(st.none() | st.sampled_from([0.05, 0.5]))
    consumer = Consumer(
        model,
        policy=policy,
        batch_size=size,
        pre_dispatch=ahead,
        return_as=kind,
        timeout=timeout,
        reports_running_task=data.draw(st.booleans()),
        lists=data.draw(st.booleans()),
    )
    may_fail = {*model.failures, *model.kills}
    if model.deaths:
        may_fail = set(range(model.n_tasks))
    elif timeout is not None:
        seconds = [end - start for start, end in itertools.pairwise(model.starts)]
        may_fail |= {position for position, took in enumerate(seconds) if took > timeout - 1e-6}
    try:
        results = consumer.run()
    except (SimulatedError, WorkerDiedError, TaskTimeoutError, AllDead) as error:
        if isinstance(error, AllDead):
            assert not model.is_replaced
        else:
            assert on_error == "raise" and may_fail
        return
    assert consumer.session.has_capacity(1) or not consumer.session.n_workers
    assert consumer.dispatch.outcomes.completed == model.n_tasks == consumer.dispatch.outcomes.total
    assert consumer.dispatch.dispatched == model.n_tasks
    positions = [result for result in results if not isinstance(result, Exception)]
    if kind is not ReturnAs.UNORDERED:
        assert positions == sorted(positions)
    lost = set(range(model.n_tasks)) - set(positions)
    assert len(positions) == len(set(positions)) and lost <= may_fail
    assert len(results) == model.n_tasks - (len(lost) if on_error == "skip" else 0)
    if kind is not ReturnAs.UNORDERED and on_error == "return":
        for position, result in enumerate(results):
            assert result == position or (isinstance(result, Exception) and position in lost)
    if not (model.deaths or model.kills or timeout):
        assert set(consumer.session.ran) <= {0, 1}, "a task runs once"
        certain = {position for position, times in model.failures.items() if times > retries}
        assert lost == certain & set(range(model.n_tasks))


@pytest.mark.parametrize("kind", list(ReturnAs))
def test_what_is_run_again_is_joined_and_taken_back_before_its_batch_is_done(
    kind: ReturnAs,
) -> None:
    failures = {position: 1 for position in range(1, 400) if position % 3}
    for seconds in (1e-4, 1e-3, 0.01):
        model = Model(
            sums([seconds * (1 + 9 * (position % 7 == 0)) for position in range(400)]),
            2,
            latency=1e-4,
            flush_seconds=seconds,
            takes_back=True,
            failures=failures,
        )
        policy = Policy("raise", 2, (SimulatedError,), backoff=seconds)
        consumer = Consumer(model, policy=policy, pre_dispatch=4, return_as=kind)
        assert sorted(consumer.run()) == list(range(400))
        assert consumer.dispatch.dispatched == 400


@given(models(), st.integers(1, 9), st.integers(1, 12), RETURNS)
@some
def test_no_more_than_pre_dispatch_batches_are_ahead(
    model: Model, size: int, ahead: int, kind: ReturnAs
) -> None:
    policy = Policy("return", 1, (SimulatedError,))
    consumer = Consumer(model, policy=policy, batch_size=size, pre_dispatch=ahead, return_as=kind)
    try:
        consumer.run()
    except AllDead:
        pass
    assert consumer.most_ahead <= size * ahead


@given(
    st.lists(SECONDS | st.floats(0.0, 2.0), min_size=1, max_size=120),
    st.integers(1, 12),
    SIZES,
    st.none() | st.integers(0, 20),
    RETURNS,
    st.booleans(),
    BIRTHS,
)
@some
def test_no_worker_is_idle_while_tasks_wait(
    durations: list[float],
    n_workers: int,
    size: int | None,
    more: int | None,
    kind: ReturnAs,
    lists: bool,
    births: list[float],
) -> None:
    """Then the last task starts when all are busy: the bound of list scheduling.

    A worker that is not born yet keeps the first task that it was sent, but none behind it. What is
    not worth taking back is left, and looked at again when it would have been done. Fewer batches
    ahead than workers leave some without, and so do results that wait for one before them.
    """
    ahead = None if more is None or kind is ReturnAs.GENERATOR else n_workers + more
    model = Model(sums(durations), n_workers, births=births)
    consumer = Consumer(model, batch_size=size, pre_dispatch=ahead, return_as=kind, lists=lists)
    consumer.run()
    longest = max(durations)
    bound = (sum(durations) - longest) / n_workers + longest
    assert consumer.session.now <= bound + max(births, default=0.0) + SLACK


@given(models(is_kind=True), SIZES, st.booleans())
@some
def test_overheads_cost_what_they_are(model: Model, size: int | None, lists: bool) -> None:
    """The same bound, with what each batch costs its worker, and the dispatcher, on top."""
    model = replace(model, takes_back=True, has_barriers=True)
    consumer = Consumer(model, batch_size=size, pre_dispatch=None, lists=lists)
    consumer.run()
    seconds = [end - start for start, end in itertools.pairwise(model.starts)]
    longest = max(seconds, default=0.0)
    bound = (sum(seconds) - longest) / model.n_workers + longest
    session = consumer.session
    trip = 2 * model.latency + model.batch_seconds
    serial = session.n_submitted * (model.submit_seconds + 2 * model.answer_seconds)
    serial += model.n_tasks * (model.pull_seconds + model.answer_seconds)
    serial += max(model.births, default=0.0)
    rounds = 2 + session.n_submitted / model.n_workers
    assert session.now <= bound + serial + rounds * (trip + SLACK)


def test_a_batch_on_its_way_is_not_passed_around() -> None:
    """Idle workers took it from each other for ever, each before the other had read it."""
    model = Model(sums([0.5] * 6), 4, latency=0.02, batch_seconds=0.01)
    consumer = Consumer(model, batch_size=3, pre_dispatch=None)
    assert consumer.run() == list(range(6))
    assert consumer.session.n_submitted <= 8 and consumer.session.now < 1.3


def test_simulations_are_what_they_seem() -> None:
    model = Model(sums_of(lambda position: 1.0 + position % 2, 7), 3)
    assert ideal_makespan(model.starts, 3) == 4.0
    consumer = Consumer(model, pre_dispatch=None)
    assert consumer.run() == list(range(7))
    assert consumer.session.now == pytest.approx(4.0)
    assert consumer.session.n_submitted == 7


def test_overheads_are_counted() -> None:
    model = Model(
        sums([1.0] * 3), 1, latency=0.1, batch_seconds=0.02, submit_seconds=0.001,
        answer_seconds=0.0001, pull_seconds=0.01,
    )  # fmt: skip
    consumer = Consumer(model, batch_size=3)
    consumer.run()
    assert consumer.session.now == pytest.approx(
        0.03 + 0.001 + 0.1 + 0.02 + 3 + 0.1 + 3e-4, abs=1e-3
    )


@pytest.mark.parametrize("takes_back", [True, False])
def test_two_thousand_workers(takes_back: bool) -> None:
    rng = random.Random(1)
    model = Model(sums(rng.expovariate(1.0) for _ in range(8000)), 2000, takes_back=takes_back)
    consumer = Consumer(model)
    assert consumer.run() == list(range(8000))
    assert consumer.session.now <= 1.05 * ideal_makespan(model.starts, 2000)
