"""What goes wrong is said clearly, by the right type, naming the task; and the next call works."""

from __future__ import annotations

import builtins
import json
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from parallel_core import Parallel, delayed
from parallel_core.errors import (
    InitializerError,
    ParallelError,
    SerializationError,
    TaskExitError,
    TaskTimeoutError,
    WorkerDiedError,
)
from watching import HOME, LIMIT, descendants, running, some, wait_until

pytestmark = pytest.mark.warm_workers

LONG = 300  # seconds that a task sleeps which is not to be waited for
OWN = ["processes", "multiprocessing"]
ALL = [*OWN, "loky", "threading", "sequential"]


def echo() -> Callable[[Any], Any]:
    return lambda value: value


def pids_of(parallel: Parallel, count: int = 16) -> set[int]:
    """Return the workers that a call has; it waits until two have answered."""
    found: set[int] = set()
    limit = time.monotonic() + LIMIT
    while len(found) < 2 and time.monotonic() < limit:
        found |= set(parallel(delayed(pid_after)(0.001) for _ in range(count)))
    return found


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


pid_after.__module__ = "__main__"  # so that workers need no test module for it


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def works(**options: Any) -> None:
    """See that a call works, with the same kind of workers."""
    assert Parallel(2, **options)(delayed(abs)(-n) for n in range(10)) == list(range(10))


# --- what a task raises ---------------------------------------------------------------------------


def test_arguments_in_the_note_are_shortened() -> None:
    np = pytest.importorskip("numpy")

    class BadRepr:
        def __repr__(self) -> str:
            raise RuntimeError("no repr")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("all wrong")

    with pytest.raises(ValueError, match="all wrong") as caught:
        Parallel(2)(
            [
                delayed(fail)(
                    "x" * 100_000, [0] * 100_000, np.zeros((50, 40)), BadRepr(), k="y" * 999
                )
            ]
        )
    note = notes(caught.value)
    assert len(note) < 1000
    assert "\n" not in note
    assert "50x40" in note and "xxx" in note and "BadRepr" in note


def test_one_of_many_failures_of_a_batch_is_raised() -> None:
    """The first, unless another worker has taken over a part of the batch."""

    def fail(x: int) -> int:
        if x >= 5:
            raise ValueError(x)
        return x

    with pytest.raises(ValueError, match=r"^\d+") as caught:
        Parallel(2, batch_size=100)(delayed(fail)(x) for x in range(100))
    assert int(caught.value.args[0]) >= 5
    assert f"task {caught.value.args[0]} of" in notes(caught.value)


class Classes:
    """Classes that go by value, as those of a script do: no module has them under their names."""

    def __init__(self) -> None:
        class TwoArguments(Exception):
            def __init__(self, code: int, why: str) -> None:
                super().__init__(f"{code}: {why}")
                self.code = code
                self.why = why

        class OptionalArgument(Exception):
            def __init__(self, code: int, why: str = "unknown") -> None:
                super().__init__(f"{code}: {why}")
                self.code = code

        class KeywordOnly(Exception):
            def __init__(self, *, code: int) -> None:
                super().__init__()
                self.code = code

            def __str__(self) -> str:
                return f"code {self.code}"

        class NoInit(Exception):
            def __init__(self, path: str) -> None:
                self.path = path

        class OwnFileError(OSError):
            def __init__(self, path: str, why: str) -> None:
                super().__init__(2, why, path)

        class OwnReduce(Exception):
            def __init__(self, a: int, b: int) -> None:
                super().__init__(a, b)

            def __reduce__(self) -> Any:
                return type(self), (self.args[0], self.args[1])

        class Refuses:
            """Fails on the leg that it is told to fail on."""

            def __init__(self, leg: str) -> None:
                self.leg = leg
                self.home = os.getpid()

            def __getstate__(self) -> dict[str, Any]:
                there = "out" if os.getpid() == self.home else "back"
                if self.leg == f"pickle {there}":
                    raise OverflowError(f"refused to {self.leg}")
                return self.__dict__

            def __setstate__(self, state: dict[str, Any]) -> None:
                self.__dict__.update(state)
                there = "there" if os.getpid() != self.home else "here"
                if self.leg == f"unpickle {there}":
                    raise OverflowError(f"refused to {self.leg}")

        self.TwoArguments = TwoArguments
        self.OptionalArgument = OptionalArgument
        self.KeywordOnly = KeywordOnly
        self.NoInit = NoInit
        self.OwnFileError = OwnFileError
        self.OwnReduce = OwnReduce
        self.Refuses = Refuses


