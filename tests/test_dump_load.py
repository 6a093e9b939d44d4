"""`dump` and `load`: files that are whole or not there, arrays read in place or mapped."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import pickle
import stat
import subprocess
import sys
import tempfile
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_layout import Plain, Record, WithUnit, any_arrays, run_python, same_bits

from memmapping import DamagedFileError, dump, load

core = pytest.mark.core

MODES: list[Any] = ["r", "r+", "w+", "c"]
METHODS = ["zlib", "gzip", "bz2", "lzma", "xz"]
PREFIXES = {"zlib": b"x", "gzip": b"\x1f\x8b", "bz2": b"BZh", "lzma": b"]\0\0", "xz": b"\xfd7zXZ"}
EXTENSIONS = {"zlib": ".z", "gzip": ".gz", "bz2": ".bz2", "lzma": ".lzma", "xz": ".xz"}
EXPANDERS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.decompress,
    "gzip": gzip.decompress,
    "bz2": bz2.decompress,
    "lzma": lzma.decompress,
    "xz": lzma.decompress,
}


def value_of_everything() -> dict[str, Any]:
    unit = np.arange(3.0).view(WithUnit)
    unit.unit = "m"
    return {
        "floats": np.linspace(0, 1, 20_000).reshape(100, 200),
        "fortran": np.asfortranarray(np.arange(12).reshape(3, 4)),
        "foreign": np.arange(5, dtype=">i4"),
        "nested": [Record(np.arange(3), {"deep": np.array("2020", "M8[s]")})],
        "empty": np.zeros((0, 3)),
        "objects": np.array([1, "two"], object),
        "unit": unit,
        "text": "text" * 100,
    }


def assert_everything(found: dict[str, Any]) -> None:
    expected = value_of_everything()
    assert found.keys() == expected.keys()
    for key in ("floats", "fortran", "foreign", "empty", "objects", "unit"):
        assert np.array_equal(found[key], expected[key]), key
        assert found[key].shape == expected[key].shape
    assert found["fortran"].flags.f_contiguous
    assert found["nested"][0].left.tolist() == [0, 1, 2]
    assert found["nested"][0].right["deep"] == np.datetime64("2020-01-01")
    assert found["unit"].unit == "m" and found["text"] == "text" * 100


def arrays_in(found: dict[str, Any]) -> list[Any]:
    """Return the arrays that are stored as they lie in memory."""
    record = found["nested"][0]
    return [
        *(found[key] for key in ("floats", "fortran", "foreign", "empty")),
        record.left,
        record.right["deep"],
    ]


def others_in(folder: Path, *known: str) -> list[str]:
    return sorted(set(os.listdir(folder)) - set(known))


# --- there and back -------------------------------------------------------------------------------


@core
@pytest.mark.parametrize("mode", [None, *MODES])
def test_any_value_there_and_back(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "value"
    assert dump(value_of_everything(), path) == [str(path)]
    assert_everything(load(path, mode))
    assert others_in(tmp_path, "value") == []


def test_arrays_within_fields_are_made_native(tmp_path: Path) -> None:
    array = np.array([([1, 2], 3)], [("a", ">i2", (2,)), ("b", "<i4")])
    dump(array, tmp_path / "array")
    found = load(tmp_path / "array", ensure_native_byte_order=True)
    assert found.dtype == array.dtype.newbyteorder("=") != array.dtype
    assert found["a"].tolist() == [[1, 2]] and found["b"].tolist() == [3]
    assert load(tmp_path / "array", ensure_native_byte_order=False).dtype == array.dtype


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(array=any_arrays(), mode=st.sampled_from([None, *MODES]), is_native=st.booleans())
def test_any_array_there_and_back(array: Any, mode: Any, is_native: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "array")
        dump([array], path)
        (found,) = load(path, mode, is_native if mode is None else False)
        assert np.asarray(found).shape == array.shape
        if mode is None and is_native:
            assert found.dtype == array.dtype.newbyteorder("=")
            assert same_bits(found, array.astype(found.dtype)) or array.dtype.names is not None
        else:
            assert same_bits(found, array)
        assert found.flags.writeable == (mode != "r")
        assert type(found) is (np.ndarray if mode is None else np.memmap)


@pytest.mark.parametrize("name", ["a", "ä ö", "a" * 255, "-", ".hidden", "with\nlines"])
def test_names_of_any_kind(tmp_path: Path, name: str) -> None:
    for filename in (tmp_path / name, str(tmp_path / name), os.fsencode(tmp_path / name)):
        assert dump([1], filename) == [str(tmp_path / name)]
        assert load(filename) == [1]
    assert os.listdir(tmp_path) == [name]


def test_a_name_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert dump(np.arange(3), "array") == ["array"]
    assert load("array", "r").filename == str(tmp_path / "array")


def test_the_protocol_makes_no_difference(tmp_path: Path) -> None:
    contents = set()
    for protocol in (None, 0, 2, pickle.HIGHEST_PROTOCOL, -1):
        dump([np.arange(3)], tmp_path / "value", protocol=protocol)
        contents.add((tmp_path / "value").read_bytes())
    assert len(contents) == 1


@core
def test_arrays_that_are_read_can_be_used_as_one_likes(tmp_path: Path) -> None:
    path = tmp_path / "value"
    constant = np.arange(10)
    constant.flags.writeable = False
    dump([constant, np.arange(24).reshape(2, 3, 4).swapaxes(0, 1)], path)
    found, swapped = load(path)
    assert found.flags.owndata and found.flags.writeable and found.flags.aligned
    assert swapped.flags.writeable and swapped.base.flags.owndata
    found[:] = 0
    found.resize(20, refcheck=False)
    assert load(path)[0].tolist() == list(range(10))


@core
def test_byte_orders(tmp_path: Path) -> None:
    path = tmp_path / "value"
    order = np.dtype([("a", ">i4"), ("b", "<f8"), ("c", [("d", ">u2", (2,)), ("e", "U3")])])
    records = np.zeros(3, order)
    records["a"], records["b"], records["c"]["d"], records["c"]["e"] = 1, 0.5, 7, "äbc"
    foreign = np.arange(6, dtype=np.dtype(np.float64).newbyteorder("S")).reshape(2, 3)
    value = [foreign, np.asfortranarray(foreign), foreign.astype(">U4"), records]
    value += [records.view(np.recarray), foreign.view(Plain)]
    dump(value, path)
    for found, original in zip(load(path), value, strict=True):
        assert found.dtype.isnative and type(found) is type(original)
        assert np.array_equal(found, original)
        assert found.flags.f_contiguous == original.flags.f_contiguous
    for options in ({"ensure_native_byte_order": False}, {"mmap_mode": "r"}):
        for found, original in zip(load(path, **options), value, strict=True):  # type: ignore[arg-type]
            assert same_bits(found, original)


def test_large_arrays_are_read_and_written_without_a_copy(tmp_path: Path) -> None:
    nbytes = 64 << 20
    value = {"a": np.ones(nbytes // 16), "b": [np.ones((1024, nbytes // 2048), np.uint8, "F")]}
    tracemalloc.start()
    try:
        dump(value, tmp_path / "value")
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
        tracemalloc.reset_peak()
        found = load(tmp_path / "value")
        assert tracemalloc.get_traced_memory()[1] < nbytes + (2 << 20)
    finally:
        tracemalloc.stop()
    assert np.array_equal(found["b"][0], value["b"][0])


def test_a_swapped_byte_order_takes_no_second_copy(tmp_path: Path) -> None:
    array = np.ones(4 << 20, np.dtype(np.float64).newbyteorder("S"))
    dump(array, tmp_path / "value")
    tracemalloc.start()
    try:
        found = load(tmp_path / "value")
        assert tracemalloc.get_traced_memory()[1] < array.nbytes + (2 << 20)
    finally:
        tracemalloc.stop()
    assert found.sum() == 4 << 20


# --- maps -----------------------------------------------------------------------------------------


@core
@pytest.mark.parametrize("mode", MODES)
def test_a_mapped_array_says_where_it_is(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "value"
    dump(value_of_everything(), path)
    found = load(path, mmap_mode=mode)
    assert_everything(found)
    for array in arrays_in(found):
        assert type(array) is np.memmap
        assert array.filename == str(path) and array.mode == ("r+" if mode == "w+" else mode)
        assert array.flags.writeable == (mode != "r")
        if array.size:
            order: Any = "C" if array.flags.c_contiguous else "F"
            again: Any = np.memmap(path, array.dtype, "r", array.offset, array.shape, order)
            assert same_bits(again, array)


def test_what_is_written_to_a_map_is_in_the_file_or_not(tmp_path: Path) -> None:
    path = tmp_path / "value"
    for mode, kept in (("r+", 7), ("w+", 7), ("c", 0)):
        dump({"a": np.zeros(100_000)}, path)
        mapped = load(path, mmap_mode=mode)["a"]  # type: ignore[arg-type]
        mapped[-1] = 7
        mapped.flush()
        assert load(path)["a"][-1] == kept
    read_only = load(path, mmap_mode="r")["a"]
    with pytest.raises(ValueError, match="read-only"):
        read_only[0] = 1


def test_mapping_takes_neither_memory_nor_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "value"
    dump([np.zeros(1 << 26, np.uint8), *(np.full(10, n) for n in range(5000))], path)
    before = len(os.listdir("/proc/self/fd"))
    tracemalloc.start()
    try:
        found = load(path, mmap_mode="r")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert found[4000].tolist() == [3999] * 10


def test_masked_arrays_and_subclasses_lie_over_the_map(tmp_path: Path) -> None:
    path = tmp_path / "value"
    masked: Any = np.ma.MaskedArray(np.arange(5.0), mask=[0, 1, 0, 0, 1])
    dump([masked, np.arange(5).view(Plain)], path)
    found, plain = load(path, mmap_mode="r+")
    assert type(found.data) is np.memmap and found.sum() == masked.sum()
    assert type(plain) is Plain
    found[0] = plain[0] = 9
    again = load(path)
    assert again[0][0] == 9 and again[1][0] == 9


def test_frames_and_tables_over_a_map(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(1000.0), "s": ["abc"] * 1000})
    dump(frame, tmp_path / "frame")
    for mode in MODES:
        found = load(tmp_path / "frame", mmap_mode=mode)
        assert found.equals(frame)
        assert found.sort_values("a", ascending=False)["a"].iloc[0] == 999
    assert isinstance(found["a"].values, np.memmap)


def test_a_table_of_pyarrow_over_a_map(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": np.arange(100_000.0), "s": ["abc"] * 100_000})
    dump(table, tmp_path / "table")
    for mode in (None, *MODES):
        before = pyarrow.total_allocated_bytes()
        found = load(tmp_path / "table", mmap_mode=mode)
        assert found.equals(table)
        assert pyarrow.total_allocated_bytes() == before


def test_the_names_of_scipy_matrices_over_a_map(tmp_path: Path) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.random(100, 100, 0.1, format="csr", random_state=0)
    dump(matrix, tmp_path / "matrix")
    found = load(tmp_path / "matrix", mmap_mode="r")
    assert isinstance(found.data, np.memmap)
    assert np.allclose((found @ found).toarray(), (matrix @ matrix).toarray())


@core
def test_maps_outlive_another_dump_under_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "value"
    dump(np.arange(1_000_000), path)
    mapped = load(path, mmap_mode="r+")
    dump("short", path)
    assert mapped.sum() == np.arange(1_000_000).sum()
    assert load(path) == "short"


def test_a_map_can_be_dumped_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "value"
    dump(np.arange(1_000_000), path)
    mapped = load(path, mmap_mode="r+")
    mapped += 1
    dump(mapped[::2], path)
    assert load(path).tolist()[:3] == [1, 3, 5]


# --- compression ----------------------------------------------------------------------------------


@core
@pytest.mark.parametrize("method", METHODS)
def test_each_method_of_compression(tmp_path: Path, method: str) -> None:
    path = tmp_path / "value"
    dump(value_of_everything(), path, compress=method)
    data = path.read_bytes()
    assert data.startswith(PREFIXES[method])
    assert EXPANDERS[method](data).startswith(b"\x89memmap\n")
    assert_everything(load(path))


@pytest.mark.parametrize("method", METHODS)
def test_higher_levels_make_smaller_files(tmp_path: Path, method: str) -> None:
    path = tmp_path / "value"
    value = np.random.default_rng(0).integers(0, 40, 100_000).astype(np.float32)
    sizes = []
    for level in (1, 9):
        dump(value, path, compress=(method, level))
        sizes.append(path.stat().st_size)
        assert np.array_equal(load(path), value)
    assert sizes[1] < sizes[0] < value.nbytes
    dump(value, path, compress=(method, 0))
    assert path.read_bytes().startswith(b"\x89memmap\n")


@pytest.mark.parametrize(
    ("compress", "extension", "expected"),
    [
        (0, "", None),
        (False, ".txt", None),
        (3, "", "zlib"),
        (True, "", "zlib"),
        (np.True_.item(), ".gz.bak", "zlib"),
        (0, ".gz", "gzip"),
        (False, ".bz2", "bz2"),
        (9, ".xz", "xz"),
        (True, ".lzma", "lzma"),
        (0, ".z", "zlib"),
        ("gzip", ".xz", "gzip"),
        (("bz2", 1), ".xz", "bz2"),
        (("bz2", 0), ".bz2", None),
        (("xz", None), "", "xz"),
    ],
)
def test_which_method_is_chosen(
    tmp_path: Path, compress: Any, extension: str, expected: str | None
) -> None:
    path = tmp_path / f"value{extension}"
    dump(value_of_everything(), path, compress)
    start = path.read_bytes()[:8]
    assert start.startswith(b"\x89memmap\n" if expected is None else PREFIXES[expected])
    assert_everything(load(path))


def test_the_content_says_how_it_is_compressed(tmp_path: Path) -> None:
    for method in METHODS:
        dump([method], tmp_path / "value.gz", compress=(method, 1))
        assert load(tmp_path / "value.gz") == [method]


def test_streams_that_follow_one_another(tmp_path: Path) -> None:
    value = np.arange(1000)
    dump(value, tmp_path / "value")
    data = (tmp_path / "value").read_bytes()
    half = len(data) // 2
    path = tmp_path / "parts"
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        path.write_bytes(compress(data[:3]) + compress(data[3:half]) + compress(data[half:]))
        assert np.array_equal(load(path), value)


@pytest.mark.parametrize("method", METHODS)
def test_compressed_files_are_not_mapped(tmp_path: Path, method: str) -> None:
    path = tmp_path / "value"
    dump(np.arange(5, dtype=">i4"), path, compress=method)
    with pytest.warns(UserWarning, match="is compressed") as caught:
        found = load(path, mmap_mode="r")
    assert caught[0].filename == __file__
    assert type(found) is np.ndarray and found.flags.writeable and found.dtype == ">i4"


@pytest.mark.parametrize("method", METHODS)
def test_compression_takes_no_memory_to_speak_of(tmp_path: Path, method: str) -> None:
    value = np.zeros(32 << 20, np.uint8)
    tracemalloc.start()
    try:
        dump(value, tmp_path / "value", compress=(method, 1))
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
        tracemalloc.reset_peak()
        load(tmp_path / "value")
        assert tracemalloc.get_traced_memory()[1] < value.nbytes + (12 << 20)
    finally:
        tracemalloc.stop()


def test_lz4(tmp_path: Path) -> None:
    pytest.importorskip("lz4.frame")
    for compress, extension in (("lz4", ""), (0, ".lz4"), (("lz4", 9), "")):
        path = tmp_path / f"value{extension}"
        dump(value_of_everything(), path, compress)  # type: ignore[arg-type]
        assert path.read_bytes().startswith(b"\x04\x22\x4d\x18")
        assert_everything(load(path))
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(DamagedFileError):
            load(path)


def test_without_lz4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    for compress, name in (("lz4", "value"), (("lz4", 1), "value"), (0, "value.lz4")):
        with pytest.raises(ValueError, match="pip install lz4"):
            dump(1, tmp_path / name, compress)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


# --- file objects ---------------------------------------------------------------------------------


@core
@pytest.mark.parametrize("compress", [0, *METHODS])
def test_file_objects_hold_several_objects(tmp_path: Path, compress: Any) -> None:
    def in_memory() -> Any:
        return io.BytesIO()

    def buffered() -> Any:
        return open(tmp_path / "buffered", "w+b")

    def raw() -> Any:
        return open(tmp_path / "raw", "w+b", buffering=0)

    for opened in (in_memory, buffered, raw):
        with opened() as file:
            file.write(b"before")
            assert dump(value_of_everything(), file, compress) is None
            dump("second", file, compress)
            file.write(b"after")
            file.seek(6)
            assert_everything(load(file))
            assert load(file) == "second"
            assert file.read() == b"after"


def test_file_objects_of_the_standard_library(tmp_path: Path) -> None:
    for module in (gzip, bz2, lzma):
        with module.open(tmp_path / "value", "wb") as file:
            dump(value_of_everything(), file)  # type: ignore[arg-type]
        with module.open(tmp_path / "value", "rb") as file:
            assert_everything(load(file))  # type: ignore[arg-type]
        assert_everything(load(tmp_path / "value"))


class Reader:
    """A file with nothing but ``read``, which returns less than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def read(self, nbytes: int) -> bytes:
        piece, self.left = self.left[: min(nbytes, 1000)], self.left[min(nbytes, 1000) :]
        return piece


