"""What `benchmarks.chaos` has found, each as small as it can be."""

from __future__ import annotations

import pytest

from parallel_core import Parallel, delayed


def refuse(x: int) -> int:
    raise ValueError(x)


@pytest.mark.core
@pytest.mark.parametrize("return_as", ["generator", "generator_unordered"])
def test_a_consumer_that_is_faster_than_the_end_of_a_batch(return_as: str) -> None:
    """A failure is told at once, and taken, before its batch is over: that batch still counts."""
    parallel = Parallel(2, return_as=return_as, pre_dispatch=1, batch_size=1, on_error="return")
    for _ in range(5):
        assert len(list(parallel(delayed(refuse)(x) for x in range(50)))) == 50
