"""Bad input gets a clear error of a documented type, at once, and the next call works."""

from __future__ import annotations

import contextvars
import decimal
import fractions
import functools
import math
import pickle
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import pytest
from bad_tasks import (
    DoesNotLoad,
    Holder,
    Unpicklable,
    broken_initializer,
    leaving_initializer,
    needs_two,
    plus_one,
    returns_nested,
    returns_unpicklable,
    returns_what_does_not_load,
)

from parallel_core import (
    InitializerError,
    InvalidTaskError,
    Parallel,
    ParallelError,
    SerializationError,
    delayed,
    effective_n_jobs,
    get_active_backend,
    parallel_backend,
    parallel_config,
    register_parallel_backend,
    shutdown_workers,
)

pytestmark = pytest.mark.warm_workers

core = pytest.mark.core
BACKENDS = ["processes", "threading", "sequential", "multiprocessing", "loky"]


def backends(*names: str) -> pytest.MarkDecorator:
    """Run a test with each of these as `backend`; the fastest ones belong to the core."""
    fastest = ("processes", "threading")
    marks = {True: [core], False: []}
    return pytest.mark.parametrize(
        "backend", [pytest.param(name, marks=marks[name in fastest]) for name in names]
    )


every_backend = backends(*BACKENDS)
separate = backends("processes", "multiprocessing", "loky")  # those that pickle


def works(backend: str | None = None) -> bool:
    """Whether the next call works."""
    got = Parallel(n_jobs=2, backend=backend)(delayed(math.sqrt)(i) for i in range(10))
    return got == [math.sqrt(i) for i in range(10)]


def notes(error: BaseException) -> str:
    """Return the message of `error` with its notes."""
    return "\n".join([str(error), *getattr(error, "__notes__", ())])


# Parameters.

