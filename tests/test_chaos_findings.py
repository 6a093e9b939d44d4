"""What `benchmarks.chaos` has found, each as small as it can be."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from parallel_core import Parallel, delayed
from parallel_core.errors import WorkerDiedError
from watching import some


def refuse(x: int) -> int:
    raise ValueError(x)


def same(x: int) -> int:
    return x


@pytest.mark.core
@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_a_consumer_that_is_faster_than_the_end_of_a_batch(return_as: str) -> None:
    """A failure is told at once, and taken, before its batch is over: that batch still counts."""
    parallel = Parallel(2, return_as=return_as, pre_dispatch=1, batch_size=1, on_error="return")
    for _ in range(5):
        assert len(list(parallel(delayed(refuse)(x) for x in range(50)))) == 50


def dies_in_its_first_process(folder: str, times: int) -> None:
    with Path(folder, "births").open("ab") as file:
        file.write(b".")
    if Path(folder, "births").stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("backend", some(["processes", "multiprocessing"]))
def test_a_worker_that_dies_before_it_is_ready_is_replaced(backend: str, tmp_path: Path) -> None:
    parallel = Parallel(
        2, backend, initializer=dies_in_its_first_process, initargs=(str(tmp_path), 2)
    )
    assert parallel(delayed(same)(x) for x in range(40)) == list(range(40))


def test_workers_that_never_get_ready_end_the_call(tmp_path: Path) -> None:
    parallel = Parallel(
        2, initializer=dies_in_its_first_process, initargs=(str(tmp_path), 1000), retries=5
    )
    with pytest.raises(WorkerDiedError, match="before it was ready"):
        parallel(delayed(same)(x) for x in range(40))
    assert (tmp_path / "births").stat().st_size <= 8
