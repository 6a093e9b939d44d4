"""`memmapping.share`: one copy for all, opened once in each worker, gone when it is closed."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memmapping
import parallel_core
from memmapping import sharing
from memmapping.references import StaleReferenceError
from parallel_core import Parallel, PerformanceWarning, delayed
from watching import HOME, descendants, some, wait_until

pytestmark = pytest.mark.warm_workers

BACKENDS = some(["processes", "threading", "sequential", "loky", "multiprocessing"])


def look_up(table: Any, key: Any) -> Any:
    return table[key]


def look_up_in(tables: list[Any], key: Any) -> Any:
    return tables[0].get()[key]


class Costly:
    """Counts how often it is unpickled in a process."""

    unpickled = 0

    def __init__(self) -> None:
        self.rows = np.arange(10.0)

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state)
        type(self).unpickled += 1


def times_opened(costly: Costly) -> tuple[int, int, int]:
    return os.getpid(), costly.unpickled, id(costly)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_argument_arrives_as_the_object(backend: str) -> None:
    table = {str(i): i for i in range(1000)}
    with memmapping.share(table) as handle:
        parallel = Parallel(n_jobs=2, backend=backend)
        assert parallel(delayed(look_up)(handle, str(i)) for i in range(20)) == list(range(20))
        got = parallel(delayed(look_up)(key=str(i), table=handle) for i in range(20))
        assert got == list(range(20))
        got = parallel(delayed(look_up_in)([handle], str(i)) for i in range(5))
        assert got == list(range(5))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_results_may_be_handles_generators_take_them_too(backend: str, return_as: str) -> None:
    with memmapping.share([1, 2, 3]) as handle:
        got = list(
            Parallel(n_jobs=2, backend=backend, return_as=return_as)(
                delayed(look_up)(handle, i) for i in range(3)
            )
        )
    assert got == [1, 2, 3]


@pytest.mark.core
def test_each_worker_opens_it_once() -> None:
    with memmapping.share(Costly()) as handle:
        found: set[tuple[int, int, int]] = set()
        for _ in range(3):
            found.update(
                Parallel(n_jobs=2, batch_size=1)(delayed(times_opened)(handle) for _ in range(10))
            )
    assert {times for _, times, _ in found} == {1}
    assert len(found) == len({pid for pid, _, _ in found}) <= 2


def where(array: Any) -> tuple[str, bool, float]:
    return type(array).__name__, bool(array.flags.writeable), float(array.sum())


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_used_where_they_lie(order: Any) -> None:
    array = np.arange(6e5).reshape(1000, 600, order=order)
    with memmapping.share(array) as handle:
        assert array.nbytes <= handle.nbytes < array.nbytes + 10_000
        got = Parallel(n_jobs=2)(delayed(where)(handle) for _ in range(4))
        assert got == [("memmap", False, float(array.sum()))] * 4
        array[:] = 0  # taken as it was
        assert Parallel(n_jobs=2)([delayed(where)(handle)]) == got[:1]


def test_within_this_process() -> None:
    handle = memmapping.share({"a": np.arange(1000), "b": [1, "x"]})
    opened = handle.get()
    assert opened is handle.get() and opened["b"] == [1, "x"]
    assert type(opened["a"]) is np.memmap and not opened["a"].flags.writeable
    handle.close()
    handle.close()
    assert "closed" in repr(handle)
    assert opened["a"].sum() == 499500, "what is in use stays"
    for use in (handle.get, lambda: pickle.dumps(handle)):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises((ValueError, parallel_core.SerializationError), match="closed"):
        Parallel(n_jobs=2)([delayed(where)(handle)])


def segments_of(pid: int) -> int:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum("/dev/shm/#" in line for line in lines)


@pytest.mark.core
@pytest.mark.parametrize("how", ["closed", "forgotten", "in a with block"])
def test_workers_let_go_of_what_is_closed(how: str) -> None:
    handle: Any = memmapping.share(np.ones(1_000_000))
    assert Parallel(n_jobs=2)(delayed(where)(handle) for _ in range(4))[3][2] == 1e6
    workers = list(descendants())
    assert any(segments_of(pid) for pid in workers), "they keep it while the handle is there"
    if how == "closed":
        handle.close()
    elif how == "forgotten":
        del handle
        gc.collect()
    else:
        with Parallel(n_jobs=2) as parallel:
            assert parallel([delayed(where)(handle)])[0][2] == 1e6
            handle.close()
    wait_until(lambda: not any(map(segments_of, workers)), "the workers let go")
    assert Parallel(n_jobs=2)([delayed(len)("abc")]) == [3]


def test_a_handle_that_is_dropped_while_its_task_is_on_the_way() -> None:
    def tasks() -> Any:
        for number in range(30):
            yield delayed(look_up)(memmapping.share([number] * 10), 3)
            gc.collect()

    assert Parallel(n_jobs=2, batch_size=1, pre_dispatch="all")(tasks()) == list(range(30))
    assert Parallel(n_jobs=2)(tasks()) == list(range(30))


def test_a_handle_outlives_its_process_only_as_an_error() -> None:
    script = """
        import pickle, sys, memmapping
        handle = memmapping.share([1, 2])
        sys.stdout.buffer.write(pickle.dumps(handle))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=HOME, capture_output=True, check=True
    )
    handle = pickle.loads(done.stdout)
    with pytest.raises(StaleReferenceError, match=r"let go|ended|another"):
        handle.get()