PARAMETERS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"n_jobs": 0}, ValueError, "n_jobs"),
    ({"n_jobs": 0.5}, ValueError, "n_jobs"),
    ({"n_jobs": False}, ValueError, "n_jobs"),
    ({"n_jobs": "many"}, ValueError, "n_jobs.*many"),
    ({"n_jobs": b"2"}, ValueError, "n_jobs"),
    ({"n_jobs": math.nan}, ValueError, "n_jobs.*nan"),
    ({"n_jobs": math.inf}, ValueError, "n_jobs.*inf"),
    ({"n_jobs": 1 + 2j}, TypeError, "n_jobs"),
    ({"n_jobs": [2]}, TypeError, "n_jobs"),
    ({"n_jobs": object()}, TypeError, "n_jobs"),
    ({"n_jobs": np.array([1, 2])}, TypeError, "n_jobs"),
    ({"batch_size": 0}, ValueError, "batch_size.*0"),
    ({"batch_size": -1}, ValueError, "batch_size"),
    ({"batch_size": 1.5}, ValueError, "batch_size"),
    ({"batch_size": "1"}, ValueError, "batch_size"),
    ({"batch_size": "automatic"}, ValueError, "batch_size.*automatic"),
    ({"batch_size": None}, ValueError, "batch_size"),
    ({"batch_size": True}, ValueError, "batch_size"),
    ({"timeout": -1}, ValueError, "timeout"),
    ({"timeout": 0}, ValueError, "timeout"),
    ({"timeout": math.nan}, ValueError, "timeout"),
    ({"timeout": "5"}, TypeError, "timeout"),
    ({"timeout": [5]}, TypeError, "timeout"),
    ({"timeout": True}, TypeError, "timeout"),
    ({"timeout": 10**400}, ValueError, "timeout"),
    ({"timeout": 1j}, TypeError, "timeout"),
    ({"backend": "nonsense"}, ValueError, "nonsense"),
    ({"backend": "thraeding"}, ValueError, "thraeding.*did you mean 'threading'"),
    ({"backend": ""}, ValueError, "backend"),
    ({"backend": 3}, TypeError, "backend.*3"),
    ({"backend": object}, TypeError, "backend"),
    ({"backend": ["threading"]}, TypeError, "backend"),
    ({"backend": ThreadPoolExecutor}, TypeError, "backend"),
    ({"pre_dispatch": "__import__('os')"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "n_jobs.bit_length()"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "2*n_job"}, ValueError, "pre_dispatch.*n_job"),
    ({"pre_dispatch": "[1, 2]"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "2 if n_jobs else 3"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "9**9**9"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "1 << 5"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "lambda: 1"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "n_jobs; n_jobs"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "2 *"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": ""}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "1/0"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "'all'"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "True"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "1e999"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "1\0"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "(" * 150 + "1" + ")" * 150}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "9" * 199 + "*" + "9"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "min()"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": "print(1)"}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": 0}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": -3}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": math.nan}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": None}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": True}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": [1]}, ValueError, "pre_dispatch"),
    ({"pre_dispatch": b"all"}, ValueError, "pre_dispatch"),
    ({"return_as": "tuple"}, ValueError, "return_as.*tuple"),
    ({"return_as": list}, ValueError, "return_as"),
    ({"return_as": []}, ValueError, "return_as"),
    ({"return_as": None}, ValueError, "return_as"),
    ({"verbose": "loud"}, TypeError, "verbose"),
    ({"verbose": None}, TypeError, "verbose"),
    ({"verbose": math.nan}, ValueError, "verbose"),
    ({"prefer": "cores"}, ValueError, "prefer.*cores"),
    ({"prefer": ["threads"]}, ValueError, "prefer"),
    ({"require": "speed"}, ValueError, "require.*speed"),
    ({"require": "sharedmem", "prefer": "processes"}, ValueError, "sharedmem"),
    ({"require": "sharedmem", "backend": "processes"}, ValueError, "sharedmem"),
    ({"require": "sharedmem", "backend": "loky"}, ValueError, "sharedmem"),
    ({"max_nbytes": "lots"}, ValueError, "lots"),
    ({"max_nbytes": "1X"}, ValueError, "1X"),
    ({"max_nbytes": -1}, ValueError, "max_nbytes"),
    ({"max_nbytes": [1]}, TypeError, "max_nbytes"),
    ({"mmap_mode": "x"}, ValueError, "mmap_mode"),
    ({"temp_folder": 3}, TypeError, "temp_folder"),
    ({"idle_worker_timeout": -1}, ValueError, "idle_worker_timeout"),
    ({"idle_worker_timeout": math.nan}, ValueError, "idle_worker_timeout"),
    ({"idle_worker_timeout": "300"}, TypeError, "idle_worker_timeout"),
    ({"initializer": "setup"}, TypeError, "initializer"),
    ({"initializer": 3}, TypeError, "initializer"),
    ({"initializer": plus_one, "initargs": 3}, TypeError, "initargs"),
    ({"initializer": plus_one, "initargs": "text"}, TypeError, "initargs"),
    ({"inner_max_num_threads": 0}, ValueError, "inner_max_num_threads"),
    ({"inner_max_num_threads": "two"}, ValueError, "inner_max_num_threads"),
    ({"njobs": 2}, TypeError, "njobs"),
    ({"backend": "threading", "njobs": 2}, TypeError, "njobs"),
    ({"backend": "sequential", "njobs": 2}, TypeError, "njobs"),
    ({"backend": "processes", "njobs": 2}, TypeError, "njobs"),
    ({"backend": "loky", "njobs": 2}, TypeError, "njobs"),
    ({"backend": "multiprocessing", "njobs": 2}, TypeError, "njobs"),
]


@pytest.mark.fresh_workers
@core
@pytest.mark.parametrize(("parameters", "kind", "words"), PARAMETERS)
def test_parameters(parameters: dict[str, Any], kind: type[Exception], words: str) -> None:
    """The error comes when the object is made, before there is any worker."""
    with pytest.raises(kind, match=words):
        Parallel(**{"n_jobs": 2, **parameters})
    assert shutdown_workers() == 0


