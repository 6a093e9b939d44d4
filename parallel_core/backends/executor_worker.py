"""What runs in the workers of other engines: a batch comes as bytes, and returns its answers."""

from __future__ import annotations

import contextvars
import pickle
import threading
from collections import OrderedDict
from typing import Any, NamedTuple

from memmapping.forks import in_child
from memmapping.modules import loaded
from parallel_core import config
from parallel_core.backends.executor_results import BatchResult, Collector
from parallel_core.context.batch_context import PickledContext, ReceivedBatchContext
from parallel_core.context.item import Place
from parallel_core.output.batch_output import (
    StartedBy,
    batch_output,
    begin_output,
    first_output,
    process_identity,
)
from parallel_core.output.records import note_caller
from parallel_core.serialization.failure import pack
from parallel_core.serialization.pickling import dumps
from parallel_core.serialization.received import ReceivedDefinitions
from parallel_core.workers.board import PrivateBoard
from parallel_core.workers.execute import Execution
from parallel_core.workers.lifeline import Lifeline, hold_on
from parallel_core.workers.messages import Output, RunBatch, Unusable, to_wire
from parallel_core.workers.setup import run_initializer
from parallel_core.workers.system import handle_interrupts, leave_threads
from parallel_core.workers.threads import ThreadLimit, follow

_CALLS = 8  # whose definitions an engine's worker keeps

#: Process and identity of the executors that are busy with the tasks around this code.
surrounding_engines: contextvars.ContextVar[tuple[tuple[int, int], ...]] = contextvars.ContextVar(
    "parallel_core_engines", default=()
)

_received: OrderedDict[tuple[str, int], ReceivedDefinitions] = OrderedDict()


#: What the initializer raised in this worker, if it did.
_initializer_errors: list[tuple[bytes, str]] = []
#: Globals that an initializer set in this worker.
_state: dict[str, Any] = {}
#: Boards of the batches that run.
_boards: list[PrivateBoard] = []
#: What this worker was told of threads.
_threads: ThreadLimit | None = None


class Order(NamedTuple):
    """What the worker of an engine is told with each batch."""

    home: tuple[int, bytes]  #: whereabouts of the caller
    handles: bool  #: whether the root logger of the caller has handlers
    is_pool: bool  #: whether this is a process of a pool on the caller's machine
    lifeline: Lifeline | None
    hooks: tuple[str, ...]  #: see `config.worker_hooks`
    level: int  #: nesting level of the tasks
    threads: ThreadLimit | None
    batch: RunBatch

    def dumps(self) -> bytes:
        """Return what `read` reads: plain tuples, as on the wire."""
        *fields, batch = self
        return pickle.dumps((*fields, tuple(batch)), 5)

    @classmethod
    def read(cls, data: bytes) -> Order:
        """Return the order that was pickled by `dumps`."""
        order = cls._make(pickle.loads(data))
        return order._replace(batch=RunBatch._make(order.batch))


def begin_worker(lifeline: Lifeline | None, data: bytes | None) -> None:
    """Do in a new worker of loky's what workers of our own do first; `data` is the initializer.

    `run_batch` tells what that raises.
    """
    hold_on(lifeline)
    handle_interrupts()
    begin_output(StartedBy.US)
    register: Any = getattr(threading, "_register_atexit", None)  # there is no public way
    if register is not None:
        register(leave_threads)
    if data is None:
        return
    with first_output():
        try:
            _state.update(run_initializer(data))
        except BaseException as error:
            _initializer_errors.append(pack(error, dumps))


def run_batch_within(engines: tuple[tuple[int, int], ...], data: bytes) -> bytes | BatchResult:
    """Do as `run_batch`, in a thread of an executor of this program's, of which tasks may know."""
    return contextvars.copy_context().run(_run_within, engines, data)


def _run_within(engines: tuple[tuple[int, int], ...], data: bytes) -> bytes | BatchResult:
    surrounding_engines.set(engines)
    return run_batch(data)


def run_batch(data: bytes, nested: bytes | None = None) -> bytes | BatchResult:
    """Run a batch in a worker of an engine; return its answers.

    Parameters
    ----------
    data : bytes
        Encoded batch that `FuturesBackend.submit` got.
    nested : bytes, optional
        Pickle of the backend for calls within the tasks, and of their number of jobs.

    Returns
    -------
    bytes or BatchResult
        Encoded answers; the result of the future.
    """
    if _initializer_errors:
        return pickle.dumps([to_wire(Unusable(*_initializer_errors[0]))], 5)
    return contextvars.copy_context().run(_run_batch, data, nested)


def _run_batch(data: bytes, nested: bytes | None) -> bytes | BatchResult:
    order = Order.read(data)
    collector = Collector(order.is_pool)
    if order.home == process_identity():
        _run(order, nested, collector)
        return collector.result()
    begin_output(StartedBy.ENGINE)
    note_caller(order.handles)
    with batch_output() as output:
        _run(order, nested, collector)
    if output.pieces:
        collector.said.insert(0, Output(output.pieces))
    return collector.result()


def _run(order: Order, nested: bytes | None, collector: Collector) -> None:
    batch, threads = order.batch, order.threads
    hold_on(order.lifeline)
    config.run_hooks(order.hooks)
    config.enter_task(order.level)
    if nested is not None:
        backend, n_jobs = pickle.loads(nested)
        config.push_settings({"backend": backend, "n_jobs": n_jobs}, {})
    if threads is not None:
        _follow(threads)
    where = (batch.call, threading.get_ident())
    definitions = _received.get(where)
    if definitions is None:
        definitions = _received[where] = ReceivedDefinitions(batch.call, _state)
        while len(_received) > _CALLS + threading.active_count():
            _received.popitem(last=False)[1].close()
    definitions.receive(batch.definitions or {}, batch.forget)
    references = loaded("memmapping.references")
    if references is not None:  # one mapping of each array for all tasks of the batch
        references.keeper.begin()
    try:
        batch_context = None
        if batch.context:
            pickled = PickledContext(batch.context, Place.FOREIGN_PROCESS)
            batch_context = ReceivedBatchContext(pickled)
        board = PrivateBoard()
        _boards.append(board)
        try:
            execution = Execution(
                batch,
                definitions,
                board,
                collector.said.append,
                collector.parcels,
                batch_context=batch_context,
            )
            execution.run()
        finally:
            _boards.remove(board)
    finally:
        _let_go()


@in_child
def _stop_in_child() -> None:
    """Have a child that a task forks run no further task, should it come back out of that one."""
    for board in _boards:
        board.cancel()


def _let_go() -> None:
    """Let go of memory maps; nobody tells this worker when a call ends."""
    references = loaded("memmapping.references")
    if references is not None:
        references.keeper.drop()
    sharing = loaded("memmapping.sharing")
    if sharing is not None:
        sharing.forget_stale()


def _follow(threads: ThreadLimit) -> None:
    global _threads
    if threads != _threads:
        follow(threads, _threads)
        _threads = threads
