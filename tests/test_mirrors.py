"""Freshness, without any worker: a mirror shows the memory as it is at each use."""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memmapping import reducer, references, store
from memmapping.reducer import ArrayReducer
from transferring import BOTH_WAYS, Transfer, transfer


@pytest.fixture(params=BOTH_WAYS)
def arrays(request: pytest.FixtureRequest) -> Iterator[Transfer]:
    yield from transfer(request.param)


def bits(array: Any) -> bytes:
    return np.asarray(array).tobytes()


@pytest.mark.core
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a.fill(3), id="whole"),
        pytest.param(lambda a: a.__setitem__(slice(1000, 2000), 5), id="slice"),
        pytest.param(lambda a: a.__setitem__(77_777, 1), id="element"),
        pytest.param(lambda a: a.__setitem__(0, 1), id="first"),
        pytest.param(lambda a: a.__setitem__(-1, 1), id="last"),
        pytest.param(lambda a: a.__setitem__(5, -0.0), id="minus-zero"),
        pytest.param(lambda a: a.view("u8").__setitem__(9, 0x7FF8000000000001), id="bits-of-a-nan"),
        pytest.param(
            lambda a: ctypes.memset(a.ctypes.data + 4096 * 3 + 5, 7, 1), id="behind-numpys-back"
        ),
    ],
)
@pytest.mark.parametrize("first", [0.0, np.nan])
@pytest.mark.parametrize("looks", [1, 2, 3])
def test_a_change_reaches_the_next_use(
    arrays: Transfer, change: Any, first: float, looks: int
) -> None:
    array = np.zeros(100_000)
    array[9] = first
    before = bits(array)
    earlier = [arrays(array) for _ in range(looks)]
    change(array)
    later = arrays(array)
    assert bits(later) == bits(array) != before
    for one in earlier:
        assert bits(one) == before, "what was sent before must not change"


@pytest.mark.core
def test_an_unchanged_array_is_copied_once(arrays: Transfer) -> None:
    array = np.arange(1e5)
    sent = [arrays.pickle(array) for _ in range(5)]
    assert len({id(use.segment) for _, _, uses in sent for use in uses}) == 1
    assert arrays.reducer.copied_nbytes == array.nbytes


def test_views_of_one_base_share_a_copy(arrays: Transfer) -> None:
    base = np.arange(600_000.0).reshape(1000, 600)
    views = [base, base.T, base[::2], base[::-1, ::-3], base[10:20, 5:], base[:, 1], base.ravel()]
    sent = [arrays.pickle(view) for view in views]
    assert len({id(use.segment) for _, _, uses in sent for use in uses}) == 1
    assert os.fstat(sent[0][2][0].segment.fd).st_size < base.nbytes + 8192
    for view, one in zip(views, sent, strict=True):
        got = arrays.unpickle(one)
        assert type(got) is np.memmap
        assert got.strides == view.strides
        assert bits(got) == bits(view)


def test_a_small_view_of_a_large_base_takes_little_memory(arrays: Transfer) -> None:
    base = np.ones(10_000_000)
    sent = arrays.pickle(base[5_000_000:5_001_000])
    (use,) = sent[2]
    assert os.fstat(use.segment.fd).st_blocks * 512 <= 4 * 4096
    assert arrays.unpickle(sent).sum() == 1000
    rest = arrays.pickle(base[5_000_500:6_000_000])
    assert rest[2][0].segment is use.segment
    assert arrays.unpickle(rest).sum() == 999_500
    base[5_000_700] = 3
    assert arrays(base[5_000_600:5_000_800]).sum() == 202
    assert arrays(base).sum() == 10_000_002


def test_only_what_changed_is_written_again_when_nobody_uses_the_copy(arrays: Transfer) -> None:
    array = np.zeros(1 << 20)
    segment = arrays.pickle(array)[2][0].segment
    arrays(array)
    gc.collect()
    array[5] = 1
    sent = arrays.pickle(array)
    assert sent[2][0].segment is segment
    assert arrays.unpickle(sent)[5] == 1


