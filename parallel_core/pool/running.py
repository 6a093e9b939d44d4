"""One map of a pool: a call on the workers that it has for that long."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NoReturn

from parallel_core.calls.call import Call
from parallel_core.calls.spec import CallSpec
from parallel_core.dispatch.ending import CallInterrupted, Interruption
from parallel_core.dispatch.limits import ReturnAs
from parallel_core.errors import cut_traceback, without_our_frames
from parallel_core.pool.async_result import TERMINATED, as_raised

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from parallel_core.observe.observers import Observer
    from parallel_core.pool.lease import PoolWorkers, Wanted


class Run:
    """A map that runs, in the thread that takes its results; `keeps` says if workers live on."""

    def __init__(self, workers: PoolWorkers, name: str, keeps: bool) -> None:
        self._workers = workers
        self._name = name
        self._keeps = keeps
        self._call: Call | None = None
        self._interruption = Interruption()
        # Who has it is inside the call; a generator that waits for its consumer is not.
        self._inside = threading.Lock()
        self._is_terminated = False
        self.thread = threading.get_ident()

    def prepare(
        self,
        tasks: Iterable[Any],
        wanted: Wanted,
        return_as: ReturnAs,
        observers: Sequence[Observer],
    ) -> None:
        """Make the call; the workers are this map's."""
        spec: CallSpec = wanted.spec
        self._call = Call(
            tasks,
            spec,
            self._workers.resources(wanted),
            label=f"WorkerPool({spec.n_jobs}).{self._name}",
            return_as=return_as,
            interruption=self._interruption,
            may_run_here=False,
            observers=(*spec.observers, *observers),
            context_items=wanted.items,
        )

    def results(self) -> list[Any]:
        """Return all results, in order."""
        assert self._call is not None
        with self._inside:
            try:
                found: list[Any] = self._call.run()
            except BaseException as error:
                self._fail(error)
            self._workers.record = self._call.record
            self._call = None
            self._close(True)
        return found

    def chunks(self) -> Generator[list[Any], None, None]:
        """Yield results as they come, in lists."""
        call = self._call
        assert call is not None
        with self._inside:
            try:
                call.start()
                chunks = call.chunks()
            except BaseException as error:
                call.attach_to(error)
                self._fail(error)
        while True:
            with self._inside:
                if self._is_terminated:
                    raise RuntimeError(TERMINATED)
                try:
                    values = next(chunks)
                except StopIteration:
                    self._close(True)
                    return
                except BaseException as error:
                    call.attach_to(error)
                    self._fail(error)
            yield values

    def _fail(self, error: BaseException) -> NoReturn:
        """End the call with `error`, and raise it as its caller should see it."""
        self._close(False)
        if isinstance(error, CallInterrupted):
            raise RuntimeError(TERMINATED) from None
        raise as_raised(error)

    def _close(self, is_complete: bool) -> None:
        call, self._call = self._call, None
        try:
            if call is not None:
                call.close(is_complete)
                self._workers.record = call.record
            if not (self._keeps and is_complete):
                self._workers.stop()
        finally:
            self._workers.give_back(self)

    def end(self) -> None:
        """Let nothing of it go on: whoever takes results from it finds that it was terminated."""
        self._is_terminated = True
        self._interruption.set()
        if self._inside.acquire(blocking=self.thread != threading.get_ident()):
            try:
                if self._call is not None:
                    self._close(False)
            finally:
                self._inside.release()

    def drop(self) -> None:
        """Let go of everything, if that has not happened: the generator ends early."""
        with self._inside:
            if self._call is not None:
                self._close(False)
            else:
                self._workers.give_back(self)


def as_shown(error: BaseException) -> BaseException:
    """Return `error` without the frames in which it passed through this library."""
    if isinstance(error, Exception):
        return without_our_frames(error)
    return cut_traceback(error) if isinstance(error, KeyboardInterrupt) else error
