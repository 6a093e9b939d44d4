"""The command line: ``parallel-core``, which is also ``python -m parallel_core``.

::

  argv ──▶ main ──┬──▶ info.run   versions, cores, start method, folders ──▶ stdout
                  ├──▶ demo.run   files of the standard library ──▶ a plain loop, then
                  │               Parallel ──▶ both equal? ──▶ stdout
                  └──▶ map.run, below

  FILE or stdin ──bytes──▶ LineSource ──lines──▶ Feed ──tasks──▶ Parallel ──▶ workers:
                                                                    ▲     decode the line,
                                                                    │     call the function
                                                                    │     (found by target),
                                                                    │     encode the result
  stdout ◀──bytes───────────────┬── map.run ◀──results, failures────┴────────── (applying)
  stderr ◀──line number, error──┘      └──▶ Feed: one result less is owed

- ``main`` reads the arguments, runs one command and turns what ends it (a closed reader,
  Ctrl-C) into an exit code of `exits`.
- ``map`` streams. What functions print goes to stderr, too, and the results have stdout alone.
  The loop of `Parallel` runs in the thread that wants the next result,
  so a ``Feed`` that waited for a slow producer would keep finished results back; it
  therefore ends a *round* when the input pauses, and the next line starts the next one
  on the same workers (`source` says more).
- ``applying`` is all that a worker imports of this package, with ``target``, which finds
  the function by its name: a task is four plain values, and what comes back is the bytes
  to write, or a record of the failure.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

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
        The exit code: see `parallel_core.cli.exits.ExitCode`.
    """
    from parallel_core.cli.exits import ExitCode, ReaderClosed

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
    try:
        options = _parsed(argv)
    except SystemExit as end:  # argparse has said why, or has printed the help
        return end.code if isinstance(end.code, int) else 0
    named = vars(options)
    command = named.pop("command")
    if command == "map":
        from parallel_core.cli import map as map_command

        return map_command.run(map_command.MapOptions(**named))
    if command == "info":
        from parallel_core.cli import info

        return info.run(info.InfoOptions(**named))
    from parallel_core.cli import demo

    return demo.run(demo.DemoOptions(**named))


def _parsed(argv: list[str]) -> argparse.Namespace:
    """Return what the arguments say; raise SystemExit, with the usage of the command, if wrong."""
    parser, commands = _parsers()
    options, unknown = parser.parse_known_args(argv)
    if unknown:  # argparse itself would show the usage of all commands
        commands.choices[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _parsers() -> tuple[
    argparse.ArgumentParser, argparse._SubParsersAction[argparse.ArgumentParser]
]:
    import argparse

    from parallel_core._version import __version__
    from parallel_core.cli import demo, info
    from parallel_core.cli import map as map_command

    parser = argparse.ArgumentParser(
        prog="parallel-core",
        description="Run Python functions over all cores.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"parallel-core {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    map_command.add_parser(commands)
    info.add_parser(commands)
    demo.add_parser(commands)
    return parser, commands


def _forget_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter complains of it at its end."""
    try:
        stdout = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError, AttributeError):  # not a descriptor, so nothing to complain of
        return
    os.dup2(nowhere, stdout)
    os.close(nowhere)