@pytest.mark.parametrize("keeps", ["use", "view"])
def test_what_somebody_still_uses_is_not_written_to(arrays: Transfer, keeps: str) -> None:
    array = np.zeros(1 << 18)
    sent = arrays.pickle(array)
    held = arrays.unpickle(sent)[100:200] if keeps == "view" else None
    if keeps == "view":
        sent = (sent[0], sent[1], [])
    array[150] = 1
    assert arrays(array)[150] == 1
    kept = held if held is not None else arrays.unpickle(sent)[100:200]
    assert kept[50] == 0


def test_memory_that_comes_back_at_the_same_place_is_another_array(arrays: Transfer) -> None:
    places = set()
    for number in range(20):
        array = np.full(1 << 17, float(number))
        places.add(array.ctypes.data)
        got = arrays(array)
        assert got[0] == got[-1] == number
        del array, got
    assert len(places) < 20, "else this test has shown nothing"


def test_afterwards_an_array_can_be_resized_in_place(arrays: Transfer) -> None:
    array = np.arange(100_000.0)
    arrays(array)
    arrays.reducer.close()  # numpy refuses while there is a weak reference
    array.resize(50_000, refcheck=False)
    assert bits(arrays(array)) == bits(array)


def test_a_read_only_array_that_is_changed_through_an_older_view(arrays: Transfer) -> None:
    array = np.zeros(100_000)
    view = array[:]
    array.flags.writeable = False
    arrays(array)
    arrays(array)
    view[5] = 1
    assert arrays(array)[5] == 1


def test_memory_that_another_process_writes(arrays: Transfer) -> None:
    from multiprocessing import shared_memory

    block = shared_memory.SharedMemory(create=True, size=1 << 20)
    try:
        array: Any = np.frombuffer(block.buf, np.uint8)
        arrays(array)
        arrays(array)
        child = os.fork()
        if child == 0:
            array[12345] = 9
            os._exit(0)
        os.waitpid(child, 0)
        assert arrays(array)[12345] == 9
        del array
        gc.collect()
    finally:
        block.close()
        block.unlink()


@pytest.mark.parametrize("kind", [bytearray, bytes])
def test_buffers_of_other_types(arrays: Transfer, kind: type) -> None:
    data = kind(b"x" * 100_000)
    first = arrays(pickle.PickleBuffer(data))
    again = arrays.pickle(pickle.PickleBuffer(data))
    assert first.readonly and bytes(first) == bytes(data)
    if kind is bytearray:
        data[5] = 7  # type: ignore[index]  # a bytearray
        assert bytes(arrays(pickle.PickleBuffer(data))) == bytes(data) != bytes(first)
    else:
        assert bytes(arrays.unpickle(again)) == data


@pytest.mark.parametrize("way", BOTH_WAYS)
def test_what_a_worker_writes_in_a_shared_copy_is_no_change(way: str) -> None:
    for arrays in transfer(way, mmap_mode="r+"):
        array = np.zeros(100_000)
        one = arrays(array)
        one[7] = 5
        assert arrays(array)[7] == 5, "r+ shares one copy"
        array[8] = 1
        third = arrays(array)
        assert (third[7], third[8]) == (0, 1), "a change of the caller's makes a new one"
        assert array[7] == 0
        third[9] = 1
        arrays.reducer.end_call()
        assert arrays(array)[9] == 0, "the next call starts from the caller's array"


def test_copy_on_write_is_private_to_each_task() -> None:
    for arrays in transfer("compared", mmap_mode="c"):
        array = np.zeros(100_000)
        one, two = arrays(array), arrays(array)
        one[5] = 1
        assert two[5] == array[5] == arrays(array)[5] == 0


def test_without_a_mode_arrays_are_ordinary() -> None:
    for arrays in transfer("compared", mmap_mode=None):
        array = np.asfortranarray(np.arange(1e5).reshape(100, 1000))
        got = arrays(array)
        assert type(got) is np.ndarray and got.flags.writeable and got.flags.owndata
        assert got.flags.f_contiguous and bits(got) == bits(array)


