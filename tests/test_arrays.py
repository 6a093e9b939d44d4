"""Large arrays on their way to workers: what arrives, that it is fresh, and that it goes again."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memmapping
import parallel_core
from memmapping import store
from parallel_core import Parallel, delayed, parallel_config
from watching import HOME, descendants, some, wait_until

pytestmark = pytest.mark.warm_workers

BACKENDS = some(["processes", "loky", "multiprocessing"])
MILLION = 1_000_000


def open_files() -> list[str]:
    found = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
        except OSError:
            continue
    return found


def is_memmap(obj: Any) -> bool:
    return isinstance(obj, np.memmap)


def kind(obj: Any) -> str:
    return type(obj).__name__


def total(obj: Any, *others: Any) -> float:
    return float(np.sum(obj))


def traits(array: Any) -> tuple[Any, ...]:
    flags = array.flags
    shown = array.shape, array.dtype.str, flags.c_contiguous, flags.f_contiguous, flags.writeable
    return kind(array), *shown, array.tobytes()


def add_to(array: Any, index: int, value: float) -> float:
    array[index] += value
    return float(array[index])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_example_of_automatic_conversion(backend: str) -> None:
    got = Parallel(n_jobs=2, max_nbytes=1e6, backend=backend)(
        delayed(is_memmap)(np.ones(int(size))) for size in [1e2, 1e4, 1e6]
    )
    assert got == [False, False, True]


@pytest.mark.core
def test_the_example_of_memmaps_that_are_there_already(tmp_path: Path) -> None:
    large_array = np.ones(int(1e6))
    filename = os.path.join(tmp_path, "joblib_test.mmap")
    memmapping.dump(large_array, filename)
    large_memmap = memmapping.load(filename, mmap_mode="r+")
    shown = large_memmap.__class__.__name__, large_array.nbytes, large_array.shape
    assert shown == ("memmap", 8000000, (1000000,))
    assert np.allclose(large_array, large_memmap)
    small_memmap = large_memmap[2:5]
    shown = small_memmap.__class__.__name__, small_memmap.nbytes, small_memmap.shape
    assert shown == ("memmap", 24, (3,))
    small_array = np.asarray(small_memmap)
    shown = small_array.__class__.__name__, small_array.nbytes, small_array.shape
    assert shown == ("ndarray", 24, (3,))
    got = Parallel(n_jobs=2, max_nbytes=None)(
        delayed(is_memmap)(array) for array in [large_memmap, small_memmap, small_array]
    )
    assert got == [True, True, True]


@dataclasses.dataclass
class Holder:
    """Something with an array inside."""

    name: str
    array: Any
    parts: dict[str, Any] = dataclasses.field(default_factory=dict)


def kinds_inside(holder: Holder, in_list: list[Any], *, named: dict[str, Any]) -> list[str]:
    return [
        kind(holder.array),
        kind(holder.parts["x"][0]),
        kind(in_list[1]),
        kind(named["deep"][0]["er"]),
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_at_any_depth(backend: str) -> None:
    a = np.arange(2e5)
    holder = Holder("h", a, {"x": (a[::2],)})
    got = Parallel(n_jobs=2, backend=backend)(
        delayed(kinds_inside)(holder, [1, a.reshape(1000, 200).T], named={"deep": [{"er": a}]})
        for _ in range(3)
    )
    assert got == [["memmap", "ndarray", "memmap", "memmap"]] * 3  # a[::2] has 800 kB


def same_object(a: Any, b: Any) -> bool:
    return a is b


@pytest.mark.core
def test_one_array_twice_in_a_task_is_one_array() -> None:
    a = np.ones(MILLION)
    assert Parallel(n_jobs=2)(delayed(same_object)(a, a) for _ in range(2)) == [True, True]


@pytest.mark.parametrize(
    "make",
    [
        lambda: np.arange(2e5).reshape(500, 400),
        lambda: np.asfortranarray(np.arange(2e5).reshape(500, 400)),
        lambda: np.arange(4e5)[::-2],
        lambda: np.arange(8e5).reshape(200, 100, 40)[::2, ::-1].transpose(2, 0, 1),
        lambda: np.arange(2e5).astype(">f8"),
        lambda: np.zeros(60_000, [("a", "<i4"), ("b", ">f8", 2), ("c", "S3")]),
        lambda: np.broadcast_to(np.arange(1000.0), (300, 1000)),
        lambda: np.arange(300_000).astype("M8[s]"),
        lambda: np.full(2_000_000, True),
        lambda: np.full(60_000, "héllo"),
        lambda: np.frombuffer(bytes(range(256)) * 8000, np.uint8),
        lambda: np.full((), 1, [("big", "f8", 200_000)]),
    ],
    ids=[
        *("c", "f", "strided", "transposed", "big", "structured"),
        *("broadcast", "dates", "bool", "text", "bytes", "scalar"),
    ],
)
@pytest.mark.parametrize("mode", ["r", "c", None])
def test_every_form_survives(make: Any, mode: str | None) -> None:
    array = make()
    (got,) = Parallel(n_jobs=2, mmap_mode=mode)([delayed(traits)(array)])
    expected = traits(array)
    assert got[0] == ("ndarray" if mode is None else "memmap")
    assert got[1:3] == expected[1:3]
    if mode is not None:
        assert got[3:5] == expected[3:5]
    assert got[5] == (mode != "r")
    assert got[6] == expected[6]


def meet(array: Any, mine: int) -> float:
    before = float(array[mine])
    array[mine] = 1
    limit = time.monotonic() + 20
    while array[:2].sum() < 2:
        assert time.monotonic() < limit, "the other task's write is not seen"
        time.sleep(0.001)
    return before


@pytest.mark.parametrize("mode", ["r+", "w+"])
def test_a_writable_mode_shares_one_copy_among_the_tasks(mode: str) -> None:
    array = np.zeros(MILLION)
    with Parallel(n_jobs=2, mmap_mode=mode, batch_size=1) as parallel:
        for _ in range(2):  # each call starts from the caller's array
            assert parallel(delayed(meet)(array, mine) for mine in range(2)) == [0, 0]
    assert array.sum() == 0


def test_copy_on_write_is_private_to_each_task() -> None:
    array = np.zeros(MILLION)
    got = Parallel(n_jobs=2, mmap_mode="c")(delayed(add_to)(array, 5, 1) for _ in range(20))
    assert got == [1] * 20 and array[5] == 0


@pytest.mark.parametrize(
    "size", ["1M", 1_000_000, 1e6, "1000000", "976.5625K", 1 << 20, "1 MiB", None]
)
def test_sizes(size: Any) -> None:
    arrays = [np.zeros(nbytes, np.uint8) for nbytes in (999_999, 1_000_000, 1_048_575, 1_048_576)]
    got = Parallel(n_jobs=2, max_nbytes=size)(delayed(is_memmap)(array) for array in arrays)
    bound = {None: 1 << 40, "1M": 1 << 20, 1 << 20: 1 << 20, "1 MiB": 1 << 20}.get(size, 1_000_000)
    assert got == [array.nbytes >= bound for array in arrays]


def test_parameters_from_the_context() -> None:
    array = np.zeros(1000)
    with parallel_config(max_nbytes=100, mmap_mode="c"):
        assert Parallel(n_jobs=2)([delayed(add_to)(array, 1, 2)]) == [2]
        assert Parallel(n_jobs=2)([delayed(kind)(array)]) == ["memmap"]
    assert Parallel(n_jobs=2)([delayed(kind)(array)]) == ["ndarray"]


# Memory maps that are there already.


@pytest.mark.parametrize("backend", BACKENDS)
def test_workers_fill_an_array_of_a_file_in_place(tmp_path: Path, backend: str) -> None:
    out = np.memmap(tmp_path / "out", "f8", "w+", 64, (100, 20))
    views = [out[3], np.asarray(out)[4], out[:, 2:4].T, out[::-3, ::-1]]
    got = Parallel(n_jobs=2, max_nbytes=None, backend=backend)(
        delayed(add_to)(view, 1, number + 1.0) for number, view in enumerate(views[:2])
    )
    assert got == [1, 2]
    assert (out[3, 1], out[4, 1]) == (1, 2)
    for view in views:
        (found,) = Parallel(n_jobs=2, backend=backend)([delayed(traits)(view)])
        assert found == traits(np.memmap.view(view, np.memmap))


def test_a_file_opened_for_reading_stays_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(8000))
    array: Any = np.memmap(tmp_path / "file", "f8", "r")
    assert Parallel(n_jobs=2)([delayed(traits)(array)])[0][5] is False
    writable: Any = np.memmap(tmp_path / "file", "f8", "r+")
    writable.flags.writeable = False
    assert Parallel(n_jobs=2)([delayed(traits)(writable)])[0][5] is False


def test_a_private_map_is_passed_with_what_was_written_to_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(8_000_000))
    array: Any = np.memmap(tmp_path / "file", "f8", "c")
    array[7] = 5
    got = Parallel(n_jobs=2)(delayed(total)(part) for part in (array, array[5:10], array[20:30]))
    assert got == [5, 5, 0]
    array[8] = 1
    assert Parallel(n_jobs=2)([delayed(total)(array)]) == [6]


@pytest.mark.parametrize("max_nbytes", ["1K", "1M", None])
@pytest.mark.parametrize("mode", ["r", "c", "r+", None])
def test_a_private_map_stays_private_and_writable(
    tmp_path: Path, max_nbytes: str | None, mode: str | None
) -> None:
    (tmp_path / "file").write_bytes(bytes(80_000))
    array: Any = np.memmap(tmp_path / "file", "f8", "c")
    array[7] = 5
    with Parallel(n_jobs=2, max_nbytes=max_nbytes, mmap_mode=mode) as parallel:
        for _ in range(2):
            assert parallel(delayed(add_to)(array, 7, 1) for _ in range(4)) == [6] * 4
            assert parallel(delayed(add_to)(array[5:], 2, 1) for _ in range(4)) == [6] * 4
    assert array[7] == 5 and np.fromfile(tmp_path / "file", "f8")[7] == 0


@pytest.mark.parametrize("size", [1000, 2_000_000])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_map_whose_file_is_gone_is_passed_by_content(tmp_path: Path, size: int, how: str) -> None:
    path = tmp_path / "file"
    array: Any = np.memmap(path, "f8", "w+", shape=(size,))
    array[:] = 1
    with Parallel(n_jobs=2) as parallel:
        assert parallel([delayed(total)(array)]) == [size]
        path.unlink()
        if how == "replaced":
            path.write_bytes(bytes(8 * size))
        assert parallel(delayed(total)(array) for _ in range(3)) == [size] * 3


def test_the_working_directory_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array: Any = np.memmap("relative", "f8", "w+", shape=(10,))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Parallel(n_jobs=2)(delayed(add_to)(array, 1, 3) for _ in range(1)) == [3]
    assert array[1] == 3


@pytest.mark.core
def test_arrays_born_in_shared_memory() -> None:
    out = memmapping.zeros((50, 3))
    Parallel(n_jobs=2)(delayed(add_to)(out, (i, 1), float(i)) for i in range(50))
    assert out.sum() == sum(range(50)) and (out[:, 1] == np.arange(50)).all()
    assert Parallel(n_jobs=2)([delayed(traits)(out[::-2].T)])[0] == traits(out[::-2].T)
    copied = memmapping.empty_like(np.ones((2, 3), ">i4", order="F"))
    assert (copied.shape, copied.dtype.str, copied.flags.f_contiguous) == ((2, 3), ">i4", True)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (((2, -1),), ValueError),
        ((2.5,), TypeError),
        ((3, object), TypeError),
        ((3, float, "Z"), ValueError),
        (("a",), TypeError),
    ],
)
def test_bad_requests_for_arrays(arguments: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        memmapping.empty(*arguments)


# Freshness, through whole calls; the mirrors have tests of their own.


@pytest.mark.core
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_a_generator_that_reuses_its_buffer(return_as: str) -> None:
    buffer = np.zeros(200_000)

    def tasks() -> Any:
        for number in range(40):
            buffer[:] = number
            yield delayed(total)(buffer)

    got = list(Parallel(n_jobs=2, return_as=return_as)(tasks()))
    assert got == [number * 200_000.0 for number in range(40)]


@pytest.mark.parametrize("managed", [True, False])
def test_changes_between_calls(managed: bool) -> None:
    array = np.zeros(MILLION)
    parallel = Parallel(n_jobs=2)
    if managed:
        parallel.__enter__()
    try:
        for step in range(1, 6):
            array[step * 1000] = 1
            assert parallel(delayed(total)(array) for _ in range(3)) == [step] * 3
        array[0] = np.nan
        assert np.isnan(parallel([delayed(total)(array)])[0])
    finally:
        if managed:
            parallel.__exit__(None, None, None)


def test_captured_arrays_are_shared_and_fresh() -> None:
    script = """
        import numpy as np
        from parallel_core import Parallel, delayed
        table = np.zeros(1_000_000)
        def look(i):
            return type(table).__name__, float(table[i])
        def tasks():
            for i in range(30):
                table[:] = i
                yield delayed(look)(i)
        if __name__ == "__main__":
            got = Parallel(n_jobs=2)(tasks())
            assert got == [("memmap", float(i)) for i in range(30)], got
            local = np.ones(1_000_000)
            got = Parallel(n_jobs=2)(delayed(lambda i: float(local[i]) + i)(i) for i in range(200))
            assert got == [1.0 + i for i in range(200)]
            print("fine")
    """
    assert run_script(script) == "fine"


def run_script(script: str, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        check=False,
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# Lifetime.


def shared_memory_bytes() -> int:
    """Return how much of shared memory is in use, names or not."""
    room = os.statvfs("/dev/shm")
    return (room.f_blocks - room.f_bfree) * room.f_frsize


def segments_of(pid: int) -> int:
    """Return how many maps of nameless files a process has."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum("/dev/shm/#" in line for line in lines)


