"""How large a batch is: pure figures in, a size out."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_core import Parallel, delayed
from parallel_core.dispatch.sizing import BatchSizer
from parallel_core.dispatch.source import TaskSource, known_length
from parallel_core.serialization.batch import Batch
from parallel_core.serialization.definitions import Definitions
from parallel_core.serialization.encoding import BatchBuilder

pytestmark = pytest.mark.core

MEGABYTE = 1 << 20
MOST = 1 << 17


def settled(task_seconds: float, **options: Any) -> BatchSizer:
    """Return a sizer that has seen enough tasks of so many seconds."""
    options = {"fixed": None, "aim_seconds": 0.01, **options}
    sizer = BatchSizer(**options)
    for _ in range(12 * max(1, options.get("n_workers", 1))):
        sizer.record(sizer.size, sizer.size * task_seconds)
    return sizer


# --- growth, and the aim --------------------------------------------------------------------------


def test_a_fixed_size_stays() -> None:
    sizer = BatchSizer(7, 0.01, total=10)
    for seconds in (1e-9, 1.0, 0.0):
        sizer.record(7, seconds)
        sizer.handed_over(seconds)
        sizer.pulled(1, 1 << 30, 10.0)
        assert sizer.size == sizer.to_pull() == 7
        assert sizer.look_after(7, 1, 0, 1e9), "however long it takes"


def test_the_most_is_for_a_fixed_size_too() -> None:
    assert BatchSizer(7, 0.01, most=3).to_pull() == 3
    assert settled(1e-6, most=3).to_pull() == 3


@pytest.mark.parametrize("task_seconds", [1e-7, 1e-5, 1e-3, 0.1, 10.0])
def test_sizes_approach_the_aim_and_never_overshoot_it_by_far(task_seconds: float) -> None:
    sizer = BatchSizer(None, 0.01)
    assert sizer.size == 1
    sizes = []
    for _ in range(50):
        sizes.append(sizer.size)
        sizer.record(sizer.size, sizer.size * task_seconds)
    assert sizes == sorted(sizes)
    assert all(later <= 16 * size for size, later in itertools.pairwise(sizes))
    ideal = max(1, min(0.01 / task_seconds, MOST))
    assert abs(sizes[-1] - ideal) <= 1 and sizer.to_pull() == sizes[-1]


def test_the_dearer_handing_over_is_the_longer_batches_get() -> None:
    sizer = BatchSizer(None, 0.01)
    assert sizer.aim_seconds == 0.01
    for cost, aim in (
        (1.0, 0.01),
        (4e-3, 0.4),
        (1e-3, 0.1),
        (5.0, 0.1),
        (1e-5, 0.01),
        (-1e-9, 0.01),
    ):
        sizer.handed_over(cost)
        assert sizer.aim_seconds == pytest.approx(aim)


def test_the_dispatcher_has_half_of_its_time_left_with_many_workers() -> None:
    sizer = BatchSizer(None, 0.01, n_workers=10_000)
    sizer.handed_over(5e-5)
    assert sizer.aim_seconds == pytest.approx(2.0)
    assert BatchSizer(None, 0.01, n_workers=10_000).size == 1


# --- drift ----------------------------------------------------------------------------------------


def test_sizes_shrink_at_once_when_tasks_get_longer() -> None:
    sizer = settled(1e-6)
    assert sizer.size > 1000
    sizer.record(1, 1.0)
    assert sizer.size == 1
    assert sizer.long_tasks


def test_sizes_grow_again_when_tasks_get_shorter() -> None:
    sizer = settled(1.0)
    assert sizer.size == 1
    for _ in range(25):
        sizer.record(sizer.size, sizer.size * 1e-5)
    assert 900 <= sizer.size <= 1000


def test_who_answers_first_had_short_tasks() -> None:
    sizer = BatchSizer(None, 0.5, n_workers=100)
    for _ in range(49):
        sizer.record(1, 1e-4)
        assert sizer.size == 1
    sizer.record(1, 1e-4)
    assert sizer.size == 16


def test_one_slow_task_among_many_workers_says_little() -> None:
    sizer = settled(1e-3, n_workers=1000)
    sizer.record(1, 0.1)
    assert 7 <= sizer.size < 10
    for _ in range(5000):
        sizer.record(sizer.size, sizer.size * 0.01)
    assert sizer.size == 1


@given(st.lists(st.floats(1e-7, 1.0), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_no_batch_takes_longer_than_the_aim_if_tasks_stay_as_the_last_was(
    durations: list[float],
) -> None:
    sizer = BatchSizer(None, 0.01)
    for seconds in durations:
        sizer.record(sizer.size, sizer.size * seconds)
        assert sizer.size == 1 or sizer.size * seconds <= 0.01 * 1.001


def test_sizes_stand_strange_measurements() -> None:
    sizer = BatchSizer(None, 0.01, n_workers=0, total=0)
    for tasks, seconds in ((0, 5.0), (1, 0.0), (1, -1e-9), (10**6, 0.0), (1, 1e9), (3, 1e-12)):
        sizer.record(tasks, seconds)
        sizer.pulled(tasks, tasks, seconds)
        assert type(sizer.size) is type(sizer.to_pull()) is int
        assert 1 <= sizer.to_pull() <= sizer.size <= MOST


# --- pulling: bytes, time, and an input that blocks -----------------------------------------------


def pull(sizer: BatchSizer, task_nbytes: int = 0, task_seconds: float = 1e-7) -> int:
    """Pull a batch of tasks that have so many bytes, and take so long to come."""
    most, pulled = sizer.to_pull(), 0
    while step := sizer.look_after(most, pulled, pulled * task_nbytes, pulled * task_seconds):
        pulled += step
        assert pulled <= most
    sizer.pulled(pulled, pulled * task_nbytes, pulled * task_seconds)
    return pulled


def test_bytes_are_limited_from_the_second_look_on() -> None:
    sizer = settled(1e-6)
    assert sizer.size > 5000
    for nbytes in (0, 1, 300, MEGABYTE // 7, 3 * MEGABYTE):
        pull(sizer, nbytes)
        pulled = pull(sizer, nbytes)
        assert pulled >= 1
        assert (pulled - 1) * nbytes <= MEGABYTE, "the task that goes over it is the last"


def test_bytes_that_were_large_are_forgotten() -> None:
    sizer = settled(1e-6)
    assert pull(sizer, MEGABYTE) <= 2
    for _ in range(20):
        pulled = pull(sizer)
    assert pulled > 1000


def test_fewer_bytes_where_fewer_may_be_ahead() -> None:
    sizer = settled(1e-6, most_nbytes=1000)
    pull(sizer, 100)
    assert pull(sizer, 100) <= 11


def test_pulling_ends_in_time() -> None:
    """Serializing counts, for it is part of pulling."""
    for seconds in (1e-7, 1e-5, 1e-3, 1e-2, 1.0):
        sizer = settled(1e-6)
        for _ in range(5):
            pulled = pull(sizer, 0, seconds)
        assert pulled == 1 or pulled * seconds <= 0.002 + 1e-4 + 2 * seconds


def test_an_input_that_has_blocked_is_asked_for_little() -> None:
    sizer = settled(1e-6)
    sizer.pulled(500, 0, 1.0)
    came = 0
    while (most := sizer.to_pull()) < sizer.size:
        assert most <= came // 4 + 1
        assert sizer.look_after(most, 0, 0, 0.0) <= most
        sizer.pulled(most, 0, 1e-6)
        came += most
    assert came < 10 * sizer.size, "and for more and more, when it goes on"


def test_tasks_of_a_slow_input_go_one_by_one() -> None:
    sizer = settled(1e-6)
    sizer.handed_over(2e-5)
    sizer.pulled(10, 0, 10 * 1e-3)
    assert sizer.to_pull() == 1
    sizer.pulled(1, 0, 1e-6)
    assert sizer.to_pull() == sizer.size


def test_tasks_go_together_where_workers_take_longer_for_them_than_the_input() -> None:
    sizer = BatchSizer(None, 0.02, n_workers=2)
    for _ in range(20):
        sizer.record(10, 10 * 5e-4)
    sizer.handed_over(1e-6)
    sizer.pulled(1, 0, 1e-4)
    assert sizer.to_pull() == sizer.size > 10
    sizer.pulled(1, 0, 3e-4)  # now two workers wait for it
    assert sizer.to_pull() == 1


# --- the end of an input of known length ----------------------------------------------------------


def test_batches_get_smaller_towards_the_end() -> None:
    sizer = settled(1e-5, n_workers=4, total=10_000)
    sizes, left = [], 10_000
    while left:
        size = min(pull(sizer), left)
        sizes.append(size)
        left -= size
        assert size <= max(sizer.size // 8, left // 4)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == sizer.size and sizes[-1] <= sizer.size // 8
    assert len(sizes) < 40, "and not too small"


def test_a_length_that_was_wrong_does_no_harm() -> None:
    sizer = settled(1e-5, n_workers=4, total=3)
    for _ in range(100):
        assert pull(sizer) == sizer.size // 8


def test_a_great_many_workers_all_get_some() -> None:
    sizer = settled(1e-6, aim_seconds=0.5, n_workers=1000)
    assert sizer.size > 100_000
    assert sizer.share(10**5) == sizer.size // 8
    sizer = settled(0.01, aim_seconds=0.5, n_workers=1000)
    assert sizer.share(10**6) == sizer.size and sizer.share(10**4) == 10


class Odd:
    def __init__(self, hint: object) -> None:
        self.hint = hint

    def __length_hint__(self) -> Any:
        if isinstance(self.hint, Exception):
            raise self.hint
        return self.hint


def test_known_length() -> None:
    assert known_length([1, 2]) == known_length(iter((1, 2))) == known_length(range(2)) == 2
    assert known_length(x for x in [1]) is None
    assert known_length(map(abs, [1])) is None
    assert known_length(Odd(5)) == 5
    for odd in (-1, "2", NotImplemented, OSError(), TypeError(), 1 << 80):
        assert known_length(Odd(odd)) is None


# --- the source asks it ---------------------------------------------------------------------------


def source_of(
    tasks: Any, sizer: BatchSizer, clock: Callable[[], float] = time.perf_counter
) -> TaskSource:
    return TaskSource(tasks, BatchBuilder(Definitions()), sizer, clock)


def batches(source: TaskSource, sizer: BatchSizer) -> Iterator[Batch]:
    while not source.exhausted:
        batch = source.pull(sizer.to_pull())
        if batch is not None:
            yield batch


@given(
    st.lists(st.sampled_from([0, 10, 5000, 400_000]), max_size=300), st.floats(1e-7, 0.1), st.data()
)
@settings(max_examples=30, deadline=None)
def test_every_task_is_in_one_batch(nbytes: list[int], seconds: float, data: Any) -> None:
    now = 0.0

    def tasks() -> Iterator[Any]:
        nonlocal now
        for count in nbytes:
            now += data.draw(st.sampled_from([0.0, 0.0, 0.0, 1e-4, 1.0]))
            yield delayed(len)(bytes(count))

    sizer = settled(seconds)
    got = list(batches(source_of(tasks(), sizer, lambda: now), sizer))
    assert [batch.start for batch in got] == [
        sum(batch.size for batch in got[:index]) for index in range(len(got))
    ]
    assert sum(batch.size for batch in got) == len(nbytes)


def test_how_many_are_pulled_without_looking() -> None:
    sizer = settled(1e-7)
    assert sizer.look_after(5000, 800, 0, 800e-7) == 64 + 100, "an eighth of what came at once"
    assert sizer.look_after(5000, 0, 0, 0.0) == 64, "the next batch may have other tasks"
    assert sizer.look_after(5000, 800, 0, 1e-3) == 80, "what comes within 0.1 ms"


def test_large_arguments_make_batches_small() -> None:
    sizer = settled(1e-7)
    tasks = [delayed(len)(bytes(100_000)) for _ in range(200)]
    sizes = [batch.size for batch in batches(source_of(tasks, sizer), sizer)]
    assert max(sizes) <= 64 and max(sizes[1:]) <= 11


def test_a_task_runs_while_the_generator_waits_for_it(tmp_path: Any) -> None:
    """The generator is slow, and yields the next task only when the one before it has run."""

    def tasks() -> Iterator[Any]:
        for index in range(10):
            path = tmp_path / str(index)
            yield delayed(path.touch)()
            limit = time.monotonic() + 20
            time.sleep(0.005)  # if it were quick, tasks would be pulled together
            while not path.exists():
                assert time.monotonic() < limit, f"task {index} is held back"
                time.sleep(0.03)  # slow, beside what handing over takes

    assert Parallel(2)(tasks()) == [None] * 10
