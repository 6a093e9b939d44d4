"""What the workers of ``parallel-core map`` run: one line in, bytes or a failure out.

Decoding, calling and encoding all happen here, so that the parent only cuts its input
into lines and writes bytes, and so that a result which cannot be written is the failure
of its line. A task carries the *name* of the function and plain values; nothing in it,
and nothing in a failure, can fail to be pickled.
"""

from __future__ import annotations

from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, NamedTuple

from parallel_core.cli.target import load_function

JSON = "json"

_NOT_RUN = (CoroutineType, GeneratorType, AsyncGeneratorType)


class Failure(NamedTuple):
    """A line whose call raised: everything that a report needs, as text."""

    line: int  #: its number, from 1
    error: str  #: the type and the message of the exception, on one line
    traceback: str  #: as Python prints it, from the called function on

    @staticmethod
    def of(line: int, error: BaseException) -> Failure:
        """Return the failure of a line that never came to raise `error` itself."""
        import traceback

        said = "".join(traceback.format_exception_only(type(error), error)).splitlines()[0]
        told = "".join(traceback.format_exception(type(error), error, None))
        return Failure(line, said, told)


class LineFailed(Exception):
    """Carries a `Failure` out of a worker, and ends the run there and then."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def apply_or_raise(target: str, form: str, number: int, line: bytes) -> bytes:
    """Return what to write for a line, newline included; whatever goes wrong is a `LineFailed`.

    ``SystemExit`` is a failure like another: a function that calls ``sys.exit`` on a bad line means
    that line.
    """
    try:
        function = load_function(target)
        text = line.decode("utf-8", "surrogateescape")
        result = function(_from_json(text) if form == JSON else text)
        if isinstance(result, _NOT_RUN):
            raise RuntimeError(_unfinished(result))
        return _json_line(result) if form == JSON else _text_line(result)
    except (Exception, SystemExit) as error:
        raise LineFailed(_failure(number, error)) from None


class JournalledLines:
    """Applies a function as `apply_or_raise` does, and is another one when its code is another."""

    def __init__(self, target: str, form: str, code: bytes) -> None:
        self.target = target
        self.form = form
        self.code = code  # the digest of the function: a journal knows tasks by it, too

    def __repr__(self) -> str:
        return f"<{self.target} of {self.form} lines>"

    def __call__(self, number: int, line: bytes) -> bytes:
        """Return what is to be written for a line."""
        return apply_or_raise(self.target, self.form, number, line)


def apply_or_record(target: str, form: str, number: int, line: bytes) -> bytes | Failure:
    """Apply a function to a line as `apply_or_raise` does, and return a failure as a value."""
    try:
        return apply_or_raise(target, form, number, line)
    except LineFailed as failed:
        return failed.failure


def _unfinished(result: Any) -> str:
    """Say that a function with ``async`` or ``yield`` in it has not run yet."""
    if isinstance(result, CoroutineType):
        result.close()  # else Python says that it was never awaited
        return "the function is asynchronous, and has not run: map another one that awaits it"
    kind = type(result).__name__.replace("_", " ")
    return f"the function returned a {kind}, whose items nobody takes: return a list or a string"


def _text_line(result: object) -> bytes:
    """``None`` is an empty line, so that lines of input and output stay side by side."""
    text = "" if result is None else str(result)
    return text.encode("utf-8", "surrogateescape") + b"\n"


def _from_json(text: str) -> Any:
    import json

    return json.loads(text)


def _json_line(result: object) -> bytes:
    import json

    text = json.dumps(result, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode("utf-8", "surrogateescape") + b"\n"
    except UnicodeEncodeError:  # lone surrogates, which JSON can hold as \uXXXX only
        return json.dumps(result, allow_nan=False).encode("ascii") + b"\n"


def _failure(number: int, error: BaseException) -> Failure:
    import traceback

    called = error.__traceback__.tb_next if error.__traceback__ is not None else None
    said = "".join(traceback.format_exception_only(type(error), error))
    if isinstance(error, SyntaxError):  # printed with the source line above it
        said = f"{type(error).__name__}: {error}"
    told = "".join(traceback.format_exception(type(error), error, called))
    return Failure(number, " ".join(said.split()), told)
