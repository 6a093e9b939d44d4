"""What the shell gives and gets: arguments, exit codes, messages on stderr."""

from __future__ import annotations

import argparse
import enum
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

TEXT = "text"
JSON = "json"

STOP = "stop"
SKIP = "skip"
REPORT = "report"

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")

_MAP_DESCRIPTION = """\
Apply a function to each line of FILE, on several cores, and print the results as they
complete, in the order of the lines. The input is read as it comes and never as a whole.

The function is called with one argument: the line as a string, without its newline ("\\n"
or "\\r\\n"), or with --json what the line holds. Modules of the current directory can be
imported, as with "python -m"; after the colon, attributes may follow: pkg.mod:Class.method.
"""

_MAP_EPILOG = """\
output:
  Each result is printed as str() gives it, and a newline. None prints an empty line; a
  string of several lines prints as several lines. With --json each result is one line of
  JSON; a result that JSON cannot hold (a set, a NaN) is a failure of its line.
  Text is UTF-8 both ways, and bytes that are not UTF-8 pass through as they are.
  What the function itself prints goes to stderr: stdout has the results alone.

failures:
  stop     the first failure ends the run; stderr names its line and its error
  skip     failing lines give no output; stderr tells at the end how many there were
  report   as skip, and stderr names each failing line and its error as it occurs
  A line whose worker died, or that took longer than --timeout, has failed as well.

journal:
  With --journal, the results of finished lines are kept in a file as they come. The same
  command, started again after a crash, computes only what is missing, and stderr tells how
  much it took over. Failed lines are tried again. A journal of another function, whose code
  counts, or of other lines is refused.

exit codes:
  0    all went well
  1    a task failed and ended the run, or the output could not be written
  2    the command is wrong: bad option, no such function, FILE cannot be read, or the journal
       does not fit
  3    all lines were tried, and some failed (skip and report)
  130  ended by Ctrl-C
  141  the reader of the output went away, as in "| head"

examples:
  parallel-core map os.path:getsize files.txt
  cat records.jsonl | parallel-core map --json --jobs 4 mymodule:enrich > enriched.jsonl
"""


_DASHBOARD_DESCRIPTION = """\
Show every call of this user on this machine on a web page, while it runs. The address that
is printed holds a token; it opens the page in a browser. Programs are found by themselves.
"""


class ExitCode(enum.IntEnum):
    """What the shell is told. The texts of ``--help`` list these figures."""

    DONE = 0
    FAILED = 1  #: a task failed, and that ended the run
    USAGE = 2  #: the command could not be run as asked, or its input could not be read
    SOME_FAILED = 3  #: the run went through to its end, but some lines failed
    INTERRUPTED = 130  #: Ctrl-C: 128 + SIGINT
    READER_CLOSED = 141  #: the reader of stdout has gone, as in ``| head``: 128 + SIGPIPE


class ReaderClosed(Exception):
    """Nobody reads our output any more: told apart from broken pipes inside of the engine."""


class MapOptions(NamedTuple):
    """The arguments of ``parallel-core map``."""

    target: str
    file: str
    form: str
    jobs: int
    backend: str | None
    prefer: str | None
    batch_size: int | str
    return_as: str
    on_error: str
    retries: int
    timeout: float | None
    journal: str | None
    traceback: bool
    progress: bool
    trace: str | None
    report: bool


class InfoOptions(NamedTuple):
    """The arguments of ``parallel-core info``."""

    form: str


class CompletionOptions(NamedTuple):
    """The arguments of ``parallel-core completion``."""

    shell: str


class DashboardOptions(NamedTuple):
    """The arguments of ``parallel-core dashboard``."""

    ports: range
    host: str

    @property
    def is_open(self) -> bool:
        """Whether other machines are to reach it."""
        return self.host not in LOOPBACK_HOSTS


def complain(command: str, message: str) -> None:
    """Write `message` to stderr, with the name of the command before it."""
    if sys.stderr is not None:
        print(f"parallel-core {command}: {message}", file=sys.stderr, flush=True)


Options = MapOptions | InfoOptions | CompletionOptions | DashboardOptions
_OPTIONS: dict[str, type[Options]] = {
    "map": MapOptions,
    "info": InfoOptions,
    "completion": CompletionOptions,
    "dashboard": DashboardOptions,
}