def test_the_call_after_bad_parameters_works() -> None:
    for parameters, kind, _ in PARAMETERS[::7]:
        with pytest.raises(kind):
            Parallel(**{"n_jobs": 2, **parameters})
        assert works()


CONTEXT_PARAMETERS = [
    (parameters, kind, words)
    for parameters, kind, words in PARAMETERS
    if set(parameters)
    <= {
        "n_jobs",
        "backend",
        "verbose",
        "prefer",
        "require",
        "max_nbytes",
        "mmap_mode",
        "temp_folder",
        "initializer",
        "initargs",
        "idle_worker_timeout",
        "inner_max_num_threads",
        "njobs",
    }
    and parameters.keys() != {"require", "backend"}
]


@pytest.mark.parametrize(("parameters", "kind", "words"), CONTEXT_PARAMETERS)
def test_parameters_of_the_configuration(
    parameters: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """At once, and nothing stays in force."""

    def configure() -> None:
        with pytest.raises(kind, match=words):
            parallel_config(**parameters)
        backend, n_jobs = get_active_backend()
        assert (backend.name, n_jobs) == ("processes", 1)

    contextvars.copy_context().run(configure)  # what is in force ends with it, in any case


def test_a_typing_error_in_a_parameter_within_a_context() -> None:
    with parallel_config(backend="threading", n_jobs=2):
        with pytest.raises(TypeError, match="njobs"):
            Parallel(njobs=4)
    with parallel_backend("threading", n_jobs=2):
        with pytest.raises(TypeError, match="njobs"):
            Parallel(njobs=4)
    backend, _ = get_active_backend()
    with pytest.raises(TypeError, match="njobs"):
        Parallel(backend=backend, njobs=4)


def test_parallel_backend_wants_a_backend() -> None:
    with pytest.raises(TypeError):
        parallel_backend()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="nonsense"):
        parallel_backend("nonsense")
    for name in BACKENDS:
        with pytest.raises(TypeError, match="endpoint"):
            parallel_backend(name, endpoint="http://compute")
    assert works()


def test_the_unknown_backend_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="nonsense") as caught:
        Parallel(backend="nonsense")
    text = str(caught.value)
    for name in BACKENDS:
        assert name in text
    assert not re.search(r"'nonsense' KnownResult", text), text


def too_deep(depth: int = 100_000) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


@core
def test_what_is_nested_too_deeply_is_told_in_few_words() -> None:
    for task, words in (
        (delayed(len)(too_deep()), "argument 0[0][0]"),
        (delayed(dict)(a={"b": too_deep()}), "argument 'a'['b'][0]"),
        (delayed(too_deep)(), "the result[0][0]"),
    ):
        with pytest.raises(SerializationError, match="flatter") as caught:
            Parallel(2)([task])
        assert words in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("n_jobs", [0, "many", math.nan, [1]])
def test_effective_n_jobs_refuses_the_same(n_jobs: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="n_jobs"):
        effective_n_jobs(n_jobs)


