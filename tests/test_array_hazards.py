"""What could go wrong with shared arrays, and once did: each test here has seen its failure."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memmapping
import parallel_core
from memmapping import sharing, store
from memmapping.mirrors import Mirror
from memmapping.segments import Segment
from parallel_core import Parallel, delayed
from transferring import transfer
from watching import HOME, descendants, wait_until

pytestmark = pytest.mark.warm_workers


def largest(array: Any) -> float:
    return float(array.max())


def fill(array: Any, value: Any) -> None:
    array[...] = value


@pytest.mark.parametrize(
    "view",
    [
        lambda a: np.asarray(memoryview(a)[5000:]),
        lambda a: np.lib.stride_tricks.sliding_window_view(a[5000:], 2),
        lambda a: np.lib.stride_tricks.as_strided(a[5000:]),
        lambda a: np.from_dlpack(a[5000:]),
        lambda a: np.frombuffer(memoryview(a), offset=40_000),
    ],
    ids=["memoryview", "windows", "strided", "dlpack", "frombuffer"],
)
def test_two_ways_to_the_same_memory(view: Any) -> None:
    array = np.zeros(5_000_000)
    other = view(array)

    def tasks() -> Any:
        for value in (0.0, 7.0, 9.0):
            array[4_000_000] = value
            yield delayed(largest)(array)
            yield delayed(largest)(other)
            yield delayed(largest)(other)
            yield delayed(largest)(array)

    assert Parallel(n_jobs=2)(tasks()) == [0.0] * 4 + [7.0] * 4 + [9.0] * 4


def test_a_write_by_a_thread_while_the_ends_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    for arrays in transfer("compared"):
        array = np.zeros(100_000)
        write = Segment.write

        def and_then(
            self: Segment, data: Any, offset: int = 0, write: Any = write, array: Any = array
        ) -> None:
            write(self, data, offset)
            array[0] = array[-1] = 5  # as another thread would

        with monkeypatch.context() as patched:
            patched.setattr(Segment, "write", and_then)
            arrays(array)
        assert tuple(arrays(array)[[0, -1]]) == (5, 5)


def test_what_is_cancelled_may_still_run_on_its_own_data(tmp_path: Path) -> None:
    script = """
        import time
        import numpy as np
        from concurrent.futures import ProcessPoolExecutor
        from parallel_core import Parallel, delayed
        def write(array, i):
            with open("log", "a") as log:
                print(i, array[0], file=log)
            if i == 0:
                time.sleep(0.2)
                raise ValueError("first")
            time.sleep(0.3)
            array[:] = 1000 + i
        def look(array):
            time.sleep(1.5)
            return float(array.max())
        if __name__ == "__main__":
            with ProcessPoolExecutor(1) as executor:
                tasks = (delayed(write)(np.full(1_000_000, float(i)), i) for i in range(4))
                try:
                    Parallel(n_jobs=4, backend=executor, batch_size=1, mmap_mode="r+",
                             pre_dispatch="all")(tasks)
                except ValueError as error:
                    print(error)
                arrays = [np.full(1_000_000, 5.0) for _ in range(4)]
                print(Parallel(n_jobs=4, batch_size=1)(delayed(look)(a) for a in arrays))
    """
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(script))
    done = subprocess.run(
        [sys.executable, path],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )
    assert done.stdout.splitlines() == ["first", "[5.0, 5.0, 5.0, 5.0]"], done.stderr
    for line in (tmp_path / "log").read_text().splitlines():
        number, value = line.split()
        assert float(value) == int(number), "a task saw another one's array"


class Derived(np.memmap):
    """A class of the user's."""


