"""Large results: whole, in order, once, as they were when their task returned, and writable."""

from __future__ import annotations

import array
import dataclasses
import gc
import os
import pickle
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memmapping
from parallel_core import Parallel, SerializationError, WorkerDiedError, delayed
from parallel_core.serialization.buffers import HERE, Buffer, allocate, array_buffer, nbytes_of
from parallel_core.serialization.results import BESIDE, Parcel, ParcelPickler, ResultPickler, unpack
from parallel_core.workers.channel import Channel, ChannelClosed
from parallel_core.workers.pool import worker_pool
from watching import HOME, LIMIT, running, some, wait_until

pytestmark = pytest.mark.warm_workers

core = pytest.mark.core
BACKENDS = ["processes", "multiprocessing", "loky"]


def first_is_core(*values: Any) -> list[Any]:
    """Put a test with the first of these values into the fast subset; the others are for all."""
    return [pytest.param(values[0], marks=core), *values[1:]]


N = 30_000  # doubles: well above what travels beside a pickle


def own(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make `function` one of the caller's script: workers get it by value."""
    function.__module__ = "__main__"
    return function


# --- every kind of result -------------------------------------------------------------------------


@dataclasses.dataclass
class Measured:
    name: str
    values: Any
    parts: list[Any]


class Tagged(np.ndarray):
    """A subclass that pickles as plain arrays do."""

    def __array_finalize__(self, obj: Any) -> None:
        self.came_alone = obj is None  # as it does when it is unpickled


class Noted(np.ndarray):
    """A subclass that sees to its own pickling."""

    note = ""

    def __reduce__(self) -> Any:
        make, args, state = super().__reduce__()  # type: ignore[misc]
        return make, args, (*state, self.note)

    def __setstate__(self, state: Any) -> None:
        self.note = state[-1]
        super().__setstate__(state[:-1])


class Memory:
    """Somebody else's buffer."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Memory, (pickle.PickleBuffer(self.data),)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Memory) and bytes(self.data) == bytes(other.data)

    __hash__ = None  # type: ignore[assignment]


def noted(length: int) -> Noted:
    made = np.arange(length, dtype=float).view(Noted)
    made.note = "kept"
    return made


def read_only(made: Any) -> Any:
    made.flags.writeable = False
    return made


def masked(length: int) -> Any:
    return np.ma.masked_array(
        np.arange(length, dtype=float), mask=np.arange(length) % 3 == 0, fill_value=-1.0
    )


RECORD = np.dtype([("a", ">f8"), ("b", "i2"), ("c", "S3"), ("d", "f4", (2,))])
ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)

KINDS: dict[str, Callable[[int], Any]] = {
    "float64": lambda n: np.arange(n, dtype=float),
    "float16": lambda n: np.arange(n, dtype=np.float16),
    "longdouble": lambda n: np.zeros(n, dtype=np.longdouble),
    "complex64": lambda n: np.arange(n, dtype=np.complex64) * 1j,
    "bool": lambda n: np.arange(4 * n) % 3 == 0,
    "int8": lambda n: np.arange(4 * n).astype("i1"),
    "other byte order": lambda n: np.arange(n, dtype=">i4"),
    "other byte order, small": lambda n: np.arange(3, dtype=">i4"),
    "other byte order, small and read-only": lambda n: read_only(np.arange(3, dtype=">i4")),
    "other byte order, small and with gaps": lambda n: np.arange(9, dtype=">f8")[::2],
    "other byte order, small in Fortran order": lambda n: read_only(np.ones((2, 3), ">f8", "F")),
    "other byte order, text": lambda n: read_only(np.array(["a", "bc"], ">U3")),
    "other byte order, masked": lambda n: masked(5).astype(">f8"),
    "other byte order, subclass": lambda n: np.arange(3, dtype=">f8").view(Tagged)[::-1],
    "datetime": lambda n: np.arange(n).astype("M8[ms]"),
    "timedelta": lambda n: np.arange(n).astype("m8[D]"),
    "text": lambda n: np.arange(n).astype("U7"),
    "bytes of fixed length": lambda n: np.arange(n).astype("S9"),
    "void": lambda n: np.zeros(n, "V13"),
    "structured": lambda n: np.zeros(n, RECORD),
    "aligned": lambda n: np.zeros(n, ALIGNED),
    "record array": lambda n: np.rec.fromarrays([np.arange(n), np.arange(n) * 0.5], names="x, y"),
    "one huge element": lambda n: np.array("x" * n),
    "no dimension, small": lambda n: np.array(3.0),
    "empty": lambda n: np.empty((0, n)),
    "Fortran order": lambda n: np.asfortranarray(np.arange(4.0 * n).reshape(4, n)),
    "three dimensions, Fortran": lambda n: np.arange(8.0 * n).reshape(2, 4, n).T,
    "axes swapped": lambda n: np.arange(8.0 * n).reshape(2, 4, n).swapaxes(0, 1),
    "with gaps": lambda n: np.arange(4.0 * n).reshape(4, n)[:, ::2],
    "backwards": lambda n: np.arange(1.0 * n)[::-1],
    "part of another": lambda n: np.arange(9.0 * n)[n : 3 * n],
    "repeated in place": lambda n: np.broadcast_to(np.arange(4.0), (n, 4)),
    "read-only": lambda n: read_only(np.arange(1.0 * n)),
    "read-only and small": lambda n: read_only(np.arange(3.0)),
    "small": lambda n: np.arange(3.0),
    "objects": lambda n: np.array([None, [1], "x", np.arange(1.0 * n)], dtype=object),
    "structured with objects": lambda n: np.array([(1, [2])] * n, dtype=[("a", int), ("b", "O")]),
    "matrix": lambda n: np.arange(1.0 * n).reshape(1, n).view(np.matrix),
    "matrix in Fortran order": lambda n: np.arange(2.0 * n).reshape(n, 2).view(np.matrix).T,
    "subclass": lambda n: np.arange(1.0 * n).view(Tagged),
    "subclass, small": lambda n: np.arange(3.0).view(Tagged),
    "subclass, small and read-only": lambda n: read_only(np.arange(3.0).view(Tagged)),
    "subclass of its own mind": noted,
    "masked": masked,
    "masked, small": lambda n: masked(5),
    "masked without a mask": lambda n: np.ma.masked_array(np.arange(1.0 * n)),
    "bytes": lambda n: bytes(range(7)) * n,
    "bytearray": lambda n: bytearray(range(9)) * n,
    "text of many letters": lambda n: "aß€𝄞" * n,
    "array.array": lambda n: array.array("d", [1.5]) * n,
    "list of numbers": lambda n: list(range(n)),
    "deep": lambda n: {"k": [({"x": np.arange(1.0 * n)}, [np.arange(2 * n)])], 5: "end"},
    "dataclass": lambda n: Measured("m", np.arange(1.0 * n), [np.arange(n), 1, b"y" * n]),
    "buffer of another kind": lambda n: Memory(bytearray(b"ab") * n),
    "read-only buffer of another kind": lambda n: Memory(b"ab" * n),
    "small buffer of another kind": lambda n: Memory(bytearray(b"ab")),
}


def make(kind: str, length: int = N) -> Any:
    return KINDS[kind](length)


def check_same(got: Any, expected: Any) -> None:
    """Compare, arrays bit by bit, and look at what makes them ordinary ones."""
    assert type(got) is type(expected)
    if isinstance(expected, np.ma.MaskedArray):
        check_same(np.asarray(got.data), np.asarray(expected.data))
        assert np.array_equal(np.ma.getmaskarray(got), np.ma.getmaskarray(expected))
        assert got.fill_value == expected.fill_value
        got[1] = np.ma.masked
        got[2] = 7.0
        assert got.mask[1] and got[2] == 7.0
    elif isinstance(expected, np.ndarray):
        assert got.dtype == expected.dtype
        assert got.dtype.isalignedstruct == expected.dtype.isalignedstruct
        assert got.shape == expected.shape
        if expected.flags.contiguous or expected.flags.f_contiguous:
            assert got.flags.c_contiguous == expected.flags.c_contiguous
            assert got.flags.f_contiguous == expected.flags.f_contiguous
        assert got.flags.writeable and got.flags.aligned
        if expected.dtype.hasobject:
            for one, other in zip(got.ravel(), expected.ravel(), strict=True):
                check_same(one, other)
        else:
            assert got.tobytes() == expected.tobytes()
        assert getattr(got, "came_alone", True)
        assert getattr(got, "note", None) == getattr(expected, "note", None)
        if got.size:
            got[...] = got.copy()  # it may be written to
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        for key, value in expected.items():
            check_same(got[key], value)
    elif isinstance(expected, (list, tuple)) and len(expected) < 100:
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            check_same(one, other)
    elif dataclasses.is_dataclass(expected):
        check_same(vars(got), vars(expected))
    else:
        assert got == expected


@pytest.mark.parametrize("backend", some(BACKENDS))
def test_every_kind_comes_back_as_it_was(backend: str) -> None:
    got = Parallel(2, backend=backend, batch_size=3)(delayed(make)(kind) for kind in KINDS)
    for kind, value in zip(KINDS, got, strict=True):
        try:
            check_same(value, make(kind))
        except AssertionError as error:
            raise AssertionError(kind) from error


def test_every_kind_through_an_executor_of_threads() -> None:
    with ThreadPoolExecutor(2) as executor:
        got = Parallel(2, backend=executor)(delayed(make)(kind) for kind in KINDS)
    for kind, value in zip(KINDS, got, strict=True):
        check_same(value, make(kind))


@core
def test_all_kinds_in_one_result() -> None:
    def everything() -> dict[str, Any]:
        return {kind: make(kind) for kind in KINDS}

    for got in Parallel(2)([delayed(everything)()] * 3):
        check_same(got, everything())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", first_is_core("f8", ">i2", "M8[s]", "U3", RECORD), ids=str)
def test_a_large_array_owns_its_memory(order: Any, dtype: Any) -> None:
    def filled() -> Any:
        return np.ones((40, 5000), dtype, order)

    (got,) = Parallel(2)([delayed(filled)()])
    assert got.flags.owndata and got.flags.writeable and got.base is None
    assert got.flags.f_contiguous == (order == "F")
    got.resize((10, 10))  # which only the owner of the memory may do


@core
def test_a_class_of_the_script_with_arrays() -> None:
    @own
    @dataclasses.dataclass
    class Point:
        x: Any
        y: Any

    def point(n: int) -> Any:
        return [Point(np.full(N, n), f"{n}"), Point(np.full((N, 2), n)[:, 0], b"z" * N * 8)]

    for n, got in enumerate(Parallel(2)(delayed(point)(n) for n in range(5))):
        assert [type(one) for one in got] == [Point, Point]
        assert (got[0].x == n).all() and got[0].x.flags.owndata and got[0].y == f"{n}"
        assert (got[1].x == n).all() and got[1].x.flags.writeable and len(got[1].y) == N * 8


def test_frames_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")

    def frame(n: int) -> Any:
        return pandas.DataFrame(
            {
                "a": np.arange(N) + n,
                "b": np.arange(N) * 0.5,
                "c": pandas.Categorical(["x", "y"] * (N // 2)),
                "d": pandas.date_range("2024-01-01", periods=N, freq="s"),
                "e": ["some text"] * N,
                "f": [[n]] * N,
            },
            index=pandas.Index(np.arange(N)[::-1], name="i"),
        )

    for n, got in enumerate(Parallel(2)(delayed(frame)(n) for n in range(3))):
        pandas.testing.assert_frame_equal(got, frame(n))
        got.loc[5, "a"] = -1
        got["b"] += 1
        assert got.loc[5, "a"] == -1
        series, index = Parallel(2)([delayed(got["b"].copy)(), delayed(got.index.copy)()])
        pandas.testing.assert_series_equal(series, got["b"])
        assert index.equals(got.index)


@core
def test_the_same_array_twice_is_one() -> None:
    def twice() -> Any:
        large, small = np.arange(1.0 * N), np.arange(3)
        return [large, {"again": large, "part": large[: N // 2]}, small, small]

    (got,) = Parallel(2)([delayed(twice)()])
    assert got[0] is got[1]["again"]
    assert got[2] is got[3]
    got[0][:] = 5
    assert not got[1]["part"].any() or got[1]["part"][1] == 1  # a copy of its own


def test_many_arrays_in_one_result() -> None:
    def several(count: int) -> list[Any]:
        return [np.full(BESIDE // 8 + n % 3 - 1, float(n)) for n in range(count)]

    for count in (1, 2, 63, 64, 65, 129, 300):
        (got,) = Parallel(2)([delayed(several)(count)])
        assert len(got) == count
        for n, one in enumerate(got):
            assert len(one) == BESIDE // 8 + n % 3 - 1
            assert (one == n).all() and one.flags.writeable


def test_results_that_are_memory_maps(tmp_path: Path) -> None:
    """What is no file of the user's comes back as an ordinary array."""
    np.arange(2.0 * N).tofile(tmp_path / "file")

    def part(how: str, start: int) -> Any:
        mapped = np.memmap(tmp_path / "file", float, "r")
        if how == "copy":
            return mapped[start:].copy()  # a memmap by type, and over no file
        mapped.filename = None
        return mapped[start:] if how == "nameless" else [mapped[start::3], {"k": mapped[start:]}]

    for how in ("copy", "nameless", "nested"):
        for start in (0, N, 2 * N - 4):
            (got,) = Parallel(2)([delayed(part)(how, start)])
            if how == "nested":
                check_same(got, [np.arange(2.0 * N)[start::3], {"k": np.arange(2.0 * N)[start:]}])
            else:
                check_same(got, np.arange(2.0 * N)[start:])


@pytest.mark.parametrize("backend", [*some(BACKENDS), "executor"])
def test_results_over_a_file_are_maps_of_it(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "file"
    mapped: Any = np.memmap(path, float, "w+", shape=(40, N))
    mapped[:] = np.arange(40.0)[:, None]

    def part(given: Any, how: str) -> Any:
        if how == "opened here":
            given = np.memmap(path, float, "r+", shape=(40, N))
        if how == "read-only":
            given = np.memmap(path, float, "r", shape=(40, N))
        return {"plain": np.asarray(given)[8:], "row": given[8, :5]}.get(how, given[8:])

    hows = ["whole", "plain", "row", "opened here", "read-only"]
    with ProcessPoolExecutor(2) as executor:
        got = Parallel(2, backend=executor if backend == "executor" else backend)(
            delayed(part)(mapped, how) for how in hows
        )
    for how, one in zip(hows, got, strict=True):
        assert type(one) is np.memmap and one.filename == str(path)
        assert one.flags.writeable == (how != "read-only")
        assert np.array_equal(one, part(mapped, how))
    got[0][0, 0] = -1.0
    assert [one[0, 0] for one in (mapped[8:], got[1], got[3], got[4])] == [-1.0] * 4
    assert got[2][0] == -1.0


def test_results_over_a_file_that_the_caller_cannot_have(tmp_path: Path) -> None:
    """One that is gone, one opened with a copy of what is written, and one on another machine."""
    path = tmp_path / "file"
    np.arange(1.0 * N).tofile(path)

    def gone() -> Any:
        mapped = np.memmap(tmp_path / "gone", float, "w+", shape=(N,))
        mapped[:] = np.arange(1.0 * N)
        (tmp_path / "gone").unlink()
        return mapped

    def private() -> Any:
        mapped = np.memmap(path, float, "c")
        mapped[3] = 3
        return mapped

    for backend in ("processes", ThreadPoolExecutor(1)):
        for got in Parallel(2, backend=backend)([delayed(gone)(), delayed(private)()]):
            assert got.filename is None and got.flags.writeable
            assert np.array_equal(got, np.arange(1.0 * N))


def test_a_result_over_shared_memory_is_a_copy() -> None:
    output = memmapping.zeros((4, N))
    got = Parallel(2)(delayed(np.asarray)(output[row]) for row in range(4))
    output[:] = 1
    assert not any(one.any() for one in got)
    assert all(type(one) is np.ndarray for one in got)


# --- sizes ----------------------------------------------------------------------------------------


def sizes_around(*limits: int) -> list[int]:
    return sorted({max(0, limit + step) for limit in limits for step in (-70, -9, -1, 0, 1, 9)})


SIZES = [
    0,
    1,
    2,
    3,
    *sizes_around(4096, 1 << 15, BESIDE, 1 << 18, 212992, 425984, 1 << 20, 1 << 22),
]


def of_size(kind: str, size: int) -> Any:
    data = np.arange(size) % 251
    made = data.astype("u1")
    if kind == "array":
        return made
    if kind == "bytes":
        return made.tobytes()
    return (size, made, "between", made[: size // 2].copy(), made.tobytes())


@pytest.mark.parametrize("kind", first_is_core("array", "bytes", "several"))
@pytest.mark.parametrize("batch_size", [1, 7])
def test_sizes_around_every_limit(kind: str, batch_size: int) -> None:
    got = Parallel(2, batch_size=batch_size)(delayed(of_size)(kind, size) for size in SIZES)
    for size, value in zip(SIZES, got, strict=True):
        check_same(value, of_size(kind, size))


# --- order, and each once -------------------------------------------------------------------------


def note_and_fill(folder: str, n: int) -> Any:
    with open(f"{folder}/{os.getpid()}", "a") as file:
        file.write(f"{n}\n")
    if n % 5 == 3:
        return n
    return np.full(BESIDE // 8 * (1 + n % 40), float(n)) if n % 2 else [float(n)] * (n % 7)


def number_of(n: int, value: Any) -> None:
    """Check the result of task `n`."""
    if n % 5 == 3:
        assert value == n
    elif n % 2:
        assert len(value) == BESIDE // 8 * (1 + n % 40) and value[0] == value[-1] == n
    else:
        assert value == [float(n)] * (n % 7)


@pytest.mark.parametrize("batch_size", first_is_core("auto", 1, 6))
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_many_large_results_in_order_and_once(
    return_as: str, batch_size: Any, tmp_path: Path
) -> None:
    count = 160
    results = Parallel(2, return_as=return_as, batch_size=batch_size, pre_dispatch=6)(
        delayed(note_and_fill)(str(tmp_path), n) for n in range(count)
    )
    if return_as == "generator_unordered":
        seen = []
        for value in results:
            if isinstance(value, np.ndarray):
                number_of(int(value[0]), value)
                seen.append(int(value[0]))
        assert sorted(seen) == [n for n in range(count) if n % 2 and n % 5 != 3]
    else:
        taken = 0
        for n, value in enumerate(results):
            number_of(n, value)
            taken += 1
        assert taken == count
    ran = [int(line) for path in tmp_path.iterdir() for line in path.read_text().split()]
    assert sorted(ran) == list(range(count))


def test_many_workers_and_calls_at_a_time() -> None:
    failed: list[BaseException] = []

    def call(seed: int) -> None:
        try:
            for _ in range(3):
                got = Parallel(3)(delayed(np.full)(N + n, seed + n) for n in range(20))
                for n, value in enumerate(got):
                    assert len(value) == N + n and (value == seed + n).all()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=call, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_generator_that_is_closed_while_large_results_come() -> None:
    for taken in (0, 1, 3):
        results = Parallel(2, return_as="generator", pre_dispatch=4)(
            delayed(np.full)(1_000_000, n) for n in range(50)
        )
        for n in range(taken):
            assert next(results)[0] == n
        results.close()
        assert Parallel(2)(delayed(abs)(-n) for n in range(10)) == list(range(10))


# --- as it was when the task returned -------------------------------------------------------------

FORMS: dict[str, Callable[[Any], Any]] = {
    "array": lambda kept: kept,
    "part": lambda kept: kept[1:],
    "nested": lambda kept: {"k": [kept, kept[::2]]},
    "turned": lambda kept: kept.reshape(-1, 4).T,
    "masked": np.ma.masked_array,
    "buffer": Memory,
}


def change_and_return(form: str, length: int, n: int, folder: str) -> Any:
    """Return something kept by this module, which the next task in this worker changes."""
    kept = globals().setdefault("_kept", np.zeros(length))
    kept[:] = n
    Path(folder, f"ran-{n}").touch()
    if form == "bytearray":
        held = globals().setdefault("_held", bytearray())
        held.extend(bytes(length))  # fails while somebody has a view of it
        held[:] = bytes([n]) * len(held)
        return held
    return FORMS[form](kept)


def every_number(value: Any) -> set[float]:
    """Return the numbers that are in a result of `change_and_return`."""
    if isinstance(value, dict):
        return set().union(*map(every_number, value["k"]))
    if isinstance(value, Memory):
        value = np.frombuffer(value.data)
    if isinstance(value, bytearray):
        return set(map(float, set(value)))
    return set(np.unique(np.asarray(value)).tolist())


@pytest.mark.parametrize("form", first_is_core(*FORMS, "bytearray"))
@pytest.mark.parametrize("length", [BESIDE // 8 + 4, 400_000])
def test_no_later_task_changes_a_result(form: str, length: int, tmp_path: Path) -> None:
    for batch_size in (1, 4, 12):
        got = Parallel(2, batch_size=batch_size)(
            delayed(change_and_return)(form, length, n, str(tmp_path)) for n in range(12)
        )
        for n, value in enumerate(got):
            assert every_number(value) == {float(n)}


@pytest.mark.parametrize("form", first_is_core(*FORMS, "bytearray"))
def test_no_later_task_changes_a_result_that_nobody_reads_yet(form: str, tmp_path: Path) -> None:
    """The workers go on while the consumer rests, though no socket holds what they have made."""
    count = 8
    results = Parallel(2, return_as="generator", batch_size=4, pre_dispatch="all")(
        delayed(change_and_return)(form, 400_000, n, str(tmp_path)) for n in range(count)
    )
    wait_until(lambda: len(list(tmp_path.iterdir())) == count, "all tasks have run")
    for n, value in enumerate(results):
        assert every_number(value) == {float(n)}


# --- neither waits for the other ------------------------------------------------------------------


@core
def test_large_arguments_meet_large_results() -> None:
    def answer(data: bytes, n: int) -> Any:
        return [np.full(2_000_000, data[0]), data, n]

    size = 8_000_000
    got = Parallel(2, batch_size=1, pre_dispatch="all")(
        delayed(answer)(bytes([n]) * size, n) for n in range(12)
    )
    for n, (filled, data, number) in enumerate(got):
        assert number == n and filled[0] == filled[-1] == n
        assert len(data) == size and data[0] == data[-1] == n


def talk(channel: Channel, count: int, nbytes: int) -> bool:
    """Send so many parcels and receive as many, as both ends do in turns; return whether well."""
    got: list[Any] = []
    for n in range(count):
        buffer = array_buffer(np.full(nbytes // 8, float(n)))
        assert buffer is not None
        channel.send_parcel((n, HERE, "end"), [buffer])
    channel.own()
    poller = select.poll()
    poller.register(channel, select.POLLIN | select.POLLOUT)
    while len(got) < count or channel.pending:
        poller.modify(channel, select.POLLIN | (select.POLLOUT if channel.pending else 0))
        for _, event in poller.poll():
            if event & select.POLLOUT:
                channel.flush()
            if event & select.POLLIN:
                got += channel.receive() or ()
    return all(
        number == n and end == "end" and len(values) == nbytes // 8 and (values == n).all()
        for n, (number, values, end) in enumerate(got)
    )


@core
def test_two_processes_that_send_parcels_to_each_other() -> None:
    one, other = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            one.close()
            os._exit(0 if talk(Channel(other), 20, 4_000_000) else 1)
        except BaseException:
            os._exit(2)
    other.close()
    with one:
        assert talk(Channel(one), 20, 4_000_000)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- parcels --------------------------------------------------------------------------------------


def parcels(sizes: list[int]) -> list[tuple[Any, list[Buffer]]]:
    """Return messages with an array and some raw bytes of such sizes."""
    made = []
    for n, size in enumerate(sizes):
        data = bytes((np.arange(size) + n).astype("u1"))
        buffers = [Buffer(size, [memoryview(data)[: size // 3], memoryview(data)[size // 3 :]])]
        if size:
            filled = array_buffer(np.frombuffer(data, "u1"))
            assert filled is not None
            buffers.append(filled)
        made.append((("message", n, *[HERE] * len(buffers)), buffers))
    return made


def check_parcels(got: list[Any], sizes: list[int]) -> None:
    assert len(got) == len(sizes)
    for n, ((word, number, *received), size) in enumerate(zip(got, sizes, strict=True)):
        assert (word, number) == ("message", n)
        assert len(received) == (2 if size else 1)
        for one in received:
            assert bytes(one) == bytes((np.arange(size) + n).astype("u1"))
            assert not size or not memoryview(one).readonly


def stream_of(sizes: list[int]) -> bytes:
    """Return what a channel says to send `parcels`, with small messages between them."""
    sender, raw = socket.socketpair()
    stream = bytearray()

    def read() -> None:
        while data := raw.recv(1 << 20):
            stream.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    channel = Channel(sender)
    for message, buffers in parcels(sizes):
        channel.send_parcel(message, buffers)
        channel.send("between")
        while channel.flush_patiently():
            pass
    channel.close()
    reader.join()
    raw.close()
    return bytes(stream)


@pytest.mark.parametrize("most", first_is_core(200_000, 3, 100, 5000, 600_000))
def test_parcels_that_come_in_pieces(most: int) -> None:
    chance = random.Random(most)
    sizes = [0, 1, 8, 500, 4000, 4096, 5000]
    if most > 1000:
        sizes += [65_536, 0, 262_000, 262_144, 1, 300_000, 9, 5_000_000]
    stream = stream_of(sizes)
    raw, end = socket.socketpair()
    channel = Channel(end)
    got: list[Any] = []
    position = 0
    while position < len(stream):
        step = chance.randint(1, most)
        try:
            position += raw.send(stream[position : position + step], socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        got += channel.receive() or ()
    while len(got) < 2 * len(sizes):
        got += channel.receive(wait=True) or ()
    assert channel.receive() is None
    check_parcels(got[::2], sizes)
    assert set(got[1::2]) == {"between"}
    raw.close()
    with pytest.raises(ChannelClosed):
        channel.receive()
    channel.close()


def test_a_parcel_with_more_buffers_than_its_head_has_room_for() -> None:
    one, other = socket.socketpair()
    sender, receiver = Channel(one), Channel(other)
    arrays = [np.full(1 + n % 3, n, RECORD) for n in range(20_000)]
    buffers = [buffer for buffer in map(array_buffer, arrays) if buffer is not None]
    sender.send_parcel(("many", [HERE] * len(buffers)), buffers)
    got: list[Any] = []
    while not got:
        sender.flush()
        got += receiver.receive() or ()
    assert got[0][0] == "many"
    for received, sent in zip(got[0][1], arrays, strict=True):
        assert received.dtype == RECORD and received.tobytes() == sent.tobytes()
    sender.close()
    receiver.close()


def read_all(channel: Channel, into: list[Any]) -> None:
    """Read until the end, which is an exception."""
    while True:
        into += channel.receive(wait=True) or ()


@core
def test_buffers_without_a_byte() -> None:
    one, other = socket.socketpair()
    sender, receiver = Channel(one), Channel(other)
    empty, full = Buffer(0, []), Buffer(2, [memoryview(b""), memoryview(b"ab")])
    for buffers in ([empty], [empty, full], [full, empty], [empty, full, empty], [empty] * 60_000):
        sender.send_parcel(("message", *[HERE] * len(buffers)), buffers)
        got: list[Any] = []
        while not got:
            got = receiver.receive(wait=True) or []
        assert list(map(bytes, got[0][1:])) == [b"" if one is empty else b"ab" for one in buffers]
        assert receiver.receive() is None
    sender.close()
    receiver.close()


@core
def test_a_parcel_that_is_cut_by_the_end() -> None:
    stream = stream_of([5, 300_000])
    for length in (len(stream) - 100, len(stream) - 200_000, len(stream) - 400_000, 30, 8, 4):
        raw, end = socket.socketpair()
        channel = Channel(end)
        writer = threading.Thread(target=lambda raw=raw, n=length: raw.sendall(stream[:n]))
        writer.start()
        got: list[Any] = []
        while len(got) < 2 and length > 200:
            got += channel.receive(wait=True) or ()
        while writer.is_alive():
            got += channel.receive() or ()
        writer.join()
        raw.close()
        with pytest.raises(ChannelClosed):
            read_all(channel, got)
        assert len(got) == (2 if length > 200 else 0)
        channel.close()


@core
def test_what_waits_is_a_view_until_it_is_owned() -> None:
    one, other = socket.socketpair()
    sender, receiver = Channel(one), Channel(other)
    filled = np.full(20_000_000, 1, "u1")
    buffer = array_buffer(filled)
    assert buffer is not None
    assert sender.send_parcel(("first", HERE), [buffer])
    sender.own()
    del buffer
    filled.resize(5)  # nobody has a view of it any more
    filled[:] = 2
    got: list[Any] = []
    while not got:
        sender.flush()
        got += receiver.receive() or ()
    assert (got[0][1] == 1).all() and len(got[0][1]) == 20_000_000
    sender.close()
    receiver.close()


def test_patience_in_sending() -> None:
    one, other = socket.socketpair()
    sender, receiver = Channel(one), Channel(other)
    sender.set_send_patience(0.01)
    buffer = Buffer(20_000_000, [memoryview(bytes(20_000_000))])
    assert sender.send_parcel(("large", HERE), [buffer])
    assert sender.flush_patiently()
    assert not sender.has_room()
    got: list[Any] = []

    def read() -> None:
        while not got:
            got.extend(receiver.receive(wait=True) or ())

    reader = threading.Thread(target=read)
    reader.start()
    while sender.flush_patiently():
        pass
    reader.join()
    assert not sender.pending and sender.has_room()
    assert bytes(got[0][1]) == bytes(20_000_000)
    sender.close()
    receiver.close()


# --- failures -------------------------------------------------------------------------------------


def run_script(folder: Path, text: str) -> str:
    (folder / "script.py").write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


LIMITED = """
    import os, resource
    import numpy as np
    from parallel_core import Parallel, delayed

    def make(kind, size):
        import numpy as np
        if kind == "array":
            return np.ones(size // 8)
        if kind == "nested":
            return [np.ones(3), {{"large": np.ones((size // 16, 2)), "small": np.ones(10_000)}}]
        return b"x" * size

    def room(nbytes):
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        limit = resource.RLIM_INFINITY if nbytes is None else used + nbytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))

    parallel = Parallel(2, batch_size={batch_size}, return_as={return_as!r})
    pids = set(Parallel(2)(delayed(os.getpid)() for _ in range(200)))
    for kind in ("array", "nested", "bytes"):
        room(200 << 20)
        sizes = [100, 200_000, 100, 400 << 20, 100]
        try:
            got = 0
            for value in parallel(delayed(make)(kind, size) for size in sizes):
                got += 1
            print("nothing raised")
        except MemoryError as error:
            room(None)
            told = f"{{error}} {{getattr(error, '__notes__', '')}}"
            assert "memory of this process" in told and "task 3" in told, told
            assert {return_as!r} == "list" or got == 3 or ({batch_size} == 1 and got < 3), got
        got = Parallel(2)(delayed(make)(kind, 1000) for _ in range(4))
        assert len(got) == 4
    print("survived")
"""


# In batches of one task, results before the large one may come after it.
@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_a_result_for_which_the_parent_has_no_memory(
    batch_size: int, return_as: str, tmp_path: Path
) -> None:
    text = LIMITED.format(batch_size=batch_size, return_as=return_as)
    assert run_script(tmp_path, text) == "survived\n"


@core
def test_the_channel_stays_in_step_when_a_buffer_cannot_be_allocated() -> None:
    """The bytes come all the same, and are dropped; others of the same message are received."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    one, other = socket.socketpair()
    sender, receiver = Channel(one), Channel(other)
    data = bytes(range(256)) * 5000
    enormous = (len(data), "d", (1 << 50,), "C")  # of another size than it says
    unknown = (len(data), b"no pickle of a dtype", (5,), "C")
    whole = [memoryview(data)]
    buffers = [
        Buffer(len(data), whole),
        Buffer(enormous, whole),
        Buffer(unknown, whole),
        Buffer(len(data), whole),
    ]
    limits = resource.getrlimit(resource.RLIMIT_AS)
    larger = 1 << 30
    many = [memoryview(bytes(1 << 20))] * (larger >> 20)
    resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20), limits[1]))
    try:
        sender.send_parcel(("several", [HERE] * 4), buffers)
        sender.send("between")
        sender.send_parcel(("too large", HERE), [Buffer(larger, many)])
        sender.send_parcel(("too large", HERE), [Buffer((larger, "d", (1 << 27,), "C"), many)])
        sender.send("end")
        got: list[Any] = []
        while len(got) < 5:
            sender.flush()
            got += receiver.receive() or ()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert got[1] == "between" and got[4] == "end"
    first, size, dtype, last = got[0][1]
    assert bytes(first) == bytes(last) == data
    assert isinstance(size, TypeError) and isinstance(dtype, pickle.UnpicklingError)
    for word, error in got[2:4]:
        assert word == "too large" and isinstance(error, MemoryError)
        with pytest.raises(MemoryError):
            unpack((b"", error))
    sender.close()
    receiver.close()


class Unreadable:
    def __init__(self, held: Any) -> None:
        self.held = held

    def __setstate__(self, state: Any) -> None:
        if os.getpid() != state["pid"]:
            raise OverflowError("not here")
        self.held = state["held"]

    def __getstate__(self) -> Any:
        return {"pid": os.getpid(), "held": self.held}


@pytest.mark.usefixtures("nothing_taken_back")
@pytest.mark.parametrize("return_as", ["list", "generator"])
@pytest.mark.parametrize("batch_size", first_is_core(6, 1))
def test_a_large_result_that_does_not_pickle_or_unpickle(batch_size: int, return_as: str) -> None:
    def unpicklable(n: int) -> Any:
        return [np.full(N, n), threading.Lock() if n == 3 else None]

    def unreadable(n: int) -> Any:
        return [np.full(N, n), Unreadable(np.full(N, n)) if n == 3 else None]

    parallel = Parallel(2, batch_size=batch_size, return_as=return_as)
    for function, words in ((unpicklable, "lock"), (unreadable, "not here")):
        got: list[Any] = []
        with pytest.raises(SerializationError, match=words) as caught:
            got.extend(values[0] for values, _ in parallel(delayed(function)(n) for n in range(6)))
        assert got == [0, 1, 2][: len(got)]
        assert len(got) == 3 or return_as == "list" or batch_size == 1
        assert "task 3" in f"{caught.value} {getattr(caught.value, '__notes__', '')}"
        assert len(Parallel(2)(delayed(np.full)(N, n) for n in range(6))) == 6


def test_an_error_with_a_large_array() -> None:
    def fail() -> None:
        raise ValueError("words", np.arange(1.0 * N))

    with pytest.raises(ValueError, match="words") as caught:
        Parallel(2)([delayed(fail)()])
    assert (caught.value.args[1] == np.arange(1.0 * N)).all()


@core
@pytest.mark.usefixtures("nothing_taken_back")
def test_large_results_that_had_arrived_when_the_worker_died() -> None:
    def work(n: int) -> Any:
        if n == 3:
            os._exit(7)
        return np.full(N * 10, n)

    results = Parallel(2, batch_size=6, return_as="generator")(delayed(work)(n) for n in range(6))
    for n in range(3):
        assert (next(results) == n).all()
    with pytest.raises(WorkerDiedError, match="exit code 7 at task 3"):
        next(results)
    assert len(Parallel(2)(delayed(np.full)(N, n) for n in range(6))) == 6


@pytest.mark.usefixtures("nothing_taken_back")
@pytest.mark.parametrize("waiting", first_is_core(1, 3))
def test_a_worker_killed_in_the_middle_of_a_large_result(waiting: int, tmp_path: Path) -> None:
    """It has sent what a socket takes; the rest waits for the consumer to read on."""

    def work(n: int) -> Any:
        if n == waiting + 1:
            (tmp_path / "pid").write_text(f"{os.getpid()} ")
            signal.pause()
        return np.full(8_000_000, n)

    results = Parallel(2, batch_size=9, return_as="generator")(delayed(work)(n) for n in range(9))
    assert next(results)[0] == 0
    wait_until(lambda: (tmp_path / "pid").exists(), "the worker has gone on")
    wait_until(lambda: (tmp_path / "pid").read_text().endswith(" "), "it has said who it is")
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not running(pid), "it is dead")
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        next(results)
    assert len(Parallel(2)(delayed(np.full)(N, n) for n in range(6))) == 6


def test_a_worker_killed_while_the_parent_reads_its_result() -> None:
    """It dies at whatever moment, of its own hand; what comes then is whole, or an error."""

    def work(n: int, delay: float) -> Any:
        if n == 1:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, delay)
        return np.full(4_000_000, n)

    for delay in (0.002, 0.008, 0.015, 0.025, 0.04):
        results = Parallel(2, batch_size=5, return_as="generator")(
            delayed(work)(n, delay) for n in range(5)
        )
        taken = 0
        try:
            for value in results:
                assert len(value) == 4_000_000 and (value == taken).all()
                taken += 1
        except WorkerDiedError as error:
            words = str(error)
        else:
            assert taken == 5
            words = "SIGALRM is still to come"
            worker_pool().shutdown()
        assert "SIGALRM" in words
    assert Parallel(2)([delayed(abs)(-1)]) == [1]


# --- memory ---------------------------------------------------------------------------------------


def test_the_parent_holds_each_result_once(tmp_path: Path) -> None:
    text = """
        import resource
        import numpy as np
        from parallel_core import Parallel, delayed

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        size = 100_000_000
        Parallel(2)([delayed(abs)(1)] * 4)
        before = peak()
        got = Parallel(2)(delayed(np.full)(size // 8, 1.0 + n) for n in range(4))
        grown = peak() - before
        assert all(value[-1] == 1 + n for n, value in enumerate(got))
        assert grown < 4.5 * size, grown
        print("once")
    """
    assert run_script(tmp_path, text) == "once\n"


def test_a_result_is_let_go_of_in_the_worker() -> None:
    def resident() -> int:
        import gc

        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    size = 200_000_000
    before, large, after = Parallel(2, batch_size=3)(
        [delayed(resident)(), delayed(np.full)(size // 8, 1.0), delayed(resident)()]
    )
    assert large[5] == 1 and after < before + size // 2


@core
def test_workers_without_numpy_stay_without_it(tmp_path: Path) -> None:
    text = """
        import sys
        from parallel_core import Parallel, delayed

        def work(n):
            return "numpy" in sys.modules, bytes([n]) * 1_000_000, list(range(50_000)), "y" * n

        for n, got in enumerate(Parallel(2)(delayed(work)(n) for n in range(20))):
            assert got == (False, bytes([n]) * 1_000_000, list(range(50_000)), "y" * n)
        assert "numpy" not in sys.modules
        print("without")
    """
    assert run_script(tmp_path, text) == "without\n"


def test_a_parent_that_has_not_loaded_numpy(tmp_path: Path) -> None:
    text = """
        import sys
        from parallel_core import Parallel, delayed

        def work(n):
            import numpy
            return numpy.full(100_000, n)

        parallel = Parallel(2)
        assert parallel([delayed(abs)(1)] * 2) == [1, 1]
        assert "numpy" not in sys.modules
        got = parallel(delayed(work)(n) for n in range(4))
        assert [value.sum() for value in got] == [100_000 * n for n in range(4)]
        assert got[3].flags.owndata
        print("loaded")
    """
    assert run_script(tmp_path, text) == "loaded\n"


# --- picklers -------------------------------------------------------------------------------------


def leave_classes(obj: object) -> Any:
    del obj
    return NotImplemented


def through(pickler: ResultPickler, value: Any) -> Any:
    """Pickle, receive and unpickle within this process."""
    pickled = pickler.dumps(value)
    if isinstance(pickled, bytes):
        return pickle.loads(pickled)
    received = []
    for buffer in pickled.buffers:
        made, memory = allocate(buffer.description)
        assert len(memory) == nbytes_of(buffer.description)
        memory[:] = b"".join(buffer.views)
        received.append(made)
    places = iter(received)
    return unpack(tuple(next(places) if item is HERE else item for item in pickled.entry))


@pytest.mark.parametrize("kind", [ResultPickler, ParcelPickler])
def test_one_pickler_for_many_results(kind: type[ResultPickler]) -> None:
    pickler = kind(leave_classes)
    for _ in range(2):
        for name in KINDS:
            check_same(through(pickler, make(name)), make(name))
            with pytest.raises(TypeError, match="lock"):
                pickler.dumps([make(name), threading.Lock()])
            check_same(through(pickler, [1, make(name)]), [1, make(name)])


class Nosy:
    """Pickles something else while it is being pickled."""

    def __init__(self, pickler: ResultPickler) -> None:
        self.pickler = pickler

    def __reduce__(self) -> Any:
        inner = through(self.pickler, [np.arange(1.0 * N), "inner"])
        return list, (inner,)


@core
@pytest.mark.parametrize("kind", [ResultPickler, ParcelPickler])
def test_a_pickler_that_is_used_within_its_use(kind: type[ResultPickler]) -> None:
    pickler = kind(leave_classes)
    outer = np.arange(2.0 * N)
    for _ in range(3):
        got = through(pickler, [outer, Nosy(pickler), outer, "outer"])
        check_same(got, [outer, [np.arange(1.0 * N), "inner"], outer, "outer"])


@core
def test_what_is_beside_a_pickle_and_what_is_not() -> None:
    pickler = ParcelPickler(leave_classes)
    for size in (1, BESIDE - 1, BESIDE, BESIDE + 1):
        pickled = pickler.dumps(np.zeros(size, "u1"))
        if size < BESIDE:
            assert isinstance(pickled, (bytes, Parcel))
            assert isinstance(pickled, bytes) or pickled.entry == (HERE,)
        else:
            assert isinstance(pickled, Parcel) and len(pickled.buffers) == 1
            assert pickled.buffers[0].description == (size, "B", (size,), "C")
            assert len(pickled.entry[0]) < 200
    assert isinstance(pickler.dumps([1.0, 2.0]), bytes)


def test_no_view_outlives_a_pickle() -> None:
    """A pickler that is kept does not keep what it has pickled."""
    pickler = ParcelPickler(leave_classes)
    for held in (np.arange(1.0 * N), np.arange(3.0), bytearray(N), bytearray(5)):
        before = sys.getrefcount(held)
        pickler.dumps(held)
        pickler.dumps([held, {"again": held}])
        gc.collect()
        assert sys.getrefcount(held) == before
        if isinstance(held, bytearray):
            held.append(1)
