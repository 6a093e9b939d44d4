"""Backends: one small interface, and the engines behind it.

::

    Dispatch ──submit(Batch)──▶ Session ──▶ workers
        ▲                          │
        └──── wait() ──▶ Completion (results, timings, failures, what is left)

    Style.INLINE  local.SequentialBackend         no session: a loop
    Style.PUSH    processes.ProcessesBackend,     channel_session.ChannelSession
                  processes.MultiprocessingBackend
                  local.ThreadingBackend          threads.ThreadSession
                  loky.LokyBackend,               futures.FuturesSession
                  futures.ExecutorBackend
                  joblib_style.JoblibStyleBackend     joblib_style.JoblibStyleSession

- `base`: the interface: `Backend` and `Session`; `completion`: what a session returns; `options`:
  what workers are to be like.
- `threads`: threads of this process, which take batches as they are; `thread_call`: what they all
  share; `thread_worker`: each of them; `thread_share`: what it has of a batch.
- `answers`: what a worker said becomes a `Completion`; `losses`: so does what one that died had.
- `executor_worker`: what runs in the workers of engines that are not ours; `executor_results`:
  what it brings back; `executor_size`: how large an engine is.
- `joblib_style` and `joblib_batch`: classes by joblib's conventions; `conventions`: base classes
  for more of them.
- `session_setup`: what is done in each worker before its first task and after its last one;
  `local_worker`: the same for threads.
- `channel_session`: batches to worker processes of ours; `worker_handle`: what it needs of them;
  `watching`: what it does by their boards; `leased_workers`: those of the local pool.
- `placement`: who gets a batch, and who gives what it has not begun; `shutdown`: ending idle
  workers.
- `registry`: names, and what else may be passed as ``backend=``.
- `cores`: how many cores there are for us, what ``n_jobs=-2`` means, and each worker's share.

What somebody needs who writes a backend is in this namespace, imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallel_core.backends.base import NEVER as NEVER
    from parallel_core.backends.base import Backend as Backend
    from parallel_core.backends.base import BackendUnavailable as BackendUnavailable
    from parallel_core.backends.base import CallTerms as CallTerms
    from parallel_core.backends.base import Session as Session
    from parallel_core.backends.base import SessionFailed as SessionFailed
    from parallel_core.backends.base import Style as Style
    from parallel_core.backends.completion import Completion as Completion
    from parallel_core.backends.completion import Failure as Failure
    from parallel_core.backends.executor_worker import run_batch as run_batch
    from parallel_core.backends.futures import FuturesBackend as FuturesBackend
    from parallel_core.backends.options import WorkerOptions as WorkerOptions
    from parallel_core.backends.options import WorkerSetup as WorkerSetup

_HOMES = {
    "NEVER": "base",
    "Backend": "base",
    "BackendUnavailable": "base",
    "CallTerms": "base",
    "Completion": "completion",
    "Failure": "completion",
    "FuturesBackend": "futures",
    "Session": "base",
    "SessionFailed": "base",
    "Style": "base",
    "WorkerOptions": "options",
    "WorkerSetup": "options",
    "run_batch": "executor_worker",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - the names are strings


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