classes = Classes()


def raise_new(cls: type[BaseException], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    raise cls(*args, **kwargs)


raise_new.__module__ = "__main__"  # so that workers need no test module for it

EXCEPTIONS: list[tuple[type[BaseException], tuple[Any, ...], dict[str, Any]]] = [
    (classes.TwoArguments, (3, "because"), {}),
    (classes.OptionalArgument, (3,), {}),
    (classes.OptionalArgument, (3, "because"), {}),
    (classes.KeywordOnly, (), {"code": 5}),
    (classes.NoInit, ("some path",), {}),
    (classes.OwnReduce, (1, 2), {}),
    (FileNotFoundError, (2, "No such file", "some path"), {}),
    (UnicodeDecodeError, ("utf-8", b"\xff", 0, 1, "invalid start byte"), {}),
    (ImportError, ("no module",), {"name": "some", "path": "path"}),
    (KeyError, ("key",), {}),
    (Exception, (), {}),
    (StopIteration, (3,), {}),
    (StopAsyncIteration, (), {}),
    (AssertionError, ("assert",), {}),
    (RecursionError, ("too deep",), {}),
    (SyntaxError, ("bad", ("file", 1, 2, "text")), {}),
    (ConnectionResetError, (104, "reset"), {}),
    (TimeoutError, ("its own",), {}),
    (pickle.PicklingError, ("its own",), {}),
    (BrokenProcessPool, ("its own",), {}),
    (WorkerDiedError, ("its own",), {}),
    (TaskExitError, ("its own", 4), {}),
    (subprocess.CalledProcessError, (3, ["command"]), {"output": "out"}),
    (json.JSONDecodeError, ("bad", "{", 1), {}),
]


@pytest.mark.parametrize(
    ("cls", "args", "kwargs"), EXCEPTIONS, ids=[cls.__name__ for cls, _, _ in EXCEPTIONS]
)
def test_exceptions_arrive_as_they_were(
    cls: type[BaseException], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    expected = cls(*args, **kwargs)
    with pytest.raises(cls) as caught:
        Parallel(2)([delayed(raise_new)(cls, args, kwargs)])
    assert type(caught.value) is cls
    assert str(caught.value) == str(expected)
    assert caught.value.args == expected.args
    for name, value in vars(expected).items():
        assert getattr(caught.value, name) == value, name


def test_a_group_of_exceptions_arrives_with_its_members() -> None:
    group: Any = getattr(builtins, "ExceptionGroup", None)

    def fail() -> None:
        raise group("group", [ValueError(1), classes.TwoArguments(3, "because")])

    with pytest.raises(group, match="group") as caught:
        Parallel(2)([delayed(fail)()])
    assert [str(one) for one in caught.value.exceptions] == ["1", "3: because"]


def test_attributes_of_exceptions_that_are_not_in_their_dict() -> None:
    with pytest.raises(classes.OwnFileError) as caught:
        Parallel(2)([delayed(raise_new)(classes.OwnFileError, ("some path", "gone"), {})])
    error = caught.value
    assert (error.errno, error.filename, error.strerror) == (2, "some path", "gone")
    assert str(error) == str(classes.OwnFileError("some path", "gone"))


@pytest.mark.core
def test_an_exception_with_an_attribute_that_does_not_pickle() -> None:
    def fail() -> None:
        error = classes.TwoArguments(3, "because")
        error.lock = threading.Lock()  # type: ignore[attr-defined]  # as people do
        raise error

    with pytest.raises(classes.TwoArguments, match="3: because") as caught:
        Parallel(2)([delayed(fail)()])
    assert caught.value.code == 3
    works()


def test_an_exception_with_an_argument_that_does_not_pickle() -> None:
    def fail() -> None:
        raise ValueError("bad lock", threading.Lock(), 3)

    with pytest.raises(ValueError, match="bad lock") as caught:
        Parallel(2)([delayed(fail)()])
    assert caught.value.args[0] == "bad lock"
    assert caught.value.args[2] == 3
    assert "lock" in caught.value.args[1]


def test_an_exception_whose_str_raises() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no str")

    def fail() -> None:
        raise Odd

    with pytest.raises(Odd):
        Parallel(2)([delayed(fail)()])
    works()


def test_an_exception_that_pickles_to_something_else() -> None:
    class Odd(Exception):
        def __reduce__(self) -> Any:
            return int, ("5",)

    class Explosive(Exception):
        def __reduce__(self) -> Any:
            raise RuntimeError("not to be pickled")

    def fail(cls: type[Exception]) -> None:
        raise cls("told")

    for cls in (Odd, Explosive):
        with pytest.raises(cls, match="told"):
            Parallel(2)([delayed(fail)(cls)])
    works()


def test_notes_of_a_task_are_kept() -> None:
    def fail() -> None:
        error = ValueError("noted")
        error.add_note("by the task")
        raise error

    with pytest.raises(ValueError, match="noted") as caught:
        Parallel(2)([delayed(fail)()])
    assert "by the task" in notes(caught.value)
    assert "task 0" in notes(caught.value)


# --- the caller's iterable ------------------------------------------------------------------------


def test_iterables_that_raise_without_being_generators() -> None:
    class Iterable:
        def __iter__(self) -> Any:
            raise OSError("no iterator")

    class Items:
        def __getitem__(self, index: int) -> Any:
            if index == 3:
                raise LookupError("own")
            return delayed(abs)(index)

    class Falls:
        n = 0

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            self.n += 1
            if self.n == 2:
                raise RuntimeError("falls")
            return delayed(abs)(self.n)

    for backend in ALL:
        with pytest.raises(OSError, match="no iterator"):
            Parallel(2, backend=backend)(Iterable())
        with pytest.raises(LookupError, match="own"):
            Parallel(2, backend=backend)(Items())
        with pytest.raises(RuntimeError, match="falls"):
            Parallel(2, backend=backend)(Falls())


def test_a_generator_that_raises_stop_iteration() -> None:
    def tasks() -> Iterator[Any]:
        yield delayed(abs)(1)
        next(iter(()))
        yield delayed(abs)(2)

    for backend in ALL:
        with pytest.raises(RuntimeError, match="StopIteration"):
            Parallel(2, backend=backend)(tasks())


def test_the_rest_is_cancelled_when_the_generator_raises(tmp_path: Path) -> None:
    def touch(path: str) -> None:
        import os
        import pathlib
        import time

        pathlib.Path(path).write_text(str(os.getpid()))
        time.sleep(LONG)

    def tasks() -> Iterator[Any]:
        yield delayed(touch)(str(tmp_path / "asleep"))
        limit = time.monotonic() + LIMIT
        while not any(path.read_text() for path in tmp_path.iterdir()):
            assert time.monotonic() < limit
            time.sleep(0.001)
            yield delayed(abs)(1)
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        Parallel(2, pre_dispatch="all", batch_size=1)(tasks())
    pid = int((tmp_path / "asleep").read_text())
    wait_until(lambda: not running(pid), "the busy worker is gone")
    works()


def test_the_callers_generator_is_closed_when_a_task_fails() -> None:
    closed = []

    def tasks() -> Iterator[Any]:
        try:
            while True:
                yield delayed(int)("no number")
        finally:
            closed.append(True)

    for backend in ("processes", "threading", "loky", "sequential"):
        closed.clear()
        iterator = tasks()
        with pytest.raises(ValueError, match="no number"):
            Parallel(2, backend=backend)(iterator)
        if backend in ("processes", "loky"):
            assert closed, backend
        iterator.close()


def test_a_generator_that_raises_as_it_is_closed_does_not_hide_the_failure() -> None:
    def tasks() -> Iterator[Any]:
        try:
            while True:
                yield delayed(int)("no number")
        finally:
            raise OSError("while closing")

    with pytest.raises((ValueError, OSError)) as caught:
        Parallel(2)(tasks())
    chain = [caught.value, caught.value.__context__, caught.value.__cause__]
    assert any(isinstance(error, ValueError) for error in chain)
    works()


def test_a_callers_generator_that_calls_parallel_and_fails_there() -> None:
    def tasks() -> Iterator[Any]:
        yield delayed(abs)(1)
        yield delayed(abs)(sum(Parallel(2)(delayed(abs)(n) for n in range(4))))
        Parallel(2)([delayed(int)("within")])

    with pytest.raises(ValueError, match="within"):
        Parallel(2)(tasks())
    works()


# --- a failure cancels the rest at once -----------------------------------------------------------


@pytest.mark.core
def test_a_failure_is_told_from_the_middle_of_a_long_batch(tmp_path: Path) -> None:
    def work(n: int) -> int:
        import time

        if n == 5:
            raise LookupError("told")
        if n > 5:
            time.sleep(LONG)
        return n

    with pytest.raises(LookupError, match="told") as caught:
        Parallel(2, batch_size=1000)(delayed(work)(n) for n in range(1000))
    assert "task 5 of" in notes(caught.value)
    works()


def test_no_task_starts_after_the_failure_was_told(tmp_path: Path) -> None:
    def work(n: int) -> None:
        import pathlib
        import time

        pathlib.Path(str(tmp_path), str(n)).touch()
        if n == 3:
            raise LookupError("told")
        time.sleep(0.01)

    with pytest.raises(LookupError):
        Parallel(2, batch_size=50, pre_dispatch="all")(delayed(work)(n) for n in range(2000))
    begun = set(os.listdir(tmp_path))
    works()
    assert set(os.listdir(tmp_path)) == begun
    assert len(begun) < 2000


@pytest.mark.core
def test_idle_workers_are_kept_over_a_failure_and_busy_ones_are_not(tmp_path: Path) -> None:
    before = pids_of(Parallel(2))

    def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        Parallel(2)([delayed(fail)()])
    assert pids_of(Parallel(2)) == before

    def work(path: str | None) -> None:
        import os
        import pathlib
        import time

        if path is not None:
            pathlib.Path(path).write_text(str(os.getpid()))
            time.sleep(LONG)
        while not pathlib.Path(asleep).exists():
            time.sleep(0.002)
        raise LookupError

    asleep = str(tmp_path / "asleep")
    with pytest.raises(LookupError):
        Parallel(2, batch_size=1)([delayed(work)(asleep), delayed(work)(None)])
    wait_until(lambda: (tmp_path / "asleep").read_text(), "the sleeper has said who it is")
    sleeper = int((tmp_path / "asleep").read_text())
    assert not running(sleeper)
    after = pids_of(Parallel(2))
    assert after & before == before - {sleeper}
    assert len(after) == 2


def test_failures_over_and_over() -> None:
    def fail(n: int) -> int:
        if n % 7 == 3:
            raise ArithmeticError(n)
        return n

    parallel = Parallel(2, batch_size=2)
    for first in range(30):
        tasks = [delayed(fail)(n) for n in range(first, first + 9)]
        with pytest.raises(ArithmeticError):
            parallel(tasks)
        assert parallel(tasks[:1] if first % 7 != 3 else tasks[1:2])


def test_failures_within_a_with_block() -> None:
    with Parallel(2) as parallel:
        for _ in range(5):
            with pytest.raises(ValueError, match="invalid literal"):
                parallel(delayed(int)(text) for text in ["1", "x", "2"])
            assert parallel(delayed(int)(text) for text in ["1", "2"]) == [1, 2]


# --- pickles that fail ----------------------------------------------------------------------------


LEGS = ["pickle out", "unpickle there", "pickle back", "unpickle here"]


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("backend", some([*OWN, "loky"]))
@pytest.mark.parametrize("batch_size", [1, 10])
def test_the_four_legs(leg: str, backend: str, batch_size: int) -> None:
    def work(first: Any, second: Any) -> Any:
        return [first, second]

    def tasks() -> Iterator[Any]:
        for n in range(20):
            yield delayed(work)(n, second=classes.Refuses(leg) if n == 13 else None)

    with pytest.raises(SerializationError) as caught:
        Parallel(2, backend=backend, batch_size=batch_size)(tasks())
    error = caught.value
    said = f"{error}\n{notes(error)}"
    assert "task 13 of" in said
    assert "work(" in said and "<function" not in said
    assert "OverflowError" in said and f"refused to {leg}" in said
    assert isinstance(error, pickle.PicklingError) and isinstance(error, ParallelError)
    if leg == "pickle out":
        assert "argument 'second'" in said
    elif leg == "unpickle there":
        assert "argument" in said
    else:
        assert "result" in said
    works(backend=backend)


@pytest.mark.parametrize("backend", some([*OWN, "loky"]))
def test_the_part_at_fault_is_named(backend: str) -> None:
    lock = threading.Lock()

    class Thing:
        def __init__(self, held: Any) -> None:
            self.held = held

    calls: list[tuple[Any, list[str]]] = [
        (delayed(echo())(lock), ["argument 0", "lock"]),
        (delayed(echo())(value={"a": [1, lock]}), ["argument 'value'", "'a'", "[1]"]),
        (delayed(echo())(Thing({"k": lock})), ["argument 0", ".held", "'k'"]),
        (delayed(Thing(lock).__init__)(1), [".held"]),
        (delayed(lambda: lock)(), ["lock", "variable"]),
        (delayed(echo())(iter_lines(lock)), ["argument 0", "generator"]),
    ]
    for task, words in calls:
        with pytest.raises(SerializationError) as caught:
            Parallel(2, backend=backend)([delayed(abs)(1), task])
        for word in [*words, "task 1"]:
            assert word in str(caught.value)

    def make(kind: str) -> Any:
        import threading

        return {"generator": (n for n in ()), "nested": [{"x": threading.Lock()}]}[kind]

    for kind, words in (("generator", ["generator"]), ("nested", ["[0]", "'x'", "lock"])):
        with pytest.raises(SerializationError) as caught:
            Parallel(2, backend=backend)([delayed(make)(kind)])
        for word in [*words, "result", "make(", "task 0"]:
            assert word in f"{caught.value}\n{notes(caught.value)}"
    works(backend=backend)


def iter_lines(lock: Any) -> Iterator[Any]:
    yield lock


def test_structures_too_deep_to_pickle() -> None:
    def nest(depth: int) -> list[Any]:
        held: list[Any] = []
        for _ in range(depth):
            held = [held]
        return held

    with pytest.raises(SerializationError, match="task 0"):
        Parallel(2)([delayed(len)(nest(20_000))])
    with pytest.raises(SerializationError, match="result"):
        Parallel(2)([delayed(nest)(20_000)])
    works()


def test_results_too_large_to_allocate() -> None:
    def ask() -> int:
        return len(bytes(1 << 60))

    with pytest.raises(MemoryError):
        Parallel(2)([delayed(ask)()])
    works()


@pytest.mark.parametrize("failure", ["exit", "raise SystemExit"])
def test_an_argument_that_ends_the_worker_does_not_end_the_caller(
    failure: str, tmp_path: Path
) -> None:
    text = f"""
        import os
        from parallel_core import Parallel, delayed, errors

        class Deadly:
            def __init__(self, home):
                self.home = home

            def __setstate__(self, state):
                if {failure!r} == "exit":
                    os._exit(3)
                raise SystemExit(3)

        try:
            Parallel(2)(delayed(lambda a, b: b)(n, Deadly(0) if n == 5 else 0) for n in range(10))
        except (errors.WorkerDiedError, errors.SerializationError) as error:
            told = str(error) + str(getattr(error, "__notes__", ""))
            assert "task 5" in told, told
        assert Parallel(2)([delayed(abs)(-1)]) == [1]
        print("survived")
    """
    assert run_script(tmp_path, text) == (0, "survived\n", "")


@pytest.mark.timeout(20)
def test_an_argument_whose_unpickling_takes_for_ever_does_not_stop_the_caller() -> None:
    class Slow:
        def __setstate__(self, state: Any) -> None:
            import time

            time.sleep(LONG)

        def __getstate__(self) -> dict[str, int]:
            return {"some": 1}

    with pytest.raises(TimeoutError, match="task 0"):
        Parallel(2, timeout=0.3)([delayed(id)(Slow())])
    works()


def test_a_function_that_does_not_unpickle_is_the_failure_of_its_first_task() -> None:
    class Callable:
        def __call__(self) -> int:
            return 1

        def __setstate__(self, state: Any) -> None:
            raise OverflowError("not here")

        def __getstate__(self) -> dict[str, int]:
            return {"some": 1}

    held = Callable()

    def use() -> int:
        return held()

    for function in (held, use):
        with pytest.raises(SerializationError, match=r"task [012] .*not here"):
            Parallel(2, batch_size=2)([delayed(abs)(1), delayed(abs)(1), delayed(function)()])
        works()


# --- time limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", some([*OWN, "loky"]))
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_timeout(backend: str, return_as: str) -> None:
    def work(n: int) -> int:
        import time

        time.sleep(LONG if n == 3 else 0)
        return n

    works(backend=backend)  # loky's clock runs while workers start
    limit = 1.5 if backend == "loky" else 0.5
    with pytest.raises(TaskTimeoutError) as caught:
        list(
            Parallel(2, backend=backend, timeout=limit, return_as=return_as)(
                delayed(work)(n) for n in range(6)
            )
        )
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value, multiprocessing.TimeoutError)
    assert "task 3 of" in str(caught.value) and "work(3)" in str(caught.value)
    works(backend=backend)


@pytest.mark.core
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_timeout_with_threads(return_as: str) -> None:
    release = threading.Event()

    def work(n: int) -> int:
        if n == 3:
            release.wait(LONG)
        return n

    try:
        with pytest.raises(TaskTimeoutError, match="task 3 of") as caught:
            list(
                Parallel(2, backend="threading", timeout=0.3, return_as=return_as)(
                    delayed(work)(n) for n in range(6)
                )
            )
        assert isinstance(caught.value, multiprocessing.TimeoutError)
        works(backend="threading")
    finally:
        release.set()


def test_timeout_within_a_long_batch_is_that_of_the_task() -> None:
    def work(n: int) -> int:
        import time

        time.sleep(LONG if n == 30 else 0.01)
        return n

    with pytest.raises(TimeoutError, match="task 30 of"):
        Parallel(2, timeout=1, batch_size=1000)(delayed(work)(n) for n in range(300))
    works()


def test_many_tasks_that_keep_to_the_limit_together_take_longer() -> None:
    def work(n: int) -> int:
        import time

        time.sleep(0.02)
        return n

    for backend in (*OWN, "loky", "threading"):
        limit = 20 if backend == "loky" else 0.5
        results = Parallel(2, backend=backend, timeout=limit, batch_size=40)(
            delayed(work)(n) for n in range(80)
        )
        assert results == list(range(80))


# --- workers that die -----------------------------------------------------------------------------


def die(how: str) -> None:
    """End this process in one of several ways."""
    import ctypes
    import os
    import resource
    import signal

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if how == "exit":
        os._exit(7)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    else:
        os.kill(os.getpid(), getattr(signal, how))


die.__module__ = "__main__"

DEATHS = {
    "exit": "exit code 7",
    "segfault": "SIGSEGV",
    "abort": "SIGABRT",
    "SIGKILL": "SIGKILL",
    "SIGTERM": "SIGTERM",
}


@pytest.mark.parametrize("how", DEATHS)
@pytest.mark.parametrize("backend", some(OWN))
def test_a_task_that_ends_its_worker_is_named(how: str, backend: str) -> None:
    def work(n: int) -> int:
        if n == 13:
            die(how)
        return n

    for batch_size in (1, 5, 1000):
        with pytest.raises(WorkerDiedError) as caught:
            Parallel(2, backend=backend, batch_size=batch_size)(delayed(work)(n) for n in range(40))
        assert "task 13 of" in str(caught.value)
        assert "work(13)" in str(caught.value)
        assert DEATHS[how] in str(caught.value)
        assert isinstance(caught.value, BrokenProcessPool)
    works(backend=backend)


def test_a_task_that_ends_its_worker_under_loky() -> None:
    def work(n: int) -> int:
        if n == 3:
            die("SIGKILL")
        return n

    with pytest.raises(WorkerDiedError) as caught:
        Parallel(2, backend="loky")(delayed(work)(n) for n in range(10))
    assert isinstance(caught.value, BrokenProcessPool)
    works(backend="loky")


def test_a_worker_that_dies_while_it_pickles_a_result() -> None:
    class Deadly:
        def __getstate__(self) -> Any:
            die("SIGKILL")

    def work(n: int) -> Any:
        return Deadly() if n == 5 else [n]

    with pytest.raises(WorkerDiedError, match="task 5 of"):
        Parallel(2, batch_size=10)(delayed(work)(n) for n in range(20))
    works()


def test_results_that_were_there_before_a_death_arrive(tmp_path: Path) -> None:
    def work(n: int) -> bytes:
        if n == 3:
            import time

            while len(list(folder.iterdir())) < 3:
                time.sleep(0.01)
            time.sleep(0.3)  # for the last of them to be sent
            die("SIGKILL")
        (folder / str(n)).touch()
        return bytes([n]) * size

    for size in (1, 3_000_000):
        folder = tmp_path / str(size)
        folder.mkdir()
        results = Parallel(2, batch_size=1, return_as="generator")(
            delayed(work)(n) for n in range(4)
        )
        got: list[int] = []
        with pytest.raises(WorkerDiedError, match="task 3 of"):
            got.extend(map(itemgetter(0), results))
        assert got == [0, 1, 2], size


@pytest.mark.core
def test_idle_workers_that_were_killed_are_nobodys_failure() -> None:
    before = pids_of(Parallel(2))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    for pid in before:
        wait_until(lambda pid=pid: not running(pid), "it is dead")
    assert not pids_of(Parallel(2)) & before
    one = min(pids_of(Parallel(2)))
    os.kill(one, signal.SIGKILL)
    works()  # it may still be dying
    assert one not in pids_of(Parallel(2))


@pytest.mark.fresh_workers
def test_an_idle_worker_that_was_killed_before_it_ever_worked() -> None:
    from parallel_core.workers.pool import worker_pool

    for _ in range(5):
        (pid,) = Parallel(2)([delayed(pid_after)(0.2)])  # its colleague is born, and gets nothing
        idle = set(worker_pool().idle_pids())
        assert pid in idle and len(idle) == 2
        for one in idle:
            os.kill(one, signal.SIGKILL)
            wait_until(lambda one=one: not running(one), "it is dead")
        works()


def test_a_worker_killed_from_outside_while_it_has_a_second_batch(tmp_path: Path) -> None:
    def work(n: int) -> int:
        import os
        import pathlib
        import time

        if n == 0:
            pathlib.Path(str(tmp_path), "pid").write_text(str(os.getpid()))
            time.sleep(LONG)
        return n

    results = Parallel(2, batch_size=1, pre_dispatch="all", return_as="generator")(
        delayed(work)(n) for n in range(20)
    )
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it runs")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="task 0 of"):
        list(results)
    works()


def test_a_worker_killed_between_two_tasks_of_a_slow_generator(tmp_path: Path) -> None:
    """It has nothing to do when it dies, so the call goes on without it."""

    def work(n: int) -> int:
        import os

        return os.getpid()

    def tasks() -> Iterator[Any]:
        for n in range(4):
            yield delayed(work)(n)
        wait_until(lambda: parallel.n_completed_tasks >= 2 or True, "")
        time.sleep(0.3)
        for pid in worker_children():
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: not running(pid), "it is dead")
        for n in range(4):
            yield delayed(work)(n)

    parallel = Parallel(2, batch_size=1)
    results = parallel(tasks())
    assert len(results) == 8
    assert not set(results[:4]) & set(results[4:])


