"""``parallel-core map``: apply a function to each line, and stream the results out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import closing, nullcontext, redirect_stdout
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from parallel_core.cli import arguments
from parallel_core.cli.applying import (
    JSON,
    TEXT,
    Failure,
    JournalledLines,
    LineFailed,
    apply_or_raise,
    apply_or_record,
)
from parallel_core.cli.exits import ExitCode, ReaderClosed, complain
from parallel_core.cli.source import Feed, LineSource
from parallel_core.cli.target import TargetError, add_current_directory, load_function
from parallel_core.errors import JournalError

if TYPE_CHECKING:
    import argparse

    from parallel_core import Parallel, TaskFailure
    from parallel_core.tasks.delayed import Task

STOP = "stop"
SKIP = "skip"
REPORT = "report"

_IN_ORDER = "generator"
_AS_COMPLETED = "generator_unordered"

#: How errors begin of functions that had expected something else than a string.
_WANTED_NO_TEXT = ("TypeError: ", "AttributeError: 'str' object")

_DESCRIPTION = """\
Apply a function to each line of FILE, on several cores, and print the results as they
complete, in the order of the lines. The input is read as it comes and never as a whole.

The function is called with one argument: the line as a string, without its newline ("\\n"
or "\\r\\n"), or with --json what the line holds. Modules of the current directory can be
imported, as with "python -m"; after the colon, attributes may follow: pkg.mod:Class.method.
"""

_EPILOG = """\
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


class MapOptions(NamedTuple):
    """What the command line asks for."""

    target: str
    file: str
    form: str
    jobs: int
    backend: str | None
    prefer: str | None
    batch_size: int | str
    return_as: str
    on_error: str
    traceback: bool
    retries: int
    timeout: float | None
    journal: str | None


class OutputError(Exception):
    """The results cannot be written, though their reader is there."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the options of this command to the command line."""
    import argparse

    parser = commands.add_parser(
        "map",
        help="apply a function to each line of a file or of standard input",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "target", metavar="package.module:function", help="the function to call with each line"
    )
    parser.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help='the input; "-", the default, is stdin'
    )
    parser.add_argument(
        "--json",
        dest="form",
        action="store_const",
        const=JSON,
        default=TEXT,
        help="each line is JSON, and so is each result",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=arguments.jobs,
        default=-1,
        metavar="N",
        help="workers; negative: count back from all cores, -1 (the default) being all of them",
    )
    parser.add_argument("--backend", metavar="NAME", help="where tasks run, such as threading")
    parser.add_argument(
        "--prefer", choices=("processes", "threads"), help="the kind of workers, without --backend"
    )
    parser.add_argument(
        "--batch-size",
        type=arguments.batch_size,
        default="auto",
        metavar="N",
        help='lines handed to a worker at once; "auto", the default, goes by their duration',
    )
    parser.add_argument(
        "--unordered",
        dest="return_as",
        action="store_const",
        const=_AS_COMPLETED,
        default=_IN_ORDER,
        help="print each result as soon as it is there, in whatever order",
    )
    parser.add_argument(
        "--on-error",
        choices=(STOP, SKIP, REPORT),
        default=STOP,
        help="what a failing line does, see below (default: stop)",
    )
    parser.add_argument(
        "--retries",
        type=arguments.count,
        default=0,
        metavar="N",
        help="how many times to try a line again whose worker died (default: 0)",
    )
    parser.add_argument(
        "--timeout",
        type=arguments.seconds,
        metavar="SECONDS",
        help="how long a line may take; with more than one job",
    )
    parser.add_argument(
        "--journal", metavar="FILE", help="keep results in FILE, and go on from there, see below"
    )
    parser.add_argument(
        "--traceback", action="store_true", help="show the traceback of each error that is named"
    )


def run(options: MapOptions) -> int:
    """Run ``parallel-core map`` and return its exit code."""
    if sys.stdout is None:
        return _refuse("standard output is closed")
    output = sys.stdout
    with redirect_stdout(sys.stderr):  # what functions and modules print is among no results
        return _run(options, output.buffer)


