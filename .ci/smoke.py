"""A short walk through an installed parallel-core, with its required dependencies and nothing else.

Run it with ``python -I``, in an environment into which the wheel was installed, and in a folder
that is not the repository. It prints nothing if all is well.
"""

import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module, metadata
from pathlib import Path

import numpy as np

import memmapping
import parallel_core
from parallel_core import Parallel, TaskTimeoutError, WorkerPool, delayed, get_executor, pmap, rng

REQUIRED = {"parallel-core", "loky", "cloudpickle", "numpy", "threadpoolctl"}
TOOLS = {"pip", "setuptools"}  # that `python -m venv` puts there
bound = 10


def total(array, row):
    """Use what a worker has to get: a shared array, and a global of this script."""
    return float(array[row].sum()) + bound


def environment_is_empty():
    """Nothing was installed besides, and what is used is what was installed."""
    found = {each.metadata["Name"].lower() for each in metadata.distributions()}
    assert found - TOOLS == REQUIRED, found
    for package in (parallel_core, memmapping):
        place = Path(package.__file__)
        assert place.is_relative_to(sys.prefix), place
        assert (place.parent / "py.typed").is_file()
    assert metadata.version("parallel-core") == parallel_core.__version__


def names_are_there():
    """Every public name can be had, without what is optional."""
    for package in (parallel_core, memmapping):
        for name in package.__all__:
            getattr(package, name)
    for name in ("joblib", "multiprocessing", "mpire"):
        import_module(f"parallel_core.compat.{name}")


def calls_work():
    """Each kind of worker runs tasks, and failures are those of tasks."""
    array = np.arange(400_000.0).reshape(4, 100_000)
    expected = [float(row.sum()) + bound for row in array]
    for backend in ("processes", "threading", "sequential", "loky", "multiprocessing"):
        parallel = Parallel(n_jobs=2, backend=backend)
        assert parallel(delayed(total)(array, row) for row in range(4)) == expected, backend
    draws = [
        Parallel(n_jobs=n, seed=1)(delayed(lambda: rng().random())() for _ in range(4))
        for n in (1, 2)
    ]
    assert draws[0] == draws[1]
    values = Parallel(n_jobs=2, on_error="return")(delayed(divmod)(1, x) for x in (1, 0))
    assert values[0] == (1, 0) and isinstance(values[1], ZeroDivisionError)
    [late] = Parallel(n_jobs=2, on_error="return", timeout=0.3)([delayed(time.sleep)(60)])
    assert isinstance(late, TaskTimeoutError)
    [died] = Parallel(n_jobs=2, on_error="return")([delayed(os._exit)(3)])
    assert died.exitcode == 3, died


def other_doors_work():
    """Pools, executors, journals and arrays in shared memory."""
    assert pmap(abs, [-1, 2], n_jobs=2) == [1, 2]
    with WorkerPool(n_jobs=2) as pool:
        assert pool.map(abs, [-1, 2]) == [1, 2]
    with get_executor(n_jobs=2) as executor:
        assert executor.submit(pow, 2, 5).result() == 32
    with tempfile.TemporaryDirectory() as folder:
        runs = [Parallel(n_jobs=2, journal=f"{folder}/journal") for _ in range(2)]
        assert [run(delayed(abs)(-n) for n in range(5)) for run in runs] == [[*range(5)]] * 2
        assert runs[1].n_resumed_tasks == 5
    out = memmapping.zeros(3)
    Parallel(n_jobs=2)(delayed(np.add)(1, n, out[n : n + 1]) for n in range(3))
    assert out.tolist() == [1, 2, 3]


def command_line_works():
    """The command is on the path of the environment, and does its work."""
    command = os.path.join(os.path.dirname(sys.executable), "parallel-core")

    def run(*arguments, given=""):
        return subprocess.run(
            [command, *arguments], input=given, capture_output=True, text=True, check=True
        ).stdout

    assert run("--version") == f"parallel-core {parallel_core.__version__}\n"
    assert run("map", "--jobs", "2", "builtins:len", given="a\nbcd\n") == "1\n3\n"
    assert "parallel-core" in run("completion", "bash")
    assert "cores" in run("info")


def main():
    """Take each step."""
    for step in (
        environment_is_empty,
        names_are_there,
        calls_work,
        other_doors_work,
        command_line_works,
    ):
        try:
            step()
        except BaseException:
            print(f"smoke test: {step.__name__} FAILED, with Python {sys.version}", file=sys.stderr)
            raise
    parallel_core.shutdown_workers()


# From Python 3.14 on, workers of "multiprocessing" import this file.
if __name__ == "__main__":
    main()
