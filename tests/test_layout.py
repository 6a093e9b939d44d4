"""Any object as one run of bytes: arrays aligned in it, nothing copied, nothing misread."""

from __future__ import annotations

import dataclasses
import io
import itertools
import mmap
import os
import pickle
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from memmapping import DamagedFileError
from memmapping.arrays import array_in_place, memmap_over
from memmapping.layout import HEADER_NBYTES, LARGE_NBYTES, PAGE_NBYTES, Packed, pack, unpack
from memmapping.pickler import ScriptObjects

core = pytest.mark.core
HOME = str(Path(__file__).parents[1])

Array = np.ndarray[Any, Any]


def packed_bytes(obj: object) -> bytes:
    file = io.BytesIO()
    pack(obj).write_to(file)
    return file.getvalue()


def in_memory_of_its_own(data: bytes) -> mmap.mmap:
    """Return anonymous memory, which starts at a page, with `data` in it."""
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


def through_memory(obj: object) -> Any:
    return unpack(in_memory_of_its_own(packed_bytes(obj)))


def address(array: Array) -> int:
    return int(array.ctypes.data)


def same_bits(one: Array, other: Array) -> bool:
    """Whether two arrays have the same elements, to the last bit; −0.0 is not 0.0 here."""
    return one.dtype == other.dtype and one.shape == other.shape and bits(one) == bits(other)


def bits(array: Array) -> bytes:
    plain = np.asarray(array)
    return plain.view(f"V{plain.itemsize}").tobytes()


def run_python(code: str, *args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**os.environ, "PYTHONPATH": HOME},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        **options,
    )


# --- arrays of any kind ---------------------------------------------------------------------------

simple_dtypes = st.one_of(
    arrays_of.boolean_dtypes(),
    arrays_of.integer_dtypes(endianness="="),
    arrays_of.integer_dtypes(endianness=">"),
    arrays_of.unsigned_integer_dtypes(endianness="?"),
    arrays_of.floating_dtypes(endianness="?"),
    arrays_of.complex_number_dtypes(endianness="?"),
    arrays_of.datetime64_dtypes(endianness="?"),
    arrays_of.timedelta64_dtypes(endianness="?"),
    arrays_of.byte_string_dtypes(min_len=1, max_len=5),
    arrays_of.unicode_string_dtypes(endianness="?", min_len=1, max_len=5),
    st.just(np.dtype("V7")),
)
structured_dtypes = st.one_of(
    arrays_of.array_dtypes(simple_dtypes, min_size=1, max_size=3, allow_subarrays=True),
    arrays_of.nested_dtypes(simple_dtypes, max_leaves=4),
    st.just(np.dtype([("small", "i1"), ("large", ">f8")], align=True)),
    st.just(np.dtype({"names": ["b"], "formats": ["<u2"], "offsets": [3], "itemsize": 9})),
).filter(lambda dtype: dtype.itemsize > 0 and dtype.subdtype is None)
dtypes = st.one_of(simple_dtypes, structured_dtypes)