@pytest.mark.core
def test_after_a_call_workers_hold_nothing() -> None:
    array = np.ones(2 * MILLION)
    assert Parallel(n_jobs=2)(delayed(total)(array) for _ in range(4)) == [2e6] * 4
    for pid in list(descendants()):
        wait_until(lambda pid=pid: segments_of(pid) == 0, "the worker has let go")  # type: ignore[misc]  # bound
    assert store.segment_store()._kept, "one is kept for the next call"
    parallel_core.shutdown_workers()
    assert not store.segment_store()._kept


def test_a_hundred_calls_hold_no_more_than_five() -> None:
    held = []
    for number in range(100):
        array = np.full(300_000, float(number))
        assert Parallel(n_jobs=2)(delayed(total)(array) for _ in range(2)) == [number * 3e5] * 2
        held.append((store.segment_store().kept_bytes(), len(open_files())))
    assert held[-1][0] <= 2 * max(size for size, _ in held[:5])
    assert held[-1][1] <= max(number for _, number in held[:5]) + 2


def keep(array: Any) -> float:
    globals()["_kept"] = array
    return float(array[0])


def kept_sum() -> float:
    return float(globals()["_kept"].sum()) if "_kept" in globals() else -1.0


def test_an_argument_that_a_task_stored_away_never_changes() -> None:
    for number in range(1, 12):
        array = np.full(200_000, float(number))
        Parallel(n_jobs=2)(delayed(keep)(array) for _ in range(4))
        other = np.full(200_000, -float(number))
        assert Parallel(n_jobs=2)(delayed(total)(other) for _ in range(4)) == [-number * 2e5] * 4
        found = Parallel(n_jobs=2, batch_size=1)(delayed(kept_sum)() for _ in range(4))
        assert all(one in (-1, *(k * 2e5 for k in range(1, number + 1))) for one in found)
    Parallel(n_jobs=2)(delayed(keep)(np.ones(1)) for _ in range(20))


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM", "exit"])
def test_nothing_is_left_when_the_process_ends(signal: str) -> None:
    before = shared_memory_bytes()
    script = """
        import os, signal, sys, time
        import numpy as np
        from parallel_core import Parallel, delayed
        array = np.ones(4_000_000)
        def tasks():
            yield delayed(np.sum)(array)
            yield delayed(np.sum)(array)
            print("ready", flush=True)
            if sys.argv[1] == "exit":
                os._exit(0)
            yield delayed(time.sleep)(40)
        Parallel(n_jobs=2, batch_size=1)(tasks())
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), signal],
        cwd=HOME,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    pids = descendants(child.pid)
    if signal != "exit":
        child.send_signal(getattr(__import__("signal"), signal))
    child.wait()
    child.stdout.close()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "workers end")
    wait_until(lambda: shared_memory_bytes() <= before + (1 << 20), "the memory is free")


# Bad input, and folders that are no good.


def write_to(data: Any, other: int) -> None:
    del other
    data[0] = 1


@pytest.mark.core
def test_the_error_of_writing_to_a_read_only_argument_says_what_to_do() -> None:
    array = np.zeros(MILLION)
    with pytest.raises(ValueError, match="read-only") as caught:
        Parallel(n_jobs=2)([delayed(write_to)(array, 1)])
    notes = "\n".join(caught.value.__notes__)
    assert "argument 'data'" in notes or "argument 0" in notes
    assert "mmap_mode" in notes
    with pytest.raises(ValueError, match="read-only") as caught:
        Parallel(n_jobs=2)([delayed(write_to)(other=2, data=array)])
    assert "'data'" in "\n".join(caught.value.__notes__)


def test_a_temp_folder_that_is_missing_is_made(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet"
    assert Parallel(n_jobs=2, temp_folder=path)([delayed(total)(np.ones(MILLION))]) == [1e6]
    assert path.is_dir() and not [*path.iterdir()]


@pytest.mark.parametrize("folder", ["in-a-file", "file", "unwritable"])
def test_a_temp_folder_that_is_no_good(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder
    if folder == "file":
        path.write_text("")
    elif folder == "in-a-file":
        path.write_text("")
        path /= "folder"
    elif folder == "unwritable":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        path.mkdir(mode=0o500)
    with pytest.raises(ValueError, match=f"temp_folder.*{path.name}"):
        Parallel(n_jobs=2, temp_folder=path)([delayed(total)(np.ones(MILLION))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        script_environment = {"MEMMAPPING_TEMP_FOLDER": str(path)}
        got = run_script(
            "import numpy as np; from parallel_core import Parallel, delayed\n"
            "print(*Parallel(n_jobs=2)(delayed(np.sum)(np.ones(1000000)) for i in range(2)))",
            **script_environment,
        )
    assert got == "1000000.0 1000000.0"


@pytest.mark.parametrize("how", ["parameter", "variable", "joblib's variable"])
def test_the_folder_of_the_users_choice(tmp_path: Path, how: str) -> None:
    script = """
        import os, sys
        import numpy as np
        from parallel_core import Parallel, delayed
        def folder_of(array):
            names = [line.split()[-2] for line in open("/proc/self/maps") if "(deleted)" in line]
            return [name for name in names if sys.argv[1] in name]
        folder = sys.argv[1] if sys.argv[2] == "parameter" else None
        got = Parallel(n_jobs=2, temp_folder=folder)([delayed(folder_of)(np.ones(1000000))])
        assert got[0], got
        assert not os.listdir(sys.argv[1])
    """
    environment = {"MEMMAPPING_TEMP_FOLDER": "", "JOBLIB_TEMP_FOLDER": ""}
    if how == "variable":
        environment = {"MEMMAPPING_TEMP_FOLDER": str(tmp_path), "JOBLIB_TEMP_FOLDER": "/none"}
    elif how == "joblib's variable":
        environment = {"JOBLIB_TEMP_FOLDER": str(tmp_path)}
    run_script(script, str(tmp_path), how, **environment)


@pytest.mark.parametrize("size", ["lots", "-1M", -5, "1Q", [], True])
def test_sizes_that_make_no_sense(size: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="max_nbytes"):
        Parallel(n_jobs=2, max_nbytes=size)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
@pytest.mark.parametrize("full", ["small", "filling"])
def test_a_full_folder_is_left_for_the_next(tmp_path: Path, full: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", tmp_path], check=True)
    try:
        if full == "filling":
            (tmp_path / "ballast").write_bytes(bytes(3 << 20))
        arrays = [np.full(300_000, float(number)) for number in range(6)]  # 2.4 MB each
        got = Parallel(n_jobs=2, temp_folder=tmp_path, pre_dispatch="all")(
            delayed(total)(array) for array in arrays
        )
        assert got == [number * 3e5 for number in range(6)]
        huge = np.ones(3 * MILLION)
        got = Parallel(n_jobs=2, temp_folder=tmp_path)(
            delayed(total)(huge[i:], is_memmap(huge)) for i in range(3)
        )
        assert got == [3e6, 3e6 - 1, 3e6 - 2]
        parallel_core.shutdown_workers()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system takes root")
@pytest.mark.parametrize("temporary", ["tmp has room", "nothing has room"])
def test_a_small_shared_memory(tmp_path: Path, temporary: str) -> None:
    script = """
        import os, subprocess, sys, warnings
        import numpy as np
        from parallel_core import Parallel, delayed
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", "/dev/shm"], check=True)
        if sys.argv[1] == "nothing has room":
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", sys.argv[2]],
                           check=True)
        os.environ["TMPDIR"] = sys.argv[2]
        def kind_and_sum(array):
            return type(array).__name__, float(array.sum())
        array = np.ones(3_000_000)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            got = Parallel(n_jobs=2)(delayed(kind_and_sum)(array) for _ in range(3))
        fits = sys.argv[1] == "tmp has room"
        assert got == [("memmap" if fits else "ndarray", 3e6)] * 3, got
        assert len(told) == (0 if fits else 1), told
        if not fits:
            assert "no room" in str(told[0].message) and told[0].filename == "<string>", told[0]
        print("fine")
    """
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", textwrap.dedent(script), temporary, tmp_path],
        check=False,
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.stdout.strip() == "fine", done.stderr


def test_many_arrays_in_flight_leave_descriptors_for_others() -> None:
    script = """
        import resource, warnings
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
        import time
        import numpy as np
        from parallel_core import Parallel, delayed
        def tasks():
            for _ in range(2):  # the others wait, with their arrays
                yield delayed(time.sleep)(2)
            for i in range(150):
                yield delayed(np.sum)(np.full(150_000, float(i)))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            got = Parallel(n_jobs=2, pre_dispatch="all", batch_size=1)(tasks())
        assert got[2:] == [i * 150_000.0 for i in range(150)]
        assert len(told) == 1, told
        print("fine")
    """
    assert run_script(script) == "fine"


def test_a_file_that_is_cut_off_before_the_worker_opens_it(tmp_path: Path) -> None:
    array: Any = np.memmap(tmp_path / "file", "f8", "w+", shape=(MILLION,))

    def tasks() -> Any:
        yield delayed(time.sleep)(0.05)
        yield delayed(time.sleep)(0.05)
        yield delayed(total)(array)
        os.truncate(tmp_path / "file", 4096)

    with pytest.raises(parallel_core.SerializationError, match=r"truncated.*8000000.*4096"):
        Parallel(n_jobs=2, batch_size=1, pre_dispatch="all")(tasks())


def test_other_libraries_arrays_are_pickled_as_ever_by_engines_elsewhere() -> None:
    from concurrent.futures import ThreadPoolExecutor

    array = np.ones(MILLION)
    with ThreadPoolExecutor(2) as executor:
        got = Parallel(n_jobs=2, backend=executor)(delayed(kind)(array) for _ in range(2))
    assert got == ["ndarray", "ndarray"]


# Other people's containers.


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({f"c{i}": np.arange(100_000.0) + i for i in range(5)})
    frame["text"] = "x"

    def look(given: Any) -> tuple[float, bool, str]:
        values = given._mgr.blocks[0].values
        while values.base is not None and not isinstance(values, np.memmap):
            values = values.base
        return float(given["c3"].sum()), isinstance(values, np.memmap), given["text"].iloc[5]

    got = Parallel(n_jobs=2)(delayed(look)(frame) for _ in range(3))
    assert got == [(float(frame["c3"].sum()), True, "x")] * 3
    frame.loc[5, "c3"] = -1.0
    assert Parallel(n_jobs=2)([delayed(look)(frame)])[0][0] == frame["c3"].sum()


def test_scipy() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.random(2000, 2000, 0.1, format="csr", random_state=0)

    def look(given: Any) -> tuple[str, float]:
        return kind(given.data), float(given.sum())

    assert (
        Parallel(n_jobs=2)(delayed(look)(matrix) for _ in range(2))
        == [("memmap", float(matrix.sum()))] * 2
    )


def test_xarray() -> None:
    xarray = pytest.importorskip("xarray")
    data = xarray.DataArray(np.arange(2e5).reshape(400, 500), dims=("a", "b"))

    def look(given: Any) -> tuple[bool, float]:
        return isinstance(given.variable._data, np.memmap), float(given.sum())

    assert Parallel(n_jobs=2)([delayed(look)(data)]) == [(True, float(data.sum()))]


def test_arrow() -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"a": np.arange(500_000), "b": [str(i) for i in range(500_000)]})

    def look(given: Any) -> tuple[bool, int, int]:
        mapped = sum("/dev/shm/#" in line for line in open("/proc/self/maps"))
        return mapped > 0, given["a"].to_numpy().sum(), given.num_rows

    got = Parallel(n_jobs=2)(delayed(look)(table) for _ in range(2))
    assert got == [(True, sum(range(500_000)), 500_000)] * 2


def test_polars() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": np.arange(500_000)})

    def look(given: Any) -> int:
        return int(given["a"].sum())

    assert Parallel(n_jobs=2)([delayed(look)(frame)]) == [sum(range(500_000))]


class Buffered(bytearray):
    """Hands its memory over as PEP 574 has it."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuffered, (pickle.PickleBuffer(self),)


def _rebuffered(buffer: Any) -> Any:
    return buffer


def see(buffer: Any) -> tuple[str, bool, bytes]:
    view = memoryview(buffer)
    return type(buffer).__name__, view.readonly, bytes(view[:3])


def test_other_buffers_are_shared_and_fresh() -> None:
    buffer = Buffered(b"abc" * MILLION)

    def tasks() -> Any:
        for i in range(5):
            buffer[0] = i
            yield delayed(see)(buffer)

    got = Parallel(n_jobs=2)(tasks())
    assert got == [("memoryview", True, bytes([i]) + b"bc") for i in range(5)]