def test_register_parallel_backend_checks() -> None:
    with pytest.raises(TypeError, match="name"):
        register_parallel_backend(3, ThreadPoolExecutor)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="broken"):
        register_parallel_backend("broken", "not callable")  # type: ignore[arg-type]
    register_parallel_backend("gives nonsense", lambda: 42)
    with pytest.raises(TypeError, match=r"gives nonsense.*42"):
        Parallel(n_jobs=2, backend="gives nonsense")

    def failing() -> Any:
        raise ConnectionError("no such host")

    register_parallel_backend("fails", failing)
    with pytest.raises(ConnectionError, match="no such host"):
        Parallel(n_jobs=2, backend="fails")
    with pytest.raises(ConnectionError, match="no such host"):
        parallel_config("fails")
    assert works()


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_jobs": np.int64(2)},
        {"n_jobs": np.float64(2.5)},
        {"n_jobs": decimal.Decimal("2.5")},
        {"n_jobs": fractions.Fraction(5, 2)},
        {"batch_size": np.int32(3)},
        {"pre_dispatch": np.int64(4)},
        {"pre_dispatch": np.float64(4.5)},
        {"timeout": np.float32(30)},
        {"timeout": decimal.Decimal(30)},
        {"timeout": math.inf},
        {"verbose": np.int64(0)},
        {"verbose": False},
        {"idle_worker_timeout": np.float64(30)},
        {"idle_worker_timeout": np.int64(30)},
        {"idle_worker_timeout": math.inf},
        {"idle_worker_timeout": 0},
        {"idle_worker_timeout": None},
        {"inner_max_num_threads": np.int64(1)},
        {"max_nbytes": np.int64(1000)},
        {"max_nbytes": None},
        {"max_nbytes": "100K"},
        {"mmap_mode": None},
        {"initializer": None, "initargs": ()},
        {"initializer": None, "initargs": [1]},
    ],
)
def test_odd_parameters_that_make_sense(parameters: dict[str, Any]) -> None:
    parallel = Parallel(**{"n_jobs": 2, **parameters})
    assert parallel(delayed(abs)(-i) for i in range(20)) == list(range(20))


# What is called with.


@pytest.mark.fresh_workers
@every_backend
def test_not_an_iterable(backend: str) -> None:
    things = [None, 3, 1.5, plus_one, abs, object(), Ellipsis, delayed(plus_one), lambda: []]
    parallel = Parallel(n_jobs=2, backend=backend)
    for thing in things:
        with pytest.raises(TypeError, match="iterable"):
            parallel(thing)
        assert shutdown_workers() == 0, "workers were started"
    assert parallel([delayed(abs)(-1)]) == [1]


@pytest.mark.fresh_workers
@every_backend
@pytest.mark.parametrize("thing", [list, dict])
def test_a_class_is_no_iterable(backend: str, thing: type) -> None:
    parallel = Parallel(n_jobs=2, backend=backend)
    with pytest.raises(TypeError, match="iterable"):
        parallel(thing)
    assert shutdown_workers() == 0, "workers were started"
    assert parallel([delayed(abs)(-1)]) == [1]


def test_a_function_instead_of_a_generator_is_told_apart() -> None:
    def tasks() -> Iterator[Any]:
        yield delayed(abs)(-1)

    with pytest.raises(TypeError, match=r"tasks.*delayed"):
        Parallel(n_jobs=2)(tasks)
    with pytest.raises(TypeError, match="iterable"):
        Parallel(n_jobs=2, return_as="generator")(tasks)


class Unsized:
    def __iter__(self) -> Any:
        return 3


class Raising:
    def __iter__(self) -> Any:
        raise PermissionError("not yours")


@every_backend
def test_iterables_that_break(backend: str) -> None:
    parallel = Parallel(n_jobs=2, backend=backend)
    with pytest.raises(TypeError, match="iter"):
        parallel(Unsized())
    with pytest.raises(PermissionError, match="not yours"):
        parallel(Raising())
    assert parallel([delayed(abs)(-1)]) == [1]