@st.composite
def bases(draw: Any) -> Array:
    """Make an array of any dtype and shape, of C or Fortran order, with any bits in it."""
    dtype = draw(dtypes)
    shape = draw(arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    size = int(np.prod(shape)) * dtype.itemsize
    seed = draw(st.binary(min_size=1, max_size=16))
    data = (seed * (size // len(seed) + 1))[:size]
    if "U" in dtype.str or dtype.names is not None:
        data = bytes(size)  # not all bits are a character
    return np.ndarray(shape, dtype, bytearray(data) or bytearray(1), 0, None, draw(orders)).copy(
        order="K"
    )


orders = st.sampled_from(["C", "F"])


@st.composite
def any_arrays(draw: Any) -> Array:
    """Make an array, or a view with axes swapped, added, stepped over, reversed or repeated."""
    array = draw(bases())
    for _ in range(draw(st.integers(0, 3))):
        if array.ndim and draw(st.booleans()):
            array = array.transpose(draw(st.permutations(range(array.ndim))))
        elif array.ndim:
            steps = [draw(st.sampled_from([1, 1, 2, -1, -2])) for _ in range(array.ndim)]
            array = array[tuple(slice(None, None, step) for step in steps)]
        if array.ndim < 5 and draw(st.integers(0, 3)) == 0:
            array = np.expand_dims(array, draw(st.integers(0, array.ndim)))
        if array.ndim < 5 and draw(st.integers(0, 5)) == 0:
            array = np.broadcast_to(array, (2, *array.shape))
    if draw(st.booleans()) and array.flags.writeable:
        array.flags.writeable = False
    return array


@dataclasses.dataclass
class Record:
    left: Any
    right: Any


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


def in_a_list(held: Any) -> Any:
    return [held]


def in_a_dict(held: Any) -> Any:
    return {"key": held}


def in_an_object_array(held: Any) -> Any:
    array = np.empty(1, object)
    array[0] = held
    return array


WRAPPINGS: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (in_a_list, lambda held: held[0]),
    (in_a_dict, lambda held: held["key"]),
    (lambda held: (1, held), lambda held: held[1]),
    (lambda held: Record(None, held), lambda held: held.right),
    (Slotted, lambda held: held.held),
    (in_an_object_array, lambda held: held[0]),
]


@core
@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(array=any_arrays(), wrappings=st.lists(st.sampled_from(WRAPPINGS), max_size=3))
@example(array=np.zeros((2, 0, 3)), wrappings=[])
@example(array=np.array(-0.0), wrappings=[])
@example(array=np.arange(6.0)[::-2], wrappings=[])
def test_every_array_comes_back_in_place(
    array: Array, wrappings: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]]
) -> None:
    value: Any = array
    for wrap, _ in wrappings:
        value = wrap(value)
    memory = in_memory_of_its_own(packed_bytes(value))
    found = unpack(memory)
    for _, unwrap in reversed(wrappings):
        found = unwrap(found)
    assert type(found) is np.ndarray
    assert same_bits(found, array)
    assert found.dtype.str == array.dtype.str
    assert found.flags.writeable
    start = address(np.frombuffer(memory, np.uint8))
    if found.size:
        assert (address(found) - start) % 64 == 0
        assert start < address(found) <= start + len(memory) - found.nbytes


@settings(deadline=None, max_examples=100, suppress_health_check=list(HealthCheck))
@given(array=any_arrays())
def test_the_order_of_axes_in_memory_stays(array: Array) -> None:
    found = through_memory(array)
    if array.flags.c_contiguous or array.flags.f_contiguous:
        assert found.flags.c_contiguous == array.flags.c_contiguous
        assert found.flags.f_contiguous == array.flags.f_contiguous
    dense = sorted(range(array.ndim), key=lambda axis: -abs(found.strides[axis]))
    assert found.transpose(dense).flags.c_contiguous or 0 in array.shape or 1 in array.shape


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(held=st.lists(any_arrays(), max_size=6))
def test_many_arrays_do_not_overlap(held: list[Array]) -> None:
    found = through_memory([held, held, {"again": held}])
    assert found[0] is found[1] is found[2]["again"]
    for one, other in zip(found[0], held, strict=True):
        assert same_bits(one, other)
    places = sorted((address(array), address(array) + array.nbytes) for array in found[0])
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(places))


def test_the_same_array_twice_is_one_array() -> None:
    array = np.arange(10)
    found = through_memory({"a": array, "b": [array]})
    assert found["a"] is found["b"][0]
    assert len(pack({"a": array, "b": [array]}).parts) == 1


@core
def test_large_arrays_start_at_a_page_and_small_objects_take_little() -> None:
    small, large = np.arange(3), np.arange(LARGE_NBYTES, dtype=np.uint8)
    packed = pack([small, large, small.copy(), large.copy()])
    offsets = [part.offset for part in packed.parts]
    assert [offset % 64 for offset in offsets] == [0] * 4
    assert [offset % PAGE_NBYTES for offset in offsets][1::2] == [0, 0]
    assert pack({"a": 1}).nbytes < 100
    assert pack(small).nbytes < 400


