"""What each thread of `pull` does: take tasks, run them, and hand in what came of them."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any

from parallel_core import config
from parallel_core.backends.base import Failure
from parallel_core.context.aspect import Place
from parallel_core.context.envelope import ContextFailed, Envelope, aspects_for
from parallel_core.dispatch.feed import SourceFailed
from parallel_core.dispatch.inline import named
from parallel_core.dispatch.outcomes import Outcomes
from parallel_core.dispatch.plan import CallPlan
from parallel_core.dispatch.policy import Action
from parallel_core.dispatch.thread_work import Chunk, Done, Running
from parallel_core.errors import InvalidTaskError
from parallel_core.tasks.delayed import check_task
from parallel_core.tasks.handles import to_call
from parallel_core.tasks.known import Known
from parallel_core.workers.thread_pools import PoolLimit

if TYPE_CHECKING:
    from parallel_core.dispatch.memory import MemoryGate


class ThreadLoop:
    """The loop of the threads of one call.

    Parameters
    ----------
    outcomes : Outcomes
        Where tasks come from, and what came of them goes.
    plan : CallPlan
        What was asked for.
    level : int
        Nesting level of the tasks.
    initializer : callable, optional
        Called in each thread first, without arguments.
    settings : Settings, optional
        What is in force in the tasks.
        Numeric libraries use no more threads than they say.

    Attributes
    ----------
    pools : PoolLimit
        Of threads of numeric libraries.
    """

    def __init__(
        self,
        outcomes: Outcomes,
        plan: CallPlan,
        level: int,
        initializer: Callable[[], object] | None = None,
        settings: config.Settings | None = None,
    ) -> None:
        self._outcomes = outcomes
        self._lock = outcomes.lock
        self._feed = outcomes.feed
        self._ending = outcomes.ending
        self._folded = outcomes.folded
        self._plan = plan
        self._level = level
        self._settings = settings
        self.pools = PoolLimit((settings and settings.threads) or sys.maxsize)
        self._initializer = initializer
        self._is_timed = plan.timeout is not None
        self._aspects = aspects_for(plan.aspects, Place.THREAD)
        self._at_work = 0  # threads that are running tasks; counted for the gate alone

    def work(self, running: Running, again: tuple[float, int, Any] | None) -> None:
        """Take and run tasks until there are no more: what each thread does."""
        config.enter_task(self._level, self._settings)
        self.pools.enter()
        try:
            if self._initializer is not None:
                self._initialize()
            if self._aspects:
                self._work_within(Envelope(self._aspects, Place.THREAD), running, again)
            else:
                self._take_and_run(running, again)
        except ContextFailed as failed:
            self._outcomes.fail(Failure(-1, failed.error))
        except SourceFailed as failed:
            with self._lock:
                self._outcomes.source_error = failed.error
                self._outcomes.stop()
        except BaseException as error:  # nothing that happens here may go unsaid
            self._outcomes.fail(Failure(-1, error))
        finally:
            with self._lock:
                if not running.is_disowned:
                    self._outcomes.alive -= 1
                is_last = self._outcomes.alive == 0
                if is_last:
                    self._outcomes.news.notify_all()
            # Another thread may have been in the way of its closing.
            if is_last and self._outcomes.is_over:
                self._feed.close()

    def _work_within(
        self, envelope: Envelope, running: Running, again: tuple[float, int, Any] | None
    ) -> None:
        envelope.begin(running.current)
        running.envelope = envelope
        try:
            self._take_and_run(running, again)
        finally:
            envelope.end()

    def _take_and_run(self, running: Running, again: tuple[float, int, Any] | None) -> None:
        gate = self._plan.gate
        if again is not None:
            seconds, start, item = again
            self._ending.wait(seconds)
            self._run_and_finish(Chunk(start, deque([item])), running)
        while not running.is_disowned:
            chunk = self._feed.take(running)
            if chunk is None:
                return
            if gate is not None:
                self._hold_back(gate)
                if self._feed.stopped:
                    return
            self._run_and_finish(chunk, running)
            if gate is not None:
                with self._lock:
                    self._at_work -= 1

    def _initialize(self) -> None:
        assert self._initializer is not None
        try:
            self._initializer()
        except BaseException as error:
            from parallel_core.errors import InitializerError

            failed = InitializerError(
                f"the initializer raised in a thread: {type(error).__name__}: {error}"
            )
            failed.__cause__ = error
            self._outcomes.fail(Failure(-1, failed))

    def _hold_back(self, gate: MemoryGate) -> None:
        """Wait with what was taken until there is memory for it, or the call is over."""
        with self._lock:
            while not self._feed.stopped and gate.hold(self._at_work):
                self._feed.space.wait(max(0.0, gate.again - monotonic()))
            self._at_work += 1

    def _run_and_finish(self, chunk: Chunk, running: Running) -> None:
        began = monotonic()
        start = chunk.start
        done = Done(start, [] if self._folded is None else self._folded.fold(start))
        running.done = done
        try:
            self._run(chunk, running, done)
        finally:
            running.since = 0.0
            self._outcomes.finish(done, running, monotonic() - began)

    def _run(self, chunk: Chunk, running: Running, done: Done) -> None:
        """Run the tasks of a chunk; none sees what one before it has set in its context."""
        base = running.base = copy_context()
        while True:
            context = base.copy()
            if not context.run(self._run_alike, chunk, running, done, context):
                return

    def _run_alike(self, chunk: Chunk, running: Running, done: Done, context: Context) -> bool:
        """Run tasks until one has changed the `context`; return whether that is so."""
        feed, append, next_task = self._feed, done.values.append, chunk.tasks.popleft
        timed = self._is_timed
        may_share = "memmapping.sharing" in sys.modules
        envelope, base = running.envelope, running.base
        while not feed.stopped:
            try:
                item = next_task()
            except IndexError:
                return False
            if timed:
                running.since = 0.0
                running.item, running.position = item, done.next
                running.since = monotonic()
            try:
                try:
                    function, args, kwargs = item
                except (TypeError, ValueError):
                    if type(item) is Known:
                        self._take_known(item, done)
                        continue
                    function, args, kwargs = check_task(item, done.next)
                if type(args) is not tuple or type(kwargs) is not dict:
                    function, args, kwargs = check_task(item, done.next)
                if may_share:
                    args, kwargs = to_call(args, kwargs)
                if envelope is not None:
                    function = envelope.bind(function, done.next)
                append(function(*args, **kwargs) if kwargs else function(*args))
            except BaseException as error:
                if not self._after(error, item, running, done):
                    return False
            try:
                if context != base:
                    return True
            except Exception:  # values that cannot be compared are others
                return True
        return False

    def _take_known(self, item: Known, done: Done) -> None:
        done.not_results.append(done.next)
        done.values.append(item.value)
        self._outcomes.look_for_hit([item.value])

    def _after(self, error: BaseException | None, item: Any, running: Running, done: Done) -> bool:
        """Do with a task that has raised what the policy says; return whether the call goes on."""
        position = done.next
        while error is not None:
            with self._lock:
                if running.is_disowned:
                    return False
                running.since = 0.0  # so that nobody disowns it from here on
            cause = None if self._folded is None else self._folded.cause(error)
            if cause is not None:
                done.failure = Failure(position, cause)
                return False
            renamed = self._named(error, position, item)
            if isinstance(renamed, InvalidTaskError):
                done.failure = Failure(position, renamed)
                return False
            verdict = self._outcomes.judge(renamed, position, item)
            if verdict.action is Action.RAISE:
                done.failure = Failure(position, renamed)
                return False
            if verdict.action is Action.DELIVER:
                done.not_results.append(position)
                done.values.append(verdict.value)
                return True
            if self._ending.wait(verdict.seconds):
                return False
            error = self._try_again(item, running, done)
        return True

    @staticmethod
    def _try_again(item: Any, running: Running, done: Done) -> BaseException | None:
        running.since = monotonic()
        try:
            function, args, kwargs = check_task(item, done.next)
            args, kwargs = to_call(args, kwargs)
            if running.envelope is not None:
                function = running.envelope.bind(function, done.next)
            done.values.append(running.base.copy().run(function, *args, **kwargs))
        except BaseException as error:
            return error
        return None

    @staticmethod
    def _named(error: BaseException, position: int, item: Any) -> BaseException:
        if isinstance(error, InvalidTaskError):
            return error
        try:
            return named(error, position, item)
        except InvalidTaskError as invalid:  # it could not be called at all
            return invalid
