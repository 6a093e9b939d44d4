"""Workers are leased to a call and go back warm.

A lease never waits: it takes idle workers of its key, and gives start to what is missing. So two
calls from two threads have workers of their own, and nobody can wait for somebody who waits for
him.

States of a worker: *leased* (one call has it), *idle* (kept here), *gone*. It goes from leased to
idle only with nothing outstanding, and to gone when it died, was killed, or was retired; from idle
to gone when it was left alone for its time (it leaves by itself), when neither this call nor the
one before needed as many, when a module that it may have imported was reloaded here, or at the end
of the process.

The lock is held only while signals wait: the handler of one might make a call of its own, in the
thread that has the lock.

Ctrl-C may come between any two steps, and then it may happen that nobody has a worker any more. So
each remembers its `WorkerGroup`, weakly, and whoever has some of a group's workers has the group:
when it is gone, its workers are *lost*, and end.
"""

from __future__ import annotations

import atexit
import select
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING
from weakref import ref

from memmapping.forks import in_child
from memmapping.interrupts import HeldInterrupts, HeldSignals
from memmapping.modules import loaded
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.demand import Demand
from parallel_core.workers.group import WorkerGroup
from parallel_core.workers.reloads import reloads
from parallel_core.workers.sent import Source
from parallel_core.workers.setup import ProcessState, WorkerKey
from parallel_core.workers.starting import Spawn, WorkerStartError, settle, start_worker
from parallel_core.workers.system import has_forkserver
from parallel_core.workers.worker import Worker, wait_for_end

if TYPE_CHECKING:
    from parallel_core.workers.forkserver import ForkServers

_PATIENCE = 0.5  # seconds in which a worker that was asked to leave may run its atexit handlers