def test_a_forked_child_has_its_own_say(arrays: Transfer) -> None:
    array = np.zeros(100_000)
    arrays(array)
    child = os.fork()
    if child == 0:
        array[5] = 1  # in the child alone
        inner = Transfer(ArrayReducer(max_nbytes=1))
        good = inner(array)[5] == 1
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert arrays(array)[5] == 0


# Which memory is looked at, and when it changes, in any order.


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    steps = st.tuples(
        st.sampled_from(["send", "write", "keep", "drop"]),
        st.integers(0, 39_999),
        st.integers(1, 20_000),
    )
    return draw(st.lists(steps, min_size=2, max_size=25))


@pytest.mark.parametrize("way", BOTH_WAYS)
@settings(max_examples=60, deadline=None)
@given(history=histories(), mode=st.sampled_from(["r", "c", "r+", None]))
def test_any_history(way: str, history: list[tuple[str, int, int]], mode: str | None) -> None:
    for arrays in transfer(way, mmap_mode=mode):
        base = np.zeros(40_000, np.int64)
        kept: list[tuple[Any, bytes]] = []
        for number, (step, start, length) in enumerate(history):
            view = base[start : start + length]
            if step == "write":
                view[:] = number
            elif step == "send":
                assert bits(arrays(view)) == bits(view)
            elif step == "keep":
                kept.append((arrays.pickle(view), bits(view)))
            else:
                kept.clear()
            for sent, expected in kept:
                assert bits(arrays.unpickle(sent)) == expected


DTYPES = ["f8", ">f8", "i2", ">u4", "c16", "S5", "U3", "M8[ns]", "?", [("a", "i4"), ("b", ">f8")]]


@st.composite
def strange_arrays(draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(1, 30), min_size=1, max_size=3)))
    order = draw(st.sampled_from(["C", "F"]))
    count = int(np.prod(shape))
    seed = draw(st.integers(0, 2**32 - 1))
    raw = np.random.default_rng(seed).integers(0, 120, count * dtype.itemsize, np.uint8)
    array = raw.view(dtype).reshape(shape, order=order)  # type: ignore[call-overload]  # any order
    for axis in range(len(shape)):
        step = draw(st.sampled_from([1, 1, 2, -1, -3]))
        array = array[(slice(None),) * axis + (slice(None, None, step),)]
    return array.transpose(draw(st.permutations(range(array.ndim))))


@settings(max_examples=150, deadline=None)
@given(array=strange_arrays(), nested=st.booleans())
def test_any_form_of_array(array: Any, nested: bool) -> None:
    for arrays in transfer("compared"):
        got = arrays({"a": [array, (array,)]} if nested else array)
        if nested:
            assert got["a"][0] is got["a"][1][0]
            got = got["a"][0]
        assert type(got) is np.memmap
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        for size, stride, expected in zip(got.shape, got.strides, array.strides, strict=True):
            assert size == 1 or stride == expected
        assert bits(got) == bits(array)


@pytest.mark.core
def test_subclasses_and_masked_arrays_keep_their_type(arrays: Transfer) -> None:
    matrix = (np.arange(10_000.0).reshape(100, 100)).view(np.matrix)
    got = arrays(matrix)
    assert type(got) is np.matrix and bits(got) == bits(matrix)
    assert isinstance(references.root_of(got), np.memmap)
    masked: Any = np.ma.masked_array(np.arange(10_000), np.arange(10_000) % 3 == 0, fill_value=7)
    got = arrays(masked)
    assert type(got) is np.ma.MaskedArray
    assert got.fill_value == 7 and (got.filled() == masked.filled()).all()
    records = np.zeros(5000, [("a", "i4"), ("b", "f8")]).view(np.recarray)
    records.a = np.arange(5000)
    got = arrays(records)
    assert type(got) is np.recarray and (got.a == records.a).all()


