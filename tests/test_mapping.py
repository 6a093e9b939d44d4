"""`map`, `imap` and `as_completed`, and backends that a package chooses for itself."""

from __future__ import annotations

import functools
import importlib
import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mapping_tasks as tasks
import pytest
from programs import environment, run

from parallel_core import cpu_count, mapping, parallel_config
from parallel_core.compat import scinexus
from parallel_core.compat.scinexus import parallel as original
from parallel_core.mapping import as_completed, imap
from watching import LIMIT

pytestmark = pytest.mark.warm_workers

CALLS: list[Callable[..., Any]] = [mapping.map, imap, as_completed]
every_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call.__name__))


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let there be two cores, on any machine; and go back to the default backend."""
    monkeypatch.setattr("parallel_core.mapping.ranks.cpu_count", lambda: 2)
    yield
    mapping.set_parallel_backend(None)


@pytest.fixture(params=["multiprocess", "threads", "loky"])
def backend(request: pytest.FixtureRequest) -> mapping.MappingBackend:
    return mapping.get_parallel_backend(request.param)


# --- results --------------------------------------------------------------------------------------


def test_results_of_all_three(backend: mapping.MappingBackend) -> None:
    expected = [tasks.double(x) for x in range(50)]
    for chunksize in (None, 1, 7, 1000):
        assert backend.map(tasks.double, range(50), max_workers=2, chunksize=chunksize) == expected
        assert list(backend.imap(tasks.double, range(50), chunksize=chunksize)) == expected
        found = backend.as_completed(tasks.double, iter(range(50)), chunksize=chunksize)
        assert sorted(found) == expected
    assert backend.map(tasks.double, []) == []
    assert list(backend.imap(tasks.double, ())) == []
    assert list(backend.as_completed(tasks.double, iter(()))) == []


@every_call
@pytest.mark.parametrize("max_workers", [None, 1, 2])
def test_functions_by_value_and_any_iterable(call: Callable[..., Any], max_workers: Any) -> None:
    offset = 3
    for s in (range(9), list(range(9)), iter(range(9)), dict.fromkeys(range(9)), "012345678"):
        found = call(lambda x: int(x) + offset, s, max_workers)
        assert sorted(found) == list(range(3, 12))


def test_order_of_completion(backend: mapping.MappingBackend) -> None:
    found = list(backend.as_completed(tasks.slow_first, range(9), max_workers=2, chunksize=1))
    assert sorted(found) == list(range(9))
    assert found[0] != 0
    assert list(backend.imap(tasks.slow_first, range(9), 2, chunksize=1)) == list(range(9))


def test_workers_stay_warm() -> None:
    first = set(mapping.map(tasks.pid_of, range(99), max_workers=2, chunksize=1))
    again = {pid for _ in range(5) for pid in imap(tasks.pid_of, range(99), chunksize=1)}
    assert os.getpid() not in first | again
    assert len(first | again) <= 2


@pytest.mark.parametrize("call", [imap, as_completed])
def test_nothing_is_pulled_before_the_first_result_and_little_ahead(
    call: Callable[..., Any],
) -> None:
    pulled: list[int] = []

    def items() -> Iterator[int]:
        for x in itertools.count():
            pulled.append(x)
            yield x

    results = call(tasks.double, items(), max_workers=2, chunksize=5)
    assert pulled == []
    taken = [next(results) for _ in range(100)]
    assert len(set(taken)) == 100
    # At most 4 batches of 5 are ahead of what was taken.
    assert len(pulled) <= 100 + 5 * (2 * 2 + 1)
    results.close()
    assert list(results) == []


def test_an_iterator_that_is_left_early_is_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for found in imap(tasks.double, range(1000), max_workers=2):
            if found == 6:
                break
        imap(tasks.double, range(3))  # nobody asks it for anything
        assert next(as_completed(tasks.double, range(1000), max_workers=2)) in range(2000)


def test_errors_are_raised_as_themselves(backend: mapping.MappingBackend) -> None:
    results = backend.imap(tasks.invert, [1, 2, 0, 4], max_workers=2, chunksize=1)
    got: list[float] = []
    with pytest.raises(ZeroDivisionError) as caught:
        got.extend(results)
    assert got == [1.0, 0.5][: len(got)]
    files = [Path(str(entry.path)) for entry in caught.traceback]
    ours = [file for file in files if "parallel_core" in file.parts]
    assert len(ours) == 1
    assert list(results) == []
    with pytest.raises(ZeroDivisionError):
        backend.map(tasks.invert, [1, 0])
    assert backend.map(tasks.invert, [1, 2]) == [1.0, 0.5]


@every_call
def test_parameters_of_parallel(call: Callable[..., Any]) -> None:
    found = call(tasks.invert, [1, 0, 2], max_workers=2, on_error="skip")
    assert sorted(found) == [0.5, 1.0]
    seen: list[int] = []
    found = call(
        tasks.double, range(9), max_workers=2, progress=lambda now: seen.append(now.total or 0)
    )
    assert len(list(found)) == 9
    assert seen[-1] == 9


def test_a_map_within_a_task(backend: mapping.MappingBackend) -> None:
    assert backend.map(tasks.doubles, [3, 4], max_workers=2) == [[0, 2, 4], [0, 2, 4, 6]]


# --- where code runs ------------------------------------------------------------------------------


def test_ranks_are_one_to_n(backend: mapping.MappingBackend, tmp_path: Path) -> None:
    assert (backend.get_rank(), backend.is_master_process(), backend.get_size()) == (0, True, 2)
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        rank = functools.partial(tasks.rank_beside, str(folder), 2)
        found = backend.map(rank, range(2), max_workers=2, chunksize=1)
        assert sorted(found) == [(1, False), (2, False)]
    assert (mapping.get_rank(), mapping.is_master_process()) == (0, True)


def test_the_rank_of_a_single_worker() -> None:
    assert mapping.map(lambda _: mapping.get_rank(), range(3), max_workers=1) == [1, 1, 1]
    assert mapping.get_rank() == 0


def test_how_many_workers_there_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mapping.get_size() == 2
    monkeypatch.setattr("parallel_core.mapping.ranks.cpu_count", cpu_count)
    assert mapping.get_size() == cpu_count()


def test_default_chunk_sizes() -> None:
    assert mapping.get_default_chunksize(range(100), 2) == 13
    assert mapping.get_default_chunksize("", 4) == 1
    with pytest.raises(TypeError, match="length"):
        mapping.get_default_chunksize(iter("ab"), 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_workers must be at least 1"):
        mapping.get_default_chunksize("ab", 0)
    with pytest.raises(TypeError, match="max_workers must be an integer"):
        mapping.get_default_chunksize("ab", 1.5)  # type: ignore[arg-type]


# --- the choice of a backend ----------------------------------------------------------------------


def test_a_package_has_a_backend_of_its_own() -> None:
    default = mapping.get_parallel_backend()
    assert isinstance(default, mapping.MultiprocessBackend)
    assert mapping.get_parallel_backend() is default
    own = mapping.get_parallel_backend("threads")
    assert isinstance(own, mapping.ThreadBackend)
    assert own is not mapping.get_parallel_backend("threads")
    assert mapping.get_parallel_backend() is default
    assert set(own.map(tasks.pid_of, range(9), max_workers=2)) == {os.getpid()}
    assert os.getpid() not in mapping.map(tasks.pid_of, range(9), max_workers=2)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("multiprocess", mapping.MultiprocessBackend),
        ("loky", mapping.LokyBackend),
        ("threads", mapping.ThreadBackend),
        ("sequential", mapping.EngineBackend),
    ],
)
def test_backends_by_name(name: str, kind: type) -> None:
    mapping.set_parallel_backend(name)
    assert type(mapping.get_parallel_backend()) is kind
    mapping.set_parallel_backend()
    assert isinstance(mapping.get_parallel_backend(), mapping.MultiprocessBackend)


def test_the_default_follows_the_configuration() -> None:
    with parallel_config(backend="threading"):
        assert set(mapping.map(tasks.pid_of, range(9), max_workers=2)) == {os.getpid()}
        mapping.set_parallel_backend("multiprocess")
        assert os.getpid() not in mapping.map(tasks.pid_of, range(9), max_workers=2)


def test_an_executor_as_the_engine() -> None:
    with ThreadPoolExecutor(2) as executor:
        mapping.set_parallel_backend(mapping.EngineBackend(executor))
        assert mapping.map(tasks.double, range(9), max_workers=2) == list(range(0, 18, 2))
        assert not any(mapping.map(lambda _: mapping.is_master_process(), range(4), 2))


class Recording(mapping.MappingBackend):
    """An engine of one's own, which notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def imap(
        self, f: Any, s: Iterable[Any], max_workers: int | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        self.asked.append({"max_workers": max_workers, **kwargs})
        return (f(x) for x in s)

    def as_completed(
        self, f: Any, s: Iterable[Any], max_workers: int | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        return self.imap(f, reversed(list(s)), max_workers, **kwargs)

    def is_master_process(self) -> bool:
        return False

    def get_rank(self) -> int:
        return 7

    def get_size(self) -> int:
        return 99


def test_an_engine_of_ones_own() -> None:
    engine = Recording()
    mapping.set_parallel_backend(engine)
    assert mapping.get_parallel_backend() is engine
    assert mapping.map(tasks.double, range(3), max_workers=50) == [0, 2, 4]
    assert list(imap(tasks.double, range(3), chunksize=4, colour="red")) == [0, 2, 4]
    assert list(as_completed(tasks.double, range(3), if_serial="WARN")) == [4, 2, 0]
    assert [(each["max_workers"], each["chunksize"]) for each in engine.asked] == [
        (50, None),
        (None, 4),
        (None, None),
    ]
    assert engine.asked[1]["colour"] == "red"
    assert engine.asked[2]["if_serial"] == "warn"
    assert (mapping.get_rank(), mapping.get_size()) == (7, 99)
    assert not mapping.is_master_process()


# --- bad input ------------------------------------------------------------------------------------


def untouched() -> Iterator[int]:
    raise AssertionError("something was pulled")
    yield 0


@every_call
@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"max_workers": 0}, ValueError, "max_workers must be at least 1"),
        ({"max_workers": -1}, ValueError, "max_workers must be at least 1"),
        ({"max_workers": 1.0}, TypeError, "max_workers must be an integer"),
        ({"max_workers": True}, TypeError, "max_workers must be an integer"),
        ({"chunksize": 0}, ValueError, "chunksize must be at least 1"),
        ({"chunksize": "2"}, TypeError, "chunksize must be an integer"),
        ({"if_serial": "maybe"}, ValueError, "invalid choice 'maybe'.*'raise', 'warn' or 'ignore'"),
        ({"if_serial": None}, ValueError, "invalid choice None"),
        ({"n_jobs": 2}, TypeError, "'n_jobs': write max_workers"),
        ({"batch_size": 2}, TypeError, "'batch_size': write chunksize"),
        ({"backend": "loky"}, TypeError, "set_parallel_backend"),
        ({"retrys": 2}, TypeError, "did you mean 'retries'"),
        ({"retries": -2}, ValueError, "retries"),
        ({"f": 3}, TypeError, "f must be a function"),
        ({"s": 3}, TypeError, "s must be an iterable"),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(
    call: Callable[..., Any], params: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        call(**{"f": tasks.double, "s": untouched(), **params})


@pytest.mark.parametrize("call", [mapping.map, imap])
def test_more_workers_than_there_are(call: Callable[..., Any]) -> None:
    with pytest.raises(
        ValueError, match=r"max_workers=3 is too many, since there can be 2 here: pass fewer"
    ):
        call(tasks.double, untouched(), max_workers=3)


def test_more_workers_than_there_are_in_order_of_completion() -> None:
    with pytest.warns(UserWarning, match="max_workers=3 is too many.*2 are used") as caught:
        assert sorted(as_completed(tasks.double, range(3), max_workers=3)) == [0, 2, 4]
    assert caught[0].filename == __file__


@every_call
def test_one_core(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parallel_core.mapping.ranks.cpu_count", lambda: 1)
    for params in ({}, {"if_serial": "raise"}, {"if_serial": "Raise", "max_workers": 1}):
        with pytest.raises(RuntimeError, match="one core; pass if_serial='ignore' or 'warn'"):
            call(tasks.double, untouched(), **params)
    with pytest.warns(UserWarning, match="run one after the other, since there is one") as caught:
        assert sorted(call(tasks.double, range(3), if_serial="warn")) == [0, 2, 4]
    assert caught[0].filename == __file__
    assert sorted(call(tasks.double, range(3), if_serial="IGNORE")) == [0, 2, 4]


@pytest.mark.parametrize("choose", [mapping.set_parallel_backend, mapping.get_parallel_backend])
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("lokki", ValueError, "'lokki', expected one of 'multiprocess', .* did you mean 'loky'"),
        (mapping.ThreadBackend, TypeError, r"is a class: pass an instance, ThreadBackend\(\)"),
        (3, TypeError, "3 is no backend"),
    ],
)
def test_what_is_no_backend(
    choose: Callable[[Any], Any], given: Any, error: type[Exception], words: str
) -> None:
    before = mapping.get_parallel_backend()
    with pytest.raises(error, match=words):
        choose(given)
    assert mapping.get_parallel_backend() is before


