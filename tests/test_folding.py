"""The tree along which results are folded: one value, whichever way the positions were cut."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import pytest

from parallel_core.reduction import tree as folding
from parallel_core.reduction.tree import EMPTY, Fold, FoldFailed, FoldTree

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is in the extra 'test'")
given, st = hypothesis.given, hypothesis.strategies

pytestmark = pytest.mark.core


def part_of(values: list[Any], first: int, end: int, function: Callable[..., Any]) -> list[Any]:
    fold = Fold(function, first)
    for value in values[first:end]:
        fold.append(value)
    assert len(fold) == end - first
    return fold.take()


def in_parts(
    values: list[Any], cuts: list[int], order: Any, function: Callable[..., Any]
) -> FoldTree:
    edges = sorted({0, len(values), *(cut % (len(values) + 1) for cut in cuts)})
    parts = list(itertools.pairwise(edges))
    order.shuffle(parts)
    tree = FoldTree(function)
    for first, end in parts:
        tree.put(first, end - first, part_of(values, first, end, function))
    return tree


cuts = st.lists(st.integers(0, 10_000), max_size=12)
numbers = st.floats(-1e300, 1e300) | st.floats(-1, 1) | st.integers(-(2**70), 2**70)


@given(st.lists(st.text(max_size=3), max_size=70), cuts, st.randoms(use_true_random=False))
def test_order(texts: list[str], cuts: list[int], order: Any) -> None:
    expected = "".join(texts) if texts else EMPTY
    assert in_parts(texts, cuts, order, operator.add).result() == expected


@given(st.lists(numbers | st.just(EMPTY), max_size=200), cuts, st.randoms(use_true_random=False))
def test_bits(values: list[Any], cuts: list[int], order: Any) -> None:
    whole = in_parts(values, [], order, operator.add).result()
    parts = in_parts(values, cuts, order, operator.add).result()
    assert repr(parts) == repr(whole) and type(parts) is type(whole)


@given(st.lists(st.booleans(), max_size=70), cuts, st.randoms(use_true_random=False))
def test_skipped(kept: list[bool], cuts: list[int], order: Any) -> None:
    values = [(position,) if keep else EMPTY for position, keep in enumerate(kept)]
    expected = tuple(position for position, keep in enumerate(kept) if keep)
    assert in_parts(values, cuts, order, operator.add).result() == (expected or EMPTY)


@given(st.integers(0, 5000), st.integers(0, 3000))
def test_few_nodes_are_left(first: int, size: int) -> None:
    fold = Fold(operator.add, first)
    for number in range(size):
        fold.append(number)
    nodes = fold.take()
    assert len(nodes) <= 2 * math.ceil(math.log2(size + 1))
    assert sum(nodes) == sum(range(size))
    assert len(fold) == 0 and fold.take() == []


@given(st.lists(st.integers(), max_size=70), cuts)
def test_one_after_the_other(values: list[int], cuts: list[int]) -> None:
    """One fold that is emptied now and then, as a worker's is."""
    fold, tree = Fold(operator.add, 0), FoldTree(operator.add)
    first = 0
    for position, value in enumerate(values, 1):
        fold.append([value])
        if position in cuts:
            tree.put(first, len(fold), fold.take())
            first = position
    tree.put(first, len(fold), fold.take())
    assert tree.result() == (values or EMPTY)
    assert len(tree) == bin(len(values)).count("1")


def test_blocks_are_folded_as_single_values_are(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [math.sin(number) for number in range(5000)]
    whole = part_of(values, 3, 5000, operator.add)
    monkeypatch.setattr(folding, "SMALL", frozenset())
    assert part_of(values, 3, 5000, operator.add) == whole


@pytest.mark.parametrize("kind", [ValueError, StopIteration, KeyboardInterrupt])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_function_that_raises(kind: type[BaseException], as_text: bool) -> None:
    def function(left: Any, right: Any) -> Any:
        if int(left) == 6:
            raise kind
        return right

    def run() -> None:
        for number in range(4, 16):
            fold.append(str(number) if as_text else number)
        fold.take()

    fold = Fold(function, 4)
    with pytest.raises(FoldFailed) as caught:
        run()
    assert type(caught.value.error) is kind
    assert "task 6 and of task 7 of the call" in caught.value.words