class Tagged(np.ndarray):
    """Pickles in its own way."""

    tag: str

    def __reduce__(self) -> Any:
        function, args, state = super().__reduce__()  # type: ignore[misc]  # always three
        return function, args, (*state, self.tag)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[:-1])  # type: ignore[misc]  # ndarray has it
        self.tag = state[-1]


def test_a_subclass_with_its_own_way_goes_its_own_way(arrays: Transfer) -> None:
    array = np.arange(10_000.0).view(Tagged)
    array.tag = "mine"
    got = arrays(array)
    assert type(got) is Tagged and got.tag == "mine" and bits(got) == bits(array)


def test_objects_are_pickled(arrays: Transfer) -> None:
    array = np.array([{"a": 1}, [2], None] * 1000, object)
    got = arrays(array)
    assert type(got) is np.ndarray and got[1] == [2]


# Where memory comes from, and where it goes.


def test_segments_are_reused_and_then_freed(arrays: Transfer) -> None:
    store.free_kept_memory()
    inodes = set()
    for number in range(30):
        array = np.full(300_000, number)
        sent = arrays.pickle(array)
        inodes.add(sent[2][0].segment.origin.inode)
        assert arrays.unpickle(sent)[-1] == number
        del sent, array
    assert len(inodes) == 1
    assert store.segment_store().kept_bytes() > 0
    assert store.free_kept_memory() >= 1
    assert store.segment_store().kept_bytes() == 0


def test_kept_memory_is_bounded(arrays: Transfer) -> None:
    sent = [arrays.pickle(np.ones(200_000)) for _ in range(store.KEPT_NUMBER + 10)]
    del sent
    gc.collect()
    assert 0 < store.segment_store().kept_bytes() <= store.KEPT_NUMBER * 1_700_000
    assert store.free_kept_memory() == store.KEPT_NUMBER


def test_kept_memory_is_freed_after_a_while(
    arrays: Transfer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from watching import wait_until

    monkeypatch.setattr(store, "KEPT_SECONDS", 0.2)
    store.free_kept_memory()
    sent = arrays.pickle(np.ones(200_000))
    del sent
    gc.collect()
    assert store.segment_store().kept_bytes() > 0
    wait_until(lambda: not store.segment_store()._kept, "kept memory is freed")


def test_kept_memory_is_freed_when_its_own_time_is_over() -> None:
    """Not up to once more as long after that, since the timer began before it was let go of."""
    kept = store.SegmentStore()
    segment = kept.take(200_000)
    first = kept._timer
    del segment
    gc.collect()
    entry = kept._kept.pop()
    kept._kept.append(entry._replace(since=entry.since - 0.7 * store.KEPT_SECONDS))
    kept._timer = threading.current_thread()  # type: ignore[assignment]  # as in its own thread
    kept._expire()
    second = kept._timer
    assert isinstance(first, threading.Timer) and isinstance(second, threading.Timer)
    try:
        assert second.interval <= 0.31 * store.KEPT_SECONDS
    finally:
        kept.clear()
        for timer in (first, second):
            timer.cancel()
            timer.join()


def test_a_bound_on_descriptors(arrays: Transfer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_max_held", lambda: 3)
    kept = [np.full(50_000, number) for number in range(6)]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sent = [arrays.pickle(array) for array in kept]
    assert [type(arrays.unpickle(one)) for one in sent] == [np.memmap] * 3 + [np.ndarray] * 3
    assert [bits(arrays.unpickle(one)) for one in sent] == [bits(array) for array in kept]
    assert len(told) == 1 and "3 arrays are in flight" in str(told[0].message)


def test_a_reference_to_memory_that_is_gone(arrays: Transfer) -> None:
    data, _, uses = arrays.pickle(np.ones(100_000))
    del uses
    gc.collect()
    store.free_kept_memory()
    with pytest.raises(references.StaleReferenceError, match=r"let go of it|another file|ended"):
        pickle.loads(data)


def test_the_reducer_is_closed_twice() -> None:
    array_reducer = reducer.ArrayReducer()
    array_reducer.reduce(np.ones(1 << 20))
    array_reducer.close()
    array_reducer.close()
    store.free_kept_memory()
