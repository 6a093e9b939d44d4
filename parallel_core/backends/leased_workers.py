"""The workers of one session: leased from the pool, numbered, replaced, and given back."""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterator, Sequence

from memmapping.interrupts import HeldInterrupts
from parallel_core.backends.base import LONGEST_WAIT
from parallel_core.backends.session_setup import SessionSetup
from parallel_core.workers.bell import Bell
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.pool import WorkerPool
from parallel_core.workers.reloads import reloads
from parallel_core.workers.sent import Source
from parallel_core.workers.setup import ProcessState, WorkerKey, process_state
from parallel_core.workers.starting import Spawn
from parallel_core.workers.worker import Worker

_SPIN_SECONDS = 1e-4  # waking up takes as long as a tiny call: so look, before going to sleep


class LeasedWorkers:
    """Up to `n_jobs` workers of the kind `key`, told the `state` of this process.

    Each has a slot, which its successor inherits. `n_wanted` are to be there; fewer when the system
    has refused to start so many. With a `setup`, some may be of kinds of their own.
    """

    def __init__(
        self,
        pool: WorkerPool,
        n_jobs: int,
        key: WorkerKey,
        state: ProcessState,
        spawn: Spawn | None = None,
        setup: SessionSetup | None = None,
    ) -> None:
        self._pool = pool
        self._n_jobs = n_jobs
        self._spawn = spawn
        self._setup = setup
        self._key = key
        self._slot_keys: Sequence[WorkerKey] | None = None
        self._idle_seconds = state.idle_seconds
        if setup is not None:
            self._key = setup.key(key)
            self._slot_keys = setup.slot_keys(self._key, n_jobs)
            state = state._replace(idle_seconds=None)  # for what it keeps, a worker is to stay
        self._state = state
        self._bell: Bell | None = None
        self.spins = True  #: whether to look before going to sleep
        if self._slot_keys is None:
            self._group = pool.lease(n_jobs, self._key, state, spawn)
        else:
            self._group = pool.lease_slots(self._slot_keys, state, spawn)
        self.all = self._group.workers
        self.n_wanted = len(self.all)
        try:
            for number, worker in enumerate(self.all):
                self._give_slot(worker, number if self._slot_keys is None else worker.slot)
        except BaseException:
            self.give_back(clean=True)
            raise

    def _give_slot(self, worker: Worker, slot: int) -> None:
        worker.take_slot(slot)
        if self._setup is not None:
            self._setup.pin(worker)

    @property
    def is_short(self) -> bool:
        """Whether there is to be another worker."""
        return len(self.all) < self.n_wanted

    @property
    def max_memory(self) -> int | None:
        """Over how many bytes a worker is to be replaced."""
        return self._state.max_memory

    def of(self, slot: int) -> Worker | None:
        """Return the worker of `slot`, if it has one."""
        return next((worker for worker in self.all if worker.slot == slot), None)

    def start(self, slot: int | None = None) -> Worker:
        """Start a worker for `slot`, or for any that has none.

        Raises
        ------
        WorkerStartError
            When the system refuses; then no more are wanted than there are.
        """
        if slot is None:
            taken = {worker.slot for worker in self.all}
            slot = next(slot for slot in range(self._n_jobs) if slot not in taken)
        key = self._key if self._slot_keys is None else self._slot_keys[slot]
        try:
            with HeldInterrupts():
                fresh = self._pool.replace(key, self._state, self._spawn)
                fresh.key = key
                self._group.add(fresh)
                self._give_slot(fresh, slot)
        except OSError:
            self.n_wanted = len(self.all)
            raise
        return fresh

    # --- events ---

    def poll(self, seconds: float | None) -> Iterator[tuple[Worker, Source, int]]:
        """Wait for workers to have something to say, to have room, or to end; or for the bell.

        Without going to sleep while answers come at once.
        """
        poll = self._group.poller.poll
        if self.spins and seconds != 0:
            self.spins = False
            until = time.monotonic() + _SPIN_SECONDS
            while time.monotonic() < until:
                if events := poll(0):
                    self.spins = True
                    return self._sources(events)
        limit = None if seconds is None else max(0.0, min(seconds, LONGEST_WAIT)) * 1000
        return self._sources(poll(limit))

    def _sources(self, events: list[tuple[int, int]]) -> Iterator[tuple[Worker, Source, int]]:
        by_descriptor = self._group.by_descriptor
        for descriptor, event in events:
            if self._bell is not None and descriptor == self._bell.descriptor:
                self._bell.clear()
            elif descriptor in by_descriptor:  # else let go of by an event before this one
                yield (*by_descriptor[descriptor], event)

    def ring(self) -> Callable[[], None]:
        """Return what has `poll` return; any thread may call it."""
        if self._bell is None:
            self._bell = Bell()
            self._group.poller.register(self._bell.descriptor, select.POLLIN)
        return self._bell.ring

    def want_to_send(self, worker: Worker, wanted: bool) -> None:
        """Wait for room in the channel of `worker`, or no longer."""
        self._group.want_to_send(worker, wanted)

    def ignore(self, worker: Worker, wanted: Source) -> None:
        """Wait no longer for what a `Source` of `worker` tells."""
        for descriptor, source in worker.descriptors().items():
            if source is wanted:
                self._group.unwatch(descriptor)

    def listen(self) -> None:
        """Have workers told of shared objects that are closed."""
        self._pool.listen()

    # --- leaving ---

    def discard(self, workers: Sequence[Worker]) -> None:
        """Kill `workers` and let go of them."""
        for worker in workers:
            self._group.remove(worker)
        self._pool.discard(list(workers))

    def retire(self, worker: Worker) -> None:
        """Let `worker`, which has nothing to do, leave in peace."""
        self._group.remove(worker)
        self._pool.retire(worker)

    def forget_gone(self) -> None:
        """Forget workers that somebody has let go of, as the end of the process does."""
        self.all[:] = [worker for worker in self.all if not worker.gone]

    def is_current(self) -> bool:
        """Whether they are as new ones would be, or can be made so: by telling them."""
        told = self._state
        if any(worker.gone for worker in self.all):
            return False  # this process is a fork of the one that leased them
        if self._group.reloads != reloads():
            return False
        now = process_state(told.idle_seconds, told.level, told.threads, told.max_memory)
        if now == told:
            return True
        if self._setup is None:
            return False
        self._state = now  # what they keep would be lost with them
        for worker in self.all:
            with contextlib.suppress(ChannelClosed):  # it has left, which will be seen
                worker.tell(now)
                self._group.want_to_send(worker, worker.pending)
        return True

    def release_memory(self) -> None:
        """Have them let go of the arrays of a call that has ended."""
        for worker in self.all:
            with contextlib.suppress(ChannelClosed):  # it has left; the next batch goes to another
                worker.release_memory()
                if worker.pending:
                    self._group.want_to_send(worker, True)

    def give_back(self, clean: bool) -> None:
        """Give them back to the pool; or end them, unless all is `clean`."""
        bell, self._bell = self._bell, None
        if bell is not None:
            self._group.unwatch(bell.descriptor)
            bell.close()
        try:
            if not clean:
                self.discard(list(self.all))
        finally:
            if self._setup is not None:
                self._leave_setup()
            if self._key.exclusive is not None:
                self._pool.dismiss(self._group, self._slot_keys or (self._key,))
            elif self._slot_keys is not None:
                self._pool.release_slots(self._group, self._slot_keys)
            else:
                self._pool.release(self._group, self._n_jobs, self._key)
            self.all = []

    def _leave_setup(self) -> None:
        """Have workers that go back be as others are."""
        now = self._state._replace(idle_seconds=self._idle_seconds)
        for worker in self.all:
            worker.unpin()
            with contextlib.suppress(ChannelClosed):  # it has left; the next lease sees that
                worker.tell(now)
        self._group.told = None