NOT_TASKS: list[tuple[Any, str]] = [
    (3, "3"),
    (None, "None"),
    (2.0, "2.0"),
    ("abc", "abc"),
    ("ab", "ab"),
    (b"abc", "abc"),
    ((), r"\(\)"),
    ((1, 2, 3), r"\(1, 2, 3\)"),
    ((abs,), "abs"),
    ((abs, (1,)), "abs"),
    ((abs, (1,), {}, 4), "abs"),
    ((abs, 1, {}), "abs"),
    ((abs, "1", {}), "abs"),
    ((abs, (1,), None), "abs"),
    ((abs, (1,), ()), "abs"),
    ((abs, {1}, {}), "abs"),
    ((abs, {1: 2}, {}), "abs"),
    ((abs, range(1), {}), "abs"),
    ((abs, None, {}), "abs"),
    (("abs", (1,), {}), "abs"),
    (abs, "abs"),
    (plus_one, "plus_one"),
    (delayed(plus_one), "delayed"),
    ({}, "{}"),
    ({"f": 1, "args": 2, "kwargs": 3}, "args"),
    ({abs, 1, 2}, "abs"),
    ([delayed(abs)(1)], "abs"),
    ([delayed(abs)(1)] * 3, "abs"),
    (np.arange(3), "array"),
    ((delayed(abs)(i) for i in range(3)), "generator"),
    ("x" * 10_000, "xxx"),
]


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
@pytest.mark.parametrize("number", range(len(NOT_TASKS)))
def test_items_that_are_no_delayed_calls(backend: str, number: int) -> None:
    """Wherever it stands and whatever the batches: position, what it was, the same error."""
    item, words = NOT_TASKS[number]
    for before in (0, 1, 40):
        for batch_size in ("auto", 64):
            if type(item).__name__ == "generator":
                item = (delayed(abs)(i) for i in range(3))
            items = [*(delayed(abs)(i) for i in range(before)), item, delayed(abs)(1)]
            parallel = Parallel(n_jobs=2, backend=backend, batch_size=batch_size)
            with pytest.raises(InvalidTaskError, match=rf"item {before} .*{words}") as caught:
                parallel(items)
            assert isinstance(caught.value, TypeError)
            assert isinstance(caught.value, ParallelError)
            assert len(str(caught.value)) < 500
            assert parallel([delayed(abs)(-1)]) == [1]


@pytest.mark.parametrize("backend", ["multiprocessing", "loky"])
def test_items_that_are_no_delayed_calls_elsewhere(backend: str) -> None:
    for item, words in NOT_TASKS[:20:4]:
        with pytest.raises(InvalidTaskError, match=rf"item 2 .*{words}"):
            Parallel(n_jobs=2, backend=backend)([delayed(abs)(1), delayed(abs)(2), item])
    assert works(backend)


@every_backend
@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_items_that_are_no_delayed_calls_in_a_generator(backend: str, return_as: str) -> None:
    parallel = Parallel(n_jobs=2, backend=backend, return_as=return_as)
    items = [delayed(abs)(-1), 3]

    def consume() -> None:
        list(parallel(items))

    with pytest.raises(InvalidTaskError, match=r"item 1 .*3"):
        consume()
    assert list(parallel([delayed(abs)(-1)])) == [1]


def test_a_single_delayed_call_or_results_instead_of_calls() -> None:
    for backend in ("processes", "sequential", "threading"):
        with pytest.raises(InvalidTaskError, match="item 0 "):
            Parallel(n_jobs=2, backend=backend)(delayed(abs)(-1))
        with pytest.raises(InvalidTaskError, match=r"item 0 .*delayed\(f\)\(x\)"):
            Parallel(n_jobs=2, backend=backend)(abs(i) for i in range(3))
        with pytest.raises(InvalidTaskError, match=r"item 0 .*not been given its arguments"):
            Parallel(n_jobs=2, backend=backend)(delayed(abs) for _ in range(3))


class Loud:
    def __repr__(self) -> str:
        raise RuntimeError("do not look at me")


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_an_item_whose_repr_raises(backend: str) -> None:
    with pytest.raises(InvalidTaskError, match=r"item 0 .*Loud"):
        Parallel(n_jobs=2, backend=backend)([Loud()])