def test_objects_python_strings_and_numpy_scalars_go_with_the_pickle() -> None:
    value = [
        np.array([{"a": 1}, None, "text"], object),
        np.zeros(2, [("a", ">i4"), ("b", "O")]),
        np.zeros(3, "S0"),
        np.float32(1.5),
    ]
    found = through_memory(value)
    assert found[0].tolist() == [{"a": 1}, None, "text"]
    assert found[1].tolist() == [(0, 0), (0, 0)]
    assert found[2].tolist() == [b""] * 3
    assert found[3] == np.float32(1.5) and type(found[3]) is np.float32


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="numpy 1 has no such strings")
def test_strings_of_any_length_are_no_plain_bytes() -> None:
    array = np.array(["a", "b" * 100], np.dtypes.StringDType())  # type: ignore[attr-defined]
    assert through_memory(array).tolist() == ["a", "b" * 100]
    assert not pack(array).parts


def test_a_dtype_keeps_its_metadata_even_arrays_in_them() -> None:
    dtype = np.dtype("f8", metadata={"unit": "m", "scale": np.arange(3)})
    found = through_memory(np.zeros(4, dtype))
    assert found.dtype.metadata["unit"] == "m"
    assert found.dtype.metadata["scale"].tolist() == [0, 1, 2]


# --- subclasses -----------------------------------------------------------------------------------


class Plain(np.ndarray[Any, Any]):
    """A subclass that is pickled as numpy does it."""

    finalized_from: Any

    def __array_finalize__(self, obj: object) -> None:
        self.finalized_from = type(obj)


class WithUnit(np.ndarray[Any, Any]):
    """A subclass that says itself how it is pickled."""

    unit: str

    def __reduce__(self) -> Any:
        made, args, state = super().__reduce__()  # type: ignore[misc]
        return made, args, (state, self.unit)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.unit = state[1]


class Rounded(np.ndarray[Any, Any]):
    """A subclass with nothing but a ``__setstate__`` of its own."""

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.round(out=self)


def test_a_subclass_is_made_as_unpickling_makes_it() -> None:
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4)).view(Plain)
    memory = in_memory_of_its_own(packed_bytes([array]))
    (found,) = unpack(memory)
    ordinary = pickle.loads(pickle.dumps(array))
    assert type(found) is Plain and found.finalized_from is ordinary.finalized_from is type(None)
    assert same_bits(found, array) and found.flags.f_contiguous
    assert np.shares_memory(found, np.frombuffer(memory, np.uint8))


def test_axes_of_a_subclass_stay_swapped() -> None:
    array = np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2).view(Plain)
    found = through_memory(array)
    assert type(found) is Plain and same_bits(found, array) and found.strides == array.strides


@core
def test_a_subclass_with_its_own_way_to_be_pickled_goes_that_way() -> None:
    array = np.arange(5.0).view(WithUnit)
    array.unit = "m"
    found = through_memory({"a": array})["a"]
    assert type(found) is WithUnit and found.unit == "m" and same_bits(found, array)
    rounded = through_memory((np.arange(4) / 3).view(Rounded))
    assert type(rounded) is Rounded and rounded.tolist() == [0, 0, 1, 1]


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")
def test_matrices_records_and_characters() -> None:
    records = np.rec.fromarrays([np.arange(5), np.arange(5.0)], names="a,b")
    found = through_memory([np.matrix("1 2; 3 4"), records, np.char.array(["ab", "c"])])
    assert type(found[0]) is np.matrix and (found[0] * found[0]).tolist() == [[7, 10], [15, 22]]
    assert type(found[1]) is np.recarray and found[1].b.tolist() == [0, 1, 2, 3, 4]
    assert found[1][2].a == 2
    assert found[2].upper().tolist() == ["AB", "C"]


