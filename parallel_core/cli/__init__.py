"""The command line: ``parallel-core``, which is also ``python -m parallel_core``.

::

    argv ──▶ main ──┬──▶ info.run   versions, cores, start method, folders ──▶ stdout
                    ├──▶ completion.run   a script for a shell ──────────────▶ stdout
                    ├──▶ dashboard.run   the server of the dashboard, until Ctrl-C
                    └──▶ map.run, below

    FILE or stdin ──a thread──▶ LineTasks ──▶ Call ──▶ workers: decode the line,
                    (source)                   │       call the function (found by target),
    stdout ◀──bytes────────────── map.run ◀────┘       encode the result (applying)
    stderr ◀──line number, error─────┘

- `main` runs one command and turns what ends it (a closed reader, Ctrl-C) into an exit code;
  `arguments` has these codes, and reads the arguments.
- ``map`` streams: lines are tasks that arrive while the call runs, as those of an executor do. So
  finished results do not wait for a slow producer. What functions print goes to stderr, and the
  results have stdout alone.
- ``applying`` is all that a worker imports of this package, with ``target``, which finds the
  function by its name: a task is four plain values, and what comes back is the bytes to write, or a
  record of the failure.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        The arguments, without the name of the program; those of the process by default.

    Returns
    -------
    int
        The exit code; the help of ``map`` lists them.
    """
    from parallel_core.cli.arguments import ExitCode, ReaderClosed

    try:
        code = _run_command(sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (BrokenPipeError, ReaderClosed):
        _forget_stdout()
        return ExitCode.READER_CLOSED
    return code


def _run_command(argv: list[str]) -> int:
    from parallel_core.cli.arguments import (
        CompletionOptions,
        DashboardOptions,
        InfoOptions,
        parse,
    )

    try:
        options = parse(argv)
    except SystemExit as end:  # argparse has said why, or has printed the help
        return end.code if isinstance(end.code, int) else 0
    if isinstance(options, InfoOptions):
        from parallel_core.cli import info

        return info.run(options)
    if isinstance(options, CompletionOptions):
        from parallel_core.cli import completion

        return completion.run(options)
    if isinstance(options, DashboardOptions):
        from parallel_core.cli import dashboard

        return dashboard.run(options)
    from parallel_core.cli import map as map_command

    return map_command.run(options)


def _forget_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter complains of it at its end."""
    try:
        stdout = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError, AttributeError):  # not a descriptor, so nothing to complain of
        return
    os.dup2(nowhere, stdout)
    os.close(nowhere)
