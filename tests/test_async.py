"""Calls that are awaited, in asyncio and in trio."""

from __future__ import annotations

import asyncio
import contextvars
import operator
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import hypothesis  # noqa: F401 - trio registers with it, which needs objects that are not frozen
import pytest

from parallel_core import Parallel, WorkerDiedError, delayed, parallel_config

pytestmark = pytest.mark.warm_workers

Main = Callable[[], Coroutine[Any, Any, Any]]


class Asyncio:
    run = staticmethod(lambda main: asyncio.run(main()))
    sleep = staticmethod(asyncio.sleep)

    @staticmethod
    async def cancel_when(begun: Callable[[], bool], main: Main, times: int) -> None:
        task = asyncio.create_task(main())
        while not begun():
            assert not task.done(), task.result()
            await asyncio.sleep(0.005)
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task

    @staticmethod
    async def together(*mains: Main) -> list[Any]:
        return await asyncio.gather(*(main() for main in mains))


class Trio:
    @staticmethod
    def run(main: Main) -> Any:
        return pytest.importorskip("trio").run(main)

    @staticmethod
    async def sleep(seconds: float) -> None:
        import trio

        await trio.sleep(seconds)

    @staticmethod
    async def cancel_when(begun: Callable[[], bool], main: Main, times: int) -> None:
        import trio

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(main)
                while not begun():
                    await trio.sleep(0.005)
                for _ in range(times):
                    scope.cancel()
                    nursery.cancel_scope.cancel()
        assert scope.cancelled_caught or nursery.cancel_scope.cancelled_caught

    @staticmethod
    async def together(*mains: Main) -> list[Any]:
        import trio

        results: list[Any] = [None] * len(mains)

        async def run(index: int) -> None:
            results[index] = await mains[index]()

        async with trio.open_nursery() as nursery:
            for index in range(len(mains)):
                nursery.start_soon(run, index)
        return results


async def all_of(stream: Any) -> list[Any]:
    return [result async for result in stream]


@pytest.fixture(params=[Asyncio, Trio])
def loop(request: pytest.FixtureRequest) -> Any:
    if request.param is Trio:
        pytest.importorskip("trio")
    return request.param


BACKENDS = [
    pytest.param({"n_jobs": 2}, id="processes"),
    pytest.param({"n_jobs": 2, "backend": "threading"}, id="threading"),
    pytest.param({"n_jobs": 1}, id="inline"),
]


@pytest.mark.core
@pytest.mark.parametrize("params", BACKENDS)
def test_results_and_errors(loop: Any, params: dict[str, Any]) -> None:
    async def main() -> None:
        parallel = Parallel(**params)
        assert await parallel.acall(delayed(abs)(-n) for n in range(300)) == list(range(300))
        found = [n async for n in parallel.astream(delayed(abs)(-n) for n in range(300))]
        assert found == list(range(300))
        with pytest.raises(ZeroDivisionError) as caught:
            await parallel.acall([delayed(divmod)(n, n - 2) for n in range(5)])
        assert caught.value.replay is not None
        assert set(caught.value.results) <= {0, 1, 3, 4}
        with pytest.raises(ZeroDivisionError):
            await all_of(parallel.astream([delayed(divmod)(n, n - 2) for n in range(5)]))
        stream = Parallel(**params, return_as="generator_unordered").astream(
            delayed(abs)(-n) for n in range(50)
        )
        assert {n async for n in stream} == set(range(50))
        assert [n async for n in stream] == []
        assert await Parallel(**params, reduce=operator.add).acall(
            delayed(abs)(n) for n in range(10)
        ) == sum(range(10))
        assert await parallel.acall([]) == []

    loop.run(main)


def _say_and_wait(begun: str, end: str) -> str:
    Path(begun).touch()
    while not os.path.exists(end):
        time.sleep(0.005)
    return "ended"


