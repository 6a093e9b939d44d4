"""``python -m benchmarks.clusters``: dask and ray, beside joblib on them and their own calls.

Each engine runs on this machine with two processors. The contestants run in turns, as programs of
their own, for some rounds. Of each figure the median over the rounds is taken, and those of one run
are compared with each other only. joblib is measured within its ``with`` block.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

ENGINES = ("dask", "ray")
CONTESTANTS = ("ours", "joblib", "engine", "pool")
#: Work, what it is called, the other, and the bar for ours: at most so many times the other's.
_BARS = {
    "dask": [
        ("roots", "20 000 × sqrt", "joblib", 1 / 20),
        ("warm", "warm call of 2 tasks", "joblib", 1 / 40),
        ("millis", "2 000 × 1 ms, beside ideal", "ideal", 1.05),
        ("results", "20 results of 64 MiB", "joblib", 1.0),
        ("results", "the same, beside our local pool", "pool", 1.3),
        ("array", "64 tasks with one array of 256 MiB", "joblib", 1 / 3),
    ],
    "ray": [
        ("roots", "20 000 × sqrt", "joblib", 1 / 10),
        ("warm", "warm call of 2 tasks", "joblib", 1 / 20),
        ("warm", "the same, beside ray's own way", "engine", 1.0),
        ("millis", "2 000 × 1 ms, beside ideal", "ideal", 1.05),
        ("results", "20 results of 64 MiB", "joblib", 1.0),
        ("results", "the same, beside ray's own way", "engine", 1.3),
        ("array", "64 tasks with one array of 256 MiB", "joblib", 1 / 3),
    ],
}
Call = Callable[[Callable[..., Any], Iterable[Sequence[Any]]], list[Any]]


def pause(_: int) -> None:
    """Take a millisecond."""
    time.sleep(0.001)


def make(nbytes: int) -> Any:
    """Return an array of so many bytes."""
    import numpy

    return numpy.ones(nbytes // 8)


def part(array: Any, index: int) -> float:
    """Sum a part of an array."""
    return float(array[index * 1000 : (index + 1) * 1000].sum())


def apply(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function."""
    return function(*args)


@contextlib.contextmanager
def started(engine: str) -> Iterator[Any]:
    """Start an engine with two processors; yield dask's client, or ray."""
    if engine == "dask":
        import distributed

        with (
            distributed.LocalCluster(
                n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0"
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    else:
        import ray

        quietly = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init("local", num_cpus=2, **quietly)
        yield ray
        ray.shutdown()


@contextlib.contextmanager
def calls(engine: str, contestant: str, at: Any) -> Iterator[Call]:
    """Yield what makes a call of a contestant, within its ``with`` block if it has one."""
    if contestant == "joblib":
        import joblib

        if engine == "ray":
            from ray.util.joblib import register_ray

            register_ray()
        with joblib.parallel_config(backend=engine, n_jobs=2), joblib.Parallel() as parallel:
            yield lambda f, items: parallel(joblib.delayed(f)(*item) for item in items)
    elif contestant == "engine" and engine == "dask":
        yield lambda f, items: at.gather([at.submit(f, *item, pure=False) for item in items])
    elif contestant == "engine":
        task = at.remote(apply)  # which may be any function, unlike what `remote` takes
        yield lambda f, items: at.get([task.remote(f, *item) for item in items])
    else:
        from parallel_core import Parallel, delayed

        backend = engine if contestant == "ours" else "processes"
        with Parallel(n_jobs=2, backend=backend) as parallel:
            yield lambda f, items: parallel(delayed(f)(*item) for item in items)


def measure(call: Call, is_slow: bool) -> dict[str, float]:
    """Return the seconds of each work; an engine's own way gets no tasks by the thousand."""
    import numpy

    array = numpy.ones((256 << 20) // 8)
    works: dict[str, tuple[Callable[..., Any], list[tuple[Any, ...]]]] = {
        "roots": (sqrt, [(x,) for x in range(20_000)]),
        "millis": (pause, [(x,) for x in range(2000)]),
        "results": (make, [(64 << 20,)] * 20),
        "array": (part, [(array, x) for x in range(64)]),
    }
    if is_slow:
        works = {"results": works["results"]}
    call(pause, [(x,) for x in range(8)])
    began = time.perf_counter()
    for _ in range(200):  # a sleep takes longer than it should
        pause(0)
    found = {"ideal": (time.perf_counter() - began) * 2000 / 200 / 2}
    found["warm"] = median(timed(call, sqrt, [(1.0,), (4.0,)]) for _ in range(20))
    return {**found, **{name: timed(call, *work) for name, work in works.items()}}


def timed(call: Call, function: Callable[..., Any], items: list[tuple[Any, ...]]) -> float:
    """Return the seconds of a call, and let its results go."""
    began = time.perf_counter()
    results = call(function, items)
    seconds = time.perf_counter() - began
    assert len(results) == len(items)
    return seconds


def main(arguments: list[str]) -> int:
    """Measure all for so many rounds, three by default, and print tables; 1 if a bar is missed."""
    if len(arguments) == 2:
        engine, contestant = arguments
        with started(engine) as at, calls(engine, contestant, at) as call:
            print(json.dumps(measure(call, is_slow=contestant == "engine")))
        return 0
    rounds = int(arguments[0]) if arguments else 3
    are_met = True
    for engine in ENGINES:
        figures: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for contestant in CONTESTANTS:
                for work, seconds in _program(engine, contestant).items():
                    figures.setdefault((contestant, work), []).append(seconds)
        are_met &= _print_table(engine, {key: median(all_) for key, all_ in figures.items()})
    return 0 if are_met else 1


def _program(engine: str, contestant: str) -> dict[str, float]:
    """Run a contestant once, as a program."""
    home = Path(__file__).resolve().parents[1]
    path = os.pathsep.join([str(home), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "benchmarks.clusters", engine, contestant]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found: dict[str, float] = json.loads(line)
    return found


def _print_table(engine: str, medians: dict[tuple[str, str], float]) -> bool:
    print(f"\n| {engine} | parallel-core | the other | ratio | to reach | reached |")
    print("|---|---:|---:|---:|---|---|")
    are_met = True
    for work, words, other, bar in _BARS[engine]:
        ours = medians["ours", work]
        theirs = medians["ours", "ideal"] if other == "ideal" else medians[other, work]
        ratio = ours / theirs
        are_met = are_met and ratio <= bar
        reached = "met" if ratio <= bar else "**missed**"
        beside = f"{_say(theirs)} ({other})"
        print(f"| {words} | {_say(ours)} | {beside} | {ratio:.3g} | ≤ {bar:.3g} | {reached} |")
    return are_met


def _say(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
