"""How many workers of each kind calls have wanted of late: so many are worth keeping."""

from __future__ import annotations

from parallel_core.workers.setup import WorkerKey

_KINDS = 4  # of workers that are kept warm, those leased not counted


class _OfKind:
    """How many workers of a kind are leased, and were at most in this round and the one before.

    A round lasts from a lease of workers of the kind while nobody had any to the next such lease.
    """

    __slots__ = ("leased", "peak", "peak_before")

    def __init__(self) -> None:
        self.leased = self.peak = self.peak_before = 0


class Demand:
    """The demand for workers, by their kind; whoever asks has the lock of the pool."""

    def __init__(self) -> None:
        self._kinds: dict[WorkerKey, _OfKind] = {}  # the one that was wanted last comes last

    def lease(self, wanted: int, key: WorkerKey, idle: int) -> int:
        """Count `wanted` as leased; return how many of the `idle` two rounds did not need."""
        demand = self._kinds.pop(key, None) or _OfKind()
        self._kinds[key] = demand
        if demand.leased == 0:
            demand.peak_before, demand.peak = demand.peak, 0
        before = demand.leased
        demand.leased += wanted
        demand.peak = max(demand.peak, demand.leased)
        return before + idle - max(demand.peak, demand.peak_before)

    def leased(self) -> list[int]:
        """Return how many workers of each known kind are leased."""
        return [kind.leased for kind in self._kinds.values()]

    def give_back(self, n_workers: int, key: WorkerKey) -> None:
        """Count so many as leased no longer."""
        if key in self._kinds:
            self._kinds[key].leased -= n_workers

    def forget(self, key: WorkerKey) -> None:
        """Forget a kind of which there will be no more workers."""
        self._kinds.pop(key, None)

    def drop_old(self) -> list[WorkerKey]:
        """Forget the kinds of which no worker is kept any more, and return them."""
        old = [key for key in list(self._kinds)[:-_KINDS] if not self._kinds[key].leased]
        for key in old:
            del self._kinds[key]
        return old
