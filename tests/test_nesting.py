"""Calls within the tasks of calls: what holds there, who runs them, how much they may use."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pickle
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import parallel_core
from parallel_core import (
    Backend,
    Parallel,
    delayed,
    effective_n_jobs,
    get_active_backend,
    parallel_config,
)
from parallel_core.backends import cores
from parallel_core.backends.local import ThreadingBackend
from parallel_core.backends.registry import find_backend
from parallel_core.calls.choice import settings_of_tasks
from parallel_core.config import current_settings, task_settings

pytestmark = pytest.mark.warm_workers

core = pytest.mark.core


# The configuration within tasks.


def what_is_in_force() -> tuple[Any, ...]:
    parallel = Parallel()
    hints = [current_settings().values.get(name) for name in ("prefer", "require")]
    return (parallel.verbose, parallel.max_nbytes, parallel.n_jobs or 1, *hints)


@core
@pytest.mark.parametrize("backend", ["threading", "sequential"])
def test_the_configuration_holds_within_tasks(backend: str) -> None:
    """All of it, but what said who runs the outer call."""
    with parallel_config(max_nbytes=77, require="sharedmem"):
        got = Parallel(2, backend=backend)([delayed(what_is_in_force)() for _ in range(3)])
        assert got == [(0, 77, 1, None, "sharedmem")] * 3
    with parallel_config("threading", n_jobs=2, idle_worker_timeout=5, max_nbytes=77):
        seen = Parallel()([delayed(current_settings)()])[0]
    assert (seen.values, seen.backend_params) == ({"max_nbytes": 77}, {})


class UnpicklablePath(type(Path())):  # type: ignore[misc]  # which one depends on the system
    def __reduce__(self) -> Any:
        raise TypeError("not to be pickled")


def test_settings_of_tasks_can_be_pickled_whatever_is_in_them() -> None:
    with parallel_config(temp_folder=UnpicklablePath("/tmp"), max_nbytes=77):
        settings = pickle.loads(pickle.dumps(task_settings(cores=3)))
    assert (settings.values, settings.cores) == ({"max_nbytes": 77}, 3)


# Hints and constraints, beside joblib's.

NOT_GIVEN = object()
KINDS = {
    "LokyBackend": "processes",
    "ThreadingBackend": "threading",
    "SequentialBackend": "sequential",
}


def given(**parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not NOT_GIVEN}


def outcome(library: Any, context: dict[str, Any], parameters: dict[str, Any]) -> Any:
    """Return which backend `library` takes, and with how many jobs, by each way to ask."""
    processes = "loky" if library is not parallel_core else "processes"
    context, parameters = (
        {
            name: processes if value == "processes" and name == "backend" else value
            for name, value in some.items()
        }
        for some in (context, parameters)
    )
    ask = getattr(library, "get_active_backend", None) or library.parallel.get_active_backend
    found: list[Any] = []

    def note(backend: Any, n_jobs: int | None) -> None:
        kind = backend.name if library is parallel_core else KINDS[type(backend).__name__]
        found.append((kind, n_jobs or 1, backend.effective_n_jobs(n_jobs or 1)))

    for way in ("Parallel", "get_active_backend"):
        try:
            with library.parallel_config(**context):
                if way == "Parallel":
                    parallel = library.Parallel(**parameters)
                    note(parallel._backend, parallel.n_jobs)
                else:
                    hints = given(
                        **{name: parameters.get(name, NOT_GIVEN) for name in ("prefer", "require")}
                    )
                    note(*ask(**hints))
                    found.append([library.effective_n_jobs(n) for n in (None, 1, 3, -1)])
        except ValueError:
            found.append(ValueError)
    return found


HINTS = [
    given(prefer=prefer, require=require)
    for prefer in (NOT_GIVEN, None, "threads", "processes")
    for require in (NOT_GIVEN, None, "sharedmem")
]
OF_CONTEXT = [
    hints
    for hints in HINTS
    if (None not in hints.values() and len(hints) < 2) or hints.get("prefer") == "threads"
]  # no contradictions, which ours refuses at once


@pytest.mark.parametrize("of_context", ["processes", "threading", "sequential", NOT_GIVEN])
def test_hints_and_constraints_are_what_joblib_makes_of_them(of_context: Any) -> None:
    joblib = pytest.importorskip("joblib", minversion="1.5")
    wrong = []
    for n_context, hints, own_hints, own_backend, n_own in itertools.product(
        (NOT_GIVEN, 3),
        OF_CONTEXT,
        HINTS,
        (NOT_GIVEN, "threading", "processes", "sequential"),
        (NOT_GIVEN, None, 2),
    ):
        context = {**given(backend=of_context, n_jobs=n_context), **hints}
        parameters = {**given(backend=own_backend, n_jobs=n_own), **own_hints}
        ours, theirs = (
            outcome(library, context, parameters) for library in (parallel_core, joblib)
        )
        if ours != theirs:
            wrong.append((context, parameters, ours, theirs))
    assert not wrong, f"{len(wrong)} differ, such as {wrong[:3]}"


@core
@pytest.mark.parametrize(
    ("context", "parameters", "words"),
    [
        ({"backend": "processes"}, {"prefer": "threads"}, ["prefer='threads'", "context's"]),
        ({"backend": "threading"}, {"prefer": "processes"}, ["prefer='processes'", "context's"]),
        ({"prefer": "threads"}, {"backend": "processes"}, ["prefer='threads'", "backend="]),
        ({"backend": "processes"}, {"require": "sharedmem"}, ["'processes'", "sharedmem"]),
        ({"n_jobs": 3}, {"prefer": "threads"}, ["One job", "n_jobs=3"]),
        ({}, {"prefer": "threads"}, []),
        ({"backend": "threading"}, {"prefer": "threads", "require": "sharedmem"}, []),
    ],
)
def test_what_is_overridden_is_told(
    context: dict[str, Any],
    parameters: dict[str, Any],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def remarks(verbose: int) -> str:
        with parallel_config(**context):
            Parallel(verbose=verbose, **parameters)([delayed(abs)(-1)])
            hints = {name: parameters[name] for name in parameters if name != "backend"}
            if "backend" not in parameters:
                get_active_backend(**hints, verbose=verbose)
        lines = capsys.readouterr().err.splitlines()
        return "\n".join(line for line in lines if "Done" not in line and "Using" not in line)

    said = remarks(10)
    assert all(word in said for word in words)
    assert bool(said) == bool(words)
    assert ("get_active_backend()" in said) == (bool(words) and "backend" not in parameters)
    assert not remarks(9)


# Who runs nested calls.


def levels(depth: int, **parameters: Any) -> list[str]:
    """Return the backend at each of `depth` levels of calls, from here on."""
    name = get_active_backend()[0].name
    if not depth:
        return [name]
    below = Parallel(n_jobs=2, **parameters)([delayed(levels)(depth - 1, **parameters)] * 2)
    assert below[0] == below[1]
    return [name, *below[0]]


@core
@pytest.mark.parametrize(
    ("nested", "expected"),
    [
        (None, ["threading", "sequential", "sequential"]),
        ("sequential", ["sequential"] * 3),
        (["threading"], ["threading"] * 3),
        (("sequential", "threading"), ["sequential"] * 3),  # it is no level
        (("threading", "processes", "sequential"), ["threading", "processes", "sequential"]),
    ],
)
def test_the_policy_for_nested_calls(nested: Any, expected: list[str]) -> None:
    with parallel_config(nested=nested):
        inner = levels(3, prefer="threads")
    assert inner[1:] == expected


@core
def test_a_call_that_a_policy_makes_sequential_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def inner() -> list[int]:
        return Parallel(n_jobs=2, verbose=10)([delayed(abs)(-1)])

    with parallel_config(nested="sequential"):
        Parallel(n_jobs=2, prefer="threads")([delayed(inner)()])
        assert "nested=" in capsys.readouterr().err
    Parallel(n_jobs=2, prefer="threads")([delayed(inner)()])
    assert "nested=" not in capsys.readouterr().err


@core
@pytest.mark.parametrize(
    ("nested", "error", "words"),
    [
        ("thread", ValueError, "nested: unknown backend 'thread'; did you mean 'threading'"),
        (("threading", "nothing"), ValueError, "unknown backend 'nothing'"),
        ((), ValueError, "at least"),
        (2, TypeError, "not 2"),
        ((None,), TypeError, "list of names"),
        ({"threading"}, TypeError, "list of names"),
    ],
)
def test_wrong_policies_are_refused_at_once(nested: Any, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        parallel_config(nested=nested)
    assert "nested" not in current_settings().values


class WithOwnNested(ThreadingBackend):
    name = "own"

    def nested(self, level: int) -> tuple[Backend | str, int | None]:
        return ("sequential", None) if level > 1 else (self, 3)


def test_a_backend_may_say_who_runs_nested_calls() -> None:
    own = WithOwnNested()
    with parallel_config(backend=own):
        assert levels(3) == ["own", "own", "sequential", "sequential"]
        assert Parallel(2)([delayed(active_n_jobs)()]) == [3]
        with parallel_config(nested="threading"):  # who said so is the user
            assert levels(2) == ["own", "threading", "threading"]


def active_n_jobs() -> int:
    return get_active_backend()[1]


# Whatever is mixed, it ends, and starts no more than was promised.

EXECUTOR = ThreadPoolExecutor(2)


@pytest.fixture(scope="module", autouse=True)
def _executor_ends() -> Iterator[None]:
    yield
    EXECUTOR.shutdown()


def descend(backends: tuple[str, ...], value: int) -> int:
    """Return the sum over the leaves of a tree of calls, with a backend for each level."""
    if not backends:
        return value
    if backends[0] == "executor":
        with ThreadPoolExecutor(2) as executor:
            return descend_on(executor, backends, value)
    return descend_on(None if backends[0] == "default" else backends[0], backends, value)


def descend_on(backend: Any, backends: tuple[str, ...], value: int) -> int:
    tasks = (delayed(descend)(backends[1:], 2 * value + n) for n in (0, 1))
    return sum(Parallel(2, backend=backend)(tasks))


for function in (descend, descend_on):
    function.__module__ = "__main__"  # so that workers need no test module for it

FOUR_LEVELS = [
    ("default", "default", "default", "default"),
    ("processes", "threading", "processes", "threading"),
    ("threading", "processes", "executor", "sequential"),
    ("executor", "threading", "multiprocessing", "executor"),
    ("sequential", "executor", "threading", "processes"),
    ("multiprocessing", "sequential", "processes", "default"),
    ("executor", "executor", "executor", "executor"),
    ("processes", "processes", "threading", "threading"),
    ("threading", "threading", "threading", "processes"),
    ("loky", "threading", "executor", "default"),
]


@pytest.mark.parametrize("backends", FOUR_LEVELS, ids=" in ".join)
def test_four_levels_of_any_mix_end(backends: tuple[str, ...]) -> None:
    assert descend(backends, 1) == sum(range(16, 32))


def on_the_same(depth: int) -> int:
    tasks = (delayed(on_the_same)(depth - 1) for _ in range(2))
    return sum(Parallel(2, backend=EXECUTOR)(tasks)) if depth else 1


@core
def test_an_executor_within_its_own_tasks_is_not_waited_for() -> None:
    """All of its threads would wait for calls that nobody is left to run."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert on_the_same(4) == 16
        with parallel_config("threading", n_jobs=2):  # and in threads that its tasks start
            assert sum(Parallel()(delayed(on_the_same)(2) for _ in range(3))) == 12
    assert all("a task of its own" in str(warning.message) for warning in caught)