@core
def test_masked_arrays() -> None:
    data = np.arange(12.0).reshape(3, 4).T
    array: Any = np.ma.MaskedArray(data, mask=data % 3 == 0, fill_value=7.0, hard_mask=True)
    bare: Any = np.ma.MaskedArray(data)
    memory = in_memory_of_its_own(packed_bytes((array, bare)))
    found, found_bare = unpack(memory)
    assert type(found) is np.ma.MaskedArray
    assert found.fill_value == 7.0 and found.hardmask
    assert same_bits(found.data, data) and same_bits(found.mask, array.mask)
    assert np.shares_memory(found.data, np.frombuffer(memory, np.uint8))
    assert found_bare.mask is np.ma.nomask and found_bare.sum() == data.sum()
    found[1, 1] = np.ma.masked
    assert found.mask.sum() == array.mask.sum() + 1


def test_masked_records_and_the_masked_constant() -> None:
    array: Any = np.ma.MaskedArray(
        [(1, 2.0), (3, 4.0)], mask=[(True, False), (False, True)], dtype=[("a", "i4"), ("b", "f8")]
    )
    found, constant = through_memory((array, np.ma.masked))
    assert found.mask.tolist() == array.mask.tolist() and found["b"][0] == 2.0
    assert constant is np.ma.masked


def test_a_memory_map_is_stored_with_its_content(tmp_path: Path) -> None:
    array: Any = np.memmap(tmp_path / "map", "i4", "w+", shape=(4,))
    array[:] = range(4)
    found = through_memory(array)
    assert type(found) is np.ndarray and found.tolist() == [0, 1, 2, 3]


# --- buffers of others ----------------------------------------------------------------------------


class Blob(bytearray):
    """What PEP 574 has for an example."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self)._over, (pickle.PickleBuffer(self),)

    @classmethod
    def _over(cls, buffer: Any) -> Any:
        with memoryview(buffer) as view:
            return view.obj if type(view.obj) is cls else cls(buffer)


@core
def test_buffers_that_are_handed_over_become_buffers() -> None:
    blob, text = Blob(b"x" * 100_000), pickle.PickleBuffer(b"read-only")
    packed = pack([blob, np.arange(3), text, Blob()])
    assert sum(map(len, packed.head)) < 1000
    found = through_memory([blob, np.arange(3), text, Blob()])
    assert type(found[0]) is Blob and found[0] == blob and found[3] == Blob()
    assert bytes(found[2]) == b"read-only" and memoryview(found[2]).readonly


def test_pyarrow_tables_lie_where_they_were_put() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": np.arange(50_000.0), "s": ["abc"] * 50_000})
    memory = in_memory_of_its_own(packed_bytes(table))
    found = unpack(memory)
    assert found.equals(table)
    buffer = found.column("a").chunk(0).buffers()[1]
    start = address(np.frombuffer(memory, np.uint8))
    assert start < buffer.address < start + len(memory) and buffer.address % 64 == 0


def test_polars_frames() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"a": np.arange(1000.0), "s": ["abc"] * 1000})
    assert through_memory(frame).equals(frame)


def test_pandas_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "numbers": np.arange(1000.0),
            "more": np.arange(1000.0) ** 2,
            "text": ["abc"] * 1000,
            "times": pandas.date_range("2020", periods=1000, freq="s", tz="UTC"),
            "classes": pandas.Categorical(["u", "v"] * 500),
            "gaps": pandas.array([1, None] * 500, dtype="Int64"),
        }
    )
    found = through_memory(frame)
    pandas.testing.assert_frame_equal(found, frame)
    found["numbers"] += 1
    assert found["numbers"].sum() == frame["numbers"].sum() + 1000


def test_scipy_sparse_matrices() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.random(200, 300, 0.1, format="csr", random_state=0)
    found = through_memory(matrix)
    assert (found != matrix).nnz == 0
    assert len(pack(matrix).parts) == 3


def test_xarray_datasets() -> None:
    xarray = pytest.importorskip("xarray")
    data = xarray.Dataset({"v": (("x", "y"), np.arange(200.0).reshape(10, 20))})
    assert through_memory(data).identical(data)


# --- functions and classes ------------------------------------------------------------------------


def test_what_pickle_refuses_goes_by_cloudpickle_with_its_arrays_in_place() -> None:
    pytest.importorskip("cloudpickle")
    weights = np.arange(3.0)

    class Local:
        held = weights

    class LocalArray(np.ndarray[Any, Any]):
        pass

    value = [lambda x: x + weights.sum(), Local(), weights[::2].view(LocalArray)]
    memory = in_memory_of_its_own(packed_bytes(value))
    function, instance, array = unpack(memory)
    assert function(1) == 4
    assert np.shares_memory(instance.held, np.frombuffer(memory, np.uint8))
    assert type(array).__name__ == "LocalArray" and array.tolist() == [0, 2]


def test_what_cannot_be_pickled_at_all_says_so() -> None:
    with pytest.raises(TypeError, match="lock"):
        pack({"a": [np.arange(3), threading.Lock()]})


SCRIPT = """
import sys, numpy as np
from memmapping.layout import pack
from memmapping.pickler import ScriptObjects
class Model:
    def __init__(self):
        self.weights = np.arange(4.0)
    def total(self):
        return float(self.weights.sum())