@pytest.mark.parametrize("params", BACKENDS)
def test_the_loop_goes_on_meanwhile(loop: Any, params: dict[str, Any], tmp_path: Path) -> None:
    begun, end = tmp_path / "begun", tmp_path / "end"

    async def call() -> Any:
        return await Parallel(**params).acall([delayed(_say_and_wait)(str(begun), str(end))])

    async def let_end() -> None:
        while not begun.exists():
            await loop.sleep(0.005)
        end.touch()

    assert loop.run(lambda: loop.together(call, let_end))[0] == ["ended"]


def _last(begun: str) -> None:
    Path(begun).touch()
    time.sleep(600)


@pytest.mark.parametrize(("way", "times"), [("acall", 3), ("astream", 1)])
def test_cancelling_stops_what_runs(loop: Any, way: str, times: int, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    async def main() -> None:
        with Parallel(n_jobs=2) as parallel:
            pids = set(await parallel.acall(delayed(os.getpid)() for _ in range(20)))

            async def call() -> None:
                tasks = [delayed(_last)(str(begun)), *[delayed(abs)(-n) for n in range(5)]]
                if way == "acall":
                    await parallel.acall(tasks)
                async for _ in parallel.astream(tasks):
                    pass

            await loop.cancel_when(begun.exists, call, times)
            assert await parallel.acall(delayed(abs)(-n) for n in range(5)) == list(range(5))
            now = set(await parallel.acall(delayed(os.getpid)() for _ in range(20)))
            assert now != pids or len(pids) == 1

    loop.run(main)


@pytest.mark.parametrize("params", BACKENDS[1:])
def test_cancelling_what_cannot_be_stopped(
    loop: Any, params: dict[str, Any], tmp_path: Path
) -> None:
    begun, end, ran = tmp_path / "begun", tmp_path / "end", tmp_path / "ran"

    async def main() -> None:
        parallel = Parallel(**params)

        async def call() -> None:
            tasks = [delayed(_say_and_wait)(str(begun), str(end)) for _ in range(2)]
            await parallel.acall([*tasks, delayed(ran.touch)()])

        async def cancel() -> None:
            await loop.cancel_when(begun.exists, call, 2)
            assert await parallel.acall(delayed(abs)(-n) for n in range(5)) == list(range(5))

        def is_interrupted() -> bool:
            place = parallel._background
            call = None if place is None else place.call
            return call is not None and call._interruption.is_set

        def let_end() -> None:
            while not begun.exists():
                time.sleep(0.005)
            if params["n_jobs"] == 1:  # the call waits for the task
                while not is_interrupted():
                    time.sleep(0.005)
            else:  # it does not
                cancelled.wait(30)
            end.touch()

        thread = threading.Thread(target=let_end)
        thread.start()
        await cancel()
        cancelled.set()
        thread.join()

    cancelled = threading.Event()
    loop.run(main)
    assert not ran.exists()


def test_leaving_a_stream_early(loop: Any, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def tasks() -> Iterator[Any]:
        yield delayed(abs)(-1)
        yield delayed(_last)(str(begun))

    async def main() -> None:
        parallel = Parallel(n_jobs=2)
        async with parallel.astream(tasks()) as stream:
            async for result in stream:
                assert result == 1
                break
        assert [n async for n in stream] == []
        await stream.aclose()
        stream = parallel.astream(tasks())
        await stream.aclose()  # it had not begun
        assert [n async for n in stream] == []

        async def leave() -> None:
            async for _ in parallel.astream(tasks()):
                break

        with pytest.warns(ResourceWarning, match="was dropped before its end"):
            await leave()
        assert await parallel.acall([delayed(abs)(-2)]) == [2]
        with Parallel(n_jobs=2) as managed:
            stream = managed.astream(tasks())
            assert await stream.__anext__() == 1
        assert [n async for n in stream] == []

    loop.run(main)


def test_a_stream_pulls_no_further_ahead_than_a_generator(loop: Any) -> None:
    pulled: list[int] = []

    def tasks() -> Iterator[Any]:
        for n in range(200):
            pulled.append(n)
            yield delayed(abs)(-n)

    async def main() -> None:
        parallel = Parallel(n_jobs=2, batch_size=1, pre_dispatch=4)
        taken = 0
        async for _ in parallel.astream(tasks()):
            await loop.sleep(0)
            taken += 1
            assert len(pulled) <= taken + 4
        assert taken == 200

    loop.run(main)


_variable: contextvars.ContextVar[str] = contextvars.ContextVar("_variable", default="unset")


def test_what_holds_around_the_call_holds_in_it(loop: Any) -> None:
    seen: list[str] = []

    def tasks() -> Iterator[Any]:
        seen.append(_variable.get())
        yield delayed(abs)(-1)

    async def main() -> None:
        _variable.set("set")
        with parallel_config(n_jobs=2, backend="threading"):
            assert await Parallel().acall(tasks()) == [1]
            assert [n async for n in Parallel().astream(tasks())] == [1]

    loop.run(main)
    assert seen == ["set", "set"]


def test_an_iterable_that_raises_and_a_worker_that_dies(loop: Any) -> None:
    def tasks() -> Iterator[Any]:
        yield delayed(abs)(-1)
        raise OSError("no more")

    def stop() -> None:
        raise StopAsyncIteration

    async def main() -> None:
        parallel = Parallel(n_jobs=2)
        with pytest.raises(OSError, match="no more"):
            await parallel.acall(tasks())
        with pytest.raises(WorkerDiedError):
            await parallel.acall([delayed(os._exit)(3)])
        with pytest.raises(RuntimeError, match="raised this"):
            async for _ in parallel.astream([delayed(stop)()]):
                pass
        assert await parallel.acall([delayed(abs)(-1)]) == [1]

    loop.run(main)


def test_what_makes_no_sense(loop: Any, tmp_path: Path) -> None:
    begun, end = tmp_path / "begun", tmp_path / "end"
    parallel = Parallel(n_jobs=2)

    async def call() -> Any:
        return await parallel.acall([delayed(_say_and_wait)(str(begun), str(end))])

    async def call_again() -> None:
        while not begun.exists():
            await loop.sleep(0.005)
        for other in (parallel.acall([]), parallel.astream([]).__anext__()):
            with pytest.raises(RuntimeError, match="is already running a call"):
                await other
        with pytest.raises(RuntimeError, match="is already running a call"):
            parallel([])
        end.touch()

    assert loop.run(lambda: loop.together(call, call_again))[0] == ["ended"]
    with pytest.raises(TypeError, match="takes an iterable of delayed calls"):
        parallel.astream(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"is asynchronous: submit its items to get_executor\(\)"):
        parallel.astream(parallel.astream([]))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="await acall"):
        Parallel(n_jobs=2, reduce=max).astream([])
    waiting = parallel.acall([])
    with pytest.raises(RuntimeError, match="no event loop is running here"):
        waiting.send(None)
    assert parallel([delayed(abs)(-1)]) == [1]
    assert loop.run(lambda: parallel.acall([delayed(abs)(-1)])) == [1]


def test_ctrl_c(loop: Any) -> None:
    run = "asyncio.run(main())" if loop is Asyncio else "trio.run(main)"
    code = f"""
import os, signal, time, {run.partition(".")[0]}
from parallel_core import Parallel, delayed

def interrupt(parent):
    os.kill(parent, signal.SIGINT)
    time.sleep(600)

async def main():
    await Parallel(n_jobs=2).acall([delayed(interrupt)(os.getpid())])

try:
    {run}
except KeyboardInterrupt:
    print("interrupted", Parallel(n_jobs=2)(delayed(abs)(-n) for n in range(3)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == ("interrupted [0, 1, 2]\n", "")
