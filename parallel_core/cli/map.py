"""``parallel-core map``: apply a function to each line, and stream the results out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from typing import IO, TYPE_CHECKING, Any

from parallel_core.calls.call import Call
from parallel_core.calls.parameters import defaults_of
from parallel_core.calls.resources import CallResources
from parallel_core.calls.spec import spec_of
from parallel_core.cli.applying import (
    Failure,
    JournalledLines,
    LineFailed,
    apply_or_raise,
    apply_or_record,
)
from parallel_core.cli.arguments import (
    REPORT,
    SKIP,
    STOP,
    TEXT,
    ExitCode,
    MapOptions,
    ReaderClosed,
    complain,
)
from parallel_core.cli.source import LineSource, LineTasks
from parallel_core.cli.target import TargetError, add_current_directory, load_function
from parallel_core.errors import JournalError
from parallel_core.observe.terminal import write_above
from parallel_core.parallel.runner import Runner

if TYPE_CHECKING:
    from parallel_core import TaskFailure
    from parallel_core.calls.spec import CallSpec
    from parallel_core.insights.record import CallRecord
    from parallel_core.tasks.delayed import Task

#: How errors begin of functions that had expected something else than a string.
_WANTED_NO_TEXT = ("TypeError: ", "AttributeError: 'str' object")


class OutputError(Exception):
    """The results cannot be written, though their reader is there."""


def run(options: MapOptions) -> int:
    """Run ``parallel-core map`` and return its exit code."""
    if sys.stdout is None:
        return _refuse("standard output is closed")
    output = sys.stdout
    with redirect_stdout(sys.stderr):  # what functions and modules print is among no results
        return _run(options, output.buffer)


def _run(options: MapOptions, output: IO[bytes]) -> int:
    add_current_directory()
    try:
        function = load_function(options.target)
        source = LineSource(options.file)
    except TargetError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"cannot read {options.file!r}: {error.strerror or error}")
    with closing(source):
        run = _Run(options, source, function, output)
        params = {
            **defaults_of(Runner.__init__),
            "n_jobs": options.jobs,
            "batch_size": options.batch_size,
            "retries": options.retries,
            "timeout": options.timeout,
            "journal": options.journal,
            "return_as": options.return_as,
            "on_error": run.note_failure,
            "backend": options.backend,
        }
        if options.progress:
            params["progress"] = True
        if options.trace is not None:
            params["trace"] = options.trace
        if options.prefer is not None:
            params["prefer"] = options.prefer
        try:
            spec = spec_of("parallel-core map", params, {})
        except (TypeError, ValueError, ImportError) as error:
            return _refuse(str(error))
        return run.over(spec)


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
        self._tasks = LineTasks(source, self._task)
        self._done = 0
        self._failed = 0
        self._has_hinted = False
        self._apply: JournalledLines | None = None
        if options.journal is not None:
            from parallel_core.journal.digest import function_digest

            code = function_digest(function)
            self._apply = JournalledLines(options.target, options.form, code)

    def over(self, spec: CallSpec) -> ExitCode:
        """Make a call of all lines, and tell how it ended."""
        resources = CallResources(spec)
        shown = []
        if spec.progress is not None:
            from parallel_core.observe.bars import observer_of

            shown = [observer_of(spec.progress)]
        label = "parallel-core map"
        call = Call(self._tasks, spec, resources, label=label, observers=shown)
        is_complete = False
        try:
            try:
                call.start()
                for chunk in call.chunks():
                    self._take(chunk)
                is_complete = True
            finally:
                call.close(is_complete)
                if self._options.report:
                    _report(call.record)
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
            if isinstance(error, OSError) and error.filename == spec.trace_path:
                return _refuse(str(error))
            done = f"{self._done} lines were done before"
            complain("map", f"the run ended ({done}): {type(error).__name__}: {error}")
            return ExitCode.FAILED
        if resources.n_resumed_tasks:
            of = f"{resources.n_resumed_tasks} of {self._done} results"
            complain("map", f"{of} were taken over from {self._options.journal}")
        return self._after_the_last_line()

    def note_failure(self, failure: TaskFailure) -> Any:
        """Put what can be told of a failed line in the place of its result, or end the run."""
        error = failure.error
        if isinstance(error, LineFailed):
            told = error.failure
        else:
            told = Failure.of(failure.position + 1, error)
        if self._options.on_error == STOP:
            raise LineFailed(told)
        return failure.replace(told)

    def _take(self, results: list[bytes | Failure]) -> None:
        """Write results; report failures after what came before them."""
        self._done += len(results)
        written: list[bytes] = []
        for result in results:
            if isinstance(result, bytes):
                written.append(result)
                continue
            self._failed += 1
            if self._options.on_error == REPORT:
                _write(b"".join(written), self._output)
                written.clear()
                self._show(result)
        _write(b"".join(written), self._output)

    def _after_the_last_line(self) -> ExitCode:
        if self._failed and self._options.on_error == SKIP:
            lines = "1 line" if self._failed == 1 else f"{self._failed} lines"
            complain("map", f"{lines} of {self._done} failed and were left out")
        if self._source.problem is not None:
            where = f"{self._source.name}, after line {self._tasks.pulled}"
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


def _report(record: CallRecord | None) -> None:
    """Say where the time went."""
    if record is not None and sys.stderr is not None:
        from parallel_core.insights.report import Report

        print(Report(record), file=sys.stderr, flush=True)


def _write(data: bytes, stream: IO[bytes]) -> None:
    """Write and flush: the next result may be long in coming."""
    try:
        if write_above(stream, data):
            return
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
