"""Sweep the parameters of an epidemic while workers are killed, and the program stops halfway.

Run it with ``python examples/surviving_sweep.py --jobs 2 --values 12``::

    parameters ──▶ Parallel(journal=..., retries=..., seed=...) ──▶ workers ◀── SIGKILL
                        ▲                    │
    the next start ─────┴── journal ◀────────┴──▶ results, the same as undisturbed

The program runs the sweep three times: undisturbed with one job; with kills, until half of the
results have come; and with kills from the start again, where the journal has what is done.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from parallel_core import Parallel, delayed, effective_n_jobs, rng

SIZE = 128  # of the grid on which people live, each with four neighbours


class Epidemic(NamedTuple):
    """Daily probabilities: to be infected by an ill neighbour, and to recover."""

    infection: float
    recovery: float


def spread(epidemic: Epidemic) -> float:
    """Return the share of people who fall ill in the end, if five are ill at first."""
    draws = rng()
    ill = np.zeros((SIZE, SIZE), bool)
    ill[SIZE // 2, : 5 * 8 : 8] = True
    was_ill = ill.copy()
    while ill.any():
        moved = [np.roll(ill, step, axis) for step in (1, -1) for axis in (0, 1)]
        risk = 1 - (1 - epidemic.infection) ** np.sum(moved, axis=0)
        catches = ~was_ill & (draws.random(ill.shape) < risk)
        ill = (ill & (draws.random(ill.shape) >= epidemic.recovery)) | catches
        was_ill |= catches
    return float(was_ill.mean())


def spread_in_danger(epidemic: Epidemic, mark: Path | None) -> float:
    """Do the same, but kill this worker just before the end, unless the mark says it was done."""
    share = spread(epidemic)
    if mark is not None and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory is short
    return share


class DeathCounter:
    """Counts what happens to workers and tasks."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def notify(self, event: Any) -> None:
        """Count an event of the engine."""
        self.counts[type(event).__name__] += 1


def draw(shares: np.ndarray, values: list[np.ndarray], killed: set[int], path: Path) -> None:
    """Draw the share of each pair of parameters, and a cross where the worker was killed."""
    figure = Figure(figsize=(5.2, 4.2), layout="constrained")
    axis = figure.subplots()
    image = axis.pcolormesh(values[1], values[0], shares, cmap="inferno", vmin=0, vmax=1)
    figure.colorbar(image, label="share of people who fall ill")
    rows, columns = np.unravel_index(sorted(killed), shares.shape)
    axis.plot(values[1][columns], values[0][rows], "x", color="deepskyblue", label="worker killed")
    axis.set(xlabel="recovery, a day", ylabel="infection, a day and neighbour")
    axis.legend(loc="upper right")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Sweep undisturbed and in danger, compare, and draw."""
    parser = argparse.ArgumentParser(description="Sweep parameters while workers are killed.")
    parser.add_argument("-j", "--jobs", type=int, default=-1, help="workers (default: all cores)")
    parser.add_argument("--values", type=int, default=12, help="of each of the two parameters")
    parser.add_argument("--kill-every", type=int, default=12, help="one task of how many")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    values = [np.linspace(0.05, 0.5, options.values), np.linspace(0.1, 0.9, options.values)]
    sweep = [Epidemic(float(one), float(other)) for one in values[0] for other in values[1]]
    killed = set(range(1, len(sweep), options.kill_every))
    print(f"{len(sweep)} simulations on {SIZE * SIZE:,} people")

    began = time.perf_counter()
    undisturbed = Parallel(n_jobs=1, seed=1)(delayed(spread)(epidemic) for epidemic in sweep)
    seconds_alone = time.perf_counter() - began
    print(f"  one job, undisturbed {seconds_alone:7.2f} s", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        marks = [Path(folder, str(i)) if i in killed else None for i in range(len(sweep))]
        deaths = DeathCounter()
        common = {
            "n_jobs": effective_n_jobs(options.jobs),
            "retries": 2,
            "seed": 1,
            "journal": Path(folder, "journal"),
            "observers": [deaths],
        }
        began = time.perf_counter()
        tasks = [delayed(spread_in_danger)(*each) for each in zip(sweep, marks, strict=True)]
        results = Parallel(return_as="generator", **common)(tasks)
        first_half = list(islice(results, len(sweep) // 2))
        results.close()  # think of a power cut: only the journal is left
        parallel = Parallel(**common)
        shares = parallel(tasks)
        seconds = time.perf_counter() - began
    ratio = seconds_alone / seconds
    print(f"  {common['n_jobs']:2} workers, in danger {seconds:7.2f} s   {ratio:.2f} times as fast")
    print(f"  {deaths.counts['TaskRetried']} workers were killed, and their tasks ran again")
    print(f"  {len(first_half)} results had come when the program stopped")
    print(f"  {parallel.n_resumed_tasks} were in the journal when it started again")
    if shares != undisturbed:
        raise SystemExit("the results of the disturbed sweep DIFFER")
    print("  all results are those of the undisturbed sweep, to the last bit")
    grid = np.reshape(shares, (len(values[0]), len(values[1])))
    draw(grid, values, killed, options.output / "surviving_sweep.png")
    print(options.output / "surviving_sweep.png")


main()
