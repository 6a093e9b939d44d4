"""What a session does by the boards of its workers, which tell at any moment what each is at."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import takewhile

from parallel_core.backends.base import NEVER, CallTerms
from parallel_core.backends.placement import WORTH_SECONDS, choose_victim, load
from parallel_core.backends.worker_handle import WorkerHandle
from parallel_core.observe.events import WorkerView
from parallel_core.serialization.batch import Batch
from parallel_core.workers.board import Phase

_TIMED = (Phase.UNPICKLING, Phase.RUNNING, Phase.PICKLING)
_START_SECONDS = 0.1  # what it takes to replace a worker, and to be worth it
_LOOK_SECONDS = 0.01  # until a worker that has something may have begun with it


def load_of(worker: WorkerHandle) -> int:
    """Return how bad a choice `worker` is for the next batch."""
    queued = len(worker.sent)
    takes_no_more = worker.leaving or (queued > 0 and worker.is_limited)
    return load(queued, worker.has_answered, takes_no_more)


def steal_from_busiest(
    workers: Sequence[WorkerHandle], task_seconds: float, is_short: bool
) -> tuple[list[Batch], float]:
    """Take tasks back from one of `workers`; return them, and when to look again.

    `is_short` says whether another worker could be started for them.
    """
    for worker in workers:
        if worker.is_limited and (taken := worker.taken()):
            return taken, NEVER
    now = time.monotonic()
    least = WORTH_SECONDS
    if not any(worker.ready and not worker.sent for worker in workers):
        if not is_short:
            return [], NEVER  # one that is still starting may come too late
        least = _START_SECONDS
    candidates, not_yet = [], False
    for worker in workers:
        if not worker.sent or (worker.is_limited and not worker.is_fenced):
            continue  # its answer will give back what it has
        if any(sent.is_directed for sent in worker.sent):
            continue
        waiting, running_for = worker.waiting(now)
        if not waiting:
            continue
        if worker.can_be_robbed:
            candidates.append((worker, waiting, running_for))
        else:
            not_yet = True
    victim, keep, again = choose_victim(candidates, now, task_seconds, least)
    if victim is None:
        return [], min(again, now + _LOOK_SECONDS) if not_yet else again
    taken = victim.steal(keep)
    return taken, now if taken else now + _LOOK_SECONDS


def stop_late_tasks(workers: Sequence[WorkerHandle], limit: float, terms: CallTerms) -> float:
    """Have tasks end that have run for more than `limit` seconds; return when to look again."""
    now = time.monotonic()
    again = now + limit
    for worker in workers:
        if worker.timed_out is not None:
            again = min(again, worker.escalate(now))
            continue
        running = worker.running() if worker.sent else None
        if running is None:
            continue
        sent, index, since, phase = running
        if phase not in _TIMED or index < sent.answered:
            continue
        seconds = terms.limit_for(sent.batch.start + index, limit)
        if now - since > seconds:
            again = min(again, worker.stop_task(sent, index, seconds))
        else:
            again = min(again, since + seconds)
    return again


def view_of(worker: WorkerHandle, now: float) -> WorkerView:
    """Return what `worker` is at, by its board."""
    view = WorkerView(worker.slot, worker.pid, len(worker.sent), worker.memory)
    running = worker.running() if worker.sent else None
    if running is not None:
        sent, index, began, phase = running
        position = sent.batch.start + index
        before = takewhile(lambda other: other is not sent, worker.sent)
        done = index + sum(other.batch.size - other.answered for other in before) - sent.answered
        return view._replace(
            phase=Phase(phase).name, position=position, seconds=now - began, done=max(done, 0)
        )
    if worker.is_on_request:
        return view._replace(phase=worker.requests[0].phase.name, seconds=now - worker.since)
    return view