how = ScriptObjects[sys.argv[2]]
with open(sys.argv[1], "wb") as file:
    pack(Model(), how).write_to(file)
"""
READER = """
import sys
from memmapping.layout import unpack
with open(sys.argv[1], "rb") as file:
    print(unpack(file.read()).total())
"""


@core
def test_a_class_of_the_script_reaches_another_process(tmp_path: Path) -> None:
    name = str(tmp_path / "packed")
    written = run_python(SCRIPT, name, "BY_VALUE")
    assert written.returncode == 0, written.stderr
    read = run_python(READER, name)
    assert read.stdout == "6.0\n", read.stderr


def test_a_class_packed_by_name_has_to_be_there(tmp_path: Path) -> None:
    name = str(tmp_path / "packed")
    written = run_python(SCRIPT, name, "BY_NAME")
    assert written.returncode == 0, written.stderr
    read = run_python(READER, name)
    assert "AttributeError" in read.stderr and "defined 'Model' itself" in read.stderr
    with_class = SCRIPT.partition("how =")[0] + READER
    assert run_python(with_class, name).stdout == "6.0\n"


def test_objects_of_modules_are_the_same_either_way() -> None:
    value = Record(1, np.arange(3))
    heads = [b"".join(pack(value, how).head) for how in ScriptObjects]
    assert heads[0] == heads[1]


@core
def test_nothing_is_imported_that_is_not_needed() -> None:
    ran = run_python(
        "import sys, memmapping\n"
        "from memmapping.layout import pack, unpack\n"
        "import io; file = io.BytesIO()\n"
        "pack([{'a': 1}, 'text', bytearray(5)]).write_to(file)\n"
        "print(unpack(file.getvalue()))\n"
        "print(sorted({'numpy', 'cloudpickle', 'parallel_core'} & set(sys.modules)))"
    )
    assert ran.stdout == "[{'a': 1}, 'text', bytearray(b'\\x00\\x00\\x00\\x00\\x00')]\n[]\n", (
        ran.stderr
    )


def test_the_package_offers_its_names_without_importing_them() -> None:
    ran = run_python(
        "import sys, memmapping\n"
        "print({'dump', 'load'} <= set(dir(memmapping)), 'memmapping.persistence' in sys.modules)\n"
        "from memmapping import *\n"
        "print(dump is memmapping.dump, hasattr(memmapping, 'nonsense'))"
    )
    assert ran.stdout == "True False\nTrue False\n", ran.stderr


# --- writing --------------------------------------------------------------------------------------


def test_nothing_is_copied_before_it_is_written() -> None:
    array = np.zeros(1 << 24, np.uint8)
    packed = pack({"a": array})
    array[-1] = 7
    file = io.BytesIO()
    packed.write_to(file)
    assert unpack(file.getvalue())["a"][-1] == 7
    (part,) = packed.parts
    (piece,) = part.content.pieces(1 << 30)
    assert np.shares_memory(np.frombuffer(piece, np.uint8), array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(1 << 25, np.uint8),
        np.zeros((1 << 12, 1 << 13), np.uint8, order="F"),
        np.zeros((1 << 12, 1 << 14), np.uint8)[:, ::2],
        np.broadcast_to(np.uint8(1), (1 << 20, 1 << 5)),
        np.zeros((4, 1 << 24), np.uint8)[::2],
        b"\0" * (1 << 25),
    ],
    ids=["C", "Fortran", "every other column", "repeated", "two long rows", "bytes"],
)
def test_writing_takes_no_memory_to_speak_of(array: Any) -> None:
    with open(os.devnull, "wb", buffering=0) as file:
        tracemalloc.start()
        try:
            pack([array]).write_to(file)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


@core
@pytest.mark.parametrize("offset", [None, 0, 8192])
def test_writing_to_a_descriptor(tmp_path: Path, offset: int | None) -> None:
    value = {"a": np.arange(100_000), "b": np.arange(10)[::3], "c": b"x" * 300_000}
    packed = pack(value)
    with open(tmp_path / "packed", "w+b", buffering=0) as file:
        assert packed.write_to(file.fileno(), offset) == packed.nbytes
        assert file.tell() == (packed.nbytes if offset is None else 0)
        assert os.fstat(file.fileno()).st_size == packed.nbytes + (offset or 0)
        file.seek(offset or 0)
        found = unpack(file.read())
    assert all(np.array_equal(found[key], value[key]) for key in "abc")


def test_the_pieces_may_be_small(tmp_path: Path) -> None:
    value = [np.arange(1000), np.arange(100_000.0)[::2], b"x" * 100_000]
    file = io.BytesIO()
    pack(value).write_to(file, piece_nbytes=1000)
    assert file.getvalue() == packed_bytes(value)


def test_an_offset_is_for_descriptors() -> None:
    with pytest.raises(ValueError, match="descriptors"):
        pack(1).write_to(io.BytesIO(), 10)


def test_a_pipe_that_takes_little_at_a_time() -> None:
    value = np.arange(300_000)
    reading, writing = os.pipe()
    received = bytearray()

    def drain() -> None:
        while data := os.read(reading, 1000):
            received.extend(data)

    reader = threading.Thread(target=drain)
    reader.start()
    with open(writing, "wb", buffering=0) as file:
        pack(value).write_to(file)
    reader.join()
    os.close(reading)
    assert np.array_equal(unpack(received), value)


class Greedy(io.RawIOBase):
    """A file that takes seven bytes at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data[:7])
        return min(7, len(data))


