"""How a command ends: the exit codes, and messages on stderr."""

from __future__ import annotations

import enum
import sys


class ExitCode(enum.IntEnum):
    """What the shell is told. The texts of ``--help`` list these figures."""

    DONE = 0
    FAILED = 1
    """A task failed (or, for ``demo``, the results differ), and that ended the run."""
    USAGE = 2
    """The command could not be run as asked, or its input could not be read."""
    SOME_FAILED = 3
    """The run went through to its end, but some lines failed."""
    INTERRUPTED = 130
    """Ctrl-C: 128 + SIGINT."""
    READER_CLOSED = 141
    """The reader of stdout has gone, as in ``| head``: 128 + SIGPIPE."""


class ReaderClosed(Exception):
    """Nobody reads our output any more: told apart from broken pipes inside of the engine."""


def complain(command: str, message: str) -> None:
    """Write `message` to stderr, with the name of the command before it."""
    if sys.stderr is not None:
        print(f"parallel-core {command}: {message}", file=sys.stderr, flush=True)
