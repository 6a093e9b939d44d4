"""Who has the workers of a pool, and for how long they live.

::

    map, imap ── take ──▶ PoolWorkers ──▶ CallResources: a session, kept until `stop`
    apply ────── lend ──▶     │           (where a map has it: another one, for a while)
    join, terminate ── stop ──┘──▶ exit results
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from parallel_core.backends.options import WorkerSetup
from parallel_core.calls.resources import CallResources
from parallel_core.calls.spec import CallSpec
from parallel_core.context.item import ContextItem
from parallel_core.errors import warn_caller
from parallel_core.insights.record import CallRecord
from parallel_core.pool.async_result import as_raised

_logger = logging.getLogger("parallel_core.pool")


class Holder(Protocol):
    """Whoever has the workers for the time being."""

    thread: int

    def end(self) -> None:
        """Let nothing of it go on."""


class Wanted(NamedTuple):
    """What workers are to be like for a call."""

    spec: CallSpec
    #: What cannot be changed in workers that live: others are started when it differs.
    kind: tuple[Any, ...]
    #: What is to hold inside the tasks besides what the caller has set up.
    items: tuple[ContextItem, ...] = ()

    @property
    def setup(self) -> WorkerSetup:
        """What is to be done for each worker by itself."""
        return self.spec.workers.setup or WorkerSetup()


class PoolWorkers:
    """The workers of one pool: at most one map has them at a time."""

    def __init__(self) -> None:
        self.exit_results: list[Any] = []
        self.record: CallRecord | None = None  #: of the map that ended last
        self._turn = threading.Condition()
        self._holder: Holder | None = None
        self._resources: CallResources | None = None
        self._wanted: Wanted | None = None
        #: Makes of what exit functions return what is to be kept of it.
        self.take_exits: Callable[[list[Any]], list[Any]] = list

    @property
    def are_kept(self) -> bool:
        """Whether there are workers from before."""
        return self._resources is not None

    def take(self, holder: Holder, what: str) -> None:
        """Have `holder` be the one that has the workers; wait until they are free.

        Raises
        ------
        RuntimeError
            When this thread has them itself, by a map that it has not exhausted.
        """
        with self._turn:
            while (other := self._holder) is not None:
                if other.thread == holder.thread:
                    break
                self._turn.wait()
            else:
                self._holder = holder
                return
        other.end()
        raise RuntimeError(
            f"Cannot call {what!r} while another 'map' is running in this thread: take all its "
            "results first; it was ended"
        )

    def try_to_take(self, holder: Holder) -> bool:
        """Have `holder` be the one that has the workers, if they are free."""
        with self._turn:
            if self._holder is None:
                self._holder = holder
                return True
            return False

    def give_back(self, holder: Holder) -> None:
        """Let the next one have the workers."""
        with self._turn:
            if self._holder is holder:
                self._holder = None
                self._turn.notify_all()

    @property
    def holder(self) -> Holder | None:
        """Who has the workers."""
        return self._holder

    def resources(self, wanted: Wanted) -> CallResources:
        """Return what a call runs on that has the workers: what was kept, if it still fits."""
        known = self._wanted
        if self._resources is not None and known is not None:
            if known.kind != wanted.kind:
                _logger.warning("the workers are restarted, since parameters of the pool changed")
                self.stop()
            else:
                self._wanted = self._adapt(self._resources, known, wanted)
        if self._resources is None:
            self.exit_results = []
            self._resources = CallResources(wanted.spec)
            self._resources.is_kept = True
            self._wanted = wanted
        return self._resources

    def _adapt(self, resources: CallResources, known: Wanted, wanted: Wanted) -> Wanted:
        """Have workers that live on take another exit function; their init has been called."""
        before, after = known.setup, wanted.setup
        setup = after._replace(init=after.init or before.init, exit=after.exit or before.exit)
        if (setup.init, setup.exit) != (before.init, before.exit):
            warn_caller(
                "worker_init or worker_exit has changed while workers are kept alive: the new init "
                "function is called in workers that start from now on, and the new exit function "
                "in all",
                RuntimeWarning,
            )
        if setup != before:
            resources.change_setup(setup)
        workers = wanted.spec.workers._replace(setup=setup)
        return wanted._replace(spec=wanted.spec._replace(workers=workers))

    @contextlib.contextmanager
    def lend(self, wanted: Wanted, holder: Holder) -> Iterator[CallResources]:
        """Return a block in which single calls have workers: the pool's, or their own."""
        if not self.try_to_take(holder):
            yield CallResources(wanted.spec)
            return
        try:
            yield self.resources(wanted)
        finally:
            self.give_back(holder)

    def stop(self, at_once: bool = False) -> None:
        """End the workers; their exit functions run, unless they are to end `at_once`."""
        resources, self._resources = self._resources, None
        self._wanted = None
        if resources is None:
            return
        try:
            resources.close(calls_exit=not at_once)
            self.exit_results = self.take_exits(resources.exit_results)
        except BaseException as error:
            raise as_raised(error) from None
