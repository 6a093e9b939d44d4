"""Random numbers that tests draw in workers, and what numpy makes of their seed by itself."""

from __future__ import annotations

from numpy.random import SeedSequence, default_rng

from parallel_core import rng

SEED = 1234
TASKS = 12


def draw(_: object = None) -> float:
    return float(rng().random())


def expected(seed: int = SEED, tasks: int = TASKS) -> list[float]:
    """Return what numpy makes of it by itself."""
    return [float(default_rng(SeedSequence(seed, spawn_key=(n,))).random()) for n in range(tasks)]