def parse(arguments: list[str]) -> Options:
    """Return what the arguments say; raise SystemExit, with the usage of the command, if wrong."""
    parser, commands = make_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # argparse itself would show the usage of all commands
        commands.choices[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    named = vars(options)
    return _OPTIONS[named.pop("command")](**named)


def make_parser() -> tuple[
    argparse.ArgumentParser, argparse._SubParsersAction[argparse.ArgumentParser]
]:
    """Return the parser of the whole line, and those of the commands."""
    from parallel_core._version import __version__

    parser = argparse.ArgumentParser(
        prog="parallel-core",
        description="Run Python functions over all cores.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"parallel-core {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for_map = commands.add_parser(
        "map",
        help="apply a function to each line of a file or of standard input",
        description=_MAP_DESCRIPTION,
        epilog=_MAP_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_map_arguments(for_map)
    text = "print versions, cores, the start method of workers, and where arrays would go"
    for_info = commands.add_parser("info", help=text, description=text, allow_abbrev=False)
    _add_json(for_info, "the same as one JSON object; sizes are in bytes")
    text = "print a script that has a shell complete commands and options"
    for_shell = commands.add_parser(
        "completion",
        help=text,
        description=f"{text.capitalize()}: source <(parallel-core completion bash)",
        allow_abbrev=False,
    )
    for_shell.add_argument("shell", choices=("bash", "zsh", "fish"))
    _add_dashboard(commands)
    return parser, commands


def _add_dashboard(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "show all calls of this user on a web page, until Ctrl-C"
    parser = commands.add_parser(
        "dashboard", help=text, description=_DASHBOARD_DESCRIPTION, allow_abbrev=False
    )
    text = "the ports to try, from A to B (default: 8080-8099)"
    default = _ports("8080-8099")
    parser.add_argument(
        "--port-range", dest="ports", type=_ports, default=default, metavar="A-B", help=text
    )
    text = "the address to bind to (default: 127.0.0.1); any other lets other machines in"
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help=text)


def _add_map_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("target", metavar="package.module:function", help="the function to call with each line")
    text = 'the input; "-", the default, is stdin'
    add("file", metavar="FILE", nargs="?", default="-", help=text)
    _add_json(parser, "each line is JSON, and so is each result")
    text = "workers; negative: count back from all cores, -1 (the default) being all of them"
    add("-j", "--jobs", type=_jobs, default=-1, metavar="N", help=text)
    add("--backend", metavar="NAME", help="where tasks run, such as threading")
    text = "the kind of workers, without --backend"
    add("--prefer", choices=("processes", "threads"), help=text)
    text = 'lines handed to a worker at once; "auto", the default, goes by their duration'
    add("--batch-size", type=_batch_size, default="auto", metavar="N", help=text)
    add(
        "--unordered",
        dest="return_as",
        action="store_const",
        const="generator_unordered",
        default="generator",
        help="print each result as soon as it is there, in whatever order",
    )
    text = "what a failing line does, see below (default: stop)"
    add("--on-error", choices=(STOP, SKIP, REPORT), default=STOP, help=text)
    text = "how many times to try a line again whose worker died (default: 0)"
    add("--retries", type=_whole_from(0), default=0, metavar="N", help=text)
    text = "how long a line may take; with more than one job"
    add("--timeout", type=_seconds, metavar="SECONDS", help=text)
    text = "keep results in FILE, and go on from there, see below"
    add("--journal", metavar="FILE", help=text)
    text = "show a progress bar on stderr, if that is a terminal"
    add("--progress", action="store_true", help=text)
    text = "write what happened when to FILE, for viewers such as ui.perfetto.dev"
    add("--trace", metavar="FILE", help=text)
    text = "say on stderr, at the end, where the time went and what to do about it"
    add("--report", action="store_true", help=text)
    add("--traceback", action="store_true", help="show the traceback of each error that is named")


def _add_json(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--json", dest="form", action="store_const", const=JSON, default=TEXT, help=text
    )


def _ports(text: str) -> range:
    first, dash, last = text.partition("-")
    low, high = _whole(first), _whole(last if dash else first)
    if low is None or high is None or not 0 <= low <= high < 1 << 16:
        _refuse(f"port numbers are needed, such as 8080-8099, not {text!r}")
    return range(low, high + 1)


def _jobs(text: str) -> int:
    number = _whole(text)
    if number is None:
        _refuse(f"a whole number is needed, not {text!r}")
    if number == 0:
        _refuse("0 workers can do nothing; -1 means all cores")
    return number


def _whole_from(least: int, instead: str = "") -> Callable[[str], int]:
    def check(text: str) -> int:
        number = _whole(text)
        if number is None or number < least:
            _refuse(f"{instead}a number from {least} on is needed, not {text!r}")
        return number

    return check


def _batch_size(text: str) -> int | str:
    return text if text == "auto" else _whole_from(1, '"auto" or ')(text)


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        _refuse(f"a positive number of seconds is needed, not {text!r}")
    return number


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _refuse(message: str) -> NoReturn:
    raise argparse.ArgumentTypeError(message)
