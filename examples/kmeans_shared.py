"""Find clusters of points in one large array that all workers share.

Run it with ``python examples/kmeans_shared.py --jobs 2 --mib 1024``::

    memmapping.empty ──▶ tasks fill their rows in place
                               │
    centres ──▶ Parallel(reduce=numpy.add)(delayed(assign)(points, rows, centres)) ──▶ new centres
       ▲                                                                                  │
       └──────────────────── until they rest ─────────────────────┴──▶ kmeans_shared.png ◀┘

No point is copied or sent. A task returns a few hundred numbers, workers add them up, and one
small array comes back from each round.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import memmapping
from parallel_core import Parallel, delayed, effective_n_jobs, rng

COLUMNS = 8
BLOCK = 131_072  # points of a task: 4 MiB, which fit into a cache


def fill(points: np.ndarray, rows: slice, centres: np.ndarray) -> None:
    """Put points around random centres into some rows, in place."""
    block = points[rows]
    rng().standard_normal(out=block, dtype=np.float32)
    block += centres[rng().integers(len(centres), size=len(block))]


def assign(points: np.ndarray, rows: slice, centres: np.ndarray) -> np.ndarray:
    """Return for each centre the sum of its points, their number and their squared distance."""
    block = points[rows]
    distances = (centres**2).sum(axis=1) - 2 * (block @ centres.T)  # without the points' own part
    nearest = distances.argmin(axis=1)
    squares = np.einsum("ij,ij->i", block, block) + distances.min(axis=1)
    is_own = (nearest == np.arange(len(centres))[:, np.newaxis]).astype(np.float32)
    found = np.column_stack([is_own @ block, is_own.sum(axis=1), is_own @ squares])
    return found.astype(np.float64)


def far_apart(points: np.ndarray, clusters: int) -> np.ndarray:
    """Return points of a sample to start from, each the farthest from those before it."""
    chosen = [points[0]]
    for _ in range(clusters - 1):
        nearest = np.min([((points - one) ** 2).sum(axis=1) for one in chosen], axis=0)
        chosen.append(points[nearest.argmax()])
    return np.array(chosen)


def cluster(points: np.ndarray, start: np.ndarray, rounds: int, jobs: int) -> list[np.ndarray]:
    """Return the centres of each round, until they move no more."""
    blocks = [slice(first, first + BLOCK) for first in range(0, len(points), BLOCK)]
    path = [start]
    with Parallel(n_jobs=jobs, reduce=np.add) as parallel:
        while len(path) <= rounds:
            found = parallel(delayed(assign)(points, rows, path[-1]) for rows in blocks)
            counts = np.maximum(found[:, COLUMNS, np.newaxis], 1)
            path.append((found[:, :COLUMNS] / counts).astype(np.float32))
            if np.abs(path[-1] - path[-2]).max() < 1e-3:
                break
    return path


def draw(sample: np.ndarray, path: list[np.ndarray], output: Path) -> None:
    """Draw how dense points are in two of the columns, and how centres moved."""
    figure = Figure(figsize=(5, 4.4), layout="constrained")
    axis = figure.subplots()
    axis.hist2d(sample[:, 0], sample[:, 1], bins=120, cmap="Greys", cmin=1)
    moves = np.array(path)
    axis.plot(moves[:, :, 0], moves[:, :, 1], "-", linewidth=1)
    axis.plot(moves[-1, :, 0], moves[-1, :, 1], "r+", markersize=14, label="centres")
    axis.set(xlabel="column 0", ylabel="column 1", title=f"{len(path) - 1} rounds")
    axis.legend()
    figure.savefig(output, dpi=100)


def main() -> None:
    """Cluster with one job and with several, compare, and draw."""
    parser = argparse.ArgumentParser(description="Find clusters in one large shared array.")
    parser.add_argument("-j", "--jobs", type=int, default=-1, help="workers (default: all cores)")
    parser.add_argument("--mib", type=int, default=256, help="size of the array (1024: 1 GiB)")
    parser.add_argument("--clusters", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20, help="at most")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    points = memmapping.empty((options.mib * 2**20 // 4 // COLUMNS, COLUMNS), np.float32)
    middle = np.random.default_rng(5)
    centres = middle.uniform(-4, 4, (options.clusters, COLUMNS)).astype(np.float32)
    began = time.perf_counter()
    Parallel(n_jobs=options.jobs, seed=7)(
        delayed(fill)(points, slice(first, first + BLOCK), centres)
        for first in range(0, len(points), BLOCK)
    )
    print(f"{len(points):,} points of {COLUMNS} numbers in shared memory, {options.mib} MiB")
    print(f"  filled by the workers {time.perf_counter() - began:7.2f} s", flush=True)

    sample = points[:: max(1, len(points) // 50_000)]
    start = far_apart(sample, options.clusters)
    paths, seconds = [], []
    for jobs in (1, options.jobs):
        began = time.perf_counter()
        paths.append(cluster(points, start, options.rounds, jobs))
        seconds.append(time.perf_counter() - began)
    workers, ratio = effective_n_jobs(options.jobs), seconds[0] / seconds[1]
    print(f"  one job               {seconds[0]:7.2f} s")
    print(f"  {workers:2} workers            {seconds[1]:7.2f} s   {ratio:.2f} times as fast")
    if not np.allclose(paths[0][-1], paths[1][-1], atol=1e-3):
        raise SystemExit("the centres of one job and of several DIFFER")
    found = paths[1][-1]
    error = np.sqrt(((found[:, np.newaxis] - centres) ** 2).sum(axis=2)).min(axis=0).max()
    print(f"  {len(paths[1]) - 1} rounds; the true centres are met within {error:.4f}")
    draw(sample, paths[1], options.output / "kmeans_shared.png")
    print(options.output / "kmeans_shared.png")


main()
