"""Large results are read where the worker has them, or sent where that is not allowed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from result_tasks import SIZE, fatal, filled, marked, reused, various

from parallel_core import Parallel, WorkerDiedError, delayed
from parallel_core.workers import remote_memory
from parallel_core.workers.remote_memory import MIN_NBYTES, read_memory
from watching import LIMIT, wait_until

core = pytest.mark.core


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what this process reads of its workers' memory."""
    sizes: list[int] = []

    def counted(pid: int, pieces: Any, memory: memoryview) -> None:
        read_memory(pid, pieces, memory)
        sizes.append(len(memory))

    monkeypatch.setattr(remote_memory, "read_memory", counted)
    return sizes


@core
def test_large_results_are_read_and_small_ones_are_sent(reads: list[int]) -> None:
    results = Parallel(2)(delayed(filled)(n) for n in range(6))
    assert [result.tolist()[::SIZE] for result in results] == [[float(n)] for n in range(6)]
    assert all(result.flags.owndata and result.flags.writeable for result in results)
    # On a busy machine, a worker may have waited too long for this process, and sent one.
    n_read = len(reads)
    assert 1 <= n_read <= 6 and set(reads) == {SIZE * 8}
    small = Parallel(2)(delayed(np.zeros)(MIN_NBYTES // 16) for _ in range(4))
    assert len(small) == 4 and len(reads) == n_read


def test_results_of_every_form(reads: list[int]) -> None:
    for n, result in enumerate(Parallel(2)(delayed(various)(n) for n in range(4))):
        for name, expected in various(n).items():
            value = result[name]
            if isinstance(expected, bytes):
                assert value == expected
                continue
            np.testing.assert_array_equal(value, expected)
            assert value.dtype == expected.dtype and value.shape == expected.shape
        assert result["f"].flags.f_contiguous
    assert reads


def test_a_result_is_taken_before_the_next_task_changes_it(reads: list[int]) -> None:
    for return_as in ("list", "generator_unordered"):
        results = Parallel(2, batch_size=5, return_as=return_as)(
            delayed(reused)(n) for n in range(20)
        )
        assert sorted(float(result[0]) for result in results) == [float(n) for n in range(20)]
    assert len(reads) == 40


def test_a_consumer_at_rest_holds_no_task_up(reads: list[int], tmp_path: Path) -> None:
    results = Parallel(2, return_as="generator", pre_dispatch=8, batch_size=4)(
        delayed(marked)(n, str(tmp_path)) for n in range(8)
    )
    wait_until(lambda: len(list(tmp_path.iterdir())) == 8, "all tasks have run")
    assert not reads  # nobody has read anything meanwhile
    assert [float(result[-1]) for result in results] == [float(n) for n in range(8)]


def test_where_reading_is_refused_results_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_memory.of_own_workers, "is_granted", True)
    refused = mock.Mock(side_effect=PermissionError(errno.EPERM, "refused"))
    monkeypatch.setattr(remote_memory, "_reader", lambda: refused)
    for _ in range(2):
        results = Parallel(2)(delayed(filled)(n) for n in range(6))
        assert [float(result[0]) for result in results] == [float(n) for n in range(6)]
    assert 1 <= refused.call_count <= 2  # once for each worker at most, and never again


FILTERED = """
from benchmarks.refusing import refuse_reading_memory
refuse_reading_memory()
from parallel_core import Parallel, delayed
from parallel_core.workers import remote_memory
from result_tasks import filled
results = Parallel(2)(delayed(filled)(n) for n in range(6))
print([float(result[-1]) for result in results], not remote_memory.of_own_workers.is_granted)
"""


def test_behind_a_filter_of_system_calls() -> None:
    folder = Path(__file__).parent
    path = os.pathsep.join([str(folder), str(folder.parent)])
    done = subprocess.run(
        [sys.executable, "-c", FILTERED],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.stdout.split() == ["[0.0,", "1.0,", "2.0,", "3.0,", "4.0,", "5.0]", "True"], (
        done.stderr
    )


def test_a_worker_that_dies_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(pid: int, pieces: Any, memory: memoryview) -> None:
        if not deaths:
            deaths.append(pid)
            os.kill(pid, 9)
            time.sleep(0.05)
        read_memory(pid, pieces, memory)

    deaths: list[int] = []
    monkeypatch.setattr(remote_memory, "read_memory", killed)
    results = Parallel(2, retries=2)(delayed(filled)(n) for n in range(8))
    assert [float(result[0]) for result in results] == [float(n) for n in range(8)] and deaths


def test_results_that_were_there_before_a_death(reads: list[int]) -> None:
    with pytest.raises(WorkerDiedError) as caught:
        Parallel(2, batch_size=1)(delayed(fatal)(n) for n in range(3))
    assert sorted(float(array[0]) for array in caught.value.results.values()) == [0.0, 1.0]
    assert len(reads) == 2


WITHOUT_NUMPY = """
from parallel_core import Parallel, delayed
results = Parallel(2)(delayed(bytes)(3 << 20) for _ in range(4))
import sys
print([len(result) >> 20 for result in results], "numpy" in sys.modules)
"""


def test_without_numpy_results_are_sent() -> None:
    command = [sys.executable, "-c", WITHOUT_NUMPY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout == "[3, 3, 3, 3] False\n", done.stderr


def test_what_cannot_be_read_is_an_error() -> None:
    memory = memoryview(bytearray(16))
    with pytest.raises(OSError, match="Bad address"):
        read_memory(os.getpid(), [(1, 16)], memory)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(ProcessLookupError):
        read_memory(child.pid, [(1 << 20, 16)], memory)
    source = np.frombuffer(b"0123456789abcdef", "B")
    start = source.__array_interface__["data"][0]
    read_memory(os.getpid(), [(start + 8, 8), (start, 8)], memory)
    assert bytes(memory) == b"89abcdef01234567" and remote_memory.of_own_workers.is_granted