def on_a_copy(_: int) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return Parallel(2, backend=EXECUTOR)(delayed(abs)(-i) for i in range(3))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
def test_a_forked_copy_of_an_executor_is_not_waited_for() -> None:
    assert Parallel(2, backend=EXECUTOR)(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=fork) as pool:
        assert pool.submit(on_a_copy, 0).result() == [0, 1, 2]


# How much they may use.


def number_of_jobs(*asked: int | None) -> list[int]:
    """Return what `n_jobs` comes to at each level, in calls within each other."""
    got = [effective_n_jobs(asked[0])]
    if len(asked) == 1:
        return got
    return [*got, *Parallel(asked[0], prefer="threads")([delayed(number_of_jobs)(*asked[1:])])[0]]


@core
def test_what_nested_calls_start_by_themselves_stays_within_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cores, "cpu_count", lambda: 12)
    with parallel_config(nested="threading"):
        assert number_of_jobs(3, -1, -1) == [3, 4, 1]
        assert number_of_jobs(3, 2, -1, -1) == [3, 2, 2, 1]
        assert number_of_jobs(3, -2, 5) == [3, 3, 5]  # what is asked for in numbers is given
        assert number_of_jobs(1, -1) == [1, 12]  # one job takes nothing
        assert number_of_jobs(100, -1) == [100, 1]
        assert number_of_jobs(4, None) == [4, 1]


def within(barrier: threading.Barrier) -> int:
    barrier.wait()
    count = threading.active_count()
    barrier.wait()
    return count


def test_numbers_at_two_levels_are_given() -> None:
    barrier = threading.Barrier(6, timeout=20)
    before = threading.enumerate()

    def outer() -> list[int]:
        return Parallel(2)(delayed(within)(barrier) for _ in range(2))

    got = Parallel(3, prefer="threads")(delayed(outer)() for _ in range(3))
    others = sum(thread.is_alive() for thread in before)  # one of a test before may have ended
    assert got == [[others + 3 + 6] * 2] * 3


def test_what_tasks_of_any_backend_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "cpu_count", lambda: 12)
    with parallel_config("processes", inner_max_num_threads=2, max_nbytes=77):
        told = settings_of_tasks(find_backend("processes"), 3)
        assert (told.values, told.cores, told.threads) == ({"max_nbytes": 77}, 4, 2)
    own = settings_of_tasks(WithOwnNested(), 24)
    assert (own.values["backend"].name, own.values["n_jobs"], own.cores) == ("own", 3, 1)