@pytest.mark.parametrize("compress", [0, 3])
def test_files_that_can_only_be_read(compress: int) -> None:
    file = io.BytesIO()
    dump(value_of_everything(), file, compress)
    if not compress:
        assert_everything(load(Reader(file.getvalue())))  # type: ignore[call-overload]
    reading, writing = os.pipe()

    def feed() -> None:
        with open(writing, "wb") as pipe:
            dump(value_of_everything(), pipe, compress)

    writer = threading.Thread(target=feed)
    writer.start()
    with open(reading, "rb") as pipe:
        assert_everything(load(pipe))
    writer.join()


def test_memory_that_has_just_been_written_is_read_from_its_start(tmp_path: Path) -> None:
    file = io.BytesIO()
    dump({"a": 1}, file)
    middle = file.tell()
    dump([2], file)
    assert load(file) == {"a": 1} and file.tell() == middle
    assert load(file) == [2] and load(file) == {"a": 1}
    with pytest.raises(DamagedFileError):
        load(io.BytesIO())
    with open(tmp_path / "file", "w+b") as other:
        dump([2], other)
        with pytest.raises(DamagedFileError):
            load(other)


def test_file_objects_are_not_mapped(tmp_path: Path) -> None:
    dump(np.arange(5), tmp_path / "value")
    with open(tmp_path / "value", "rb") as file:
        with pytest.warns(UserWarning, match="a file object cannot be mapped") as caught:
            assert type(load(file, mmap_mode="r")) is np.ndarray
    assert caught[0].filename == __file__


