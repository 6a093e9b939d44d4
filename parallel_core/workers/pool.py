"""Workers are leased to a call and go back warm.

A lease never waits: it takes idle workers of its key, and gives birth to what is missing. So two calls
from two threads have workers of their own, and nobody can wait for somebody who waits for him.

States of a worker: *leased* (one call has it), *idle* (kept here), *gone*. It goes from leased to
idle only with nothing outstanding; from idle to gone when it was left alone for its time (it leaves by
itself), when neither this call nor the one before needed as many, when a module that it may have
imported was reloaded here, or at the end of the process.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable

from parallel_core.workers.birth import BirthError, Spawn, give_birth
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.reloads import reloads
from parallel_core.workers.setup import Surroundings, WorkerKey
from parallel_core.workers.worker import Worker

_PATIENCE = 0.5  # seconds in which a worker that was asked to leave may run its atexit handlers


class WorkerPool:
    """All workers of this process that nobody else needs to know about."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[WorkerKey, list[Worker]] = {}
        self._all: set[Worker] = set()
        self._leased = 0
        self._peak = 0
        self._peak_before = 0

    def lease(
        self, wanted: int, key: WorkerKey, surroundings: Surroundings, spawn: Spawn | None = None
    ) -> list[Worker]:
        """Return `wanted` workers, fewer when the system refuses to start so many.

        Raises
        ------
        BirthError
            When not even one can be had.
        """
        current = reloads()
        with self._lock:
            unneeded = self._note_demand(wanted, key)
            for idle in self._idle.values():
                unneeded += [worker for worker in idle if worker.reloads != current]
                idle[:] = [worker for worker in idle if worker.reloads == current]
            mine = self._idle.setdefault(key, [])
            taken, mine[:] = mine[-wanted:], mine[:-wanted]
        workers = []
        for worker in taken:
            if self._told(worker, surroundings):
                workers.append(worker)
            else:
                unneeded.append(worker)
        self._dismiss(unneeded)
        try:
            while len(workers) < wanted:
                workers.append(self.replace(key, surroundings, spawn))
        except BirthError:
            if not workers:
                self.release([], wanted)
                raise
        return workers

    def replace(
        self, key: WorkerKey, surroundings: Surroundings, spawn: Spawn | None = None
    ) -> Worker:
        """Return a new worker, for a lease that is short of one."""
        worker = give_birth(key, surroundings, spawn)
        worker.reloads = reloads()
        with self._lock:
            self._all.add(worker)
        return worker

    def release(self, workers: list[Worker], wanted: int) -> None:
        """Take back the idle `workers` of a lease of `wanted`."""
        with self._lock:
            self._leased -= wanted
            for worker in workers:
                self._idle.setdefault(worker.key, []).append(worker)

    def discard(self, workers: list[Worker]) -> None:
        """Kill `workers` and let go of them."""
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.end()
        with self._lock:
            self._all.difference_update(workers)

    def shutdown(self) -> int:
        """End all idle workers now; return how many there were."""
        with self._lock:
            idle = [worker for workers in self._idle.values() for worker in workers]
            self._idle.clear()
        self._dismiss(idle)
        return len(idle)

    def idle_pids(self) -> list[int]:
        """Return the process numbers of the workers that wait for a call."""
        with self._lock:
            return [worker.pid for workers in self._idle.values() for worker in workers]

    def close(self) -> None:
        """At the end of the process: idle workers leave, others are killed."""
        self.shutdown()
        self.discard(list(self._all))

    def forget(self) -> None:
        """In a forked child: the workers are our parent's; so close every descriptor of theirs."""
        workers = list(self._all)
        self._reset()  # the lock may be held by a thread that is not here
        for worker in workers:
            worker.abandon()

    def _note_demand(self, wanted: int, key: WorkerKey) -> list[Worker]:
        """Count what is in use; return idle workers that neither this round nor the last needed."""
        if self._leased == 0:
            self._peak_before, self._peak = self._peak, 0
        self._leased += wanted
        self._peak = max(self._peak, self._leased)
        keep = max(self._peak, self._peak_before)
        surplus: list[Worker] = []
        spare = sum(map(len, self._idle.values())) + self._leased - wanted - keep
        others = [idle for idle_key, idle in self._idle.items() if idle_key != key]
        for idle in [*others, self._idle.get(key, [])]:
            while idle and spare > 0:
                surplus.append(idle.pop(0))
                spare -= 1
        return surplus

    def _told(self, worker: Worker, surroundings: Surroundings) -> bool:
        try:
            worker.tell(surroundings)
        except ChannelClosed:
            return False
        return True

    def _dismiss(self, workers: list[Worker]) -> None:
        """Let idle `workers` leave in peace."""
        for worker in workers:
            worker.leave()
        for worker in workers:
            worker.end(_PATIENCE)
        with self._lock:
            self._all.difference_update(workers)


_pool: WorkerPool | None = None
_pool_lock = threading.Lock()


def worker_pool() -> WorkerPool:
    """Return the pool of this process."""
    global _pool
    if _pool is None:
        with _pool_lock:
            if _pool is None:
                _pool = WorkerPool()
                atexit.register(_pool.close)
                _after_fork_in_child(_pool.forget)
    return _pool


def _after_fork_in_child(function: Callable[[], None]) -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def shutdown_workers() -> int:
    """End the idle workers of this process now, and free what they hold.

    Calls that are running keep theirs. The next call starts new workers.

    Returns
    -------
    int
        How many workers were ended.

    Examples
    --------
    >>> from parallel_core import Parallel, delayed, shutdown_workers
    >>> Parallel(n_jobs=2)(delayed(abs)(x) for x in (-1, -2))
    [1, 2]
    >>> shutdown_workers() >= 2
    True
    """
    return _pool.shutdown() if _pool is not None else 0