@pytest.mark.parametrize("thing", [None, 3, "abs", b"x", [abs]])
def test_delayed_of_what_cannot_be_called(thing: Any) -> None:
    """At once or when it is run, but clear: naming what it was, not how `delayed` is made."""
    with pytest.raises(TypeError, match=re.escape(repr(thing))) as caught:
        Parallel(n_jobs=2)([delayed(thing)(1)])
    assert "self" not in str(caught.value)
    assert works()


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_wrong_arguments_for_the_function(backend: str) -> None:
    with pytest.raises(TypeError, match="argument") as caught:
        Parallel(n_jobs=2, backend=backend)([delayed(plus_one)(1), delayed(plus_one)(1, 2, z=3)])
    assert not isinstance(caught.value, ParallelError)
    assert "task 1" in notes(caught.value)
    assert works(backend)


# What does not pickle.


def a_generator() -> Iterator[int]:
    yield 1


@separate
def test_arguments_that_do_not_pickle(backend: str) -> None:
    lock = threading.Lock()
    cases: list[tuple[Any, list[str]]] = [
        (delayed(plus_one)(lock), ["task 2", "plus_one", "argument 0", "lock"]),
        (delayed(max)(1, [2, lock]), ["task 2", "argument 1[1]", "lock"]),
        (delayed(max)({"key": lock}), ["task 2", "argument 0['key']"]),
        (delayed(plus_one)(x=Holder(inner=Holder(door=lock))), ["'x'.inner.door"]),
        (delayed(plus_one)(a_generator()), ["argument 0", "generator"]),
        (delayed(plus_one)(sys._getframe()), ["argument 0", "frame"]),
        (delayed(plus_one)(Unpicklable()), ["task 2", "argument 0", "not me"]),
        (delayed(Holder(lock=lock).__eq__)(1), ["task 2", "function", "lock"]),
        (delayed(functools.partial(plus_one, lock))(), ["task 2", "function", ".args[0]"]),
        (delayed(lambda: lock)(), ["task 2", "function", "variable 'lock'"]),
    ]
    for item, words in cases:
        parallel = Parallel(n_jobs=2, backend=backend)
        with pytest.raises(SerializationError) as caught:
            parallel([delayed(abs)(1), delayed(abs)(2), item, delayed(abs)(3)])
        for word in words:
            assert word in str(caught.value), (word, str(caught.value))
        assert isinstance(caught.value, pickle.PicklingError)
        assert isinstance(caught.value, ParallelError)
        assert parallel([delayed(abs)(-1)]) == [1]


@separate
def test_the_position_is_named_in_long_calls(backend: str) -> None:
    lock = threading.Lock()
    for batch_size in ("auto", 50):
        with pytest.raises(SerializationError, match=r"task 333 .*argument 0"):
            Parallel(n_jobs=2, backend=backend, batch_size=batch_size)(
                delayed(abs)(lock if i == 333 else i) for i in range(1000)
            )


@separate
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (returns_unpicklable, ["result", "not me"]),
        (returns_nested, ["result", "['deep'][1]", ".lock"]),
        (returns_what_does_not_load, ["result", "nor back"]),
    ],
)
def test_results_that_do_not_pickle(
    backend: str, function: Callable[[int], Any], words: list[str]
) -> None:
    for batch_size in (1, 10):
        parallel = Parallel(n_jobs=2, backend=backend, batch_size=batch_size)
        with pytest.raises(SerializationError) as caught:
            parallel(delayed(function)(i) for i in range(10))
        for word in [*words, "task 3", function.__name__]:
            assert word in notes(caught.value), (word, notes(caught.value))
        assert parallel(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]


@separate
def test_arguments_that_do_not_unpickle(backend: str) -> None:
    for batch_size in (1, 10):
        parallel = Parallel(n_jobs=2, backend=backend, batch_size=batch_size)
        with pytest.raises(SerializationError, match="nor back") as caught:
            parallel(delayed(type)(DoesNotLoad() if i == 3 else i) for i in range(10))
        assert "task 3" in notes(caught.value)
        assert parallel(delayed(abs)(-i) for i in range(3)) == [0, 1, 2]


