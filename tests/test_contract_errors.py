"""What every backend owes where a task, or the caller's iterable, raises."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract import AWAY, STOPS, every, of
from contract_tasks import touch_and_sleep

from parallel_core import Parallel, delayed
from parallel_core.errors import (
    InvalidTaskError,
    RemoteTraceback,
    SerializationError,
    TaskExitError,
)
from watching import running, wait_until

pytestmark = pytest.mark.warm_workers


def notes(error: BaseException) -> str:
    return "\n".join(getattr(error, "__notes__", []))


def works(backend: Any) -> None:
    """See that a call works, with the same kind of workers."""
    assert Parallel(2, backend=backend)(delayed(abs)(-n) for n in range(10)) == list(range(10))


@every()
def test_the_same_type_with_message_and_note(backend: Any) -> None:
    def fail(x: int, why: str = "") -> None:
        raise LookupError(f"no {x}")

    with pytest.raises(LookupError) as caught:
        Parallel(2, backend=backend)([delayed(abs)(1), delayed(fail)(7, why="reason")])
    assert type(caught.value) is LookupError
    assert caught.value.args == ("no 7",)
    assert "task 1" in notes(caught.value)
    assert "fail(7, why='reason')" in notes(caught.value)
    assert notes(caught.value).count("task 1") == 1
    works(backend=backend)


@every(AWAY)
def test_the_workers_traceback_is_the_cause(backend: Any) -> None:
    def inner(x: int) -> float:
        return 1 / x  # the very line

    def outer(x: int) -> float:
        return inner(x)

    with pytest.raises(ZeroDivisionError) as caught:
        Parallel(2, backend=backend)([delayed(outer)(0)])
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert "in outer" in str(cause) and "in inner" in str(cause)
    assert "return 1 / x  # the very line" in str(cause)
    assert "execute.py" not in str(cause)


@every(AWAY)
def test_causes_and_contexts_are_told(backend: Any) -> None:
    def fail() -> None:
        try:
            try:
                raise KeyError("first of all")
            except KeyError:
                raise LookupError("in between")  # noqa: B904 - a context, not a cause
        except LookupError as error:
            raise ValueError("at last") from error

    with pytest.raises(ValueError, match="at last") as caught:
        Parallel(2, backend=backend)([delayed(fail)()])
    text = str(caught.value.__cause__)
    assert "first of all" in text and "in between" in text and "at last" in text
    assert "direct cause" in text and "During handling" in text


@every()
def test_sys_exit_in_a_task(backend: Any) -> None:
    def leave(n: int, code: Any) -> None:
        if n == 3:
            sys.exit(code)

    for code in (0, 3, None, "a message"):
        for batch_size in (1, 10):
            parallel = Parallel(2, backend=backend, batch_size=batch_size)
            with pytest.raises(TaskExitError, match=r"task 3.*leave\(3.*sys\.exit") as caught:
                parallel(delayed(leave)(n, code) for n in range(10))
            assert caught.value.code == code
            assert isinstance(caught.value, RuntimeError)
            works(backend=backend)


@every()
def test_a_task_that_raises_keyboard_interrupt(backend: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Parallel(2, backend=backend)([delayed(interrupt)()] * 4)
    works(backend=backend)


@every()
def test_exceptions_that_mean_something_to_loops(backend: Any) -> None:
    def fail(n: int, error: BaseException) -> int:
        if n == 3:
            raise error
        return n

    errors = [StopIteration(5), GeneratorExit(), KeyError("k"), StopAsyncIteration(), Warning("w")]
    for error in errors:
        with pytest.raises(type(error)) as caught:
            Parallel(2, backend=backend)(delayed(fail)(n, error) for n in range(10))
        assert caught.value.args == error.args
        works(backend=backend)


@every()
def test_what_no_generator_may_raise(backend: Any) -> None:
    """PEP 479 has StopIteration become a RuntimeError; GeneratorExit does not end it in silence."""

    def fail(error: BaseException) -> None:
        raise error

    for return_as in ("generator", "generator_unordered"):
        parallel = Parallel(2, backend=backend, return_as=return_as)
        with pytest.raises(RuntimeError) as caught:
            list(parallel([delayed(fail)(StopIteration(5))] * 4))
        assert isinstance(caught.value.__cause__, StopIteration)
        with pytest.raises((GeneratorExit, RuntimeError)):
            list(parallel([delayed(fail)(GeneratorExit())] * 4))
        works(backend=backend)


@every()
def test_what_the_callers_generator_raises_is_raised_as_itself(backend: Any) -> None:
    errors: list[BaseException] = [
        ValueError(1), TypeError("2"), SerializationError("3"), KeyError(), AttributeError("x"),
        InvalidTaskError("own"), KeyboardInterrupt(), SystemExit(4),
    ]  # fmt: skip

    def tasks(error: BaseException) -> Iterator[Any]:
        for n in range(5):
            yield delayed(abs)(n)
        raise error

    for error in errors:
        for batch_size in (1, 1000):
            with pytest.raises(type(error)) as caught:
                Parallel(2, backend=backend, batch_size=batch_size)(tasks(error))
            assert caught.value is error
            assert notes(error) == ""
        works(backend=backend)


@every(STOPS)
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_a_failure_is_told_while_others_sleep_for_minutes(
    backend: Any, return_as: str, tmp_path: Path
) -> None:
    def fail(path: Path) -> None:
        while not path.exists():
            time.sleep(0.002)
        raise LookupError("told")

    path = tmp_path / "0"
    with pytest.raises(LookupError, match="told"):
        list(
            Parallel(2, backend=backend, batch_size=1, return_as=return_as)(
                [delayed(touch_and_sleep)(str(tmp_path), 0), delayed(fail)(path)]
            )
        )
    pid = int(path.read_text())
    wait_until(lambda: not running(pid), "the busy worker is gone")
    works(backend=backend)


@every()
def test_without_processes_the_traceback_is_the_tasks_own(backend: Any) -> None:
    def fail() -> None:
        raise KeyError("here")

    with pytest.raises(KeyError) as caught:
        Parallel(2, backend=backend)([delayed(fail)()])
    if of(backend).supports_sharedmem:
        assert "in fail" in "".join(traceback.format_tb(caught.value.__traceback__))
    else:
        assert "in fail" in str(caught.value.__cause__)