def worker_children() -> list[int]:
    """Return the pids of this process's workers."""
    return [pid for pid, line in descendants().items() if "parallel_core.workers" in line]


def test_a_stopped_worker_does_not_stop_the_failure_of_another(tmp_path: Path) -> None:
    def work(n: int) -> None:
        import os
        import pathlib
        import signal
        import time

        path = pathlib.Path(str(tmp_path), "stopped")
        if n == 0:
            path.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        while not path.exists():
            time.sleep(0.002)
        raise LookupError("told")

    with pytest.raises(LookupError, match="told"):
        Parallel(2, batch_size=1)(delayed(work)(n) for n in range(2))
    works()


def test_a_grandchild_that_holds_the_socket_does_not_hide_a_death(tmp_path: Path) -> None:
    def work(n: int) -> None:
        import os
        import pathlib
        import time

        if n == 1:
            child = os.fork()
            if child == 0:
                time.sleep(LONG)
                os._exit(0)
            pathlib.Path(str(tmp_path), "child").write_text(str(child))
            die("SIGKILL")

    try:
        with pytest.raises(WorkerDiedError, match="task 1 of"):
            Parallel(2, batch_size=1)(delayed(work)(n) for n in range(2))
        works()
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


# --- initializers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", some([*OWN, "threading", "sequential"]))
@pytest.mark.parametrize("count", [1, 10])
def test_an_initializer_that_raises(backend: str, count: int) -> None:
    def prepare(value: str) -> None:
        raise LookupError(f"cannot prepare {value}")

    for _ in range(4):
        with pytest.raises(InitializerError, match="cannot prepare it") as caught:
            Parallel(2, backend=backend, initializer=prepare, initargs=("it",))(
                delayed(abs)(-n) for n in range(count)
            )
        assert isinstance(caught.value.__cause__, LookupError)
        assert isinstance(caught.value, BrokenProcessPool)
    works(backend=backend)


