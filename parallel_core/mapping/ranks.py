"""The number of the worker that code runs in, and how many workers there can be."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import socket
import sys
from importlib import import_module
from typing import Any

from parallel_core import config
from parallel_core.backends.cores import cpu_count
from parallel_core.context.this_worker import this_worker

#: Environment variables that launchers of MPI jobs set in every process.
_OF_LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK")


def rank_here() -> int:
    """Return the number of the worker that runs this code, from 1; outside of tasks, the rank."""
    world = _world()
    rank = 0 if world is None else int(world.Get_rank())
    if rank:
        return rank
    try:
        return this_worker().id + 1
    except RuntimeError:  # not in a task, or its engine does not number its workers
        return _number_of_process(os.getpid(), os.getppid()) if config.nesting_level() else 0


def workers_here() -> int:
    """Return how many workers a call can have here."""
    world = _world()
    ranks = 1 if world is None else int(world.Get_size())
    return cpu_count() if ranks == 1 else ranks - 1


def mpi_size() -> int:
    """Return the number of ranks of this MPI job; raise RuntimeError if MPI cannot be used."""
    if os.environ.get("DONT_USE_MPI"):
        raise RuntimeError("Cannot use MPI: the environment variable DONT_USE_MPI is set; unset it")
    try:
        return int(import_module("mpi4py.MPI").COMM_WORLD.Get_size())
    except ImportError as error:
        raise RuntimeError(
            f"Cannot use MPI: mpi4py cannot be imported ({error}); "
            "pip install 'parallel-core[mpi]' installs it"
        ) from error
    except RuntimeError as error:  # mpi4py is there, and no library of MPI
        raise RuntimeError(
            f"Cannot use MPI: mpi4py finds no MPI library ({error}); "
            "pip install mpich, or load the module of your cluster"
        ) from error


def _world() -> Any:
    """Return the communicator of all ranks if this process is one of an MPI job; else None."""
    if os.environ.get("DONT_USE_MPI"):
        return None
    module = sys.modules.get("mpi4py.MPI")
    if module is None and _is_started_by_mpi():
        with contextlib.suppress(ImportError, RuntimeError):
            module = import_module("mpi4py.MPI")
    return None if module is None or module.Is_finalized() else module.COMM_WORLD


def _is_started_by_mpi() -> bool:
    """Whether a launcher of MPI jobs has started this very process, and not one above it."""
    if config.in_worker() or not any(name in os.environ for name in _OF_LAUNCHERS):
        return False
    multiprocessing = sys.modules.get("multiprocessing.process")
    return multiprocessing is None or multiprocessing.parent_process() is None


# Workers of other engines have no numbers: loky's have names that count over all pools of a
# program. A name in the abstract namespace of sockets belongs to one process and goes with it,
# whatever becomes of the process, so a worker takes the lowest one that is free.
@functools.cache
def _number_of_process(pid: int, parent: int) -> int:
    """Return the lowest number that no other living worker of the same parent has."""
    del pid  # a forked child has a number of its own
    if not sys.platform.startswith("linux"):
        digits = "".join(itertools.takewhile(str.isdigit, reversed(_process_name())))
        return int(digits[::-1] or 1)
    for number in itertools.count(1):
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0parallel-core-worker-{parent}-{number}")
        except OSError:
            mark.close()
        else:
            mark.detach()  # it stays open until the process ends
            return number
    raise AssertionError


def _process_name() -> str:
    multiprocessing = import_module("multiprocessing")
    return str(multiprocessing.current_process().name)