def _run(options: MapOptions, output: IO[bytes]) -> int:
    from parallel_core import Parallel

    add_current_directory()
    settings: dict[str, Any] = {
        "n_jobs": options.jobs,
        "batch_size": options.batch_size,
        "retries": options.retries,
        "timeout": options.timeout,
    }
    if options.backend is not None:
        settings["backend"] = options.backend
    if options.prefer is not None:
        settings["prefer"] = options.prefer
    try:
        function = load_function(options.target)
        source = LineSource(options.file)
    except TargetError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"cannot read {options.file!r}: {error.strerror or error}")
    with closing(source):
        run = _Run(options, source, function, output)
        if options.journal is not None:
            from parallel_core.journal.store import Calls, Journal

            try:  # the rounds of the feed are one call to its user
                journal = Journal.open(options.journal, calls=Calls.JOINED)
            except JournalError as error:
                return _refuse(str(error))
            closing_journal: Any = closing(journal)
            settings["journal"] = journal
        else:
            closing_journal = nullcontext()
        settings["on_error"] = run.note_failure
        try:
            pool = Parallel(return_as=options.return_as, **settings)
        except (TypeError, ValueError, ImportError) as error:
            return _refuse(str(error))
        with closing_journal:
            return run.over(pool)


class _Run:
    """One run over the lines of one source."""

    def __init__(
        self,
        options: MapOptions,
        source: LineSource,
        function: Callable[[Any], Any],
        output: IO[bytes],
    ) -> None:
        self._options = options
        self._output = output
        self._source = source
        self._feed = Feed(source, self._task)
        self._failed = 0
        self._round_began = 0
        self._has_hinted = False
        self._apply: JournalledLines | None = None
        if options.journal is not None:
            from parallel_core.journal.digest import function_digest

            code = function_digest(function)
            self._apply = JournalledLines(options.target, options.form, code)

    def over(self, pool: Parallel) -> ExitCode:
        """Send all lines through `pool`, and tell how it ended."""
        try:
            with pool:
                while self._source.wait(None):
                    self._one_round(pool)
        except LineFailed as error:
            self._show(error.failure)
            return ExitCode.FAILED
        except OutputError as error:
            complain("map", f"cannot write the results: {error}")
            return ExitCode.FAILED
        except ReaderClosed:
            raise
        except JournalError as error:
            return _refuse(str(error))
        except Exception as error:
            done = f"{self._feed.delivered} lines were done before"
            complain("map", f"the run ended ({done}): {type(error).__name__}: {error}")
            return ExitCode.FAILED
        if pool.n_resumed_tasks:
            of = f"{pool.n_resumed_tasks} of {self._feed.delivered} results"
            complain("map", f"{of} were taken over from {self._options.journal}")
        return self._after_the_last_line()

    def note_failure(self, failure: TaskFailure) -> Any:
        """Put what can be told of a failed line in the place of its result, or end the run."""
        error = failure.error
        if isinstance(error, LineFailed):
            told = error.failure
        else:
            told = Failure.of(self._round_began + failure.position + 1, error)
        if self._options.on_error == STOP:
            raise LineFailed(told)
        return failure.replace(told)

    def _one_round(self, pool: Parallel) -> None:
        self._round_began = self._feed.pulled
        results = cast("Generator[bytes | Failure, None, None]", pool(self._feed.round()))
        with closing(results):
            for result in results:
                self._feed.deliver()
                if isinstance(result, Failure):
                    self._failed += 1
                    if self._options.on_error == REPORT:
                        self._show(result)
                else:
                    _write(result, self._output)

    def _after_the_last_line(self) -> ExitCode:
        if self._failed and self._options.on_error == SKIP:
            lines = "1 line" if self._failed == 1 else f"{self._failed} lines"
            complain("map", f"{lines} of {self._feed.delivered} failed and were left out")
        if self._source.problem is not None:
            where = f"{self._source.name}, after line {self._feed.pulled}"
            complain("map", f"cannot read on in {where}: {self._source.problem}")
            return ExitCode.USAGE
        return ExitCode.SOME_FAILED if self._failed else ExitCode.DONE

    def _task(self, number: int, line: bytes) -> Task[bytes | Failure]:
        if self._apply is not None:  # failures raise: a journal keeps results
            return self._apply, (number, line), {}
        apply = apply_or_raise if self._options.on_error == STOP else apply_or_record
        return apply, (self._options.target, self._options.form, number, line), {}

    def _show(self, failure: Failure) -> None:
        complain("map", f"line {failure.line}: {failure.error}")
        if self._options.form == TEXT and failure.error.startswith(_WANTED_NO_TEXT):
            if not self._has_hinted:
                complain("map", "(the function gets each line as a string; --json has it parsed)")
            self._has_hinted = True
        if self._options.traceback and sys.stderr is not None:
            print(failure.traceback, end="", file=sys.stderr, flush=True)


def _write(data: bytes, stream: IO[bytes]) -> None:
    """Write and flush: the next result may be long in coming."""
    try:
        left = memoryview(data)
        while left:  # an unbuffered stream may take a part only
            left = left[stream.write(left) :]
        stream.flush()
    except BrokenPipeError:
        raise ReaderClosed from None
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from error


def _refuse(reason: str) -> ExitCode:
    complain("map", reason)
    return ExitCode.USAGE
