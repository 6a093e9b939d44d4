"""Which backend, from what was given, the context, hints, constraints and nesting."""

from __future__ import annotations

from typing import Any, NamedTuple

from parallel_core import config
from parallel_core.backends.base import Backend
from parallel_core.backends.registry import default_backend_name, find_backend

#: Parameters that every backend with workers understands; others go to a backend's factory.
WORKER_PARAMS = (
    "initializer",
    "initargs",
    "idle_worker_timeout",
    "inner_max_num_threads",
    "max_worker_memory",
    "preload",
    "worker_lifespan",
)


class Choice(NamedTuple):
    """A backend, and why this one.

    Attributes
    ----------
    backend : Backend
        The backend.
    overridden : str or None
        What was asked for and not given, for a message.
    """

    backend: Backend
    overridden: str | None = None


def choose_backend(
    given: Any, prefer: str | None, require: str | None, params: dict[str, Any]
) -> Choice:
    """Return the backend for a call.

    Parameters
    ----------
    given : str, Backend, Executor, multiprocessing context or None
        From the call itself; it decides.
    prefer, require : str or None
        Hint and constraint.
    params : dict
        Parameters for the factory of a backend that is chosen by name.

    Raises
    ------
    ValueError
        When `given` does not meet `require`.
    """
    if given is not None:
        backend = find_backend(given, params)
        if require == "sharedmem" and not backend.supports_sharedmem:
            raise ValueError(
                f"backend={backend.name!r} does not share the caller's memory, which "
                "require='sharedmem' demands: use backend='threading', or name no backend"
            )
        return Choice(backend)
    chosen = config.current_settings().values.get("backend")
    if chosen is not None:
        backend = find_backend(chosen, params)
        if require == "sharedmem" and not backend.supports_sharedmem:
            return Choice(find_backend("threading"), f"{backend.name!r}, by require='sharedmem'")
        if prefer == "threads" and not backend.supports_sharedmem:
            return Choice(backend, "prefer='threads', by the context's choice")
        return Choice(backend)
    level = config.nesting_level()
    if level > 1:
        return Choice(find_backend("sequential"))
    if level == 1 or prefer == "threads" or require == "sharedmem":
        return Choice(find_backend("threading"))
    return Choice(find_backend(default_backend_name()))


def split_params(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters for workers, and those for the backend's factory."""
    if not params:
        return params, params
    workers = {name: value for name, value in params.items() if name in WORKER_PARAMS}
    factory = {name: value for name, value in params.items() if name not in WORKER_PARAMS}
    return workers, factory