def test_a_class_without_a_method() -> None:
    class Half(mapping.MappingBackend):
        def imap(self, f: Any, s: Any, max_workers: Any = None, **kwargs: Any) -> Any:
            return map(f, s)

        def get_rank(self) -> int:
            return 0

    words = r"'Half' lacks as_completed\(\), get_size\(\), is_master_process\(\): a backend defines"
    with pytest.raises(TypeError, match=words):
        Half()  # type: ignore[abstract]


# --- MPI ------------------------------------------------------------------------------------------


@every_call
def test_mpi_that_cannot_be_used(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    with pytest.raises(RuntimeError, match=r"Cannot use MPI: mpi4py cannot be .*parallel-core.mpi"):
        call(tasks.double, untouched(), use_mpi=True)
    monkeypatch.setenv("DONT_USE_MPI", "1")
    with pytest.raises(RuntimeError, match=r"Cannot use MPI: .*DONT_USE_MPI is set"):
        call(tasks.double, untouched(), use_mpi=True)
    with pytest.raises(RuntimeError, match="Cannot use MPI"):
        mapping.get_parallel_backend("threads").map(tasks.double, untouched(), use_mpi=True)
    with pytest.raises(RuntimeError, match="Cannot use MPI"):
        mapping.set_parallel_backend("mpi")
    assert (mapping.get_rank(), mapping.get_size()) == (0, 2)


MPIEXEC = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")

MPI_PROGRAM = """
from parallel_core.compat.scinexus.parallel import *
import json, os, sys, warnings

def work(x):
    return 2 * x, get_rank(), is_master_process(), get_size()

def in_order(**options):
    return [list(found) for found in zip(*map(work, range(9), chunksize=1, **options))]

if __name__ == "__main__":
    serial = sys.argv[1:] and {"if_serial": sys.argv[1]}
    told = {"here": [get_rank(), get_size(), is_master_process()]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        told["mpi"] = in_order(use_mpi=True, max_workers=5, **dict(serial or {}))
    told["warnings"] = [str(one.message) for one in caught]
    if not serial:
        set_parallel_backend("mpi")
        told["streams"] = [[*imap(abs, range(5))], sorted(as_completed(abs, range(5)))]
    print(json.dumps(told))
"""


def in_ranks(folder: Path, ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `MPI_PROGRAM` with so many ranks."""
    pytest.importorskip("mpi4py")
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec")
    (folder / "program.py").write_text(MPI_PROGRAM)
    variables = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
    }
    return subprocess.run(
        [MPIEXEC, "-n", str(ranks), sys.executable, *arguments],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.parametrize("module", ["parallel_core.mpi", "mpi4py.futures"])
def test_ranks_of_mpi(tmp_path: Path, module: str) -> None:
    done = in_ranks(tmp_path, 3, "-m", module, "program.py")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["here"] == [0, 2, True]
    doubled, ranks, masters, sizes = told["mpi"]
    assert doubled == [2 * x for x in range(9)]
    assert set(ranks) <= {1, 2} and not any(masters) and set(sizes) == {2}
    (warning,) = told["warnings"]
    assert "max_workers=5 is too many, since there can be 2 here; 2 are used" in warning
    assert told["streams"] == [[0, 1, 2, 3, 4]] * 2


def test_one_rank_of_mpi(tmp_path: Path) -> None:
    done = in_ranks(tmp_path, 1, "program.py")
    assert "RuntimeError: tasks would run one after the other, since this MPI job" in done.stderr
    assert "mpiexec -n <number of ranks> python -m parallel_core.mpi" in done.stderr
    done = in_ranks(tmp_path, 1, "program.py", "warn")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["mpi"][0] == [2 * x for x in range(9)]
    assert "tasks run one after the other, since this MPI job has one rank" in told["warnings"][0]


def test_ranks_that_all_run_the_script(tmp_path: Path) -> None:
    done = in_ranks(tmp_path, 2, "program.py")
    assert done.returncode != 0
    assert "all 2 ranks of MPI run this script" in done.stderr


# --- programs -------------------------------------------------------------------------------------


def test_a_function_that_pickles_by_value() -> None:
    offset = 3
    add = mapping.PicklableAndCallable(lambda x: x + offset)
    again = pickle.loads(pickle.dumps(add))
    assert again(4) == add(4) == add.func(4) == 7
    assert (
        pickle.loads(pickle.dumps(mapping.PicklableAndCallable(tasks.double))).func is tasks.double
    )
    with pytest.raises(TypeError, match="func must be a function"):
        mapping.PicklableAndCallable(3)  # type: ignore[arg-type]


def test_everything_is_at_its_place() -> None:
    module = importlib.import_module("parallel_core.compat.scinexus.parallel")
    assert module is original is scinexus.parallel
    assert scinexus.set_parallel_backend is mapping.set_parallel_backend
    assert scinexus.get_parallel_backend is mapping.get_parallel_backend
    assert original.Parallel is mapping.MappingBackend
    for name in set(original.__all__) - {"Parallel"}:
        assert getattr(original, name) is getattr(mapping, name)
    with pytest.raises(AttributeError, match="from scinexus itself"):
        _ = scinexus.open_data_store
    with pytest.raises(AttributeError, match=r"call get_size\(\)"):
        _ = original.SIZE


def test_a_script_without_a_guard(tmp_path: Path) -> None:
    text = """
        from parallel_core.compat.scinexus.parallel import as_completed, get_rank, imap, map

        class Thing:
            def __init__(self, x):
                self.x = x

        def work(x):
            return Thing(x * factor), get_rank()

        factor = 3
        print("once")
        print([thing.x for thing, rank in imap(work, range(4), if_serial="ignore")])
        factor = 4
        print(sorted(thing.x for thing, rank in as_completed(work, range(4), if_serial="ignore")))
        print(min(rank for thing, rank in map(work, range(4), if_serial="ignore")) > 0)
    """
    assert run(tmp_path, text) == "once\n[0, 3, 6, 9]\n[0, 4, 8, 12]\nTrue\n"


def test_importing_it_loads_no_engine() -> None:
    script = (
        "import sys, parallel_core.compat.scinexus.parallel\n"
        "heavy = {'loky', 'numpy', 'mpi4py', 'multiprocessing', 'cloudpickle'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert done.stdout == "[]\n"