def test_a_module_that_workers_cannot_import() -> None:
    """A module made by hand is in no file."""
    import types

    made = types.ModuleType("made_by_hand")
    exec("def double(x):\n    return 2 * x", made.__dict__)
    sys.modules["made_by_hand"] = made
    try:
        with pytest.raises(SerializationError, match="made_by_hand"):
            Parallel(n_jobs=2)(delayed(made.double)(i) for i in range(3))
    finally:
        del sys.modules["made_by_hand"]
    assert works()


@pytest.mark.parametrize("backend", ["threading", "sequential"])
def test_what_does_not_pickle_is_fine_without_processes(backend: str) -> None:
    lock = threading.Lock()
    got = Parallel(n_jobs=2, backend=backend)(delayed(Holder)(lock=lock) for _ in range(3))
    assert all(holder.lock is lock for holder in got)


# Tasks that leave.


# Initializers.


@every_backend
@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("count", [1, 20])
def test_an_initializer_that_raises(backend: str, n_jobs: int, count: int) -> None:
    """Always the same error, also when workers of the first call are still about to end."""
    parallel = Parallel(n_jobs=n_jobs, backend=backend, initializer=broken_initializer)
    for _ in range(3):
        with pytest.raises(InitializerError, match=r"initializer.*FileNotFoundError") as caught:
            parallel(delayed(abs)(-i) for i in range(count))
        assert isinstance(caught.value, BrokenProcessPool)
        assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert works(backend)


@every_backend
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_initializer_that_leaves(backend: str, n_jobs: int) -> None:
    parallel = Parallel(n_jobs=n_jobs, backend=backend, initializer=leaving_initializer)
    with pytest.raises(InitializerError, match="initializer"):
        parallel(delayed(abs)(-i) for i in range(5))
    assert works(backend)


@every_backend
def test_an_initializer_with_the_wrong_arguments(backend: str) -> None:
    parallel = Parallel(n_jobs=2, backend=backend, initializer=needs_two, initargs=(1,))
    with pytest.raises(InitializerError, match=r"needs_two\(\)"):
        parallel(delayed(abs)(-i) for i in range(5))
    assert works(backend)


@separate
def test_an_initializer_that_does_not_pickle(backend: str) -> None:
    lock = threading.Lock()
    parallel = Parallel(n_jobs=2, backend=backend, initializer=needs_two, initargs=(1, lock))
    with pytest.raises(SerializationError, match=r"initializer.*needs_two.*lock"):
        parallel(delayed(abs)(-i) for i in range(5))
    closing = Parallel(n_jobs=2, backend=backend, initializer=lambda: lock.acquire())
    with pytest.raises(SerializationError, match=r"initializer.*variable 'lock'"):
        closing(delayed(abs)(-i) for i in range(5))
    assert works(backend)


def test_an_initializer_for_an_executor_of_ones_own() -> None:
    with ThreadPoolExecutor(2) as executor:
        parallel = Parallel(n_jobs=2, backend=executor, initializer=needs_two, initargs=(1, 2))
        with pytest.raises(TypeError, match="initializer"):
            parallel([delayed(abs)(-1)])
        assert Parallel(n_jobs=2, backend=executor)([delayed(abs)(-1)]) == [1]


def test_an_executor_that_was_shut_down() -> None:
    executor = ThreadPoolExecutor(2)
    executor.shutdown()
    parallel = Parallel(n_jobs=2, backend=executor)
    with pytest.raises(RuntimeError, match="shutdown"):
        parallel([delayed(abs)(-1)])
    assert works()


# And empty input is no bad input.


@every_backend
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_an_empty_iterable(backend: str, return_as: str) -> None:
    for empty in ([], (), "", {}, set(), range(0), iter(()), np.array([])):
        got = Parallel(n_jobs=2, backend=backend, return_as=return_as)(empty)
        assert list(got) == []
    assert isinstance(Parallel(n_jobs=2, backend=backend)([]), list)
