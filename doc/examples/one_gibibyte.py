"""Standardise and correlate 1 GiB of data on several cores, and check the result with numpy."""

import argparse
import os
import time

import numpy as np

import memmapping
from parallel_core import Parallel, cpu_count, delayed

COLUMNS = 256


def sums(data, rows):
    """Return for each column the sum, and the sum of squares, of some rows."""
    part = data[rows]
    return part.sum(axis=0), np.einsum("ij,ij->j", part, part)


def standardise(data, out, rows, mean, deviation):
    """Write some rows in standard form to where they belong; return their products."""
    part = out[rows]
    np.subtract(data[rows], mean, out=part)
    part /= deviation
    return part.T @ part  # 512 KiB


def analyse(parallel, data, out, clock):
    """Fill `out` with `data` in standard form; return mean, deviation and correlation."""
    n = len(data)
    blocks = [slice(first, first + n // 64) for first in range(0, n, n // 64)]

    found = parallel(delayed(sums)(data, rows) for rows in blocks)
    totals, squares = zip(*found, strict=True)
    mean = sum(totals) / n
    deviation = np.sqrt(sum(squares) / n - mean**2)
    clock.tell("  sums of 64 blocks")

    products = parallel(delayed(standardise)(data, out, rows, mean, deviation) for rows in blocks)
    correlation = sum(products) / n
    clock.tell("  standard form in place, and 64 products")
    return mean, deviation, correlation


def make(n):
    """Return an array in which columns 0 and 1, 2 and 3, and so on have much in common."""
    data = np.random.default_rng(0).random((n, COLUMNS))
    data[:, 1::2] += data[:, ::2]
    return data


def check(data, out, mean, deviation, correlation):
    """Compare with numpy, which goes over all the data in one process."""
    np.testing.assert_allclose(mean, data.mean(axis=0))
    some = slice(0, 32)
    np.testing.assert_allclose(deviation[some], data[:, some].std(axis=0))
    np.testing.assert_allclose(
        correlation[some, some], np.corrcoef(data[:, some], rowvar=False), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(out[-1000:], (data[-1000:] - mean) / deviation)


def memory():
    """Return the memory of this process and its workers in GiB, shared pages counted once."""
    pids = [os.getpid()]
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children") as file:
            pids += map(int, file.read().split())
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total / 2**20


class Clock:
    """Prints what was done and how long it took."""

    def __init__(self):
        self.began = time.perf_counter()

    def tell(self, what):
        seconds = time.perf_counter() - self.began
        print(f"{what:<44} {seconds:6.2f} s {memory():7.2f} GiB", flush=True)
        self.began = time.perf_counter()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the array")
    parser.add_argument("--jobs", type=int, default=-1, help="workers; -1: one for each core")
    options = parser.parse_args(arguments)
    n = options.mib * 2**20 // (8 * COLUMNS)

    clock = Clock()
    data = make(n)
    clock.tell(f"an ordinary array of {data.nbytes / 2**20:.0f} MiB")
    out = memmapping.empty_like(data)
    clock.tell("an output in shared memory")

    with Parallel(n_jobs=options.jobs) as parallel:
        parallel(delayed(sums)(data[:64], slice(0, 1)) for _ in range(2 * cpu_count()))
        clock.tell("workers are there")
        print("the first time: the array is copied once")
        found = analyse(parallel, data, out, clock)
        print("again, unchanged: nothing is copied")
        again = analyse(parallel, data, out, clock)
        data[n // 2, 7] = 1e6
        print("one element changed: what changed is copied")
        changed = analyse(parallel, data, out, clock)

    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))
    print(f"mean of column 7 before and after: {found[0][7]:.3f}, {changed[0][7]:.3f}")
    print(f"correlation of columns 0 and 1: {changed[2][0, 1]:.3f}")
    clock = Clock()
    check(data, out, *changed)
    clock.tell("numpy, in one process, agrees")


if __name__ == "__main__":
    main()