# --- files that are whole, or not there -----------------------------------------------------------


class Unpicklable:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


@core
def test_what_cannot_be_pickled_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "value"
    with pytest.raises(RuntimeError, match="not me"):
        dump([np.arange(3), Unpicklable()], path)
    assert os.listdir(tmp_path) == []
    dump("old", path)
    with pytest.raises(RuntimeError, match="not me"):
        dump(Unpicklable(), path)
    assert load(path) == "old"


@pytest.mark.parametrize("compress", [0, ("zlib", 1)])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(full_disk: Path, compress: Any) -> None:
    path = full_disk / "value"
    large = np.random.default_rng(0).integers(0, 256, 4 << 20, np.uint8)
    with pytest.raises(OSError, match="No space left") as caught:
        dump(large, path, compress)
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(full_disk) == []
    dump("old", path)
    with pytest.raises(OSError, match="No space left"):
        dump({"a": large}, path, compress)
    assert load(path) == "old" and os.listdir(full_disk) == ["value"]


@pytest.mark.parametrize("compress", [0, 1])
def test_a_file_that_may_not_grow_is_removed(tmp_path: Path, compress: int) -> None:
    ran = run_python(
        "import os, resource, sys, numpy as np\n"
        "from memmapping import dump\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n"
        "try:\n"
        "    dump(np.random.default_rng(0).random(200_000), sys.argv[1], int(sys.argv[2]))\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n",
        str(tmp_path / "value"),
        str(compress),
    )
    assert ran.stdout == "File too large\n", ran.stderr
    assert os.listdir(tmp_path) == []


