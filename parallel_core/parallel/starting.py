"""The start of a call: where its tasks run, and the dispatch for that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from parallel_core.backends.base import (
    Backend,
    BackendUnavailable,
    Session,
    Style,
    WorkerOptions,
)
from parallel_core.backends.registry import find_backend
from parallel_core.context.aspect import Place
from parallel_core.dispatch.inline import InlineDispatch
from parallel_core.dispatch.plan import CallPlan
from parallel_core.dispatch.push import PushDispatch
from parallel_core.errors import warn_caller
from parallel_core.tasks.definitions import Definitions, stored_globals

if TYPE_CHECKING:
    from memmapping.reducer import ArrayReducer

_warned: set[str] = set()


def instead_of(backend: Backend, error: BackendUnavailable) -> Backend:
    """Return the backend to use where `backend` cannot work, for `error`."""
    if error.instead is None:
        _warn_once(
            backend.name,
            f"the backend {backend.name!r} cannot be used here ({error}); threads are used instead",
        )
    return error.instead or find_backend("threading")


def place_of(backend: Backend) -> Place:
    """Return where the tasks of a call on `backend` run, seen from here."""
    if backend.style is Style.INLINE:
        return Place.CALLER
    if backend.runs_here:
        return Place.THREAD
    return Place.WORKER if backend.tells_surroundings else Place.ENGINE


def new_dispatch(
    backend: Backend,
    session: Session | None,
    tasks: Iterable[Any],
    plan: CallPlan,
    options: WorkerOptions,
    make_arrays: Callable[[], ArrayReducer],
) -> Any:
    """Return a dispatch of `tasks`, not yet started.

    Parameters
    ----------
    backend : Backend
        Where they run.
    session : Session or None
        On it, if batches are pushed to it.
    tasks : iterable
        Of delayed calls.
    plan : CallPlan
        What was asked for.
    options : WorkerOptions
        What workers were asked to be.
    make_arrays : callable
        Returns what makes references of large arrays, when there are some.
    """
    if backend.style is Style.INLINE:
        if options.initializer is not None:
            _run_initializer(options)
        return InlineDispatch(tasks, plan)
    arrays = make_arrays if backend.opens_files else None
    assert session is not None
    own = stored_globals(options.initializer)
    definitions = Definitions(own, arrays, backend.passes_descriptors)
    return PushDispatch(tasks, session, plan, backend.aim_seconds, definitions)


def _run_initializer(options: WorkerOptions) -> None:
    assert options.initializer is not None
    try:
        options.initializer(*options.initargs)
    except (Exception, SystemExit) as error:
        from parallel_core.errors import InitializerError

        raise InitializerError(
            f"the initializer raised: {type(error).__name__}: {error}"
        ) from error


def _warn_once(about: str, message: str) -> None:
    if about not in _warned:
        _warned.add(about)
        warn_caller(message, RuntimeWarning)
