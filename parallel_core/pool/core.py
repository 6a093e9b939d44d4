"""What a `WorkerPool` does: maps and single calls on its workers, which stay or end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any

from parallel_core.dispatch.limits import ReturnAs
from parallel_core.pool.applying import Applies
from parallel_core.pool.async_result import AsyncResult
from parallel_core.pool.bars import check_style, open_bar
from parallel_core.pool.chunking import Cut, arguments_of, cut, delayed_calls
from parallel_core.pool.dilled import DillFunction, by_dill
from parallel_core.pool.insights import Insights
from parallel_core.pool.lease import PoolWorkers, Wanted
from parallel_core.pool.parameters import (
    MapParams,
    PoolParams,
    backend_of,
    check_options,
    wanted_of,
)
from parallel_core.pool.running import Run

#: Of a single call of which nothing but its function and arguments is said.
PLAIN = MapParams()


class PoolCore:
    """The workers of a pool with these `params`, and who works with them."""

    def __init__(self, params: PoolParams) -> None:
        self.params = params
        self.workers = PoolWorkers()
        self.insights: Insights | None = None  #: what has observed the last calls
        self._backend = backend_of(params.start_method)
        self._applies = Applies(self.workers)
        self._of_applies: tuple[MapParams, dict[str, Any]] | None = None  # those of the first

    def change(self, **params: Any) -> None:
        """Change parameters for calls that begin later."""
        self.params = self.params._replace(**params)

    def run_map(
        self,
        name: str,
        func: Callable[..., Any],
        items: Any,
        params: MapParams,
        return_as: ReturnAs,
        options: dict[str, Any],
    ) -> list[Any]:
        """Return the results of a map; `name` is that of the method that was called."""
        run, bar = self._begin(name, func, items, params, return_as, options)
        try:
            if return_as is ReturnAs.LIST:
                return run.results()
            found: list[Any] = []
            for values in run.chunks():
                found += values
            return found
        finally:
            run.drop()
            if bar is not None:
                bar.close()

    def stream_map(
        self,
        name: str,
        func: Callable[..., Any],
        items: Any,
        params: MapParams,
        return_as: ReturnAs,
        options: dict[str, Any],
    ) -> Generator[Any, None, None]:
        """Yield the results of a map, which begins with the first request."""
        run, bar = self._begin(name, func, items, params, return_as, options)
        try:
            for values in run.chunks():
                yield from values
        finally:
            run.drop()
            if bar is not None:
                bar.close()

    def _begin(
        self,
        name: str,
        func: Callable[..., Any],
        items: Any,
        params: MapParams,
        return_as: ReturnAs,
        options: dict[str, Any],
    ) -> tuple[Run, Any]:
        """Return a map that is ready to run, and its progress bar."""
        params.check()
        check_options(f"WorkerPool.{name}", options)
        bar_options = check_style(params.progress_bar_style, params.progress_bar_options)
        _check_call(func, items, name)
        pool = self.params
        pieces = cut(items, pool.n_jobs, params.iterable_len, params.chunk_size, params.n_splits)
        self._applies.drain()
        run = Run(self.workers, name, pool.keep_alive)
        self.workers.take(run, name)
        try:
            insights = self._insights_now()
            wanted = wanted_of(pool, self._backend, params, options, pieces, insights)
            bar = None
            if params.progress_bar:
                bar = open_bar(params.progress_bar_style, bar_options, pieces.total)
            tasks = self._tasks(func, pieces)
            run.prepare(tasks, wanted, return_as, [] if bar is None else [bar])
        except BaseException:
            self.workers.give_back(run)
            raise
        return run, bar

    def submit(
        self,
        func: Callable[..., Any],
        args: Any,
        kwargs: dict[str, Any] | None,
        callback: Callable[[Any], object] | None,
        error_callback: Callable[[BaseException], object] | None,
        params: MapParams,
        options: dict[str, Any],
    ) -> AsyncResult:
        """Have a worker make one call."""
        if params is not PLAIN:
            params.check()
        if options:
            check_options("WorkerPool.apply", options, of_maps=False)
        if callback is not None or error_callback is not None:
            for function in (callback, error_callback):
                if function is not None and not callable(function):
                    raise TypeError(f"a callback must be a function or None, not {function!r}")
        if not callable(func):
            raise TypeError(f"WorkerPool.apply takes a function and its arguments, not {func!r}")
        result = AsyncResult(callback, error_callback)
        if self._of_applies is None:
            self._of_applies = params._replace(task_timeout=None), options
        first = self._of_applies
        task: Any = (func, *arguments_of(args, kwargs))
        if self.params.use_dill:
            [task] = by_dill([(DillFunction(func), *task[1:])])

        def wanted() -> Wanted:
            insights = self._insights_now()
            return wanted_of(self.params, self._backend, *first, insights=insights)

        self._applies.submit(wanted, task, result, params.task_timeout)
        return result

    def _tasks(self, func: Callable[..., Any], pieces: Cut) -> Iterable[Any]:
        """Return the delayed calls of a map."""
        if self.params.use_dill:
            return by_dill(delayed_calls(DillFunction(func), pieces.items))
        return delayed_calls(func, pieces.items)

    def _insights_now(self) -> Insights | None:
        """Return what observes calls that begin now; another one where workers start anew."""
        if not self.params.enable_insights:
            return None
        if self.insights is None or not self.workers.are_kept:
            self.insights = Insights(self.params.n_jobs)
            self.workers.take_exits = self.insights.take_exits
        return self.insights

    def _end_map_of_this_thread(self) -> None:
        """End a map whose results this thread has not taken, and cannot take any more."""
        holder = self.workers.holder
        if isinstance(holder, Run) and holder.thread == threading.get_ident():
            holder.end()

    def is_in_callback(self) -> bool:
        """Whether this thread is the one that calls the callbacks of single calls."""
        return self._applies.is_mine()

    def join(self, keep_alive: bool) -> None:
        """Wait until all tasks are done; end the workers, unless they are to be kept."""
        self._end_map_of_this_thread()
        self._applies.drain()
        run = Run(self.workers, "stop_and_join", keeps=False)
        self.workers.take(run, "stop_and_join")
        try:
            if not keep_alive:
                self.workers.stop()
                self._of_applies = None
        finally:
            self.workers.give_back(run)

    def terminate(self) -> None:
        """Stop all tasks, and end the workers at once."""
        holder = self.workers.holder
        if isinstance(holder, Run):
            holder.end()
        self._applies.abort()
        self.workers.stop(at_once=True)
        self._of_applies = None


def _check_call(func: Any, items: Any, name: str) -> None:
    if not callable(func):
        raise TypeError(f"WorkerPool.{name} takes a function and its items, not {func!r}")
    if not hasattr(type(items), "__iter__") and not hasattr(type(items), "__getitem__"):
        raise TypeError(
            f"WorkerPool.{name} takes an iterable of arguments, not {items!r} of type "
            f"{type(items).__name__!r}"
        )