@pytest.mark.parametrize("size", [10, 200_000])
@pytest.mark.parametrize("kind", ["subclass", "records", "masked", "strided", "memoryview"])
def test_all_forms_of_a_memory_map_are_written_in_place(
    tmp_path: Path, size: int, kind: str
) -> None:
    dtype: Any = [("a", "f8"), ("b", "f8")] if kind == "records" else "f8"
    out: Any = np.memmap(tmp_path / "out", dtype, "w+", shape=size)
    form: Any = {
        "subclass": lambda: out.view(Derived),
        "records": lambda: out.view(np.recarray),
        "masked": lambda: np.ma.MaskedArray(out, mask=np.zeros(size, bool)),
        "strided": lambda: np.lib.stride_tricks.as_strided(out, (size,), (8,)),
        "memoryview": lambda: np.asarray(memoryview(out)),
    }[kind]()
    Parallel(n_jobs=2)([delayed(fill)(form, (7, 7) if kind == "records" else 7)])
    assert (np.asarray(out.view("f8")) == 7).all()


def test_buffers_beside_an_instance_of_a_class_of_the_script() -> None:
    pytest.importorskip("pyarrow")
    script = """
        import numpy as np, pyarrow
        from parallel_core import Parallel, delayed
        class A: pass
        class C: attribute = A()
        def rows(table, c):
            return table.num_rows
        table = pyarrow.table({"x": np.arange(1_000_000.0)})
        print(Parallel(n_jobs=2)(delayed(rows)(table, C()) for _ in range(2)))
    """
    assert run_script(script) == "[1000000, 1000000]"


def run_script(script: str, *prefix: str) -> str:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", textwrap.dedent(script)],
        check=False,
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_number_that_was_given_again(tmp_path: Path) -> None:
    import pickle

    first = memmapping.share(["first"] * 10, temp_folder=str(tmp_path))
    data = pickle.dumps(first)
    first.close()
    second = memmapping.share(["second"] * 10, temp_folder=str(tmp_path))
    with pytest.raises(memmapping.StaleReferenceError):
        pickle.loads(data).get()
    assert second.get() == ["second"] * 10


def test_memory_that_is_watched_by_somebody_else() -> None:
    array = np.ones(16_000_000)
    half = len(array) // 2
    with Parallel(n_jobs=2) as one, Parallel(n_jobs=2) as two:
        assert one([delayed(largest)(array[:half])]) == [1]
        assert two([delayed(largest)(array[half + 5000 :])]) == [1]
        for value in (2, 3):
            array[half] = value
            assert one([delayed(largest)(array)]) == [value]
            assert two([delayed(largest)(array)]) == [value]


@pytest.mark.parametrize("how", ["not dumpable", "umask", "little address space"])
def test_processes_in_which_something_is_forbidden(how: str) -> None:
    prepare = {
        "not dumpable": "import ctypes; ctypes.CDLL(None).prctl(4, 0)",
        "umask": "import os; os.umask(0o777)",
        "little address space": (
            "import resource, parallel_core.parallel.call\n"
            "with open('/proc/self/statm') as file:\n"
            "    used = int(file.read().split()[0]) * 4096\n"
            "resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)"
        ),
    }[how]
    script = (
        "import warnings, numpy as np, memmapping.mirrors, memmapping.references\n"
        "from parallel_core import Parallel, delayed\n"
        "array = np.ones(10_000_000)\n" + prepare + "\n"
        "warnings.simplefilter('ignore')\n"
        "print(*Parallel(n_jobs=2, batch_size=1)(delayed(np.sum)(array) for _ in range(4)))"
    )
    if how == "not dumpable" and os.geteuid() == 0:
        prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        assert run_script(script, *prefix) == "10000000.0 10000000.0 10000000.0 10000000.0"
    assert run_script(script) == "10000000.0 10000000.0 10000000.0 10000000.0"