def test_the_permissions_are_those_of_any_new_file_or_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "value"
    before = os.umask(0o027)
    try:
        dump(1, path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.chmod(0o604)
    dump(2, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o604
    assert load(path) == 2


def test_root_leaves_files_to_their_owners(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may give files to others")
    path = tmp_path / "value"
    dump(1, path)
    os.chown(path, 1234, 4321)
    dump(2, path)
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_a_file_that_may_not_be_written_to_stays(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write to anything")
    path = tmp_path / "value"
    dump(1, path)
    path.chmod(0o444)
    with pytest.raises(PermissionError):
        dump(2, path)
    path.chmod(0o644)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError, match="same folder"):
            dump(2, path)
    finally:
        tmp_path.chmod(0o755)
    assert load(path) == 1


def test_a_running_program_is_not_replaced(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").resolve().read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "100"]) as running:
        try:
            with pytest.raises(OSError, match="busy"):  # as from open
                dump(1, program)
        finally:
            running.kill()
    assert os.listdir(tmp_path) == ["program"]


@core
def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link, target = tmp_path / "link", tmp_path / "far" / "value"
    link.symlink_to(Path("far") / "value")
    for value in (1, 2):  # the first time, the link leads nowhere
        dump(value, link)
        assert link.is_symlink() and not target.is_symlink()
        assert load(target) == load(link) == value
    assert os.listdir(tmp_path / "far") == ["value"]
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError, match="symbolic links"):
        dump(1, tmp_path / "round")


def test_devices_and_pipes_are_written_into(tmp_path: Path) -> None:
    assert dump(np.arange(100_000), os.devnull) == [os.devnull]
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: dump(value_of_everything(), pipe))
    writer.start()
    with pytest.warns(UserWarning, match="no regular file"):
        assert_everything(load(pipe, mmap_mode="r"))
    writer.join()
    assert os.listdir(tmp_path) == ["pipe"] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_that_has_lost_its_name_is_written_into(tmp_path: Path) -> None:
    with open(tmp_path / "value", "w+b") as file:
        os.unlink(tmp_path / "value")
        dump([1], f"/proc/self/fd/{file.fileno()}")
        assert load(file) == [1]
    assert os.listdir(tmp_path) == []


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        dump(1, tmp_path)
    with pytest.raises(IsADirectoryError):
        dump(1, f"{tmp_path}/new/")
    with pytest.raises(FileNotFoundError) as caught:
        dump(1, tmp_path / "missing" / "value")
    assert caught.value.filename == str(tmp_path / "missing" / "value")
    with pytest.raises(FileNotFoundError):
        dump(1, "")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        dump(1, tmp_path / "file" / "value")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        load(tmp_path)
    assert os.listdir(tmp_path) == ["file"]


def test_many_write_one_file_and_it_is_always_whole(tmp_path: Path) -> None:
    path = tmp_path / "value"
    values = [np.full(50_000, n) for n in range(4)]
    dump(values[0], path)

    def write(value: Any) -> None:
        for _ in range(20):
            dump(value, path)

    writers = [threading.Thread(target=write, args=(value,)) for value in values]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found = load(path, mmap_mode="r")
        assert len(found) == 50_000 and found.min() == found.max()
    assert os.listdir(tmp_path) == ["value"]


# --- the script that runs -------------------------------------------------------------------------

SCRIPT = """
import sys, os
from memmapping import dump, load
class Model:
    def __init__(self, size):
        self.size = size
if not os.path.exists(sys.argv[1]):
    dump([Model(3)], sys.argv[1])
(model,) = load(sys.argv[1])
print(type(model) is Model, model.size, "cloudpickle" in sys.modules)
"""


def test_a_class_of_the_script_is_the_same_in_its_next_run(tmp_path: Path) -> None:
    name = str(tmp_path / "value")
    for _ in range(2):
        ran = run_python(SCRIPT, name)
        assert ran.stdout == "True 3 False\n", ran.stderr
    other = run_python("import sys, memmapping; memmapping.load(sys.argv[1])", name)
    assert "defined 'Model' itself" in other.stderr


def test_functions_without_a_name(tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle")
    offset = np.arange(3)
    dump({"f": lambda x: x + offset}, tmp_path / "value")
    ran = run_python(
        "import sys; from memmapping import load; print(load(sys.argv[1])['f'](1))",
        str(tmp_path / "value"),
    )
    assert ran.stdout == "[1 2 3]\n", ran.stderr


# --- files that are damaged, or others' -----------------------------------------------------------


@core
@pytest.mark.parametrize("mode", [None, *MODES])
def test_every_truncation_is_told(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "value"
    dump({"a": np.arange(50), "b": [np.arange(3.0)]}, path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedFileError, match=str(path)) as caught:
            load(path, mmap_mode=mode)
        if length >= 64:
            assert f"expected {len(data)} bytes, found {length}" in str(caught.value)


def test_a_file_object_that_ends_too_early(tmp_path: Path) -> None:
    file = io.BytesIO()
    dump({"a": np.arange(50), "b": [np.arange(3.0)]}, file)
    data = file.getvalue()
    for length in range(len(data)):
        with pytest.raises(DamagedFileError) as caught:
            load(io.BytesIO(data[:length]))
        if length >= 64:
            assert f"expected {len(data)} bytes, found {length}" in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_damage_to_a_compressed_file_is_told(tmp_path: Path, method: str) -> None:
    path = tmp_path / "value"
    value = {"a": np.arange(200), "b": [np.arange(3.0), "text"]}
    dump(value, path, compress=method)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedFileError):
            load(path)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        try:
            found = load(path)
        except DamagedFileError:
            continue
        if method != "lzma":  # which has no checksum
            assert np.array_equal(found["a"], value["a"]) and found["b"][1] == "text"


@pytest.mark.parametrize("mode", [None, "r", "r+", "c"])
def test_files_of_others_are_named(tmp_path: Path, mode: Any) -> None:
    path = tmp_path / "value"
    archive, array = io.BytesIO(), io.BytesIO()
    np.savez(archive, a=np.arange(3))
    np.save(array, np.arange(3))
    for data, words in (
        (b"", "it is empty"),
        (b"some text\n", "it starts with b'some tex'"),
        (pickle.dumps({"a": 1}, 4), "a plain pickle"),
        (pickle.dumps(np.arange(3), 2), "a plain pickle"),
        (array.getvalue(), "numpy.load"),
        (archive.getvalue(), "zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    ):
        path.write_bytes(data)
        with pytest.raises(DamagedFileError, match=str(path)) as caught:
            load(path, mmap_mode=mode)
        assert words in str(caught.value)
        path.write_bytes(zlib.compress(data))
        with pytest.raises(DamagedFileError) as caught:
            load(path)
        assert words in str(caught.value)


def test_files_of_joblib_are_named(tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "value"
    for value in (np.arange(3), {"a": [np.arange(3.0)]}, {"a": 1}):
        for compress in (0, 3, "xz"):
            joblib.dump(value, path, compress=compress)
            with pytest.raises(DamagedFileError, match=r"joblib\.load"):
                load(path)


@settings(deadline=None, max_examples=200, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=100), prefix=st.sampled_from([b"", *PREFIXES.values(), b"x\x9c"]))
def test_noise_is_refused(data: bytes, prefix: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - DamagedFileError, or lz4 is not installed
        load(io.BytesIO(prefix + data))


# --- arguments that make no sense -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("compress", "words"),
    [
        (10, "from 0 to 9, not 10"),
        (-1, "from 0 to 9, not -1"),
        (2.5, "from 0 to 9, not 2.5"),
        (["zlib", 3], r"from 0 to 9, not \['zlib', 3\]"),
        ("zip", "compress must name one of 'zlib', .* not 'zip'"),
        (("zip", 3), "not 'zip'"),
        ((3, "zlib"), "not 3"),
        (("zlib", 10), "not 10"),
        (("zlib", "high"), "not 'high'"),
        (("zlib",), r"a method and a level .* not \('zlib',\)"),
        ((), "a method and a level"),
    ],
)
def test_compress_that_makes_no_sense(tmp_path: Path, compress: Any, words: str) -> None:
    for name in ("value", "value.gz"):
        with pytest.raises(ValueError, match=words):
            dump(1, tmp_path / name, compress)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("protocol", [6, 99, "5", 5.0, True])
def test_a_protocol_that_makes_no_sense(tmp_path: Path, protocol: Any) -> None:
    with pytest.raises(ValueError, match="protocol must"):
        dump(1, tmp_path / "value", protocol=protocol)


@pytest.mark.parametrize("filename", [None, 5, 2.5, ["value"], object(), True])
def test_a_filename_that_makes_no_sense(filename: Any) -> None:
    with pytest.raises(ValueError, match="filename must be a path, or a binary file"):
        dump(1, filename)
    with pytest.raises(ValueError, match="filename must be a path, or a binary file"):
        load(filename)


def test_files_in_text_mode(tmp_path: Path) -> None:
    with open(tmp_path / "value", "w+") as file:
        with pytest.raises(ValueError, match="binary mode"):
            dump(1, file)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="binary mode"):
            load(file)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["rb", "w", "x", "", True, 0])
def test_a_mode_that_makes_no_sense(tmp_path: Path, mode: Any) -> None:
    dump(1, tmp_path / "value")
    with pytest.raises(ValueError, match="mmap_mode must be"):
        load(tmp_path / "value", mmap_mode=mode)


@core
@pytest.mark.parametrize("mode", MODES)
def test_native_byte_order_and_a_map_contradict(tmp_path: Path, mode: Any) -> None:
    dump(1, tmp_path / "value")
    with pytest.raises(ValueError, match="ensure_native_byte_order=True"):
        load(tmp_path / "value", mmap_mode=mode, ensure_native_byte_order=True)
    assert load(tmp_path / "value", mmap_mode=mode, ensure_native_byte_order=False) == 1


@pytest.mark.parametrize("ensure", [None, "yes", 1, 2.0])
def test_a_byte_order_that_makes_no_sense(tmp_path: Path, ensure: Any) -> None:
    dump(1, tmp_path / "value")
    with pytest.raises(ValueError, match="must be True, False or 'auto'"):
        load(tmp_path / "value", ensure_native_byte_order=ensure)


# --- the examples of the reference document -------------------------------------------------------


@core
def test_manual_management_of_memory_maps(tmp_path: Path) -> None:
    large_array = np.ones(int(1e6))
    filename = os.path.join(tmp_path, "joblib_test.mmap")
    _ = dump(large_array, filename)
    large_memmap = load(filename, mmap_mode="r+")
    described = large_memmap.__class__.__name__, large_array.nbytes, large_array.shape
    assert described == ("memmap", 8000000, (1000000,))
    assert np.allclose(large_array, large_memmap)
    small_memmap = large_memmap[2:5]
    described = small_memmap.__class__.__name__, small_memmap.nbytes, small_memmap.shape
    assert described == ("memmap", 24, (3,))
    small_array = np.asarray(small_memmap)
    described = small_array.__class__.__name__, small_array.nbytes, small_array.shape
    assert described == ("ndarray", 24, (3,))
