"""What each contestant of `benchmarks.ranks` does in an MPI program; it prints a line of JSON.

It is started by mpiexec with the name of the contestant: ``ours`` under ``python -m
parallel_core.mpi``, ``futures`` under ``python -m mpi4py.futures``, ``raw`` in all ranks.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from collections.abc import Callable, Iterable
from math import sqrt
from statistics import median
from typing import Any

TASKS = 100_000
SINGLY = 5_000  # tasks, where each is sent alone
CHUNKS = (1_000, 2_500, 5_000, 10_000, 25_000, 50_000)
CALLS = 300
RESULTS, RESULT_BYTES = 20, 64 << 20
COPIED_RESULTS = 4  # of them, where each takes seconds: the time is counted for one
ARRAY_TASKS, ARRAY_BYTES = 64, 256 << 20
COPIED_TASKS = 2  # of those with the array, where each gets a copy: the time is counted for one


def make(number: int) -> Any:
    import numpy as np

    return np.full(RESULT_BYTES // 8, float(number))


def look(array: Any, number: int) -> float:
    return float(array[number])


def _best(run: Callable[[], Any], times: int) -> float:
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return min(found)


def _warm(run: Callable[[], Any]) -> float:
    for _ in range(20):
        run()
    found = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return median(found)


def _array() -> Any:
    import numpy as np

    return np.arange(ARRAY_BYTES // 8, dtype=float)


def ours() -> dict[str, float]:
    """Measure `Parallel`."""
    from parallel_core import Parallel, delayed, pmap

    good = [sqrt(x) for x in range(TASKS)]

    def run(tasks: Iterable[Any]) -> Any:
        return Parallel(n_jobs=2, backend="mpi")(tasks)

    def roots() -> None:
        assert run(delayed(sqrt)(x) for x in range(TASKS)) == good

    def mapped() -> None:
        assert list(pmap(sqrt, range(TASKS), n_jobs=2, backend="mpi")) == good

    def large() -> None:
        got = run(delayed(make)(number) for number in range(RESULTS))
        assert [one[0] for one in got] == list(range(RESULTS))

    array = _array()

    def share() -> None:
        got = run(delayed(look)(array, number) for number in range(ARRAY_TASKS))
        assert got == list(range(ARRAY_TASKS))

    run(delayed(abs)(x) for x in range(2))
    found = {"roots": _best(roots, 7) / TASKS}
    found["mapped"] = _best(mapped, 7) / TASKS
    found["warm"] = _warm(lambda: run(delayed(sqrt)(x) for x in (1, 2)))
    found["results"] = _best(large, 3) / RESULTS
    found["array"] = _best(share, 1) / ARRAY_TASKS
    return found


def futures() -> dict[str, float]:
    """Measure the executor of mpi4py."""
    from mpi4py.futures import MPIPoolExecutor

    good = [sqrt(x) for x in range(TASKS)]
    with MPIPoolExecutor() as executor:

        def roots(size: int) -> None:
            assert list(executor.map(sqrt, range(TASKS), chunksize=size)) == good

        def singly() -> None:
            assert list(executor.map(sqrt, range(SINGLY))) == good[:SINGLY]

        def large() -> None:
            got = [one[0] for one in executor.map(make, range(COPIED_RESULTS))]
            assert got == list(range(COPIED_RESULTS))

        array = _array()

        def copy() -> None:
            got = list(executor.map(look, [array] * COPIED_TASKS, range(COPIED_TASKS)))
            assert got == list(range(COPIED_TASKS))

        list(executor.map(sqrt, range(2)))
        found = {"roots": min(_best(lambda: roots(size), 5) for size in CHUNKS) / TASKS}  # noqa: B023 - called at once
        found["singly"] = _best(singly, 2) / SINGLY
        found["warm"] = _warm(lambda: list(executor.map(sqrt, (1, 2))))
        found["results"] = _best(large, 1) / COPIED_RESULTS
        found["array"] = _best(copy, 1) / COPIED_TASKS
    return found


def raw() -> dict[str, float]:
    """Measure a round trip to two ranks in messages of MPI, waited for with growing naps."""
    from mpi4py import MPI

    comm, status = MPI.COMM_WORLD, MPI.Status()

    def receive() -> Any:
        nap = 0.0
        while not comm.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            time.sleep(nap)
            nap = min(1e-3, nap + 1e-5)
        data = bytearray(status.Get_count(MPI.BYTE))
        comm.Recv([data, MPI.BYTE], status.Get_source())
        return pickle.loads(data)

    if comm.Get_rank():
        while (task := receive()) is not None:
            function, given = task
            comm.Send([pickle.dumps([function(x) for x in given]), MPI.BYTE], 0)
        return {}

    def trip() -> None:
        for rank in (1, 2):
            comm.Send([pickle.dumps((sqrt, [rank])), MPI.BYTE], rank)
        for _ in (1, 2):
            receive()

    found = {"warm": _warm(trip)}
    for rank in range(1, comm.Get_size()):
        comm.Send([pickle.dumps(None), MPI.BYTE], rank)
    return found


def main() -> None:
    """Measure the contestant that is named, and print what was found."""
    found = {"ours": ours, "futures": futures, "raw": raw}[sys.argv[1]]()
    if found:
        print("\n" + json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
