"""Threads that take tasks from the caller's iterable themselves.

They take chunks of some 100 µs of work from a `Feed`, and from each other what nobody has begun.
One lock guards everything but the iterable, and is never held for long. The caller's thread sleeps
until there is something for it: results that its consumer waits for, progress, a failure, a task
over its time, or the end.

Threads share the caller's memory, so arguments are what they are when the task runs. They cannot
be killed: when a call ends early, a thread that is inside a task is left to finish it and then
ends; and when the task runs out of time, the thread is disowned, and another takes its place.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any

from parallel_core import config
from parallel_core.backends.base import NEVER, Failure
from parallel_core.context.aspect import Place
from parallel_core.context.envelope import ContextFailed, Envelope, aspects_for
from parallel_core.dispatch.aftermath import ArrivedResults, Replay, replay_task
from parallel_core.dispatch.deadline import Deadline
from parallel_core.dispatch.delivery import Delivery, ListDelivery, delivery_for
from parallel_core.dispatch.feed import Feed, SourceFailed
from parallel_core.dispatch.gaps import without_gaps
from parallel_core.dispatch.inline import named
from parallel_core.dispatch.live import LiveTasks
from parallel_core.dispatch.plan import CallPlan, ReturnAs
from parallel_core.dispatch.policy import Action, Verdict
from parallel_core.dispatch.thread_work import Chunk, Done, Running
from parallel_core.errors import InvalidTaskError
from parallel_core.tasks.delayed import check_task
from parallel_core.tasks.description import describe_call, describe_task
from parallel_core.tasks.handles import to_call
from parallel_core.tasks.known import Known
from parallel_core.workers.thread_pools import PoolLimit

if TYPE_CHECKING:
    from parallel_core.dispatch.memory import MemoryGate

_THREAD = "parallel-core"


class PullDispatch:
    """One call on threads of its own.

    Parameters
    ----------
    tasks : iterable
        Of delayed calls.
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
    completed : int
        How many results there are.
    """

    def __init__(
        self,
        tasks: Iterable[Any],
        plan: CallPlan,
        level: int,
        initializer: Callable[[], object] | None = None,
        settings: config.Settings | None = None,
    ) -> None:
        self._plan = plan
        self._level = level
        self._settings = settings
        self._pools = PoolLimit((settings and settings.threads) or sys.maxsize)
        self._initializer = initializer
        self._lock = threading.Lock()  # for everything but the iterable, and never for long
        self._news = threading.Condition(self._lock)  # for the caller's thread
        self._is_timed = plan.timeout is not None
        self._aspects = aspects_for(plan.aspects, Place.THREAD)
        is_live = isinstance(tasks, LiveTasks)
        if isinstance(tasks, LiveTasks):
            tasks = tasks.waiting()
        self._feed = Feed(
            tasks if plan.journal is None else plan.journal.look_up(tasks),
            1 if self._is_timed else plan.batch_size,
            plan.pre_dispatch,
            self._lock,
        )
        self._deadline = Deadline(plan.call_timeout)
        if plan.interruption is not None:
            plan.interruption.wake_by(self._wake)
        self._judging = threading.Lock()
        self._ending = threading.Event()  # for threads that wait before they try again
        self._at_work = 0  # threads that are running tasks; counted for the gate alone
        self._is_over = False
        self._hit = False  # a result was all that is wanted
        self._has_gaps = False  # in what is delivered
        self._replay: Replay | None = None
        self.completed = 0
        self._failure: Failure | None = None
        self._source_error: BaseException | None = None
        self._alive = 0
        self._waiting_for_news = False
        self._delivery: Delivery = delivery_for(plan.return_as, is_live)
        self._keeps_results = plan.return_as is ReturnAs.LIST
        self._folded = None if plan.reduction is None else plan.reduction.begin()

    def _wake(self) -> None:
        """Have the caller's thread look: another one has interrupted the call."""
        if not self._lock.acquire(blocking=False):  # by this thread itself, if it is a finalizer
            threading.Thread(target=self._stop_soon, name=f"{_THREAD}-stop").start()
            return
        try:
            self._stop()
        finally:
            self._lock.release()

    def _stop_soon(self) -> None:
        with self._lock:
            self._stop()

    def start(self) -> None:
        """Pull the first tasks, as many as may be ahead, and start the threads."""
        self._pools.begin()
        self._feed.pull_first()
        for _ in range(self._plan.n_jobs):
            with self._lock:
                if not self._feed.may_take():
                    return
            if not self._start_thread():
                return

    def _start_thread(self, again: tuple[float, int, Any] | None = None) -> bool:
        """Start a thread, with a task that it is to try `again` first; return whether it could be.

        Raises
        ------
        RuntimeError
            When the system has no thread at all for us.
        """
        running = Running()
        context = copy_context()
        with self._lock:
            self._feed.takers.append(running)
            self._alive += 1
            number = len(self._feed.takers) - 1
        thread = threading.Thread(
            target=context.run,
            args=(self._work, running, again),
            name=f"{_THREAD}-{number}",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError as error:
            with self._lock:
                self._alive -= 1
                if self._alive == 0:
                    raise RuntimeError(
                        f"not even one thread can be started for the tasks: {error} (if the "
                        "program is not ending, see ulimit -u); n_jobs=1 needs none"
                    ) from error
            return False
        return True

    def run(self) -> Any:
        """Return all results, in order; or what they were folded to."""
        assert isinstance(self._delivery, ListDelivery)
        while True:
            with self._news:
                self._wait(self._plan.progress is not None)
                ended = self._ended()
            self._check()
            self._report()
            if ended:
                if self._hit:
                    self.abandon()
                self._pools.end()
                if self._folded is not None:
                    return self._folded.finish(self._feed.position)
                results = self._delivery.results
                return without_gaps(results) if self._has_gaps else results

    def chunks(self) -> Iterator[list[Any]]:
        """Yield results as they come; a chunk counts as taken when the next is asked for."""
        delivery = self._delivery
        assert not isinstance(delivery, ListDelivery)
        while True:
            with self._news:
                values = delivery.take()
                ended = False
                if values is None:
                    self._wait(True)
                    ended = self._ended()
                    if self._hit:
                        self._is_over = True
                        delivery.pass_over()
                    values = delivery.take()
            if values is not None:
                yield without_gaps(values) if self._has_gaps else values
                with self._lock:
                    self._feed.give_space()
                self._report()
                continue
            self._check()
            self._report()
            if ended:
                if self._hit:
                    self.abandon()
                self._pools.end()
                return

    def abandon(self) -> None:
        """End the call: no further task is started."""
        with self._lock:
            self._is_over = True
            self._stop()
        self._pools.end()
        self._feed.close()

    def aftermath(self) -> tuple[ArrivedResults, Replay | None]:
        """Return the results of a call that ended early, and how to replay what ended it."""
        with self._lock:
            return ArrivedResults(self._delivery.arrived()), self._replay

    @property
    def dispatched(self) -> int:
        """How many tasks the threads have taken."""
        return self._feed.position

    @property
    def total(self) -> int | None:
        """How many tasks there are, once that is known."""
        return self._feed.position if self._feed.exhausted else None

    def _ended(self) -> bool:
        return self._alive == 0 or self._hit

    def _wait(self, any_news: bool) -> None:
        """Wait for something to do in the caller's thread; the lock is held."""
        if self._ended() or self._failure is not None or self._source_error is not None:
            return
        if self._plan.interruption is not None and self._plan.interruption.is_set:
            return
        until = self._deadline.at
        if self._plan.timeout is not None:
            now = monotonic()
            since = min((slot.since for slot in self._watched() if slot.since), default=now)
            until = min(until, since + self._plan.timeout)
        self._waiting_for_news = any_news
        self._news.wait(None if until == NEVER else max(0.0, until - monotonic()) + 0.001)
        self._waiting_for_news = False

    def _watched(self) -> Iterator[Running]:
        return (slot for slot in self._feed.takers if not slot.is_disowned)

    def _check(self) -> None:
        """Raise what has to be raised in the caller."""
        if self._plan.interruption is not None and self._plan.interruption.is_set:
            self.abandon()
            self._plan.interruption.check()
        if self._source_error is not None:
            self.abandon()
            raise self._source_error
        if self._failure is not None:
            self.abandon()
            raise self._failure.error
        if self._deadline.is_over() and not self._ended():
            self.abandon()
            raise self._deadline.error(self.completed)
        limit = self._plan.timeout
        if limit is not None:
            for slot in list(self._watched()):
                self._enforce(limit, slot)

    def _enforce(self, limit: float, slot: Running) -> None:
        """Where a task has run for over `limit` seconds, disown its thread and judge it."""
        with self._lock:
            since, position, item = slot.since, slot.position, slot.item
            if not since or monotonic() - since <= limit:
                return
            slot.is_disowned = True  # `_finish` looks, so either its result counts or this does
            self._alive -= 1
        from parallel_core.errors import TaskTimeoutError

        what = describe_task(position, describe_call(*check_task(item, position)))
        error = TaskTimeoutError(f"{what} has run for more than timeout={limit:g} s")
        verdict = self._judge(error, position, item)
        if verdict.action is Action.RAISE:
            self.abandon()
            raise error
        again = None
        if verdict.action is Action.RETRY:
            again = verdict.seconds, position, item
        elif verdict.action is Action.DELIVER:
            self._put_instead(position, verdict.value)
        if not self._start_thread(again) and again is not None:
            self.abandon()
            raise error

    def _judge(self, error: BaseException, position: int, item: Any) -> Verdict:
        """Return what to do with a task that failed; note how to replay it."""
        with self._judging:
            verdict = self._plan.policy.judge(Failure(position, error))
        if verdict.action is Action.RAISE:
            aspects = aspects_for(self._plan.aspects, Place.CALLER)
            self._replay = replay_task(position, check_task(item, position), aspects)
        elif verdict.action is Action.DELIVER and self._folded is not None:
            return verdict._replace(value=self._folded.leaf(verdict.value, error))
        return verdict

    def _report(self) -> None:
        if self._plan.progress is not None:
            self._plan.progress()

    def _work(self, running: Running, again: tuple[float, int, Any] | None) -> None:
        """Take and run tasks until there are no more: what each thread does."""
        config.enter_task(self._level, self._settings)
        self._pools.enter()
        try:
            if self._initializer is not None:
                self._initialize()
            if self._aspects:
                self._work_within(Envelope(self._aspects, Place.THREAD), running, again)
            else:
                self._take_and_run(running, again)
        except ContextFailed as failed:
            self._fail(Failure(-1, failed.error))
        except SourceFailed as failed:
            with self._lock:
                self._source_error = failed.error
                self._stop()
        except BaseException as error:  # nothing that happens here may go unsaid
            self._fail(Failure(-1, error))
        finally:
            with self._lock:
                if not running.is_disowned:
                    self._alive -= 1
                is_last = self._alive == 0
                if is_last:
                    self._news.notify_all()
            if is_last and self._is_over:  # another may have been in the way of its closing
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
            self._fail(Failure(-1, failed))

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
            self._finish(done, running, monotonic() - began)

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
        self._look_for_hit([item.value])

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
            verdict = self._judge(renamed, position, item)
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

    def _finish(self, done: Done, running: Running, seconds: float) -> None:
        values = done.values
        with self._lock:
            if running.is_disowned or self._is_over:
                return  # something else is in its place, or nobody waits for it any more
            if values:
                self._feed.note_speed(len(values), seconds)
            self._has_gaps = self._has_gaps or bool(done.not_results)
            if self._folded is None:
                self._put(done.start, values)
        if self._folded is not None and done.failure is None:
            self._put_folded(done.start, values)
        if self._plan.journal is not None or self._plan.stop_when is not None:
            for first, results in done.results():
                if self._plan.journal is not None:
                    self._plan.journal.record(first, results)
                self._look_for_hit(results)
        if done.failure is not None:
            self._fail(done.failure)

    def _look_for_hit(self, results: list[Any]) -> None:
        """End the call where one of `results` is all that is wanted."""
        stop_when = self._plan.stop_when
        if stop_when is not None and any(map(stop_when, results)):
            with self._lock:
                self._hit = self._has_gaps = True
                self._stop()

    def _put_instead(self, position: int, value: Any) -> None:
        """Deliver what stands in the place of the result of a task that ran out of time."""
        if self._folded is not None:
            fold = self._folded.fold(position)
            fold.append(value)
            self._put_folded(position, fold)
            return
        with self._lock:
            self._has_gaps = True
            self._put(position, [value])

    def _put_folded(self, start: int, fold: Any) -> None:
        """Fold on, with the lock not held."""
        assert self._folded is not None
        count = len(fold)
        cause = self._folded.take(start, fold)
        if cause is not None:
            self._fail(Failure(start, cause))
        with self._lock:
            self._count(count)

    def _put(self, start: int, values: list[Any]) -> None:
        """Deliver outcomes; the lock is held."""
        self._delivery.put(start, values)
        self._count(len(values))

    def _count(self, tasks: int) -> None:
        self.completed += tasks
        if self._keeps_results or not tasks:
            self._feed.give_space()
        if self._waiting_for_news:
            self._news.notify()

    def _fail(self, failure: Failure) -> None:
        with self._lock:
            if self._failure is None or failure.position < self._failure.position:
                self._failure = failure
            self._stop()

    def _stop(self) -> None:
        self._feed.stop()
        self._ending.set()
        self._news.notify_all()
