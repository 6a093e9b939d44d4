"""parallel-core: independent calls in parallel, on one machine and on existing engines.

::

            mpi            python -m parallel_core.mpi: a script in rank 0, its tasks in other ranks
            cli            the command line
            compat         this library under the names of others
            dashboard      a web page that shows calls while they run
            scripting      parallelism in one call, in the words of sciris
            pool           workers with numbers and state; pmap, pstarmap
            mapping        imap and as_completed, on a backend that a package chooses
            bridge         ours in joblib's place, and under joblib
            executor       futures over the same workers
            parallel       Parallel: reads its parameters, makes one call at a time
            calls          a call: what it was asked to do, what it runs on, its course
            dispatch       pulls tasks, sizes batches, keeps order
   journal  backends       results in a file, for a restart; one small interface to every engine
            workers        the local pool: start, channel, status board, exit, leases
            reduction      results of a call folded into one value
            output         what tasks print and log, on its way to the caller
            context        settings of the caller that apply inside tasks
            insights       where the time of a call went, and what to do about it
            trace          a file of the events for viewers
            observe        events of a call, and their observers
            config         settings in force in this thread or async task
            serialization  tasks, functions, results and exceptions on their way to a process
            tasks          delayed calls, words for them, placeholders for results
            errors

A room imports only from rooms below it. All public names are in this namespace. Each is imported
when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from parallel_core._version import __version__ as __version__

if TYPE_CHECKING:
    from parallel_core import errors as errors
    from parallel_core.backends.base import Backend as Backend
    from parallel_core.backends.base import BackendUnavailable as BackendUnavailable
    from parallel_core.backends.base import Session as Session
    from parallel_core.backends.completion import Completion as Completion
    from parallel_core.backends.cores import cpu_count as cpu_count
    from parallel_core.backends.futures import FuturesBackend as FuturesBackend
    from parallel_core.backends.options import WorkerOptions as WorkerOptions
    from parallel_core.backends.registry import (
        register_parallel_backend as register_parallel_backend,
    )
    from parallel_core.backends.shutdown import shutdown_workers as shutdown_workers
    from parallel_core.bridge.backend import register_joblib as register_joblib
    from parallel_core.context.registered import register_context as register_context
    from parallel_core.context.registered import unregister_context as unregister_context
    from parallel_core.context.seeds import rng as rng
    from parallel_core.context.this_worker import ThisWorker as ThisWorker
    from parallel_core.context.this_worker import this_worker as this_worker
    from parallel_core.dashboard.control import connect_to_dashboard as connect_to_dashboard
    from parallel_core.dashboard.control import get_stacklevel as get_stacklevel
    from parallel_core.dashboard.control import set_stacklevel as set_stacklevel
    from parallel_core.dashboard.control import shutdown_dashboard as shutdown_dashboard
    from parallel_core.dashboard.control import start_dashboard as start_dashboard
    from parallel_core.dispatch.policy import TaskFailure as TaskFailure
    from parallel_core.errors import BackendError as BackendError
    from parallel_core.errors import CallCancelledError as CallCancelledError
    from parallel_core.errors import CallTimeoutError as CallTimeoutError
    from parallel_core.errors import ContextError as ContextError
    from parallel_core.errors import EngineError as EngineError
    from parallel_core.errors import InitializerError as InitializerError
    from parallel_core.errors import InvalidTaskError as InvalidTaskError
    from parallel_core.errors import JournalError as JournalError
    from parallel_core.errors import LowMemoryError as LowMemoryError
    from parallel_core.errors import ParallelError as ParallelError
    from parallel_core.errors import PerformanceWarning as PerformanceWarning
    from parallel_core.errors import PreloadError as PreloadError
    from parallel_core.errors import RemoteError as RemoteError
    from parallel_core.errors import SerializationError as SerializationError
    from parallel_core.errors import TaskExitError as TaskExitError
    from parallel_core.errors import TaskTimeoutError as TaskTimeoutError
    from parallel_core.errors import WorkerDiedError as WorkerDiedError
    from parallel_core.errors import WorkerExitError as WorkerExitError
    from parallel_core.executor.futures import get_executor as get_executor
    from parallel_core.insights.report import Report as Report
    from parallel_core.insights.report import last_report as last_report
    from parallel_core.observe.events import BatchAnswered as BatchAnswered
    from parallel_core.observe.events import BatchSubmitted as BatchSubmitted
    from parallel_core.observe.events import CallEnded as CallEnded
    from parallel_core.observe.events import CallerWaited as CallerWaited
    from parallel_core.observe.events import CallStarted as CallStarted
    from parallel_core.observe.events import ResultsResumed as ResultsResumed
    from parallel_core.observe.events import Span as Span
    from parallel_core.observe.events import TaskFailed as TaskFailed
    from parallel_core.observe.events import TaskRetried as TaskRetried
    from parallel_core.observe.events import TasksPulled as TasksPulled
    from parallel_core.observe.events import TasksStolen as TasksStolen
    from parallel_core.observe.events import TaskTimes as TaskTimes
    from parallel_core.observe.events import WorkerEnded as WorkerEnded
    from parallel_core.observe.events import WorkersSeen as WorkersSeen
    from parallel_core.observe.events import WorkerStarted as WorkerStarted
    from parallel_core.observe.events import WorkerView as WorkerView
    from parallel_core.observe.observers import Observer as Observer
    from parallel_core.observe.progress import Progress as Progress
    from parallel_core.output.capture import TaskOutput as TaskOutput
    from parallel_core.parallel.call import Parallel as Parallel
    from parallel_core.parallel.contexts import effective_n_jobs as effective_n_jobs
    from parallel_core.parallel.contexts import get_active_backend as get_active_backend
    from parallel_core.parallel.contexts import parallel_backend as parallel_backend
    from parallel_core.parallel.contexts import parallel_config as parallel_config
    from parallel_core.pool.async_result import AsyncResult as AsyncResult
    from parallel_core.pool.chunking import chunk_tasks as chunk_tasks
    from parallel_core.pool.chunking import make_single_arguments as make_single_arguments
    from parallel_core.pool.mapping import pmap as pmap
    from parallel_core.pool.mapping import pstarmap as pstarmap
    from parallel_core.pool.worker_pool import WorkerPool as WorkerPool
    from parallel_core.scripting.command import parallelcmd as parallelcmd
    from parallel_core.scripting.loads import loadbalancer as loadbalancer
    from parallel_core.scripting.one_call import parallel_progress as parallel_progress
    from parallel_core.scripting.one_call import parallelize as parallelize
    from parallel_core.scripting.run import ParallelRun as ParallelRun
    from parallel_core.serialization.wrapping import (
        wrap_non_picklable_objects as wrap_non_picklable_objects,
    )
    from parallel_core.tasks.delayed import delayed as delayed

_HOMES = {
    "AsyncResult": "pool.async_result",
    "WorkerPool": "pool.worker_pool",
    "chunk_tasks": "pool.chunking",
    "make_single_arguments": "pool.chunking",
    "pmap": "pool.mapping",
    "pstarmap": "pool.mapping",
    "ParallelRun": "scripting.run",
    "loadbalancer": "scripting.loads",
    "parallel_progress": "scripting.one_call",
    "parallelcmd": "scripting.command",
    "parallelize": "scripting.one_call",
    "BatchAnswered": "observe.events",
    "BatchSubmitted": "observe.events",
    "CallEnded": "observe.events",
    "CallerWaited": "observe.events",
    "CallStarted": "observe.events",
    "Observer": "observe.observers",
    "ResultsResumed": "observe.events",
    "TaskFailed": "observe.events",
    "TaskRetried": "observe.events",
    "TaskTimes": "observe.events",
    "TasksPulled": "observe.events",
    "TasksStolen": "observe.events",
    "Span": "observe.events",
    "WorkerEnded": "observe.events",
    "WorkerStarted": "observe.events",
    "WorkerView": "observe.events",
    "WorkersSeen": "observe.events",
    "Progress": "observe.progress",
    "Report": "insights.report",
    "last_report": "insights.report",
    "Backend": "backends.base",
    "BackendError": "errors",
    "BackendUnavailable": "backends.base",
    "CallCancelledError": "errors",
    "CallTimeoutError": "errors",
    "Completion": "backends.completion",
    "ContextError": "errors",
    "EngineError": "errors",
    "FuturesBackend": "backends.futures",
    "InitializerError": "errors",
    "InvalidTaskError": "errors",
    "LowMemoryError": "errors",
    "JournalError": "errors",
    "Parallel": "parallel.call",
    "ParallelError": "errors",
    "PerformanceWarning": "errors",
    "PreloadError": "errors",
    "RemoteError": "errors",
    "SerializationError": "errors",
    "Session": "backends.base",
    "TaskExitError": "errors",
    "TaskFailure": "dispatch.policy",
    "TaskOutput": "output.capture",
    "TaskTimeoutError": "errors",
    "ThisWorker": "context.this_worker",
    "WorkerDiedError": "errors",
    "WorkerExitError": "errors",
    "WorkerOptions": "backends.options",
    "connect_to_dashboard": "dashboard.control",
    "cpu_count": "backends.cores",
    "delayed": "tasks.delayed",
    "effective_n_jobs": "parallel.contexts",
    "get_active_backend": "parallel.contexts",
    "get_executor": "executor.futures",
    "get_stacklevel": "dashboard.control",
    "parallel_backend": "parallel.contexts",
    "parallel_config": "parallel.contexts",
    "register_context": "context.registered",
    "register_joblib": "bridge.backend",
    "register_parallel_backend": "backends.registry",
    "rng": "context.seeds",
    "set_stacklevel": "dashboard.control",
    "shutdown_dashboard": "dashboard.control",
    "shutdown_workers": "backends.shutdown",
    "start_dashboard": "dashboard.control",
    "this_worker": "context.this_worker",
    "unregister_context": "context.registered",
    "wrap_non_picklable_objects": "serialization.wrapping",
}

__all__ = ["__version__", "errors", *sorted(_HOMES)]  # noqa: PLE0604 - the names are strings


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("parallel_core.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"parallel_core.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
