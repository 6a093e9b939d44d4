"""What a session of worker processes does in each of them before its first task and after its last.

::

    submit ──▶ begin: INIT, in front of its first batch      finish, retire ──▶ end: EXIT
    wait ◀──── take_reply                                     results ◀──────── take_reply

Nothing here waits: an answer comes like any other, and a function that takes too long is noticed
when the session looks.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from parallel_core.backends.base import NEVER
from parallel_core.backends.losses import died
from parallel_core.backends.options import WorkerSetup
from parallel_core.backends.worker_handle import WorkerHandle
from parallel_core.errors import WorkerExitError
from parallel_core.serialization.failure import unpack
from parallel_core.tasks.description import function_name
from parallel_core.workers.board import Phase
from parallel_core.workers.messages import Reply
from parallel_core.workers.requests import (
    Request,
    begin_worker,
    end_worker,
    pickle_call,
    pickle_shared,
)
from parallel_core.workers.sent import ExitInfo
from parallel_core.workers.setup import Exclusive, WorkerKey
from parallel_core.workers.worker import Worker


class SessionSetup:
    """The set-up of the workers of one session.

    `inherits` says whether shared objects come with the start of a process.
    """

    def __init__(self, setup: WorkerSetup, inherits: bool) -> None:
        self._inherits = inherits and setup.shared_objects is not None
        self._setup = setup
        self._begin = self._end = b""
        self._begin_words = self._end_words = ""
        self._results: list[tuple[int, Any]] = []
        self.change(setup)

    @property
    def keeps_order(self) -> bool:
        """Whether each worker runs its tasks in the order of the input."""
        return self._setup.passed.state

    def change(self, setup: WorkerSetup) -> None:
        """Use the functions of `setup` from now on."""
        self._setup = setup
        self._begin = self._end = b""
        self._is_for_all = True  # the former is the same for all workers
        self._begin_words = self._end_words = ""
        if setup.needs_request:
            self._begin_words = _words("worker_init", setup.init, "the shared objects")
            self._begin = self._pickle_begin()
        if setup.exit is not None:
            self._end_words = _words("worker_exit", setup.exit)
            self._end = pickle_call(end_worker, (setup.exit, setup.passed), self._end_words)

    def _pickle_begin(self) -> bytes:
        shared: bytes | None = None
        if not self._inherits and self._setup.shared_objects is not None:
            shared, self._is_for_all = pickle_shared(self._setup.shared_objects)
        args = self._setup.init, self._setup.passed, shared
        return pickle_call(begin_worker, args, self._begin_words)

    def key(self, plain: WorkerKey) -> WorkerKey:
        """Return which workers may be taken: what was done in them stays theirs."""
        setup = self._setup
        if setup.is_exclusive or setup.shared_objects is not None:
            return plain._replace(
                exclusive=Exclusive(setup.shared_objects if self._inherits else None)
            )
        return plain._replace(setup=self._begin + self._end)

    def slot_keys(self, key: WorkerKey, n_jobs: int) -> list[WorkerKey] | None:
        """Return the keys of all slots, where they differ."""
        if self._setup.env is None:
            return None
        self._setup.check_n_jobs(n_jobs)
        keys = []
        for variables in self._setup.env:
            together = {**dict(key.environment), **dict(variables)}
            keys.append(key._replace(environment=tuple(together.items())))
        return keys

    def pin(self, worker: Worker) -> None:
        """Let `worker` run on the CPUs of its slot."""
        cpu_ids = self._setup.cpu_ids
        if cpu_ids is None:
            return
        cpus = cpu_ids[worker.slot]
        try:
            worker.pin(cpus)
        except ProcessLookupError:
            pass  # it has ended, which will be seen
        except OSError as error:
            raise ValueError(f"cpu_ids: no worker can run on {list(cpus)} here: {error}") from error

    def begin(self, worker: WorkerHandle) -> bool:
        """Prepare `worker`, if that was not done; return whether something waits to be sent."""
        if worker.is_set_up:
            return False
        worker.is_set_up = True
        if not self._begin:
            return False
        if not self._is_for_all:
            self._begin = self._pickle_begin()
            worker.tell_authkey()
        limit = self._setup.init_timeout
        return worker.ask(Request(Phase.INIT, self._begin, self._begin_words, limit))

    def end(self, worker: WorkerHandle) -> bool:
        """Call the exit function in `worker`, if it has had tasks; return whether it was asked."""
        if not worker.is_set_up or not self._end:
            return False
        worker.is_set_up = False
        limit = self._setup.exit_timeout
        worker.ask(Request(Phase.EXIT, self._end, self._end_words, limit))
        return True

    def take_reply(self, worker: WorkerHandle, reply: Reply) -> BaseException | None:
        """Take in an answer; return the error that ends the call, if it is one."""
        request = worker.requests.popleft()
        answer_request(request, worker.slot, reply)
        if request.phase == Phase.REQUEST:
            return None
        try:
            result = request.result()
        except BaseException as error:
            return error
        if request.phase == Phase.EXIT:
            self._results.append((worker.slot, result))
        return None

    def results(self) -> list[Any]:
        """Return what exit functions have returned, by slots, and forget it."""
        found, self._results = self._results, []
        return [value for _, value in sorted(found, key=lambda entry: entry[0])]

    def look(self, workers: Iterable[WorkerHandle]) -> float:
        """Kill workers whose function takes too long; return in how many seconds to look again."""
        now, again = time.monotonic(), NEVER
        for worker in workers:
            if not worker.requests or (limit := worker.requests[0].limit) is None:
                continue
            left = worker.since + limit - now if worker.is_on_request else limit
            if left <= 0:
                worker.requests[0].is_late = True
                worker.kill()
                left = limit
            again = min(again, left)
        return again


def answer_request(request: Request, slot: int, reply: Reply) -> None:
    """Unpack the answer to `request`."""
    value, text = reply
    what = f"worker {slot}: {request.what}"
    loaded = unpack(value, text, what) if text else _loads(value, what)
    if not isinstance(loaded, BaseException):
        request.answer(loaded)
    elif request.phase == Phase.REQUEST or not text:
        request.answer(None, loaded)
    else:
        words = f"{what} raised {type(loaded).__name__}: {loaded}"
        error = _error_of(request, words)
        error.__cause__ = loaded
        request.answer(None, error)


def _loads(value: bytes, what: str) -> Any:
    import pickle

    from parallel_core.errors import SerializationError

    try:
        return pickle.loads(value)
    except Exception as error:
        words = f"{what}: what it returned does not unpickle here: {type(error).__name__}: {error}"
        failed = SerializationError(words)
        failed.__cause__ = error
        return failed


def lost_requests(
    requests: Sequence[Request], slot: int, death: ExitInfo, is_on_first: bool
) -> BaseException | None:
    """Answer `requests` of a worker that has ended; return the error that ends the call, if any."""
    fatal: BaseException | None = None
    for request in requests:
        is_to_blame = is_on_first and request is requests[0]
        if request.is_late:
            from parallel_core.errors import TaskTimeoutError

            words = f"worker {slot}: {request.what} has run for more than {request.limit:g} s"
            error: BaseException = TaskTimeoutError(words)
        else:
            where = "in" if is_to_blame else "before it began"
            words = f"worker {slot} {death.words} {where} {request.what}"
            error = _error_of(request, words, death)
            error.__cause__ = died(f"a worker process {death.words}", death=death)
        request.answer(None, error)
        if is_to_blame and request.phase != Phase.REQUEST:
            fatal = error
    return fatal


def _error_of(request: Request, words: str, death: ExitInfo | None = None) -> BaseException:
    from parallel_core.errors import InitializerError

    if request.phase == Phase.INIT:
        return InitializerError(words)
    if request.phase == Phase.EXIT:
        return WorkerExitError(words)
    return died(words, death=death)


def _words(name: str, function: object, instead: str = "") -> str:
    return instead if function is None else f"{name} {function_name(function)}"
