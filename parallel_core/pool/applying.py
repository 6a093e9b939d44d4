"""Single calls of a pool, run by a thread of their own while there are any."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from parallel_core.calls.resources import CallResources
from parallel_core.executor.manager import LiveCalls, Manager, Settled, Work
from parallel_core.pool.lease import PoolWorkers, Wanted


class Applies:
    """What `apply` and `apply_async` of one pool have put in."""

    def __init__(self, workers: PoolWorkers) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._manager: Manager | None = None

    def submit(
        self,
        want: Callable[[], Wanted],
        task: tuple[Any, Any, Any],
        result: Settled,
        timeout: float | None = None,
    ) -> None:
        """Have a worker run `task`; the first one says by `want` what workers are to be like."""
        with self._lock:
            if self._manager is None:
                self._manager = self._start(want())
            self._manager.submit(Work(result, task, math.inf if timeout is None else timeout))

    def _start(self, wanted: Wanted) -> Manager:
        label = f"WorkerPool({wanted.spec.n_jobs}).apply"
        batch_size_is_given = wanted.spec.bounds.batch_size is not None
        holder = _Holder()

        def lend() -> AbstractContextManager[CallResources]:
            holder.thread = threading.get_ident()
            return self._workers.lend(wanted, holder)

        calls = LiveCalls(wanted.spec, batch_size_is_given, label, lend, wanted.items)
        return Manager(calls, "pool", times_each=True)

    def is_mine(self) -> bool:
        """Whether this is the thread that settles results, which must not wait for any."""
        holder = self._workers.holder
        return isinstance(holder, _Holder) and holder.thread == threading.get_ident()

    def drain(self) -> None:
        """Return when everything that was put in is done."""
        self._forget(lambda manager: manager.shutdown(wait=True, cancel_futures=False))

    def abort(self) -> None:
        """Stop the tasks that run; nobody runs the others."""
        self._forget(Manager.abort)

    def _forget(self, end: Callable[[Manager], None]) -> None:
        with self._lock:
            manager, self._manager = self._manager, None
        if manager is not None:
            end(manager)


class _Holder:
    """The thread of single calls, while it has the workers."""

    thread = 0

    def end(self) -> None:
        """Do nothing: a map that waits in this very thread raises, and the calls go on."""