class WorkerPool:
    """All workers of this process that nobody else needs to know about."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[WorkerKey, list[WorkerGroup]] = {}
        self._all: set[Worker] = set()
        self.demand = Demand()  #: for workers of each kind
        self._leaving: list[tuple[Worker, float]] = []  # retired, and by when they should be gone
        self._listens = False
        self._forkservers: ForkServers | None = None
        self._groups_gone: deque[ref[WorkerGroup]] = deque()
        self._closed: deque[str] = deque()  # shared objects, until the workers have been told

    def lease(
        self, wanted: int, key: WorkerKey, state: ProcessState, spawn: Spawn | None = None
    ) -> WorkerGroup:
        """Return `wanted` workers, fewer when the system refuses to start so many.

        Raises
        ------
        WorkerStartError
            When not even one can be had.
        """
        current = reloads()
        if self._groups_gone:
            self._end_lost()
        with HeldSignals(), self._lock:
            groups = self._idle.get(key)
            spare = self.demand.lease(wanted, key, self._count_idle(key))
            if (
                spare <= 0
                and groups
                and len(groups[-1]) == wanted
                and groups[-1].reloads == current
            ):
                group = groups.pop()
                unneeded = None
            else:
                group, unneeded = self._assemble(wanted, key, current, spare)
        try:
            left = self._tell(group, state) if group.told != state else []
            if left or unneeded is not None:
                self._dismiss(left if unneeded is None else left + unneeded.workers)
            if key.preload and len(group) < wanted and spawn is None and has_forkserver():
                self._known_forkservers().prepare(key, state, current)
            self._fill(group, wanted, key, state, spawn)
            if not group.workers[0].ready and not any(worker.ready for worker in group.workers):
                self._confirm(group)
        except BaseException:
            members = list(group.workers)
            for worker in members:
                group.remove(worker)
            self.discard(members)
            self.release(group, wanted, key)
            raise
        return group

    def lease_slots(
        self, keys: Sequence[WorkerKey], state: ProcessState, spawn: Spawn | None = None
    ) -> WorkerGroup:
        """Return workers of several kinds: each of `keys` is that of the slot of its number.

        Fewer when the system refuses to start so many; then the last slots have none.

        Raises
        ------
        WorkerStartError
            When not even one can be had.
        """
        current = reloads()
        if self._groups_gone:
            self._end_lost()
        unneeded: list[Worker] = []
        with HeldSignals(), self._lock:
            group = self._group([], current)
            for slot, key in enumerate(keys):
                spare = self.demand.lease(1, key, self._count_idle(key))
                part, ending = self._assemble(1, key, current, spare)
                unneeded += ending.workers if ending is not None else []
                for worker in list(part.workers):
                    part.remove(worker)
                    worker.slot, worker.key = slot, key
                    group.add(worker)
        try:
            self._dismiss(self._tell(group, state) + unneeded)
            taken = {worker.slot for worker in group.workers}
            for slot, key in enumerate(keys):
                if slot not in taken:
                    if key.preload and spawn is None and has_forkserver():
                        self._known_forkservers().prepare(key, state, current)
                    self._fill(group, len(group) + 1, key, state, spawn)
                    group.workers[-1].slot, group.workers[-1].key = slot, key
            if not any(worker.ready for worker in group.workers):
                self._confirm(group)
        except BaseException:
            members = list(group.workers)
            for worker in members:
                group.remove(worker)
            self.discard(members)
            self.release_slots(group, keys)
            raise
        return group

    def release_slots(self, group: WorkerGroup, keys: Sequence[WorkerKey]) -> None:
        """Take back the idle workers of a lease of one of each of `keys`."""
        self._end_session(group)
        with HeldSignals(), self._lock:
            for key in keys:
                self.demand.give_back(1, key)
            for worker in list(group.workers):
                group.remove(worker)
                assert worker.key is not None
                self._idle.setdefault(worker.key, []).append(self._group([worker], group.reloads))

    def dismiss(self, group: WorkerGroup, keys: Sequence[WorkerKey]) -> None:
        """End the idle workers of a lease that nobody else may have."""
        self._end_session(group)
        with HeldSignals(), self._lock:
            for key in keys:
                self.demand.forget(key)
        workers = list(group.workers)
        for worker in workers:
            group.remove(worker)
        self._dismiss(workers)

    def _tell(self, group: WorkerGroup, state: ProcessState) -> list[Worker]:
        """Tell all members; return those that have left meanwhile."""
        left = []
        for worker in list(group.workers):
            try:
                worker.tell(state)
            except ChannelClosed:
                group.remove(worker)
                left.append(worker)
        group.told = state
        return left

    def _fill(
        self,
        group: WorkerGroup,
        wanted: int,
        key: WorkerKey,
        state: ProcessState,
        spawn: Spawn | None,
    ) -> None:
        """Give start to what `group` is short of, as far as the system lets us."""
        try:
            while len(group) < wanted:
                with HeldInterrupts():
                    group.add(self.replace(key, state, spawn))
        except WorkerStartError:
            if not len(group):
                raise

    def _confirm(self, group: WorkerGroup) -> None:
        """Wait until one of the new workers has come to life.

        Raises
        ------
        WorkerStartError
            When all of them end without a word: workers cannot be had here.
        """
        while True:
            for descriptor, event in group.poller.poll():
                worker, source = group.by_descriptor[descriptor]
                if source is Source.OUTPUT:  # of the initializer
                    worker.read_output()
                elif event & select.POLLOUT:  # a large initializer, on its way
                    try:
                        group.want_to_send(worker, worker.channel.flush())
                    except ChannelClosed:
                        group.unwatch(descriptor)
            if any(worker.channel.has_something() for worker in group.workers):
                return
            dead = [worker for worker in group.workers if not worker.alive()]
            for worker in dead:
                group.remove(worker)
            words = [worker.exit_reason() for worker in dead]
            self.discard(dead)
            if not group.workers:
                raise WorkerStartError(f"a new worker process {words[0]} at once")

    def replace(self, key: WorkerKey, state: ProcessState, spawn: Spawn | None = None) -> Worker:
        """Return a new worker, for a lease that is short of one."""
        with HeldSignals():
            worker = self._start(key, state, spawn)
            with self._lock:
                self._all.add(worker)
            settle(worker)
        return worker

    def _start(self, key: WorkerKey, state: ProcessState, spawn: Spawn | None) -> Worker:
        """Have a worker forked from its fork server, if there is one, else started anew."""
        forkserver = None
        if key.preload and spawn is None and self._forkservers is not None:
            forkserver = self._forkservers.find(key, state)
        if forkserver is None:
            return start_worker(key, state, spawn)
        try:
            return start_worker(key, state, forkserver.spawn)
        except WorkerStartError:  # the fork server is gone, perhaps
            return start_worker(key, state)

    def _known_forkservers(self) -> ForkServers:
        if self._forkservers is None:
            from parallel_core.workers.forkserver import ForkServers

            self._forkservers = ForkServers()
        return self._forkservers

    def release(self, group: WorkerGroup, wanted: int, key: WorkerKey) -> None:
        """Take back the idle workers of a lease of `wanted` of the kind `key`."""
        self._end_session(group)
        with HeldSignals(), self._lock:
            self.demand.give_back(wanted, key)
            if group.workers:
                self._watch(group)
                self._idle.setdefault(key, []).append(group)

    def _end_session(self, group: WorkerGroup) -> None:
        """Have the workers of a lease forget what is of it."""
        if self._leaving:  # when a call ends, only idle workers remain
            self._reap_retired(_PATIENCE)
        self._tell_closed()
        for worker in list(group.workers):
            try:
                worker.release_memory(of_session=True)
            except ChannelClosed:
                pass  # it has left; the next lease sees that

    def listen(self) -> None:
        """Have workers told of shared objects that are closed, from the first one on."""
        sharing = loaded("memmapping.sharing")
        if sharing is not None and not self._listens:
            self._listens = True
            sharing.when_closed(self.note_closed)

    def note_closed(self, token: str) -> None:
        """Have all workers let go of a shared object; a finalizer may call this at any moment."""
        self._closed.append(token)
        self._tell_closed()

    def _tell_closed(self) -> None:
        """Tell idle workers at once, and note it for the others, unless the lock is taken."""
        if self._closed:
            with HeldSignals():
                self._tell_which_closed()

    def _tell_which_closed(self) -> None:
        while self._closed and self._lock.acquire(blocking=False):
            try:
                tokens = [self._closed.popleft() for _ in range(len(self._closed))]
                idle = {
                    worker
                    for groups in self._idle.values()
                    for group in groups
                    for worker in group.workers
                }
                for worker in self._all:
                    worker.to_forget += tokens
                    if worker in idle and not worker.channel.pending:
                        try:
                            worker.release_memory()
                        except ChannelClosed:
                            pass
            finally:
                self._lock.release()

    def discard(self, workers: list[Worker]) -> None:
        """Kill `workers` and let go of them."""
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.end()
        with HeldSignals(), self._lock:
            self._all.difference_update(workers)

    def retire(self, worker: Worker) -> None:
        """Let `worker`, which has no batch, leave in peace; nobody waits for it."""
        worker.leave()
        with HeldSignals(), self._lock:
            self._leaving.append((worker, time.monotonic() + _PATIENCE))
        self._reap_retired()

    def _reap_retired(self, patience: float = 0.0) -> None:
        """Let go of retired workers that have ended; kill those that had time enough to.

        With `patience`, in seconds, that is all of them.
        """
        now = time.monotonic()
        with HeldSignals(), self._lock:
            leaving, self._leaving = self._leaving, []
            if not patience:
                self._leaving = [entry for entry in leaving if now <= entry[1] and entry[0].alive()]
        kept = [worker for worker, _ in self._leaving]
        over = [worker for worker, _ in leaving if worker not in kept]
        for worker in over:
            wait_for_end(worker, min(patience, max(0.0, now + patience - time.monotonic())))
        self.discard(over)

    def shutdown(self) -> int:
        """End all idle workers now; return how many there were."""
        if self._groups_gone:
            self._end_lost()
        with HeldSignals(), self._lock:
            retired, self._leaving = [worker for worker, _ in self._leaving], []
            kept, self._idle = self._idle, {}
        idle = [worker for groups in kept.values() for group in groups for worker in group.workers]
        self._dismiss(idle + retired)
        if self._forkservers is not None:
            self._forkservers.shutdown()
        return len(idle)

    def end_idle(self, start_method: str) -> None:
        """End the idle workers that were started in this way, now."""
        with HeldSignals(), self._lock:
            kinds = [key for key in self._idle if key.start_method == start_method]
            groups = [group for key in kinds for group in self._idle.pop(key)]
        self._dismiss([worker for group in groups for worker in group.workers])

    def idle_pids(self) -> list[int]:
        """Return the process numbers of the workers that wait for a call."""
        with HeldSignals(), self._lock:
            return [
                worker.pid
                for groups in self._idle.values()
                for group in groups
                for worker in group.workers
            ]

    def close(self) -> None:
        """At the end of the process: idle workers leave, others are killed.

        Those of calls in daemon threads, which may still run for a moment, are the kernel's to end:
        with this process, by their lifelines.
        """
        self.shutdown()
        if threading.active_count() == 1:
            self.discard(list(self._all))
            if self._forkservers is not None:
                self._forkservers.close()

    def forget(self) -> None:
        """In a forked child: the workers are our parent's; so close every descriptor of theirs."""
        workers, self._all = self._all, set()  # first: with the groups, they would seem lost
        forkservers = self._forkservers
        self._reset()  # the lock may be held by a thread that is not here
        for worker in workers:
            worker.disown()
        if forkservers is not None:
            forkservers.disown()

    def _count_idle(self, key: WorkerKey) -> int:
        return sum(map(len, self._idle.get(key, ())))

    def _assemble(
        self, wanted: int, key: WorkerKey, current: int, spare: int
    ) -> tuple[WorkerGroup, WorkerGroup | None]:
        """Return a group of idle workers, and one of those that should end: spare and outdated."""
        unneeded: list[Worker] = []
        mine: list[Worker] = []
        for group in self._idle.pop(key, ()):
            (mine if group.reloads == current else unneeded).extend(group.workers)
        taken, rest = mine[:wanted], mine[wanted:]
        while rest and len(unneeded) < spare:
            unneeded.append(rest.pop())
        if rest:
            self._idle[key] = [self._group(rest, current)]
        for old in self.demand.drop_old():
            for group in self._idle.pop(old, ()):
                unneeded += group.workers
        ending = self._group(unneeded, current) if unneeded else None
        return self._group(taken, current), ending

    def _group(self, workers: list[Worker], current: int) -> WorkerGroup:
        group = WorkerGroup(current)
        self._watch(group)
        for worker in workers:
            group.add(worker)
        return group

    def _watch(self, group: WorkerGroup) -> None:
        """Have it noted when `group` is gone; that of one that came back from the dead was, too."""
        if group.itself is None or group.itself() is None:
            group.itself = ref(group, self._note_gone)
            for worker in group.workers:
                worker.owner = group.itself

    def _note_gone(self, group: ref[WorkerGroup]) -> None:
        """Note that nobody has a group; this may be at any moment, in any thread."""
        self._groups_gone.append(group)
        self._end_lost()

    def _end_lost(self) -> None:
        """End the workers that nobody has, unless the lock is taken: then whoever comes next."""
        with HeldSignals():
            lost: list[Worker] = []
            while self._groups_gone and self._lock.acquire(blocking=False):
                try:
                    self._groups_gone.clear()
                    lost += [one for one in self._all if one.owner and one.owner() is None]
                    self._all.difference_update(lost)
                finally:
                    self._lock.release()
            if lost:
                self.discard(lost)

    def _dismiss(self, workers: list[Worker]) -> None:
        """Let idle `workers` leave in peace."""
        for worker in workers:
            worker.leave()
        for worker in workers:
            worker.end(_PATIENCE)
        with HeldSignals(), self._lock:
            self._all.difference_update(workers)


_pool: WorkerPool | None = None
_pool_lock = threading.Lock()


def worker_pool() -> WorkerPool:
    """Return the pool of this process."""
    global _pool
    if _pool is None:
        with HeldSignals(), _pool_lock:
            if _pool is None:
                _pool = WorkerPool()
                atexit.register(_pool.close)
                in_child(_pool.forget)
    return _pool


@in_child
def _renew_lock() -> None:
    global _pool_lock
    _pool_lock = threading.Lock()  # the thread that had it is not here


def end_idle_workers() -> int:
    """End the idle workers of this process now; return how many there were."""
    return _pool.shutdown() if _pool is not None else 0