def test_a_fork_while_another_thread_opens_a_shared_object() -> None:
    handle = memmapping.share(Slow())
    other = memmapping.share([1])
    opener = threading.Thread(target=handle.get)
    with store.segment_store()._lock:
        opener.start()
        wait_until(Slow.begun.is_set, "it is being opened")
        child = os.fork()
        if child == 0:
            import signal

            signal.alarm(5)
            good = other.get() == [1] and memmapping.share([2]).get() == [2]
            os._exit(0 if good else 1)
        Slow.go_on.set()
    opener.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Slow:
    """Takes its time to be unpickled."""

    begun = threading.Event()
    go_on = threading.Event()

    def __getstate__(self) -> dict[str, int]:
        return {"x": 1}

    def __setstate__(self, state: Any) -> None:
        self.begun.set()
        self.go_on.wait(30)


class Lazy:
    """Does not like to be looked at."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RuntimeError("not connected")


def complain(array: Any, lazy: Any) -> None:
    raise ValueError("this file is read-only")


def test_the_error_of_a_task_is_not_replaced() -> None:
    with pytest.raises(ValueError, match="this file is read-only"):
        Parallel(n_jobs=2)(delayed(complain)(np.ones(3), Lazy()) for _ in range(2))


def test_a_file_that_is_cut_off_while_a_worker_has_it_mapped(tmp_path: Path) -> None:
    array: Any = np.memmap(tmp_path / "file", "f8", "w+", shape=(1_000_000,))

    def tasks() -> Any:
        for _ in range(4):
            yield delayed(largest)(array)
        time.sleep(0.2)
        os.truncate(tmp_path / "file", 4096)
        yield delayed(largest)(array)

    with pytest.raises(parallel_core.SerializationError, match="truncated"):
        Parallel(n_jobs=2, batch_size=1)(tasks())


def mapped_files(pid: int, name: str) -> list[str]:
    return [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if name in line]


def test_captured_arrays_and_files_are_let_go(tmp_path: Path) -> None:
    captured = np.ones(2_000_000)

    def look(i: int) -> float:
        return float(captured[i])

    assert Parallel(n_jobs=2)(delayed(look)(i) for i in range(4)) == [1] * 4
    out: Any = np.memmap(tmp_path / "out", "f8", "w+", shape=1000)
    Parallel(n_jobs=2)(delayed(fill)(out, i) for i in range(4))
    for pid in list(descendants()):
        for name in ("/dev/shm/#", str(tmp_path)):
            wait_until(
                lambda pid=pid, name=name: not mapped_files(pid, name),  # type: ignore[misc]  # bound
                f"the worker lets go of {name}",
            )


def test_closed_handles_in_a_with_block() -> None:
    with Parallel(n_jobs=2) as parallel:
        for number in range(8):
            with memmapping.share(np.full(300_000, number)) as handle:
                assert parallel(delayed(largest)(handle) for _ in range(4)) == [number] * 4
        parallel(delayed(abs)(1) for _ in range(4))
        for pid in list(descendants()):
            wait_until(
                lambda pid=pid: len(mapped_files(pid, "/dev/shm/#")) <= 1,  # type: ignore[misc]  # bound
                "the worker lets go",
            )


@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_captured_array_is_not_compared_in_the_worker(mode: Any) -> None:
    big = np.ones(10_000_000)

    def peak(i: int) -> int:
        big[i]
        status = Path("/proc/self/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
        return int(line.split()[1]) // 1024

    got = Parallel(n_jobs=2, mmap_mode=mode, batch_size=1)(delayed(peak)(i) for i in range(8))
    assert max(got) < 76, "80 MB were copied"


def test_a_task_that_writes_to_a_captured_array_does_not_disturb_the_next() -> None:
    big = np.zeros(1_000_000)

    def add(i: int) -> float:
        big[5] += 1
        return float(big[5])

    assert Parallel(n_jobs=2, mmap_mode="c")(delayed(add)(i) for i in range(20)) == [1.0] * 20


@pytest.mark.parametrize(
    "what",
    [
        "parallel = Parallel(n_jobs=2).__enter__(); parallel([delayed(np.sum)(array)])",
        "made = ArrayReducer(); made.reduce(array)",
        "left = Parallel(n_jobs=2, return_as='generator')(delayed(np.sum)(array) for _ in 'ab')\n"
        "next(left)",
        "try:\n    Parallel(n_jobs=2)(delayed(int)(array) for _ in 'ab')\n"
        "except TypeError as error:\n    kept = error",
    ],
    ids=["with", "reducer", "generator", "exception"],
)
def test_the_program_ends_whatever_is_left(what: str) -> None:
    head = """
        import numpy as np
        from memmapping.reducer import ArrayReducer
        from parallel_core import Parallel, delayed
        array = np.ones(1_000_000)
    """
    assert run_script(textwrap.dedent(head) + what + "\nprint('end')") == "end"


def test_one_changed_element_in_a_with_block_is_all_that_is_copied() -> None:
    array = np.zeros(10_000_000)
    segments = []
    with Parallel(n_jobs=2) as parallel:
        for value in range(1, 6):
            array[12345] = value
            assert parallel(delayed(largest)(array) for _ in range(2)) == [value] * 2
            assert parallel._resources._arrays is not None
            (known,) = parallel._resources._arrays._mirrors.values()
            segments.append(known.mirror.segment)
            for pid in list(descendants()):
                wait_until(
                    lambda pid=pid: not mapped_files(pid, "/dev/shm/#"),  # type: ignore[misc]  # bound
                    "the worker lets go",
                )
    assert all(segment is segments[0] for segment in segments)


def test_no_room_is_found_out_once_for_each_array(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def refuse(self: Mirror, span: Any, look: Any) -> Segment:
        tried.append(1)
        raise store.NoRoom(28, "no room")

    monkeypatch.setattr(Mirror, "segment_for", refuse)
    with pytest.warns(RuntimeWarning, match="goes through a socket.*no room"):
        assert Parallel(n_jobs=2)([delayed(largest)(np.ones(1_000_000))]) == [1]
    assert len(tried) == 1


def test_a_segment_that_is_freed_under_the_lock_is_closed_once_in_a_fork() -> None:
    shelf = store.segment_store()
    segment = shelf.take(1 << 20)
    with shelf._lock:
        del segment
        child = os.fork()
        if child == 0:
            held = [name for name in os.listdir("/proc/self/fd") if is_segment(name)]
            os._exit(len(held))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_that_drops_a_segment_closes_nothing_of_its_own() -> None:
    segment = store.segment_store().take(1 << 20)
    child = os.fork()
    if child == 0:
        number = os.open(os.devnull, os.O_RDONLY)
        while number < segment.fd:  # lower numbers may be free as well
            number = os.open(os.devnull, os.O_RDONLY)
        good = number == segment.fd  # which is closed in a fork
        del segment
        gc.collect()
        try:
            os.fstat(number)
        except OSError:
            good = False
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def is_segment(name: str) -> bool:
    try:
        return "/dev/shm/#" in os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return False


def test_arrays_in_a_forked_child_of_a_with_block() -> None:
    array = np.zeros(1_000_000)
    with Parallel(n_jobs=2) as parallel:
        assert parallel([delayed(largest)(array)]) == [0]
        child = os.fork()
        if child == 0:
            array[5] = 3
            good = parallel([delayed(largest)(array)]) == [3]
            parallel.__exit__(None, None, None)
            parallel_core.shutdown_workers()
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        array[6] = 2
        assert parallel([delayed(largest)(array)]) == [2]


def test_shared_objects_are_told_of_only_when_no_task_needs_them() -> None:
    told: list[str] = []
    sharing.when_closed(told.append)
    try:
        for arrays in transfer("compared"):
            handle = memmapping.share([1])
            sent = arrays.pickle(handle)
            handle.close()
            gc.collect()
            assert not told
            assert arrays.unpickle(sent).get() == [1]
            del sent
            gc.collect()
            assert len(told) == 1
    finally:
        sharing._listeners.remove(told.append)
