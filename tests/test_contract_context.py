"""What every backend owes its tasks, and what they say: context, seeds, text and log records."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from context_tasks import GREETING, everything_else, set_and_tell, what_holds
from contract import AWAY, ELSEWHERE, every
from output_tasks import log, say, say_in_parts
from seed_tasks import SEED, TASKS, draw, expected

from parallel_core import Parallel, TaskFailure, TaskOutput, delayed
from watching import Kept

pytestmark = pytest.mark.warm_workers


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """Yield the records that come to a handler of the caller."""
    kept = Kept()
    logging.getLogger("of.tests").addHandler(kept)
    yield kept.records
    logging.getLogger("of.tests").removeHandler(kept)


@every()
def test_everything_holds_and_does_not_outlast_the_call(
    backend: Any, tmp_path: Path, can: frozenset[str]
) -> None:
    def carried(found: dict[str, Any]) -> dict[str, Any]:
        if ELSEWHERE not in can:
            return found
        return {name: found[name] for name in found if name not in ("folder", "path")}

    def look() -> list[dict[str, Any]]:
        return [*map(carried, Parallel(2, backend)(delayed(what_holds)(n) for n in range(4)))]

    plain = carried(what_holds(0))
    assert look() == [plain] * 4
    with everything_else(tmp_path):
        other = carried(what_holds(0))
        assert all(other[name] != plain[name] for name in plain)
        assert look() == [other] * 4
    assert carried(what_holds(0)) == plain
    assert look() == [plain] * 4


@every()
@pytest.mark.parametrize("options", [{}, {"call_timeout": 60}])
def test_a_task_has_a_copy_of_the_context(backend: Any, options: dict[str, Any]) -> None:
    values = [*range(5), [5], *range(6, 9)]  # one that is pickled
    tasks = [delayed(set_and_tell)(value, more=2) for value in values]
    tasks[:3] = [delayed(set_and_tell)(value) for value in values[:3]]
    token = GREETING.set("hello")
    try:
        got = Parallel(2, backend, batch_size=9, **options)(tasks)
        assert got == [("hello", value) for value in values]
        assert GREETING.get() == "hello"
    finally:
        GREETING.reset(token)


@every()
def test_the_stream_of_a_task_follows_from_its_position(backend: Any) -> None:
    for n_jobs in 1, 2, 4:
        for batch_size in (1, 5, "auto") if n_jobs == 2 else ("auto",):
            call = Parallel(n_jobs, backend, seed=SEED, batch_size=batch_size)
            assert call(delayed(draw)() for _ in range(TASKS)) == expected()
            assert call(delayed(draw)([n]) for n in range(TASKS)) == expected()  # pickled
    unordered = Parallel(2, backend, seed=SEED, return_as="generator_unordered")
    assert sorted(unordered(delayed(draw)() for _ in range(TASKS))) == sorted(expected())
    folded = Parallel(2, backend, seed=SEED, reduce=max)
    assert folded(delayed(draw)() for _ in range(TASKS)) == max(expected())


@every()
def test_text_goes_where_the_caller_prints(backend: Any) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert Parallel(2, backend=backend)(delayed(say)(n) for n in range(9)) == list(range(9))
        for at_once in ("list", "generator"):
            parallel = Parallel(2, backend=backend, return_as=at_once)
            assert list(parallel(delayed(say)(n) for n in range(3))) == [0, 1, 2]
    numbers = [*range(9), *range(3), *range(3)]
    for stream, name in ((out, "out"), (err, "err")):
        lines = stream.getvalue().splitlines(keepends=True)
        assert sorted(lines) == sorted(f"{name} {n}\n" for n in numbers)


@every(AWAY)
def test_records_come_to_the_callers_handlers(
    backend: Any, records: list[logging.LogRecord]
) -> None:
    logging.getLogger("of.tests.tasks").setLevel(logging.INFO)
    pids = Parallel(2, backend=backend, batch_size=1)(delayed(log)(n) for n in range(4))
    for n, pid in enumerate(pids):
        mine = [record for record in records if record.process == pid]
        first = next(i for i, one in enumerate(mine) if getattr(one, "number", None) == n)
        failed, *rest = mine[first : first + 23]
        assert failed.getMessage() == f"failed with {n} of <stays here>"
        assert (failed.name, failed.levelname, failed.funcName) == (
            "of.tests.tasks",
            "ERROR",
            "log",
        )
        assert failed.threadName == "MainThread" or backend != "processes"
        text = logging.Formatter("%(message)s").format(failed)
        assert "Traceback" in text and text.endswith(f"KeyError: {n}")
        extra: Any = failed
        assert extra.pair == (n, n) and extra.thing == "<stays here>"
        assert [one.getMessage() for one in rest[:20]] == [f"{n} {k}" for k in range(20)]
        assert rest[20].getMessage() == "x" * 100_000
        assert rest[21].getMessage().startswith("'%d too %d' % ('few',) (TypeError: ")
        names = {record.processName for record in mine}
        assert len(names) == 1
        if backend == "processes":
            assert re.fullmatch(r"parallel-core-\d+", names.pop() or "")


def said(n: int, value: Any) -> TaskOutput:
    return TaskOutput(value, f"out {n}.bytes", f"err {n}")


@every()
def test_each_result_has_what_its_task_said(
    backend: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sys.stdout, sys.stderr
    parallel = Parallel(2, backend=backend, output="capture")
    results = parallel(delayed(say_in_parts)(n) for n in range(5))
    assert results == [said(n, n) for n in range(5)]
    with pytest.raises(subprocess.CalledProcessError) as caught:
        parallel(delayed(say_in_parts)(n) for n in range(5, 6))
    error: Any = caught.value
    assert error.task_output == said(5, None) and error.stdout == "of the program"
    generator = Parallel(2, backend=backend, output="capture", return_as="generator")
    assert list(generator(delayed(say_in_parts)(n) for n in range(3))) == results[:3]

    def instead(failure: TaskFailure) -> Any:
        failed: Any = failure.error
        return failure.replace(failed.task_output)

    lenient = Parallel(2, backend=backend, output="capture", on_error=instead)
    assert lenient(delayed(say_in_parts)(n) for n in (4, 5)) == [said(4, 4), said(5, None)]
    enough = Parallel(2, backend=backend, output="capture", stop_when=lambda one: one.stdout)
    assert enough([delayed(say_in_parts)(3)]) == [said(3, 3)]
    silent = Parallel(2, backend=backend, output="discard")
    assert silent(delayed(say_in_parts)(n) for n in range(5)) == list(range(5))
    folded = Parallel(2, backend=backend, output="discard", reduce=max)
    assert folded(delayed(say_in_parts)(n) for n in range(5)) == 4
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ("", "")
