"""``mpiexec -n 4 python -m parallel_core.mpi script.py``: rank 0 runs the script, the others work.

The script is a program like any other; ``Parallel(backend="mpi")`` in it uses the other ranks.
``-m module`` and ``-c code`` in the place of the script mean what they mean for Python. When rank 0
ends, however it ends, all ranks do, and the launcher gets the exit status of rank 0.
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Sequence

from parallel_core.backends.cluster.mpi_meeting import end_ranks, follow, lead, load_mpi, own_comm

USAGE = """\
usage: mpiexec -n N python -m parallel_core.mpi SCRIPT [ARGUMENT ...]
       mpiexec -n N python -m parallel_core.mpi -m MODULE [ARGUMENT ...]
       mpiexec -n N python -m parallel_core.mpi -c CODE [ARGUMENT ...]

Rank 0 runs the script. The other N - 1 ranks run the tasks of Parallel(backend="mpi").
"""
_INTERRUPTED = 130  # as a shell says of a program that Ctrl-C has ended
_WRONG_USE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a script in rank 0, and workers in the other ranks; return the exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        The script and its arguments, by default those of the command line.

    Returns
    -------
    int
        In rank 0 that of the script, elsewhere 0.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        mpi = load_mpi()
    except (ImportError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    rank = mpi.COMM_WORLD.Get_rank()
    complaint = _complaint(given)
    if complaint is not None:
        if rank == 0:
            _say_usage(complaint)
        return _WRONG_USE if complaint else 0
    if mpi.COMM_WORLD.Get_size() == 1:
        return _run(given)
    comm = own_comm()
    if rank:
        follow(comm)
        return 0
    try:
        with lead(comm):
            status = _run(given)
            _flush()
            if end_ranks():  # in C code, perhaps, or in a task that catches everything
                mpi.COMM_WORLD.Abort(status)
            return status
    except BaseException:  # a rank cannot work for this one, say: others may wait for it
        traceback.print_exc()
        mpi.COMM_WORLD.Abort(1)
        raise


def _complaint(given: list[str]) -> str | None:
    """Return what is wrong with a command line, empty for a request for help; None: nothing."""
    if not given:
        return "no script is given"
    first = given[0]
    if first in ("-h", "--help"):
        return ""
    if first in ("-m", "-c"):
        return None if len(given) > 1 else f"{first} needs an argument"
    if first.startswith("-"):
        return f"unknown option {first}"
    return None if os.path.exists(first) else f"there is no file {first!r}"


def _say_usage(complaint: str) -> None:
    if complaint:
        print(f"{USAGE}\nerror: {complaint}", file=sys.stderr)
    else:
        print(USAGE)


def _run(given: list[str]) -> int:
    """Run the script, and say of an exception what Python says; return the exit status."""
    try:
        _run_script(given)
    except SystemExit as error:
        return _status_of(error.code)
    except KeyboardInterrupt:
        traceback.print_exc()
        return _INTERRUPTED
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _run_script(given: list[str]) -> None:
    first, *rest = given
    if first == "-m":
        sys.path[0] = os.getcwd()
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.path[0] = ""
        sys.argv[:] = ["-c", *rest[1:]]
        main_module = sys.modules["__main__"]
        exec(compile(rest[0], "<string>", "exec"), main_module.__dict__)
    else:
        sys.argv[:] = given
        if not getattr(sys.flags, "safe_path", False):
            sys.path[0] = os.path.dirname(os.path.realpath(first))
        runpy.run_path(first, run_name="__main__")


def _status_of(code: object) -> int:
    """Return the exit status of ``sys.exit(code)``; words are printed."""
    if code is None or isinstance(code, int):
        return int(code or 0)
    print(code, file=sys.stderr)
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


if __name__ == "__main__":
    sys.exit(main())
