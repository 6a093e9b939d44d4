"""`Parallel.astream` and `Parallel.acall`: a call that the event loop does not wait for.

::

    event loop                                      a thread of the call
    ResultStream.__anext__ ── asks, a Signal ────▶ next chunk of Parallel.__call__
         ▲                                              │      ▲
         └───────────── sets the Signal ────────────────┘      │
    cancelled, closed, dropped ── Interruption ────────────────┘ wakes the dispatch, which ends

The call is as ever, and so is its iterable, which is pulled in the thread: within the caller's
context variables, and no further ahead than a generator would pull it, since the thread asks for
the next chunk when it is wanted. Nobody waits for the thread but who cancels it.
"""

from __future__ import annotations

import contextvars
import itertools
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar

from parallel_core.calls.call import Call
from parallel_core.dispatch.interruption import CallInterrupted, Interruption
from parallel_core.dispatch.limits import ReturnAs
from parallel_core.errors import without_our_frames
from parallel_core.parallel.loops import Signal, new_signal

_T = TypeVar("_T")
Begin = Callable[[Iterable[Any], ReturnAs, Interruption], Call]
_numbers = itertools.count()


class Background:
    """The place for the one background call of a `Parallel` object.

    Parameters
    ----------
    begin : callable
        Returns a `Call` of given tasks that has not started; it raises where another one runs.
    end : callable
        Is given that call when it is closed.

    Attributes
    ----------
    call : BackgroundCall or None
        The one that runs.
    """

    def __init__(self, begin: Begin, end: Callable[[Call], None]) -> None:
        self.begin = begin
        self.end = end
        self.call: BackgroundCall | None = None


class BackgroundCall:
    """A call in a thread of its own.

    Parameters
    ----------
    place : Background
        Where it stands while it runs.
    tasks : iterable
        Of delayed calls.
    return_as : ReturnAs
        What it returns.
    """

    def __init__(self, place: Background, tasks: Iterable[Any], return_as: ReturnAs) -> None:
        self._place = place
        self._tasks = tasks
        self._return_as = return_as
        self._interruption = Interruption()
        self._asked: queue.SimpleQueue[Signal | None] = queue.SimpleQueue()
        self._found: Any = None
        self._error: BaseException | None = None
        self._ended: Signal | None = None
        self._thread: threading.Thread | None = None
        self.is_over = False

    async def start(self) -> None:
        """Start the thread; where one before it is just ending, wait for that."""
        before = self._place.call
        if before is not None and before._interruption.is_set:
            await before.close()
        ended = new_signal()
        call = self._place.begin(self._tasks, self._return_as, self._interruption)
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._serve, call),
            name=f"parallel-core-async-{next(_numbers)}",
            daemon=True,
        )
        self._place.call, self._ended = self, ended
        try:
            self._thread.start()
        except BaseException:
            self._place.call = self._ended = None
            self._place.end(call)
            raise

    async def take(self) -> Any:
        """Return the next chunk, or the list; None at the end."""
        assert self._ended is not None
        signal = new_signal()
        self._asked.put(signal)
        if self.is_over:
            self._answer_all()
        try:
            await signal.wait()
        except GeneratorExit:
            self.interrupt()
            raise  # nothing may be waited for any more
        except BaseException:
            self.interrupt()
            await self._ended.wait_shielded()
            raise
        found, self._found = self._found, None
        error, self._error = self._error, None
        if error is not None:
            try:
                if isinstance(error, CallInterrupted):
                    return self._ended_by_another()
                if isinstance(error, StopAsyncIteration):
                    raise RuntimeError("a task, or the iterable, raised this") from error
                raise error
            finally:
                del error
        return found

    def _ended_by_another(self) -> None:
        """Say that somebody else has closed the stream, or the `Parallel` object."""
        if self._return_as is ReturnAs.LIST:
            raise RuntimeError("the call was ended with the `with` block of its Parallel object")

    def interrupt(self) -> None:
        """Have the call end, and its thread; from any thread, at any moment."""
        self._interruption.set()
        self._asked.put(None)

    async def close(self) -> None:
        """End the call, and wait for that."""
        if self._ended is None:
            return
        self.interrupt()
        if self._ended.is_here():
            await self._ended.wait_shielded_or_raise()
        else:  # of a loop that has ended
            self.join()

    def join(self) -> None:
        """End the call, and wait for that without a loop."""
        self.interrupt()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _serve(self, call: Call) -> None:
        """Do what is asked, until the end: what the thread does."""
        signal = self._asked.get()
        try:
            if signal is not None:
                signal = self._run(call, signal)
        except BaseException as error:
            self._error = error
        finally:
            self._tasks = ()
            self._place.end(call)
            self.is_over = True
            if self._place.call is self:
                self._place.call = None
            if signal is not None:
                signal.set()
            self._answer_all()
            assert self._ended is not None
            self._ended.set()

    def _run(self, call: Call, signal: Signal) -> Signal | None:
        """Run the call; return the signal of whoever waits for the end, if anybody does."""
        if call.is_list:
            self._found = call.run()
            return signal
        is_complete = False
        try:
            call.start()
            for chunk in call.chunks():
                self._found = chunk
                del chunk
                signal.set()
                asked = self._asked.get()
                if asked is None:
                    return None
                signal = asked
            is_complete = True
            return signal
        except BaseException as error:
            call.attach_to(error)
            self._error = error
            return signal
        finally:
            call.close(is_complete)

    def _answer_all(self) -> None:
        """Let go on who has asked when it was over; whoever asks later looks for that."""
        while not self._asked.empty():
            signal = self._asked.get()
            if signal is not None:
                signal.set()


class ResultStream(Generic[_T]):
    """What `Parallel.astream` returns: an asynchronous iterator over results.

    It ends when the results do, when it is closed (`aclose`, or the end of an ``async with``),
    dropped, or when whoever waits for it is cancelled. Then running tasks are stopped.

    Parameters
    ----------
    call : BackgroundCall
        Not started.
    name : str
        The call in words, for a warning.
    """

    def __init__(self, call: BackgroundCall, name: str) -> None:
        self._call = call
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
        """End the call; results that nobody has taken are dropped."""
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
