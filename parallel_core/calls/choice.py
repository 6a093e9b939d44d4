"""The choice of a backend, by parameters, context, hints, constraints and nesting.

And what the tasks are told for the choices of calls that they make themselves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from parallel_core import config
from parallel_core.backends.base import Backend
from parallel_core.backends.cores import cores_here
from parallel_core.backends.registry import default_backend_name, find_backend
from parallel_core.calls.checks import check_hints

#: Backends of calls within tasks, by level, unless something else is configured.
NESTED = ("threading", "sequential")


class Choice(NamedTuple):
    """The chosen backend."""

    backend: Backend
    n_jobs: int | None  #: as requested
    remark: str | None = None  #: a request that is not met, for a message


def choose_backend(
    given: Any, n_jobs: int | None, prefer: Any, require: Any, params: dict[str, Any]
) -> Choice:
    """Return the backend and the number of jobs for a call.

    A `given` backend decides. Raises ValueError if hint and constraint contradict each other, or if
    `given` does not satisfy `require`.
    """
    settings = config.current_settings()
    hint = config.setting("prefer", prefer, settings)
    constraint = config.setting("require", require, settings)
    check_hints(hint, constraint)
    of_context = settings.values.get("n_jobs")
    if given is not None:
        backend = find_backend(given, params)
        # The context's constraint is for calls that leave the choice to it.
        if require == "sharedmem" and not backend.supports_sharedmem:
            raise ValueError(
                f"backend={backend.name!r} does not share the caller's memory, which "
                "require='sharedmem' demands: use backend='threading', or name no backend"
            )
        remark = _overridden(hint, backend, f"backend={backend.name!r}")
        if n_jobs is None and of_context is not None:
            n_jobs = of_context
            if (hint or constraint) and _active(settings, hint, constraint).forced:
                n_jobs = 1
        return Choice(backend, n_jobs, remark)
    active = _active(settings, hint, constraint)
    if n_jobs is not None:
        return Choice(active.backend, n_jobs, active.remark_for(n_jobs))
    if active.forced and of_context is not None:
        remark = active.remark_for(of_context) or f"Uses threads, by prefer={hint!r}."
        if of_context != 1:
            remark += (
                f" One job: the context's n_jobs={of_context} was not said of threads; give "
                "n_jobs in the call, or backend='threading' in the context."
            )
        return Choice(active.backend, 1, remark)
    return Choice(active.backend, of_context, active.remark_for(of_context))


class _Active(NamedTuple):
    """The backend of calls that name none."""

    backend: Backend
    forced: bool = False  #: whether hint or constraint turned another backend into threads
    remark: str | None = None  #: a setting that was overridden
    level: int = 0  #: of nesting, if the call runs sequentially for it

    def remark_for(self, n_jobs: int | None) -> str | None:
        """Return what to tell a call that asked for `n_jobs`."""
        if self.level and n_jobs not in (None, 1):
            return (
                f"Runs one task after the other: it is called within a task, at level {self.level} "
                "(parallel_config(nested=...) can change that)."
            )
        return self.remark


def _active(settings: config.Settings, prefer: str | None, require: str | None) -> _Active:
    by = "the context's backend"
    chosen = settings.values.get("backend")
    level = config.nesting_level()
    if chosen is None and level:
        policy = settings.values.get("nested") or NESTED
        by = "the backend of nested calls"
        chosen = policy[min(level, len(policy)) - 1]
        is_sequential = chosen == "sequential"
    else:
        is_sequential = False
    if chosen is None:
        default = find_backend(default_backend_name())
        wants_threads = prefer == "threads" or require == "sharedmem"
        if wants_threads and not default.supports_sharedmem:
            return _Active(find_backend("threading"), forced=True)
        if prefer == "processes" and default.supports_sharedmem:
            return _Active(find_backend("processes"))
        return _Active(default)
    backend = find_backend(chosen)
    if require == "sharedmem" and not backend.supports_sharedmem:
        instead = f"Uses threads instead of {by}, {backend.name!r}, by require='sharedmem'."
        return _Active(find_backend("threading"), True, instead)
    remark = _overridden(prefer, backend, f"{by}, {backend.name!r}")
    return _Active(backend, False, remark, level if is_sequential else 0)


def _overridden(prefer: str | None, backend: Backend, by: str) -> str | None:
    if prefer is None or (prefer == "threads") == backend.supports_sharedmem:
        return None
    return f"prefer={prefer!r} is overridden by {by}."


def settings_of_tasks(backend: Backend, n_jobs: int, threads: int | None = None) -> config.Settings:
    """Return the settings that apply in the tasks of a call that begins here."""
    outer = config.current_settings()
    if threads is None:  # workers other than threads, which may have been told themselves
        said = (outer.threads, outer.backend_params.get("inner_max_num_threads"))
        threads = min((number for number in said if number is not None), default=None)
    nested = None
    if outer.values.get("nested") is None:
        nested = backend.nested(config.nesting_level() + 1)
    return config.task_settings(cores_here() // n_jobs or 1, threads, nested)
