"""The same random numbers in each task, wherever and however often it runs."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.random import SeedSequence, default_rng
from seed_tasks import SEED, TASKS, draw, expected

from parallel_core import JournalError, Parallel, delayed, rng
from parallel_core.context.seeds import NESTED
from watching import HOME, LIMIT

pytestmark = pytest.mark.warm_workers

core = pytest.mark.core


def draw_all(_: object = None) -> tuple[float, float, float]:
    return float(rng().random()), random.random(), float(np.random.random_sample())


def test_global_generators_are_seeded_in_processes_and_put_back() -> None:
    random.seed(1)
    np.random.seed(1)
    state = random.getstate(), np.random.get_state(legacy=False)
    found = [
        Parallel(n_jobs, backend, seed=SEED, batch_size=size)(
            delayed(draw_all)(n) for n in range(TASKS)
        )
        for backend, n_jobs, size in (
            ("sequential", 1, "auto"),
            ("processes", 2, 1),
            ("processes", 4, 5),
            ("loky", 2, 5),
        )
    ]
    assert all(other == found[0] for other in found)
    for numbers in zip(*found[0], strict=True):
        assert len(set(numbers)) == TASKS
    assert random.getstate() == state[0]
    assert repr(np.random.get_state(legacy=False)) == repr(state[1])
    tasks = (delayed(random.random)() for _ in range(4))  # the caller's own numbers, in between
    before = random.random()
    random.seed(1)
    mixed = [Parallel(1, seed=SEED)([next(tasks)])[0], random.random()]
    assert mixed == [found[0][0][1], before]


def test_an_engine_gets_its_own_state_back() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as executor:
        executor.submit(seed_both).result()
        Parallel(1, executor, seed=SEED)(delayed(draw_all)(n) for n in range(3))
        got = executor.submit(draw_without_seed).result()
    seed_both()
    assert got == draw_without_seed()


def seed_both() -> None:
    random.seed(7)
    np.random.seed(7)


def draw_without_seed() -> tuple[float, float]:
    return random.random(), float(np.random.random_sample())


def test_threads_leave_the_global_generators_alone() -> None:
    random.seed(3)
    state = random.getstate()
    for engine in "threading", ThreadPoolExecutor(2):
        assert Parallel(2, engine, seed=SEED)(delayed(draw)(n) for n in range(3)) == expected()[:3]
        nested = Parallel(2, engine, seed=SEED)(delayed(draws_inside)(1) for _ in range(3))
        assert len({number for numbers in nested for number in numbers}) == 12
    engine.shutdown()
    assert random.getstate() == state


def dies_once(folder: str, position: int) -> tuple[float, float, float]:
    numbers = draw_all()
    marker = Path(folder) / str(position)
    if position % 4 == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return numbers


def fails_twice(folder: str, position: int) -> float:
    number = draw()
    marker = Path(folder) / f"{os.getpid()}-{position}"
    if position % 4 == 1 and (not marker.exists() or marker.stat().st_size < 2):
        with marker.open("a") as file:
            file.write("x")
        raise OSError(number)
    return number


def test_a_task_that_is_run_again_begins_anew(tmp_path: Path) -> None:
    calm = Parallel(1, seed=SEED)(delayed(draw_all)(n) for n in range(TASKS))
    call = Parallel(2, seed=SEED, retries=2, retry_backoff=0)
    assert call(delayed(dies_once)(str(tmp_path), n) for n in range(TASKS)) == calm
    options: dict[str, Any] = {"retries": 9, "retry_on": OSError, "retry_backoff": 0}
    for backend in "processes", "threading", "sequential":
        folder = tmp_path / backend
        folder.mkdir()
        call = Parallel(2, backend, seed=SEED, **options)
        tasks = [delayed(fails_twice)(str(folder), n) for n in range(TASKS)]
        assert call(tasks) == expected()


def fails_with_its_numbers(position: int) -> None:
    if position == 5:
        raise OSError(draw_all())


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_replay_gets_the_same_stream(backend: str) -> None:
    with pytest.raises(OSError, match=str(expected()[5])) as caught:
        Parallel(2, backend, seed=SEED)(delayed(fails_with_its_numbers)(n) for n in range(9))
    replay: Any = caught.value.replay  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"\(") as again:
        replay()
    # In threads the global generators are nobody's.
    shown = 3 if backend != "threading" else 1
    assert again.value.args[0][:shown] == caught.value.args[0][:shown]


def draws_inside(n_jobs: int) -> list[float]:
    own = draw()
    first = Parallel(n_jobs)(delayed(draw)() for _ in range(2))
    second = Parallel(n_jobs)(delayed(draw)() for _ in range(1))
    return [own, *first, *second]


def test_nested_calls_follow_from_the_task() -> None:
    found = [
        Parallel(outer, backend, seed=SEED)(delayed(draws_inside)(inner) for _ in range(3))
        for outer, backend, inner in ((1, None, 1), (2, "processes", 1), (2, "processes", 2))
    ]
    found.append(Parallel(2, "threading", seed=SEED)(delayed(draws_inside)(1) for _ in range(3)))
    assert all(other == found[0] for other in found)
    keys = [(1,), (1, NESTED, 0, 0), (1, NESTED, 0, 1), (1, NESTED, 1, 0)]
    streams = [default_rng(SeedSequence(SEED, spawn_key=key)) for key in keys]
    assert found[0][1] == [float(stream.random()) for stream in streams]
    own = Parallel(2, seed=SEED)(delayed(draw_with_a_seed_of_its_own)() for _ in range(2))
    assert own == [expected(5, 1)] * 2


def awaits_draws() -> list[list[float]]:
    async def two() -> list[Any]:
        one = await Parallel(1).acall([delayed(draw)()])
        return [one, *await asyncio.gather(Parallel(1).acall([delayed(draw)()]))]

    return [*asyncio.run(two()), Parallel(1)([delayed(draw)()])]


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_awaited_calls_in_a_task_differ(backend: str) -> None:
    found = Parallel(2, backend, seed=SEED)(delayed(awaits_draws)() for _ in range(2))
    keys = [(1, NESTED, number, 0) for number in range(3)]
    streams = [default_rng(SeedSequence(SEED, spawn_key=key)) for key in keys]
    assert found[1] == [[float(stream.random())] for stream in streams]


TRIED: list[list[float]] = []


def draws_and_fails_once() -> None:
    TRIED.append(Parallel(1)(delayed(draw)() for _ in range(2)))
    if len(TRIED) < 2:
        raise OSError


def test_calls_of_a_second_attempt_are_those_of_the_first() -> None:
    TRIED.clear()
    Parallel(2, "threading", seed=SEED, retries=1, retry_on=OSError, retry_backoff=0)(
        [delayed(draws_and_fails_once)()]
    )
    assert len(TRIED) == 2 and TRIED[0] == TRIED[1]


def draw_with_a_seed_of_its_own() -> list[float]:
    return list(Parallel(1, seed=5)([delayed(draw)()]))


def is_one_object() -> bool:
    return rng() is rng() and rng().random() != rng().random()


def test_it_is_one_object_in_a_task() -> None:
    for backend in "processes", "threading", "sequential":
        assert (
            Parallel(2, backend, seed=SEED)(delayed(is_one_object)() for _ in range(5))
            == [True] * 5
        )


@pytest.mark.parametrize(
    ("seed", "sequence"),
    [
        (np.int64(7), SeedSequence(7)),
        (2**200, SeedSequence(2**200)),
        ([1, 2, 3], SeedSequence([1, 2, 3])),
        (np.array([4, 5], np.uint8), SeedSequence([4, 5])),
        (SeedSequence(8), SeedSequence(8)),
        (SeedSequence([1, 2], spawn_key=(3,), pool_size=8), None),
    ],
)
def test_forms_of_a_seed(seed: Any, sequence: SeedSequence | None) -> None:
    root = sequence or seed
    child = SeedSequence(root.entropy, spawn_key=(*root.spawn_key, 1), pool_size=root.pool_size)
    for n_jobs in 1, 2:
        got = Parallel(n_jobs, seed=seed)(delayed(draw)() for _ in range(2))
        assert got[1] == default_rng(child).random()


@pytest.mark.parametrize(
    ("seed", "error", "words"),
    [
        (-1, ValueError, "must not be negative, as -1 is"),
        ([1, -2], ValueError, "must not be negative"),
        ([], ValueError, r"must not be empty, as \[\] is"),
        (True, TypeError, "must be a whole number.*not True"),
        ([1, True], TypeError, "must be a whole number"),
        (1.0, TypeError, "not 1.0"),
        ("1", TypeError, "not '1'"),
        (np.zeros((2, 2), int), TypeError, "must be a whole number"),
        (default_rng(1), TypeError, "draw a number from it"),
        (random, TypeError, "draw a number from it"),
    ],
)
def test_what_is_no_seed(seed: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Parallel(2, seed=seed)


def test_there_is_none_outside_of_a_seeded_task() -> None:
    with pytest.raises(RuntimeError, match=r"rng\(\) is for tasks of a call with a seed, as in"):
        rng()
    Parallel(1, seed=1)([delayed(draw)()])
    Parallel(2, seed=1)(delayed(draw)() for _ in range(4))
    for n_jobs in 1, 2:
        with pytest.raises(RuntimeError, match="tasks of a call with a seed"):
            Parallel(n_jobs)([delayed(draw)()])


def test_a_journal_is_of_one_seed(tmp_path: Path) -> None:
    def call(seed: Any) -> Any:
        journal = tmp_path / "journal"
        return Parallel(2, seed=seed, journal=journal)(delayed(draw)() for _ in range(TASKS))

    assert call(SEED) == call(SEED) == expected()
    for other in 4321, [SEED], None:
        with pytest.raises(JournalError, match="its seed"):
            call(other)


LATE = """
    import sys
    from parallel_core import Parallel, delayed

    def draw_late(n):
        was_there = "random" in sys.modules
        import random, numpy.random
        names = random.__spec__.loader, random.__loader__, numpy.random.mtrand.__spec__.loader
        ours = [name for name in names if "parallel_core" in type(name).__module__]
        return (random.random(), float(numpy.random.rand())), was_there, ours

    if __name__ == "__main__":
        tasks = [delayed(draw_late)(n) for n in range(4)]
        first = Parallel(2, seed=3, batch_size=2)(tasks)
        assert [was_there for _, was_there, _ in first] == [False, True] * 2, first
        again = Parallel(2, seed=3)(tasks), Parallel(1, seed=3)(tasks)
        for numbers in zip(first, *again):
            assert len({found for found, _, _ in numbers}) == 1, numbers
            assert not any(ours for _, _, ours in numbers)
        assert len({found for found, _, _ in first}) == 4
        assert not [finder for finder in sys.meta_path if "parallel_core" in repr(finder)]
        print("good")
"""


def test_a_generator_that_a_task_is_the_first_to_import(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(LATE))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )
    assert (done.stdout, done.stderr) == ("good\n", "")
