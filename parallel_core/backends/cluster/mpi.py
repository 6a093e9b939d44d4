"""The backend ``"mpi"``: workers in the ranks that mpiexec, srun or another launcher has started.

::

    rank 0: the script     Parallel ──▶ ChannelSession ──▶ LeasedWorkers ──▶ WorkerPool
                                                                               │ Ranks.spawn
    ranks 1 … n                                            RankServer ◀────────┘

Rank 0 dispatches as it does to the local pool: in batches, with stealing, time limits and retries.
"""

from __future__ import annotations

from parallel_core import config
from parallel_core.backends.base import OF_PROCESSES, Backend, BackendUnavailable, Session, Style
from parallel_core.backends.channel_session import ChannelSession
from parallel_core.backends.cluster.mpi_meeting import START, Lent, load_mpi
from parallel_core.backends.cluster.mpi_ranks import START_METHOD, Ranks, known_ranks
from parallel_core.backends.cores import threads_per_worker
from parallel_core.backends.leased_workers import LeasedWorkers
from parallel_core.backends.options import WorkerOptions, pickle_initializer
from parallel_core.backends.session_setup import SessionSetup
from parallel_core.workers.pool import worker_pool
from parallel_core.workers.setup import Exclusive, WorkerKey, process_state
from parallel_core.workers.starting import WorkerStartError

_LENT_IDLE_SECONDS = 2.0  # for a session that nobody closes: else the program would not end


class MpiBackend(Backend):
    """Workers in the other ranks of an MPI program, of which this process is rank 0."""

    name = "mpi"
    style = Style.PUSH
    tells_process_state = True
    can_answer_each = True
    aim_seconds = 0.02
    default_n_jobs = -1
    worker_features = OF_PROCESSES

    def __init__(self) -> None:
        self._lent = Lent()

    def effective_n_jobs(self, n_jobs: int) -> int:
        """Return the number of ranks that a call gets: all of them for -1, all but one for -2.

        Raises
        ------
        ValueError
            For more than there are.
        RuntimeError
            Where there is none.
        """
        there = len(self._ranks().all)
        if n_jobs > there:
            raise ValueError(
                f"n_jobs={n_jobs}, and there are {there} ranks that work: rank 0 gives work to the "
                f"others. Start the program with -n {n_jobs + 1}, or pass n_jobs=-1 for all ranks"
            )
        return n_jobs if n_jobs > 0 else max(1, there + 1 + n_jobs)

    def open(self, n_jobs: int, level: int, options: WorkerOptions) -> Session:
        """Lease ranks."""
        ranks = self._ranks()
        setup, features = options.setup, options.setup is not None and options.setup.cpu_ids
        if features and not ranks.are_here:
            raise ValueError("cpu_ids cannot be had for ranks on other hosts: leave it to mpiexec")
        threads = threads_per_worker(min(n_jobs, ranks.n_on_one_host), options.thread_limit)
        initializer = None if options.initializer is None else pickle_initializer(options)
        key = WorkerKey(START_METHOD, initializer, (), options.preload, config.worker_hooks)
        idle_seconds = options.idle_seconds
        if self._lent.are_there():
            key = key._replace(exclusive=Exclusive())
            idle_seconds = min(idle_seconds or _LENT_IDLE_SECONDS, _LENT_IDLE_SECONDS)
        now = process_state(idle_seconds, level, threads, options.max_memory)
        of_session = None if setup is None else SessionSetup(setup, inherits=False)
        try:
            workers = LeasedWorkers(worker_pool(), n_jobs, key, now, ranks.spawn, of_session)
            return ChannelSession(workers, of_session)
        except WorkerStartError as error:
            if not ranks.present:
                raise RuntimeError(
                    f"all {len(ranks.all)} ranks that worked have ended, and MPI starts no others: "
                    "see what they have said last, and start the program anew"
                ) from error
            raise BackendUnavailable(str(error)) from error

    def _ranks(self) -> Ranks:
        """Return the ranks; raise RuntimeError where there are none."""
        ranks = self._lent.ranks() if self._lent.are_there() else known_ranks()
        if ranks is None or not ranks.all:
            raise RuntimeError(_no_ranks())
        self.opens_files = self.passes_descriptors = ranks.are_here
        return ranks


def _no_ranks() -> str:
    world = load_mpi().COMM_WORLD
    rank, size = world.Get_rank(), world.Get_size()
    start = f"start the program with {START}"
    if config.in_worker() or rank:
        return (
            f"backend='mpi' works in rank 0 alone, and this is rank {rank} of {size}: calls within "
            f"tasks use other backends; if all ranks run this script, {start}"
        )
    if size > 1:
        return f"all {size} ranks of MPI run this script, so none is left to work: {start}"
    return f"backend='mpi' needs ranks to work, and rank 0 is the only one: {start}"
