"""The journal of one call: results that are known, and results as they arrive.

A row that a digest vouches for is never written twice; a row that belongs to another task is an
error, not a miss: to go on would leave results of two calls in one file.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import pickle
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from types import GeneratorType, TracebackType
from typing import Any
from weakref import WeakSet

from memmapping.forks import in_child
from parallel_core.errors import (
    InvalidTaskError,
    JournalError,
    SerializationError,
    warn_caller,
)
from parallel_core.journal.differences import differences, differing_arguments, keys_of_arguments
from parallel_core.journal.digest import DigestedFunction, FunctionDigests, digest
from parallel_core.journal.file import JournalFile, damaged
from parallel_core.journal.rows import APPEND, DESCRIBE, Row, Rows, checksum_of, dumps_result
from parallel_core.serialization.pickling import explain
from parallel_core.tasks.delayed import check_task
from parallel_core.tasks.description import describe_call, describe_task, function_name
from parallel_core.tasks.placeholders import KnownResult

#: Bytes of a pickled result that SQLite still takes; its limit is for a whole row.
LARGEST = 1_000_000_000 - 1000

_MAX_DESCRIBED = 1000  # functions; a generator may yield a new lambda each time
_MAX_TASKS = 1 << 32  # of a call: where the positions of the next one begin

_open_journals: WeakSet[Journal]


class Journal:
    """Results of a call in a file, for the same call to go on from; made by `open`.

    Several calls may use it, one after the other. Each has positions of its own: it is the first,
    the second, ... with this journal. Results are pickled. Open only files that you trust:
    unpickling can run any code.

    >>> import tempfile
    >>> from parallel_core import delayed
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Journal.open(f"{folder}/squares") as journal:
    ...         for position, (f, args, _) in enumerate(journal.look_up([delayed(pow)(3, 2)])):
    ...             journal.record(position, [f(*args)])
    ...     with Journal.open(f"{folder}/squares") as journal:
    ...         [item.value for item in journal.look_up([delayed(pow)(3, 2)])]
    [9]
    """

    def __init__(
        self,
        file: JournalFile,
        seed: bytes | None = None,
        own: frozenset[str] = frozenset(),
    ) -> None:
        self._file: JournalFile | None = file
        self._path = file.path
        self._process = os.getpid()
        self._seed = seed  # the digest of what the tasks' random numbers begin with
        self._lock = threading.Lock()
        self._digests = FunctionDigests(own)
        self._pending: dict[int, tuple[bytes, bytes, object]] = {}
        self._noted: set[bytes] = set()  # functions that are described in the file, or will be
        self._descriptions: list[tuple[bytes, str]] = []
        self._is_looking = False
        self._base = 0  # where the positions of this call begin
        self.taken_over = 0  #: results that came from the file
        self.recorded = 0  #: results that this program appended
        _open_journals.add(self)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        seed: object = None,
        own: frozenset[str] = frozenset(),
    ) -> Journal:
        """Make the journal `path`, or take it up.

        `seed` is a part of what identifies each task, beside its function and its arguments. The
        values of `own` globals, which an initializer sets in each worker, do not count. While it is
        open, SQLite keeps another file beside it, and nobody else can open it.

        A file that is no journal, is damaged, is of another Python or of a newer format, is open
        elsewhere, or cannot be read and written is a `JournalError`. It has not been changed then.
        """
        seed_digest = None if seed is None else digest(seed, "the seed")
        return cls(JournalFile(os.fsdecode(path)), seed_digest, own)

    def look_up(self, tasks: Iterable[Any]) -> Generator[Any, None, None]:
        """Yield each task, or, where its result is known, that as `KnownResult`.

        An item that is no task is yielded as it is. Closing this generator closes that of the
        caller; what the latter raises is raised as it is. Another task at this place of the journal
        is a `JournalError`, one that nothing tells from others a `SerializationError`. A damaged
        result is computed again, with a warning.
        """
        iterator = iter(tasks)
        return self._look_up(iterator)

    def _look_up(self, iterator: Iterator[Any]) -> Generator[Any, None, None]:
        if self._is_looking:
            raise JournalError(f"the journal {self._path!r} is in use by another call")
        self._is_looking = True
        try:
            yield from map(self.finder(), iterator)
        except GeneratorExit:
            _close(iterator)
            raise
        except BaseException:
            try:
                _close(iterator)
            except Exception:  # the first error is the one to tell
                pass
            raise
        finally:
            self._is_looking = False

    def finder(self) -> Callable[[Any], Any]:
        """Return what `look_up` does to each task of one call, in their order."""
        rows = Rows(self._execute)
        end = rows.end
        pending = self._pending = {}
        find = self._digests.find
        last: object = pending  # no function
        known: DigestedFunction | None = None
        has_warned = False
        positions = itertools.count(self._base)

        def look_up(item: Any) -> Any:
            nonlocal last, known, has_warned
            position = next(positions)
            try:
                function, args, kwargs = item if type(item) is tuple else check_task(item, position)
                if type(args) is not tuple or type(kwargs) is not dict or not callable(function):
                    function, args, kwargs = check_task(item, position)
            except (InvalidTaskError, ValueError):
                return item
            try:
                if function is not last or known is None or not known.holds():
                    known = find(function)
                    last = function
                key = keys_of_arguments(args, kwargs)
            except SerializationError as error:
                raise _unknowable(position, function, args, kwargs, error) from error
            row = rows.find(position) if position < end else None
            data = None if row is None else self._data(rows, position, row)
            if row is not None and data is not None:
                self._check(position, row, known, key, (function, args, kwargs))
                self.taken_over += 1
                return KnownResult(self._load(position, data))
            if row is not None and not has_warned:
                has_warned = True
                warn_caller(
                    f"the journal {self._path!r} is damaged: the result of {_describe(position)} "
                    "is not what was written. It is computed again, and so is any other like it",
                    RuntimeWarning,
                )
            if known.digest not in self._noted and len(self._noted) < _MAX_DESCRIBED:
                self._note(known, function)
            pending[position] = known.digest, key, function
            return item

        return look_up

    def _note(self, known: DigestedFunction, function: object) -> None:
        """Have a function described in the file; warn of what will be another the next time."""
        self._noted.add(known.digest)
        if known.parts:
            self._descriptions.append((known.digest, json.dumps(known.parts)))
        if known.fleeting:
            warn_caller(
                f"the journal {self._path!r} will not fit when this program starts again: "
                f"{function_name(function)} uses {known.fleeting[0]}, which looks as if it was "
                "made at the start. Make it within the function, or let an initializer set it",
                RuntimeWarning,
            )

    def end_call(self) -> None:
        """Let another call begin."""
        self._base += _MAX_TASKS

    def _check(
        self, position: int, row: Row, known: DigestedFunction, key: bytes, task: Any
    ) -> None:
        """See that a row belongs to the task that stands at its place."""
        differing = []
        if row[0] != known.digest:
            found = self._execute("SELECT parts FROM functions WHERE digest = ?", row[0])
            differing.append(f"its function{differences(found, known.parts)}")
        if row[1] != key:
            same = self._execute("SELECT position FROM results WHERE arguments = ? LIMIT 1", key)
            elsewhere = f" (they are those of {_describe(same[0][0])} there)" if same else ""
            differing.append(differing_arguments(row[1], key, task[1], task[2]) + elsewhere)
        if row[2] != self._seed:
            differing.append("its seed")
        if differing:
            raise JournalError(
                f"the journal {self._path!r} is of another call: it has a result for "
                f"{_describe(position, describe_call(*task))}, but another one, which differs "
                f"in {', and in '.join(differing)}. Name another file, or delete this one; "
                "nothing in it was changed"
            )

    def _data(self, rows: Rows, position: int, row: Row) -> Any:
        """Return the pickle in a row; None where anything in it is not what was written."""
        function, arguments, seed, checksum, data = row
        if data is None:
            data = rows.value(position)
        try:
            is_good = checksum_of(position, function, arguments, seed, data) == checksum
        except TypeError:  # not even bytes
            return None
        return data if is_good else None

    def _load(self, position: int, data: bytes) -> Any:
        try:
            return pickle.loads(data)
        except Exception as error:
            raise JournalError(
                f"the result of {_describe(position)} in the journal {self._path!r} cannot be "
                f"unpickled: {type(error).__name__}: {error}"
            ) from error

    def record(self, first: int, values: Sequence[Any]) -> None:
        """Append the results of tasks ``first``, ``first + 1``, ..., all or none of them.

        Those that came from the journal are left out. Results that cannot be written, say because
        the disk is full, are a `JournalError`; what was recorded before is there, and these can be
        recorded again. So is one that is too large, and one that does not pickle is a
        `SerializationError`; the others are written then.
        """
        rows: list[tuple[int, bytes, bytes, bytes | None, int, bytes]] = []
        fault: Exception | None = None
        pending, seed = self._pending, self._seed
        for position, value in enumerate(values, self._base + first):
            task = pending.get(position)
            if task is None:
                continue
            function, arguments, called = task
            try:
                data = dumps_result(value)
                if len(data) > LARGEST:
                    raise _too_large(len(data), position, called)
            except Exception as error:
                if fault is None:
                    fault = _not_recordable(position, called, value, error)
                del pending[position]
                continue
            checksum = checksum_of(position, function, arguments, seed, data)
            rows.append((position, function, arguments, seed, checksum, data))
        if rows:
            self._append(rows)
        if fault is not None:
            raise fault

    def _append(self, rows: list[Any]) -> None:
        self._check_process()
        with self._lock:
            connection = self._connection()
            try:
                connection.execute("BEGIN")
                connection.executemany(APPEND, rows)
                connection.executemany(DESCRIBE, self._descriptions)
                connection.execute("COMMIT")
            except BaseException as error:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise self._unwritten(rows, error) from error
                raise
            self._descriptions.clear()
            for row in rows:
                self._pending.pop(row[0], None)
            self.recorded += len(rows)

    def _unwritten(self, rows: list[Any], error: sqlite3.Error) -> JournalError:
        which = f"task {rows[0][0]}"
        if len(rows) > 1:
            which = f"tasks {rows[0][0]} to {rows[-1][0]}"
        why = "there is no room left on the disk" if "full" in str(error) else str(error)
        return JournalError(
            f"results of {which} could not be appended to the journal {self._path!r}: {why}. "
            f"Those recorded before are in it ({self.recorded} of this program); when the cause "
            "is gone, the same call goes on from there"
        )

    def close(self) -> None:
        """Write everything to the one file, and let others open it; safe to repeat.

        In a process that was forked it does nothing: the journal is its parent's.
        """
        if self._process != os.getpid():
            return
        with self._lock:
            file, self._file = self._file, None
            if file is not None:
                file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _execute(self, statement: str, *values: int | bytes) -> list[Any]:
        self._check_process()
        with self._lock:
            connection = self._connection()
            try:
                return connection.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise damaged(self._path, str(error)) from error

    def _check_process(self) -> None:
        if self._process != os.getpid():  # after a fork its lock may be held by nobody
            raise JournalError(f"the journal {self._path!r} belongs to process {self._process}")

    def _connection(self) -> sqlite3.Connection:
        if self._file is None:
            raise JournalError(f"the journal {self._path!r} is closed")
        return self._file.connection

    def leave_to_parent(self) -> None:
        """After a fork: never touch the connection again, not even to close it.

        Closing it would write to the file and delete its log under the parent's hands.
        """
        if self._file is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._file.connection))


def _describe(position: int, call: str | None = None) -> str:
    """Return the words for a task of the journal."""
    number, position = divmod(position, _MAX_TASKS)
    words = f"task {position}" if call is None else describe_task(position, call)
    return words if number == 0 else f"{words} (call {number + 1} with this journal)"


def _close(iterator: object) -> None:
    """Close the caller's generator, as leaving a ``for`` loop over it would in time."""
    if isinstance(iterator, GeneratorType):
        iterator.close()


def _unknowable(
    position: int, function: Any, args: Any, kwargs: Any, error: Exception
) -> SerializationError:
    """Return the error that names the argument without a digest, or the function."""
    for place, value in (*enumerate(args), *kwargs.items()):
        try:
            digest(value, f"argument {place!r}")
        except SerializationError as found:
            error = found
            break
    task = _describe(position, describe_call(function, args, kwargs))
    return SerializationError(f"{task}: cannot be found again in a journal: {error}")


def _not_recordable(position: int, function: Any, value: object, error: Exception) -> Exception:
    if isinstance(error, JournalError):
        return error
    task = _describe(position, f"{function_name(function)}(...)")
    return explain(f"{task}: its result is for a journal", value, "the result", error)


def _too_large(nbytes: int, position: int, function: Any) -> JournalError:
    task = _describe(position, f"{function_name(function)}(...)")
    return JournalError(
        f"{task}: its result takes {nbytes} bytes when pickled, and a journal takes no more than "
        f"{LARGEST} for one. Let the task write it to a file, and return the file's name"
    )


_open_journals = WeakSet()


@in_child
def _after_fork() -> None:
    for journal in list(_open_journals):
        journal.leave_to_parent()