def test_a_forked_child_can_use_and_drop_it() -> None:
    handle = memmapping.share(np.arange(1000))
    child = os.fork()
    if child == 0:
        good = handle.get().sum() == 499500
        handle.close()
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert handle.get().sum() == 499500
    assert Parallel(n_jobs=2)([delayed(where)(handle)])[0][2] == 499500


def test_any_object(tmp_path: Path) -> None:
    for obj in (None, 5, "x", [1, {"a": (2, 3)}], np.float64(3), b"x" * 100_000, {1, 2}):
        with memmapping.share(obj) as handle:
            assert handle.get() == obj
            assert Parallel(n_jobs=2)([delayed(_same)(handle)]) == [obj]
    with memmapping.share(lambda x: x + 1) as handle:
        assert Parallel(n_jobs=2)([delayed(_apply)(handle, 1)]) == [2]
    with open(tmp_path / "x", "w") as file, pytest.raises((TypeError, pickle.PicklingError)):
        memmapping.share(file)


def _same(obj: Any) -> Any:
    return obj


def _apply(function: Any, value: Any) -> Any:
    return function(value)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
def test_a_folder_without_room(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", tmp_path], check=True)
    try:
        with memmapping.share(np.ones(1_000_000), temp_folder=str(tmp_path)) as handle:
            assert handle.segment is not None and handle.segment.folder != str(tmp_path)
            assert handle.get().sum() == 1e6
        out = memmapping.zeros(1_000_000, temp_folder=str(tmp_path))
        out[:] = 1
        assert out.sum() == 1e6
        del handle, out
        gc.collect()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_the_hint_for_who_passes_a_large_object_again_and_again() -> None:
    script = """
        import warnings
        import parallel_core
        from parallel_core import Parallel, delayed
        def look_up(words, key):
            return words[key]
        words = {str(i): "some words" * 3 + str(i) for i in range(100_000)}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(2):
                Parallel(n_jobs=2)(delayed(look_up)(words, str(i)) for i in range(16))
        assert len(told) == 1, told
        assert told[0].category is parallel_core.PerformanceWarning
        assert told[0].filename == "<string>"
        print(told[0].message)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=False,
        cwd=HOME,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "argument 0 of look_up, a dict of" in done.stdout
    assert "memmapping.share" in done.stdout


def test_no_hint_for_objects_that_differ(recwarn: pytest.WarningsRecorder) -> None:
    Parallel(n_jobs=2)(delayed(len)([number] * 500_000) for number in range(40))
    assert not [one for one in recwarn if one.category is PerformanceWarning]


def test_listeners_are_told_from_anywhere() -> None:
    told: list[str] = []
    sharing.when_closed(told.append)
    try:
        for _ in range(3):
            memmapping.share(1)
        gc.collect()
        assert len(set(told)) == 3
    finally:
        sharing._listeners.remove(told.append)