def test_an_initializer_that_raises_only_once(tmp_path: Path) -> None:
    def prepare() -> None:
        if not os.path.exists(path):
            raise LookupError("not there yet")

    path = str(tmp_path / "prepared")
    parallel = Parallel(2, initializer=prepare)
    with pytest.raises(InitializerError, match="not there yet"):
        parallel([delayed(abs)(1)])
    Path(path).touch()
    for _ in range(3):
        assert parallel(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]


@pytest.mark.parametrize("how", ["exit", "SIGKILL", "sys.exit"])
def test_an_initializer_that_ends_the_process(how: str) -> None:
    def prepare() -> None:
        if how == "sys.exit":
            raise SystemExit(3)
        die(how)

    for _ in range(3):
        with pytest.raises((WorkerDiedError, InitializerError)):
            Parallel(2, initializer=prepare)(delayed(abs)(n) for n in range(4))
    works()


def test_an_initializer_that_does_not_pickle() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="initializer"):
        Parallel(2, initializer=print, initargs=(lock,))([delayed(abs)(1)])
    works()


# --- Ctrl-C ---------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def run_script(folder: Path, text: str) -> tuple[int, str, str]:
    (folder / "script.py").write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


INTERRUPTED = """
    import os, pathlib, signal, sys, time
    from parallel_core import Parallel, delayed, errors

    def work(n):
        pathlib.Path(f"pid-{n}").write_text(str(os.getpid()))
        time.sleep(300)

    def main():
        try:
            list(Parallel(2, batch_size=1, **OPTIONS)(delayed(work)(n) for n in range(10)))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        assert Parallel(2)(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
        print("works", flush=True)

    OPTIONS = eval(sys.argv[1])
    if __name__ == "__main__":
        main()
"""


