"""Calls within the tasks of calls: what holds there, who runs them, how much they may use."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest

import parallel_core
from parallel_core import Backend, Parallel, delayed, get_active_backend, parallel_config
from parallel_core.backends.local import ThreadingBackend
from parallel_core.config import current_settings, task_settings

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