def test_short_writes_are_gone_on_with() -> None:
    file = Greedy()
    pack({"a": np.arange(100)}).write_to(file)  # type: ignore[arg-type]
    assert bytes(file.taken) == packed_bytes({"a": np.arange(100)})


def test_a_pipe_that_does_not_wait_is_no_place_to_write() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb"), open(writing, "wb", buffering=0) as file:
        with pytest.raises(BlockingIOError):
            pack(np.arange(100_000)).write_to(file)


def test_a_full_disk_is_an_oserror(full_disk: Path) -> None:
    fd = os.open(full_disk / "packed", os.O_RDWR | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="No space left"):
            pack(np.ones(1 << 20)).write_to(fd, 0)
    finally:
        os.close(fd)


# --- reading --------------------------------------------------------------------------------------


@core
def test_arrays_are_as_writable_as_their_memory() -> None:
    data = packed_bytes([np.arange(5)])
    (constant,) = unpack(data)
    assert not constant.flags.writeable
    memory = bytearray(data)
    (array,) = unpack(memory)
    array[0] = 77
    assert unpack(memory)[0][0] == 77


def test_memory_with_arrays_in_it_cannot_be_closed() -> None:
    memory = in_memory_of_its_own(packed_bytes(np.arange(5)))
    array = unpack(memory)
    with pytest.raises(BufferError):
        memory.close()
    assert array.tolist() == [0, 1, 2, 3, 4]
    del array
    memory.close()


