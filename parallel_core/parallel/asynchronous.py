"""`Parallel.astream` and `Parallel.acall`: a call that the event loop does not wait for.

::

    event loop                                      a thread of the call
    ResultStream.__anext__ ── asks, a Future ────▶ next chunk of the Call
         ▲                                              │      ▲
         └───────────── its result ─────────────────────┘      │
    cancelled, closed, dropped ── Interruption ────────────────┘ wakes the dispatch, which ends

The call is as ever, and so is its iterable, which is pulled in the thread: within the caller's
context variables, and no further ahead than a generator would pull it, since the thread makes the
next chunk when it is asked for. Only a cancellation waits for the thread.
"""

from __future__ import annotations

import contextvars
import itertools
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypeVar

from parallel_core.calls.call import Call
from parallel_core.dispatch.ending import CallInterrupted, Interruption
from parallel_core.dispatch.limits import ReturnAs
from parallel_core.errors import without_our_frames
from parallel_core.parallel.loops import find_loop

_T = TypeVar("_T")
_numbers = itertools.count()


class Background:
    """The place for the one background call of a `Parallel` object."""

    def __init__(
        self,
        begin: Callable[[Iterable[Any], ReturnAs, Interruption], Call],
        end: Callable[[Call], None],
    ) -> None:
        self.begin = begin  #: returns a call that has not started; raises where another one runs
        self.end = end  #: is given that call when it is closed
        self.call: BackgroundCall | None = None  #: the one that runs


class BackgroundCall:
    """A call in a thread of its own."""

    def __init__(self, place: Background, tasks: Iterable[Any], return_as: ReturnAs) -> None:
        self._place = place
        self._tasks = tasks
        self._return_as = return_as
        self._interruption = Interruption()
        self._asked: queue.SimpleQueue[Future[Any] | None] = queue.SimpleQueue()
        self._ended: Future[None] = Future()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Start the thread; where one before it is just ending, wait for that."""
        before = self._place.call
        if before is not None and before._interruption.is_set:
            await before.close()
        find_loop()
        call = self._place.begin(self._tasks, self._return_as, self._interruption)
        self._tasks = ()
        thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._serve, call),
            name=f"parallel-core-async-{next(_numbers)}",
            daemon=True,
        )
        self._place.call, self._thread = self, thread
        try:
            thread.start()
        except BaseException:
            self._place.call = self._thread = None
            self._place.end(call)
            raise

    async def take(self) -> Any:
        """Return the next chunk, or the list; None at the end."""
        wait = find_loop()
        asked: Future[Any] = Future()
        self._asked.put(asked)
        if self._ended.done():
            self._refuse()
        try:
            await wait(asked)
        except GeneratorExit:
            self.interrupt()
            raise  # nothing may be waited for any more
        except BaseException:
            self.interrupt()
            await wait(self._ended, shielded=True)
            raise
        error = None
        try:
            error = asked.exception()
            if error is not None:
                raise error  # `result()` would add frames of its own
            return asked.result()
        except CallInterrupted:  # the stream, or the `with` block, was closed by somebody else
            if self._return_as is not ReturnAs.LIST:
                return None
            words = "the call was ended with the `with` block of its Parallel object"
            raise RuntimeError(words) from None
        except StopAsyncIteration as stop:  # would end an `async for`
            raise RuntimeError("a task, or the iterable, raised this") from stop
        finally:
            del asked, error  # an exception that they hold refers to this frame

    def interrupt(self) -> None:
        """Have the call end, and its thread; from any thread, at any moment."""
        self._interruption.set()
        self._asked.put(None)

    async def close(self) -> None:
        """End the call, and wait for that."""
        if self._thread is not None:
            self.interrupt()
            await find_loop()(self._ended, shielded=True)

    def join(self) -> None:
        """End the call, and wait for that without a loop."""
        self.interrupt()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self, call: Call) -> None:
        """Make a chunk whenever one is asked for, until the end: what the thread does."""
        steps = _steps(call)
        asked = self._asked.get()
        last: Any = None
        error: BaseException | None = None
        try:
            while asked is not None:
                asked.set_result(next(steps))
                asked = None  # nothing here refers to a result that was taken
                asked = self._asked.get()
            steps.close()
        except StopIteration as end:
            last = end.value
        except BaseException as raised:
            error = raised
        self._place.end(call)
        if self._place.call is self:
            self._place.call = None
        self._ended.set_result(None)
        if asked is not None:  # told after all that: another call may begin now
            asked.set_result(last) if error is None else asked.set_exception(error)
        self._refuse()

    def _refuse(self) -> None:
        """Answer whoever has asked when it was over."""
        while True:
            try:
                asked = self._asked.get_nowait()
            except queue.Empty:
                return
            if asked is not None:
                asked.set_exception(CallInterrupted())


def _steps(call: Call) -> Generator[Any, None, Any]:
    """Run a call: yield its chunks, or return all at once, and close it however it ended."""
    if call.is_list:
        return call.run()
    is_complete = False
    try:
        call.start()
        yield from call.chunks()
        is_complete = True
    except GeneratorExit:
        raise
    except BaseException as error:
        call.attach_to(error)
        raise
    finally:
        call.close(is_complete)


class ResultStream(Generic[_T]):
    """Asynchronous iterator over results, returned by `Parallel.astream`.

    The call ends early, and running tasks are stopped, if the stream is closed (by `aclose`, or at
    the end of an ``async with`` block) or dropped, or if the task that waits for it is cancelled.
    """

    def __init__(self, call: BackgroundCall, name: str) -> None:
        self._call = call  # not started
        self._name = name
        self._results: deque[_T] = deque()
        self._has_started = False
        self._is_asked = False
        self._is_closed = False

    def __aiter__(self) -> ResultStream[_T]:
        return self

    async def __anext__(self) -> _T:
        while not self._results:
            if self._is_closed:
                raise StopAsyncIteration
            try:
                await self._take_chunk()
            except Exception as error:
                raise without_our_frames(error)  # noqa: B904 - it is the same
        return self._results.popleft()

    async def _take_chunk(self) -> None:
        """Wait for more results, or the end."""
        if self._is_asked:
            raise RuntimeError("another task is waiting for the next result of this stream")
        self._is_asked = True
        try:
            if not self._has_started:
                await self._call.start()
                self._has_started = True
            chunk = await self._call.take()
        except BaseException:
            self._is_closed = True
            raise
        finally:
            self._is_asked = False
        if chunk is None:
            self._is_closed = True
        elif not self._is_closed:
            self._results.extend(chunk)

    async def aclose(self) -> None:
        """End the call, and drop results that were not taken."""
        self._is_closed = True
        self._results.clear()
        await self._call.close()

    async def __aenter__(self) -> ResultStream[_T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._has_started and not self._is_closed:
            self._call.interrupt()
            warnings.warn(
                f"the stream of {self._name} was dropped before its end; the rest of its tasks is "
                "cancelled: exhaust it, or use it in an `async with` block",
                ResourceWarning,
                stacklevel=2,
            )
