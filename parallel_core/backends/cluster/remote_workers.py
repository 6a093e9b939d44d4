"""The workers of one session on an engine; they stay together, and warm, from session to session.

::

    RemoteWorkers ── Agents ── launch ──▶ Engine ── its own way ──▶ agent ── start ──▶ worker
        ▲              ▲                                              │                  │
        │              └──────── greets, by a connection ─────────────┘                  │
        └──── has come ───────── greets, by another one ─────────────────────────────────┘

Nothing here waits for one worker. The session begins with the first that has come; others join it
later. One that is lost is asked for anew, where there is room then.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from memmapping.modules import loaded
from parallel_core.backends.base import LONGEST_WAIT, SessionFailed
from parallel_core.backends.cluster.agents import Agents
from parallel_core.backends.cluster.engine import Engine
from parallel_core.backends.cluster.remote_worker import RemoteWorker
from parallel_core.errors import EngineError
from parallel_core.workers.bell import Bell
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.messages import Ready, Unusable
from parallel_core.workers.reloads import reloads
from parallel_core.workers.sent import Source
from parallel_core.workers.setup import ProcessState, WorkerKey, process_state, start_settings
from parallel_core.workers.starting import WorkerStartError

_SPIN_SECONDS = 1e-4  # waking up takes as long as a tiny call: so look, before going to sleep
_LOOK_SECONDS = 1.0  # between two looks at an engine that has too little room
_ATTEMPTS = 3  # starts in a row that may fail before a call without workers gives up
_Event = tuple[RemoteWorker, Source, int]


class RemoteWorkers:
    """Workers of `engine`, for one session at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.all: list[RemoteWorker] = []
        self.n_wanted = 0
        self.spins = True  #: whether to look before going to sleep
        self._spare: list[RemoteWorker] = []  # idle, and more than this session wants
        self._key = WorkerKey(engine.name)
        self._state: ProcessState | None = None
        self._reloads = reloads()
        self._bell = Bell()
        self._poller = select.poll()
        self._poller.register(self._bell.descriptor, select.POLLIN)
        self._agents = Agents(engine, self._poller, self._bell.ring)
        self._by_descriptor: dict[int, RemoteWorker] = {}
        self._events: list[_Event] = []  # that came while something else was waited for
        self._next_look = 0.0  # when to ask for what is missing, `time.monotonic`
        self._lost_since = 0.0  # since when there has been no worker
        self._is_free = True
        self._is_closed = False
        self._listens = False

    # --- a session ---

    def begin(self, n_jobs: int, key: WorkerKey, state: ProcessState) -> None:
        """Be the workers of a session; wait for the first of them.

        Raises
        ------
        WorkerStartError
            When none could be started.
        """
        self._events = []
        self._read_all_idle()
        if key != self._key or self._reloads != reloads():
            self._dismiss([*self.all, *self._spare])
        self._key, self._state, self._reloads = key, state, reloads()
        idle = [*self.all, *self._spare]
        self.all, self._spare = idle[:n_jobs], idle[n_jobs:]
        self.n_wanted = n_jobs
        for slot, worker in enumerate(self.all):
            worker.take_slot(slot)
            with contextlib.suppress(ChannelClosed):  # which will be seen
                worker.tell(self._state_for(worker))
        self._lost_since = time.monotonic()
        self._ask_for_missing()
        if not self.all:
            self.start()

    def _state_for(self, worker: RemoteWorker) -> ProcessState:
        """Return what `worker` is told: the import path of its engine comes after the caller's."""
        assert self._state is not None
        ours = self._state.path
        path = (*ours, *[entry for entry in worker.agent.path if entry not in ours])
        return self._state._replace(path=path)

    def _read_all_idle(self) -> None:
        """Find out which idle workers and agents have left meanwhile."""
        self.n_wanted = 0
        for event in self._collect(0.0):
            self._read_idle(*event)

    def _read_idle(self, worker: RemoteWorker, source: Source, event: int) -> None:
        """Take in news of a worker that is in no session."""
        is_lost = source is Source.END
        if source is Source.CHANNEL and event & ~select.POLLOUT and not worker.gone:
            try:
                for message in worker.receive() or ():
                    worker.ready = worker.ready or isinstance(message, Ready)
                    is_lost = is_lost or isinstance(message, Unusable)
            except ChannelClosed:
                is_lost = True
        if is_lost and not worker.gone:
            self._let_go(worker)

    @property
    def is_short(self) -> bool:
        """Return false: what is missing has been asked for, and joins when it comes."""
        return False

    @property
    def max_memory(self) -> int | None:
        """Over how many bytes a worker is to be replaced."""
        return None if self._state is None else self._state.max_memory

    def of(self, slot: int) -> RemoteWorker | None:
        """Return the worker of `slot`, if it has one."""
        return next((worker for worker in self.all if worker.slot == slot), None)

    def start(self, slot: int | None = None) -> RemoteWorker:
        """Wait for a worker: the next one that comes, whatever its slot.

        Raises
        ------
        WorkerStartError
            When none has come for as long as the user waits.
        """
        del slot
        fresh: RemoteWorker | None = None
        try:
            while fresh is None:
                for event in self._collect(None):
                    if fresh is None and event[1] is Source.START:
                        fresh = event[0]
                    else:
                        self._events.append(event)
        except SessionFailed as failed:
            raise WorkerStartError(str(failed.error)) from failed.error
        return fresh

    # --- events ---

    def poll(self, seconds: float | None) -> Iterator[_Event]:
        """Wait for workers to have something to say, to have room, to come or to end.

        Without going to sleep while answers come at once.

        Raises
        ------
        SessionFailed
            When all workers are lost, and none has come for as long as the user waits.
        """
        events, self._events = self._events, []
        for event in events or self._collect(seconds):
            if not event[0].gone:
                yield event

    def _collect(self, seconds: float | None) -> list[_Event]:
        events: list[_Event] = []
        self._take_news(events)
        for descriptor, event in self._wait(0.0 if events else seconds):
            worker = self._by_descriptor.get(descriptor)
            if worker is not None:
                self._add(events, (worker, Source.CHANNEL, event))
            elif descriptor == self._bell.descriptor:
                self._bell.clear()
            else:
                self._agents.take(descriptor, event, self.engine.words())
        self._take_news(events)
        if self._is_waiting:
            self._look_after_missing()
        return events

    def _wait(self, seconds: float | None) -> list[tuple[int, int]]:
        poll = self._poller.poll
        self._agents.want_to_send()
        if self._is_waiting:
            again = max(self._next_look - time.monotonic(), 0.0)
            seconds = again if seconds is None else min(again, seconds)
        if self.spins and seconds != 0:
            self.spins = False
            until = time.monotonic() + _SPIN_SECONDS
            while time.monotonic() < until:
                if events := poll(0):
                    self.spins = True
                    return events
        return poll(None if seconds is None else max(0.0, min(seconds, LONGEST_WAIT)) * 1000)

    def _add(self, events: list[_Event], event: _Event) -> None:
        """Add an event, unless it is of a worker that the session does not have."""
        if event[0] in self._spare:
            self._read_idle(*event)
        else:
            events.append(event)

    def _take_news(self, events: list[_Event]) -> None:
        """Take over what agents have told, and workers that have come."""
        for agent in self._agents:
            while agent.news:
                self._add(events, agent.news.popleft())
        self._agents.settle()
        come, self._agents.come = self._agents.come, []
        for worker in come:
            self._join(worker, events)

    def _join(self, worker: RemoteWorker, events: list[_Event]) -> None:
        self._by_descriptor[worker.channel.fileno()] = worker
        self._poller.register(worker.channel, select.POLLIN)
        settings = start_settings(self._key)._replace(parent=0, counts_output=True)
        try:
            worker.tell(self._state_for(worker), settings)
        except ChannelClosed:
            self._let_go(worker)
            return
        if len(self.all) >= self.n_wanted:
            self._spare.append(worker)
            return
        taken = {one.slot for one in self.all}
        worker.take_slot(next(slot for slot in range(self.n_wanted) if slot not in taken))
        self.all.append(worker)
        events.append((worker, Source.START, select.POLLIN))

    def ring(self) -> Callable[[], None]:
        """Return what has `poll` return; any thread may call it."""
        return self._bell.ring

    def want_to_send(self, worker: RemoteWorker, wanted: bool) -> None:
        """Wait for room in the channel of `worker`, or no longer."""
        events = select.POLLIN | (select.POLLOUT if wanted else 0)
        with contextlib.suppress(KeyError):  # it has nothing more to say
            self._poller.modify(worker.channel, events)

    def ignore(self, worker: RemoteWorker, wanted: Source) -> None:
        """Wait no longer for what a `Source` of `worker` tells."""
        del wanted
        with contextlib.suppress(KeyError):
            self._poller.unregister(worker.channel)

    # --- what is missing ---

    @property
    def _n_missing(self) -> int:
        """How many workers are neither here nor coming."""
        return self.n_wanted - len(self.all) - self._agents.n_coming

    @property
    def _is_waiting(self) -> bool:
        """Whether the session is to have more workers than it has."""
        return len(self.all) < self.n_wanted

    def _ask_for_missing(self) -> None:
        self._next_look = time.monotonic() + _LOOK_SECONDS
        if self._n_missing > 0:
            self.engine.expect(self.n_wanted)
            self._agents.ask(self.engine, self._n_missing, [*self.all, *self._spare])

    def _look_after_missing(self) -> None:
        """See whether orders have failed, and whether there is room for what is missing."""
        self._agents.look_at_orders(self.engine)
        failures = self._agents.failures
        now = time.monotonic()
        if self.all:
            self._lost_since = now
        elif failures and (self._agents.is_refused or len(failures) >= _ATTEMPTS):
            words = f"no worker could be started on {self.engine.words()}: {failures[-1]}"
            raise SessionFailed(EngineError(words)) from failures[-1]
        elif now - self._lost_since > self.engine.terms.wait_seconds:
            raise SessionFailed(EngineError(self._waited_words()))
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            self._agents.drop_orders(self.engine)
            if len(failures) < _ATTEMPTS * self.n_wanted:
                self._ask_for_missing()

    def _waited_words(self) -> str:
        seconds = self.engine.terms.wait_seconds
        words = f"no worker has come from {self.engine.words()} for {seconds:g} s"
        if self._agents.failures:
            return f"{words}: {self._agents.failures[-1]}"
        if self._agents.n_coming:
            return (
                f"{words}. It was asked for some that have not called back: either all its slots "
                f"are busy, or its hosts cannot connect to {self._agents.address}, where this "
                "program listens"
            )
        return f"{words}: it has room for none; wait_for_workers_timeout says how long to wait"

    # --- leaving ---

    def discard(self, workers: Sequence[RemoteWorker]) -> None:
        """Kill `workers` and let go of them; others are asked for in their place."""
        for worker in workers:
            worker.kill()
            self._let_go(worker)
        self._ask_for_missing()

    def retire(self, worker: RemoteWorker) -> None:
        """Let `worker`, which has nothing to do, leave in peace."""
        self._dismiss([worker])
        self._ask_for_missing()

    def _let_go(self, worker: RemoteWorker) -> None:
        for some in (self.all, self._spare):
            if worker in some:
                some.remove(worker)
        if not worker.gone:
            self._by_descriptor.pop(worker.channel.fileno(), None)
            self.ignore(worker, Source.CHANNEL)
        worker.abandon()

    def _dismiss(self, workers: Sequence[RemoteWorker]) -> None:
        for worker in workers:
            worker.leave()
            self._let_go(worker)

    def forget_gone(self) -> None:
        """Forget workers that somebody has let go of, as the end of the process does."""
        self.all[:] = [worker for worker in self.all if not worker.gone]

    def is_current(self) -> bool:
        """Whether they are as new ones would be, or can be made so: by telling them."""
        told = self._state
        if told is None or any(worker.gone for worker in self.all) or self._reloads != reloads():
            return False
        now = state_of_caller(told.idle_seconds, told.level, told.threads, told.max_memory)
        if now != told:
            self._state = now
            for worker in self.all:
                with contextlib.suppress(ChannelClosed):  # it has left, which will be seen
                    worker.tell(self._state_for(worker))
                    self.want_to_send(worker, worker.pending)
        return True

    def listen(self) -> None:
        """Have workers told of shared objects that are closed, from the first one on."""
        sharing = loaded("memmapping.sharing")
        if sharing is not None and not self._listens:
            self._listens = True
            sharing.when_closed(self._note_closed)

    def _note_closed(self, token: str) -> None:
        """Have workers let go of a shared object; a finalizer may call this at any moment."""
        for worker in (*self.all, *self._spare):
            worker.to_forget.append(token)

    def release_memory(self) -> None:
        """Have them let go of the arrays of a call that has ended."""
        for worker in self.all:
            with contextlib.suppress(ChannelClosed):  # it has left; the next batch goes to another
                worker.release_memory()
                if worker.pending:
                    self.want_to_send(worker, True)
        self._agents.drop_files()

    def give_back(self, clean: bool) -> None:
        """Keep them for another session; or end them, unless all is `clean`."""
        self.n_wanted = 0
        if not clean:
            self.discard(list(self.all))
        for worker in self.all:
            with contextlib.suppress(ChannelClosed):
                worker.release_memory(of_session=True)
        self._agents.drop_files()
        self._agents.release_orders()
        if self._key.exclusive is not None:
            self._dismiss(list(self.all))
        self._is_free = True

    def take(self, engine: Engine) -> None:
        """Be taken for a session on `engine`: the same, with other terms perhaps."""
        self.engine = engine
        self._is_free = False

    @property
    def is_free(self) -> bool:
        """Whether no session has them."""
        return self._is_free and not self._is_closed

    def close(self) -> int:
        """End all workers and agents; return how many workers there were."""
        found = len(self.all) + len(self._spare)
        self._is_closed = True
        self.n_wanted = 0
        self._dismiss([*self.all, *self._spare])
        self._agents.close()
        self._bell.close()
        return found

    def disown(self) -> None:
        """In a forked child: close every descriptor; what is at the other end is not ours."""
        self._is_closed = True
        for worker in (*self.all, *self._spare):
            worker.channel.close()
        self._agents.close(tells=False)
        self._bell.close()


def state_of_caller(
    idle_seconds: float | None, level: int, threads: int | None, max_memory: int | None
) -> ProcessState:
    """Return what workers elsewhere should be told: of this process, not of this machine.

    Their environment stays their own. Of the import path they get what does not belong to this
    installation of Python: folders of the program, on a file system that they may share.
    """
    found = process_state(idle_seconds, level, threads, max_memory)
    own = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    path = tuple(entry for entry in found.path if not _is_within(entry, own))
    return found._replace(environment=None, path=path)


def _is_within(entry: str, folders: set[str]) -> bool:
    return any(entry == folder or entry.startswith(folder + os.sep) for folder in folders)