def test_memory_may_be_longer_than_the_object() -> None:
    assert unpack(packed_bytes(np.arange(5)) + b"\xff" * 1000).tolist() == [0, 1, 2, 3, 4]


def test_the_caller_may_make_the_arrays(tmp_path: Path) -> None:
    value = {"c": np.arange(6), "f": np.asfortranarray(np.arange(6).reshape(2, 3))}
    value["swapped"] = np.arange(24).reshape(2, 3, 4).swapaxes(0, 1)
    asked: list[Any] = []
    path = tmp_path / "packed"
    path.write_bytes(packed_bytes(value))
    with open(path, "rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def make(offset: int, dtype: Any, shape: tuple[int, ...], order: Any) -> Any:
        asked.append((offset % 64, dtype, shape, order))
        return memmap_over(mapping, offset, dtype, shape, order, filename=str(path), mode="r")

    found = unpack(mapping, make)
    whole = np.dtype(int)
    assert asked == [(0, whole, (6,), "C"), (0, whole, (2, 3), "F"), (0, whole, (2, 3, 4), "C")]
    for key, array in found.items():
        assert type(array) is np.memmap and array.filename == str(path)
        assert np.array_equal(array, value[key])
        assert np.shares_memory(array, np.frombuffer(mapping, np.uint8))


def test_a_part_of_a_packed_object_is_no_object_by_itself() -> None:
    with pytest.raises(TypeError, match=r"memmapping\.unpack"):
        array_in_place(0, np.dtype(int), (1,), "C")


# --- what is damaged ------------------------------------------------------------------------------

VALUE = {"a": np.arange(20), "b": [np.arange(3.0), "text"], "c": Blob(b"buffer")}


@core
def test_every_truncation_is_told_with_its_length() -> None:
    data = packed_bytes(VALUE)
    for length in range(len(data)):
        with pytest.raises(DamagedFileError) as caught:
            unpack(data[:length])
        if length >= HEADER_NBYTES:
            assert f"expected {len(data)} bytes, found {length}" in str(caught.value)
    assert issubclass(DamagedFileError, ValueError)


def test_every_changed_bit_before_the_arrays_is_seen() -> None:
    packed = pack(VALUE)
    data = packed_bytes(VALUE)
    for position in range(sum(map(len, packed.head))):
        for bit in (1, 128):
            changed = bytearray(data)
            changed[position] ^= bit
            with pytest.raises(DamagedFileError):
                unpack(changed)


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=200))
@example(data=b"")
@example(data=pickle.dumps([1, 2]))
@example(data=b"\x89memmap\n")
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedFileError, match="memory"):
        unpack(data)


def with_header(data: bytes, **changed: int) -> bytes:
    """Return packed bytes with a header that claims something else, and is signed."""
    names = ["version", "flags", "checksum", "pickle", "n", "data", "nbytes", "body"]
    layout = struct.Struct("<8sHHIQQQQI12x")
    fields = dict(zip(names, layout.unpack(data[:HEADER_NBYTES])[1:], strict=True))
    fields.update(changed, checksum=0)
    fields["checksum"] = zlib.crc32(layout.pack(b"\x89memmap\n", *fields.values()))
    return layout.pack(b"\x89memmap\n", *fields.values()) + data[HEADER_NBYTES:]


def test_a_version_to_come_is_told() -> None:
    data = packed_bytes(VALUE)
    assert np.array_equal(unpack(with_header(data))["a"], VALUE["a"])
    with pytest.raises(DamagedFileError, match="in version 2 of the format"):
        unpack(with_header(data, version=2))


def test_an_array_outside_is_told() -> None:
    data = packed_bytes(np.arange(100))
    with pytest.raises(DamagedFileError, match="lies at bytes"):
        unpack(with_header(data, nbytes=len(data) - 8))


def test_what_is_packed_says_what_it_is() -> None:
    packed = pack([np.arange(3)])
    assert isinstance(packed, Packed)
    assert repr(packed) == f"<Packed: {packed.nbytes} bytes, 1 of its parts are buffers>"
