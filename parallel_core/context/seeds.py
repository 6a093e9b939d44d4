"""A stream of random numbers for each task.

::

    seed of the call ──(entropy, spawn_key)──▶ task i: (..., i) ──▶ a Generator, by `rng()`
                                                 │
                                                 ├─▶ `random` and `numpy.random`, see `legacy`
                                                 └─▶ the k-th call within it: (..., i, NESTED, k)

The stream of a task follows from the seed of its call and its position alone, so it is the same
wherever and whenever the task runs, and however often.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from memmapping.modules import loaded
from parallel_core.context.item import ContextItem, Part, Place

if TYPE_CHECKING:
    import numpy as np

#: In a spawn key: what follows is the number of a call within a task, not of a spawned stream.
NESTED = 0xFFFFFFFF
_POOL_SIZE = 4


class Seed(NamedTuple):
    """What a `numpy.random.SeedSequence` is made of."""

    entropy: int | tuple[int, ...]  #: what the user gave
    spawn_key: tuple[int, ...] = ()  #: which of its descendants
    pool_size: int = _POOL_SIZE  #: how many words it mixes

    def child(self, *key: int) -> Seed:
        """Return the descendant with that key."""
        return self._replace(spawn_key=(*self.spawn_key, *key))

    def sequence(self) -> np.random.SeedSequence:
        """Return numpy's object."""
        from numpy.random import SeedSequence

        return SeedSequence(self.entropy, spawn_key=self.spawn_key, pool_size=self.pool_size)


def check_seed(given: Any) -> Seed | None:
    """Return what was given as `seed`, or None; else raise TypeError or ValueError."""
    if given is None or isinstance(given, Seed):
        return given
    numpy_random = loaded("numpy.random")
    if numpy_random is not None and isinstance(given, numpy_random.SeedSequence):
        entropy = given.entropy
        if not isinstance(entropy, int):
            entropy = _whole_numbers(entropy, given)
        return Seed(entropy, tuple(map(int, given.spawn_key)), given.pool_size)
    if isinstance(given, (str, bytes, dict, set, frozenset)):
        raise TypeError(_wrong(given))
    if hasattr(given, "__iter__") and getattr(given, "ndim", 1) == 1:
        return Seed(_whole_numbers(given, given))
    return Seed(_whole_number(given, given))


def _whole_numbers(numbers: Any, given: Any) -> tuple[int, ...]:
    found = tuple(_whole_number(number, given) for number in numbers)
    if not found:
        raise ValueError(f"seed must not be empty, as {given!r} is")
    return found


def _whole_number(number: Any, given: Any) -> int:
    if isinstance(number, bool) or type(number).__name__ in ("bool_", "bool"):
        raise TypeError(_wrong(given))
    try:
        whole = operator.index(number)
    except TypeError:
        raise TypeError(_wrong(given)) from None
    if whole < 0:
        raise ValueError(f"seed must not be negative, as {given!r} is")
    return whole


def _wrong(given: Any) -> str:
    words = (
        "seed must be a whole number, a sequence of them, a numpy.random.SeedSequence or None, "
        f"not {given!r}"
    )
    if hasattr(given, "bit_generator") or hasattr(given, "seed_seq") or hasattr(given, "randint"):
        words += ": draw a number from it, and give that"
    return words


class Streams:
    """The streams of random numbers of the tasks of one batch, in one thread."""

    __slots__ = ("_calls", "_calls_of", "position", "seed", "seeds_globals")

    def __init__(self, seed: Seed, position: Callable[[], int], seeds_globals: bool) -> None:
        self.seed = seed
        self.position = position
        self.seeds_globals = seeds_globals
        self.begin_task()

    def begin_task(self) -> None:
        """Count calls from 0, as from each new position on."""
        self._calls = itertools.count()
        self._calls_of = -1

    def next_call(self) -> Seed:
        """Return the seed of the next call within the task that is running.

        A context variable could not count them: what awaits a call has a context of its own.
        """
        position = self.position()
        if position != self._calls_of:
            self._calls, self._calls_of = itertools.count(), position
        return self.seed.child(position, NESTED, next(self._calls))


class _Counts(Part):
    """Has each attempt at a task count its calls from 0."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        self._streams.begin_task()
        return function


_streams: ContextVar[Streams | None] = ContextVar("parallel_core_streams", default=None)
# Each task has a copy of its own of the context, and so of this:
_generator: ContextVar[Any] = ContextVar("parallel_core_generator", default=None)


def rng() -> np.random.Generator:
    """Return the random generator of the running task.

    It is the same object until the end of the task. Its numbers depend only on the `seed` of the
    call and the position of the task. They do not depend on `n_jobs`, the backend, the batch size,
    or earlier attempts at the task.

    Returns
    -------
    numpy.random.Generator
        Generator made from ``SeedSequence(seed, spawn_key=(position,))``.

    Raises
    ------
    RuntimeError
        If there is no generator: outside of a task, in a call without `seed`, or in a thread that
        the task has started without a copy of its context.

    Examples
    --------
    >>> from parallel_core import Parallel, delayed, rng
    >>> def roll():
    ...     return int(rng().integers(1, 7))
    >>> first = Parallel(n_jobs=2, seed=1)(delayed(roll)() for _ in range(6))
    >>> first == Parallel(n_jobs=1, seed=1)(delayed(roll)() for _ in range(6))
    True
    """
    generator = _generator.get()
    if generator is None:
        streams = _streams.get()
        if streams is None:
            raise RuntimeError(
                "there is no random generator here: rng() is for tasks of a call with a seed, "
                "as in Parallel(n_jobs=2, seed=1234)(...); elsewhere take "
                "numpy.random.default_rng(). In a thread that a task has started, call it "
                "in the task and hand over what it returns"
            )
        from numpy.random import default_rng

        generator = default_rng(streams.seed.child(streams.position()).sequence())
        _generator.set(generator)
    found: np.random.Generator = generator
    return found


def seed_of_call(given: Seed | None) -> Seeded | None:
    """Return the item for a call with the seed `given`; by default what its own task leads to."""
    streams = _streams.get()
    if given is None:
        if streams is None:
            return None
        given = streams.next_call()
    return Seeded(given, streams is None or streams.seeds_globals)


def leave_streams() -> None:
    """Have nothing that begins in this context follow from the task around it."""
    _streams.set(None)
    _generator.set(None)


class Seeded(ContextItem):
    """The seed of a call."""

    name = "seed"
    places = tuple(Place)

    def __init__(self, seed: Seed, seeds_globals: bool) -> None:
        self.seed = seed
        # Whether the generators of the whole process may be seeded around a task: not where other
        # threads run tasks.
        self._seeds_globals = seeds_globals

    def begin(self, position: Callable[[], int], place: Place) -> Part | None:
        """Have `rng` work, and seed what is global in this process at each task."""
        is_own = place in (Place.WORKER, Place.FOREIGN_PROCESS)
        seeds_globals = is_own or (place is Place.CALLER and self._seeds_globals)
        streams = Streams(self.seed, position, seeds_globals)
        _streams.set(streams)
        _generator.set(None)
        if not seeds_globals:
            return _Counts(streams)
        from parallel_core.context.legacy import GlobalSeeds

        root = repr((self.seed.entropy, self.seed.spawn_key)).encode()
        return GlobalSeeds(root, position)
