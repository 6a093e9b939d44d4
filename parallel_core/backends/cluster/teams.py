"""The workers on engines that this process has: in a session, or warm for the next one.

A session takes free workers of its engine, all that there are together, or starts some. So calls
of two threads never share a connection.
"""

from __future__ import annotations

import atexit
import threading

from memmapping.forks import in_child
from memmapping.interrupts import HeldSignals
from parallel_core.backends.cluster.engine import Engine
from parallel_core.backends.cluster.remote_workers import RemoteWorkers
from parallel_core.workers.setup import ProcessState, WorkerKey

_MOST_FREE = 4  # that are kept warm


class _Teams:
    """All `RemoteWorkers` of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.all: list[RemoteWorkers] = []
        self.is_registered = False


_teams = _Teams()


def lease(engine: Engine, n_jobs: int, key: WorkerKey, state: ProcessState) -> RemoteWorkers:
    """Return `n_jobs` workers of `engine`, or as many as have come, for a session.

    Raises
    ------
    WorkerStartError
        When none could be had.
    """
    with HeldSignals(), _teams.lock:
        if not _teams.is_registered:
            _teams.is_registered = True
            atexit.register(end_remote_workers)
        free = [team for team in _teams.all if team.is_free]
        team = next((one for one in free if one.engine.identity == engine.identity), None)
        if team is None:
            team = RemoteWorkers(engine)
            _teams.all.append(team)
            unneeded = free[:-_MOST_FREE]
        else:
            unneeded = []
        team.take(engine)
        for one in unneeded:
            _teams.all.remove(one)
    for one in unneeded:
        one.close()
    try:
        team.begin(n_jobs, key, state)
    except BaseException:
        discard(team)
        raise
    return team


def discard(team: RemoteWorkers) -> None:
    """End the workers of a session that could not begin."""
    with HeldSignals(), _teams.lock:
        if team in _teams.all:
            _teams.all.remove(team)
    team.close()


def end_remote_workers() -> int:
    """End the idle workers that this process has on engines; return how many there were."""
    with HeldSignals(), _teams.lock:
        free = [team for team in _teams.all if team.is_free]
        _teams.all = [team for team in _teams.all if team not in free]
    return sum(team.close() for team in free)


@in_child
def _forget() -> None:
    """Close what is the parent's; its workers stay its own."""
    global _teams
    teams, _teams = _teams.all, _Teams()
    for team in teams:
        team.disown()
