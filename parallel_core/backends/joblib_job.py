"""A batch at a backend by joblib's conventions, from when it is submitted until it is done."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from typing import Any, NamedTuple

from parallel_core.backends.joblib_engine import JoblibEngine


class Unretrieved(NamedTuple):
    """A job that is done, and whose result has to be asked for in the thread that wants it."""

    engine: JoblibEngine
    job: Any

    def retrieve(self) -> Any:
        """Return what the batch returned, or raise."""
        retrieve = getattr(self.engine.backend, "retrieve_result", None)
        if retrieve is not None:
            return retrieve(self.job)
        return self.job.get() if hasattr(self.job, "get") else self.job.result()


class Job:
    """A batch at the engine: the callback that the backend was given, and the job it returned.

    Parameters
    ----------
    engine : JoblibEngine
        Knows the backend.

    Attributes
    ----------
    future : Future
        Of the list that the batch returned, or of an `Unretrieved`.
    """

    def __init__(self, engine: JoblibEngine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._is_done = False
        self._job: Any = None
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # nobody can call it back

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Take in that it is done; the backend calls this, in any thread."""
        if not self._engine.by_callback:
            self._finish()
            return
        try:
            out = self._engine.backend.retrieve_result_callback(*args, **kwargs)
        except BaseException as error:
            self._settle(error=error)
        else:
            self._settle(out)

    def register(self, job: Any) -> None:
        """Take in what `submit` returned."""
        with self._lock:
            self._job = job
            is_done = self._is_done
        if self._engine.by_callback:
            if hasattr(
                job, "add_done_callback"
            ):  # for failures of which the callback hears nothing
                job.add_done_callback(self._note_failure)
        elif is_done:
            self._settle(Unretrieved(self._engine, self._job))
        elif hasattr(job, "add_done_callback"):
            job.add_done_callback(self)
        elif not self.can_be_asked:  # the callback may never come
            threading.Thread(
                target=self._wait, name="parallel-core waits for a job", daemon=True
            ).start()

    @property
    def can_be_asked(self) -> bool:
        """Whether it can be looked at without waiting."""
        return hasattr(self._job, "ready") or hasattr(self._job, "done")

    @property
    def needs_looking(self) -> bool:
        """Whether nothing but looking tells for certain that it is done."""
        if self._engine.by_callback or self.future.done():
            return False
        return not hasattr(self._job, "add_done_callback") and self.can_be_asked

    def look(self) -> None:
        """See whether it is done."""
        ask = getattr(self._job, "ready", None) or self._job.done
        if ask():
            self._finish()

    def _finish(self) -> None:
        with self._lock:
            self._is_done = True
            has_job = self._job is not None
        if has_job:
            self._settle(Unretrieved(self._engine, self._job))

    def _wait(self) -> None:
        try:
            out = Unretrieved(self._engine, self._job).retrieve()
        except BaseException as error:
            self._settle(error=error)
        else:
            self._settle(out)

    def _note_failure(self, job: Any) -> None:
        try:
            error = job.exception()
        except BaseException as cancelled:
            error = cancelled
        if error is not None:
            self._settle(error=error)

    def _settle(self, out: Any = None, error: BaseException | None = None) -> None:
        try:
            if error is None:
                self.future.set_result(out)
            else:
                self.future.set_exception(error)
        except InvalidStateError:
            pass  # it was told twice
