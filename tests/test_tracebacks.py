"""A traceback shows the users' lines, and one of the library's."""

from __future__ import annotations

import asyncio
import copyreg
import json
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from traceback_tasks import fail_at, fold, nested, raising, tasks

import parallel_core
from parallel_core import Parallel, delayed, get_executor
from parallel_core.errors import RemoteTraceback
from watching import engines

pytestmark = pytest.mark.warm_workers

HOME = Path(parallel_core.__file__).parent
IN_THIS_PROCESS = ("threading", "sequential")
anywhere = engines(
    "processes",
    "fork",
    "loky",
    "process executor",
    "thread executor",
    *IN_THIS_PROCESS,
    fast=("processes", "threading", "sequential"),
)


def functions_of(error: BaseException) -> list[str]:
    """Return what the frames of `error` are of: ours are called "parallel_core"."""
    frames = traceback.extract_tb(error.__traceback__)
    return ["parallel_core" if HOME in Path(one.filename).parents else one.name for one in frames]


def raised_by(call: Callable[[], Any]) -> tuple[BaseException, list[str]]:
    with pytest.raises(LookupError) as caught:
        call()
    names = functions_of(caught.value)
    return caught.value, names[names.index("parallel_core") :]


@pytest.fixture(autouse=True)
def frames_do_not_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what tblib does to exceptions, if another test has loaded it: dask does."""
    for kind in (TracebackType, LookupError):
        monkeypatch.delitem(copyreg.dispatch_table, kind, raising=False)


def check_what_a_worker_raised(error: BaseException) -> None:
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fail_at" in error.__cause__.text
    assert str(HOME) not in error.__cause__.text


@anywhere
@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
@pytest.mark.parametrize("options", [{}, {"output": "capture"}, {"seed": 1}], ids=str)
def test_of_a_task(engine: Any, return_as: str, options: dict[str, Any]) -> None:
    parallel = Parallel(2, engine, return_as, **options)
    error, names = raised_by(lambda: list(parallel(tasks())))
    if engine in IN_THIS_PROCESS:
        assert names == ["parallel_core", "fail_at"] and error.__cause__ is None
    else:
        assert names == ["parallel_core"]
        check_what_a_worker_raised(error)


@pytest.mark.fresh_workers
@engines("processes", "fork", "loky", "process executor", "thread executor")
def test_of_a_task_once_frames_pickle(
    engine: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where tblib is loaded, so here and in forks, an exception brings its own frame."""
    support = pytest.importorskip("tblib.pickling_support", reason="dask brings tblib")
    monkeypatch.setitem(copyreg.dispatch_table, TracebackType, support.pickle_traceback)
    monkeypatch.setitem(copyreg.dispatch_table, LookupError, support.pickle_exception)
    error, names = raised_by(lambda: Parallel(2, engine)(tasks()))
    name = request.node.callspec.params["engine"]
    own = ["fail_at"] if name in ("fork", "thread executor") else []
    assert names == ["parallel_core", *own]
    check_what_a_worker_raised(error)


@anywhere
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_of_the_iterable(engine: Any, return_as: str) -> None:
    _, names = raised_by(lambda: list(Parallel(2, engine, return_as)(raising())))
    assert names == ["parallel_core", "raising"]


@anywhere
def test_of_the_callers_functions(engine: Any) -> None:
    _, names = raised_by(lambda: Parallel(2, engine, stop_when=raising_stop)(tasks(9)))
    assert names == ["parallel_core", "raising_stop"]
    _, names = raised_by(lambda: Parallel(2, engine, on_error=raising_stop)(tasks(0)))
    assert names == ["parallel_core", "raising_stop"]


def raising_stop(result: Any) -> bool:
    raise LookupError("the caller's")


@engines("processes", *IN_THIS_PROCESS)
def test_of_a_fold(engine: Any) -> None:
    _, names = raised_by(lambda: Parallel(2, engine, reduce=fold)(tasks(9)))
    assert names[0] == "parallel_core" and names.count("parallel_core") == 1


@engines(*IN_THIS_PROCESS)
def test_of_a_library_that_a_task_calls(engine: Any) -> None:
    """Its frames tell what has happened."""
    with pytest.raises(json.JSONDecodeError) as caught:
        Parallel(2, engine)([delayed(json.loads)("[")])
    names = functions_of(caught.value)
    assert names[1:4] == ["parallel_core", "loads", "decode"]


@engines("sequential")
def test_of_a_call_within_a_task(engine: Any) -> None:
    _, names = raised_by(lambda: Parallel(1, engine)([delayed(nested)(1)]))
    assert names == ["parallel_core", "nested", "fail_at"]


def test_of_what_is_awaited() -> None:
    async def call() -> None:
        await Parallel(2).acall(tasks())

    async def stream() -> None:
        async for _ in Parallel(2).astream(tasks()):
            pass

    for door in (call, stream):
        _, names = raised_by(lambda door=door: asyncio.run(door()))  # type: ignore[misc]
        assert names == ["parallel_core"]


def test_of_an_executor() -> None:
    with get_executor(2) as executor:
        with pytest.raises(LookupError) as caught:
            executor.submit(fail_at, 2, 2).result()
        assert "parallel_core" not in functions_of(caught.value)
        _, names = raised_by(lambda: list(executor.map(fail_at, range(4), [2] * 4)))
        assert names.count("parallel_core") == 1


def test_of_a_mistake_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps its frames: they are what a report needs."""
    from parallel_core.dispatch.loop import BatchLoop

    with pytest.raises(TypeError, match="iterable") as caught:
        Parallel(2)(3)  # type: ignore[call-overload]
    assert functions_of(caught.value).count("parallel_core") == 3

    def run(self: Any) -> Any:
        raise AssertionError("ours")

    monkeypatch.setattr(BatchLoop, "run", run)
    with pytest.raises(AssertionError, match="ours") as caught_too:
        Parallel(2)(tasks())
    assert functions_of(caught_too.value)[-1] == "run"