def interrupted(tmp_path: Path, text: str, options: str = "{}") -> tuple[int, str, str, list[int]]:
    """Run a program, and press Ctrl-C while two tasks run.

    Return its exit code, what it has printed to both streams, and the numbers of its workers.
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(text))
    child = subprocess.Popen(
        [sys.executable, "script.py", options],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(
            lambda: len([p for p in tmp_path.glob("pid-*") if p.read_text()]) == 2, "both run"
        )
        pids = [int(path.read_text()) for path in tmp_path.glob("pid-*")]
        os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=LIMIT)
    finally:
        child.kill()
        child.wait()
    return child.returncode, out, err, pids


@pytest.mark.core
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_as": "generator"},
        {"timeout": 200},
        {"backend": "multiprocessing"},
        {"batch_size": "auto"},
    ],
    ids=str,
)
def test_ctrl_c(tmp_path: Path, options: dict[str, Any]) -> None:
    text = INTERRUPTED
    if "batch_size" in options:
        text = text.replace("batch_size=1, ", "")
    code, out, err, pids = interrupted(tmp_path, text, repr(options))
    assert err == ""
    assert out == "interrupted\nworks\n"
    assert code == 0
    assert not any(map(running, pids))


def test_ctrl_c_without_a_handler_shows_one_traceback(tmp_path: Path) -> None:
    text = INTERRUPTED.replace("except KeyboardInterrupt", "except ZeroDivisionError")
    code, out, err, pids = interrupted(tmp_path, text)
    assert out == ""
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert code == -signal.SIGINT
    for pid in pids:
        wait_until(lambda pid=pid: not running(pid), "the worker is gone")


def test_interrupts_while_workers_are_being_born(tmp_path: Path) -> None:
    text = """
        import signal, sys, threading, os, time
        from parallel_core import Parallel, delayed, shutdown_workers

        print("ready", flush=True)
        interrupted = 0
        limit = time.monotonic() + 40
        while interrupted < 8 and time.monotonic() < limit:
            try:
                shutdown_workers()
                Parallel(2)(delayed(abs)(-n) for n in range(100))
            except KeyboardInterrupt:
                interrupted += 1
                print("interrupted", flush=True)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert Parallel(2)(delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
        print("works", flush=True)
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(text))
    child = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    out = ""
    try:
        for _ in range(30):
            assert select.select([child.stdout], [], [], LIMIT)[0]
            line = child.stdout.readline()
            out += line
            if not line or line == "works\n":
                break
            time.sleep(0.013)
            os.killpg(child.pid, signal.SIGINT)
        rest, err = child.communicate(timeout=LIMIT)
    finally:
        child.kill()
        child.wait()
    assert err == ""
    assert (out + rest).endswith("works\n")
    assert child.returncode == 0


@pytest.mark.filterwarnings("ignore:coroutine")
def test_an_async_function_is_no_task_and_the_error_says_what_to_do() -> None:
    async def fetch(n: int) -> int:
        return n

    with pytest.raises(SerializationError, match=r"'coroutine' \(an async function only"):
        Parallel(2)([delayed(fetch)(3)])
