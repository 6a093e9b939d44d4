"""The types of all parameters, and the error for an unknown one.

The signature of `Parallel` lists all parameters with their defaults. The dictionaries below repeat
them for type checkers, which use its overloads; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from parallel_core.config import WORKER_DEFAULTS

if TYPE_CHECKING:
    import os
    from typing import Literal, TypedDict

    from parallel_core.observe.observers import Observer
    from parallel_core.observe.progress import ProgressLike
    from parallel_core.trace.target import TraceLike

    class KeywordParams(TypedDict, total=False):
        """What `Parallel` takes by keyword alone, but for what decides which type it returns."""

        initializer: Callable[..., object] | None
        initargs: tuple[Any, ...] | list[Any]
        idle_worker_timeout: float | None
        inner_max_num_threads: int | None
        max_worker_memory: int | str | None
        preload: str | list[str] | tuple[str, ...] | None
        worker_lifespan: int | None
        worker_init: Callable[..., object] | None
        worker_exit: Callable[..., object] | None
        cpu_ids: Sequence[int | Sequence[int]] | None
        worker_env: Sequence[Mapping[str, str]] | None
        use_worker_state: bool
        order_tasks: bool
        retries: int
        retry_on: type[BaseException] | tuple[type[BaseException], ...] | list[type[BaseException]]
        retry_backoff: float
        call_timeout: float | None
        stop_when: Callable[[Any], object] | None
        pre_dispatch_nbytes: int | str | None
        min_free_memory: int | str | None
        low_memory_timeout: float | None
        journal: str | os.PathLike[str] | None
        reduce_initial: Any
        seed: Any
        output: Literal["pass", "capture", "discard"]
        observers: Sequence[Observer] | None
        progress: ProgressLike
        trace: TraceLike
        check_arrays: Literal["auto", "always", "never"]

    class ParallelParams(KeywordParams, total=False):
        """The same, with what may be given by position, too."""

        verbose: float
        timeout: float | None
        pre_dispatch: float | str
        batch_size: int | Literal["auto"]
        temp_folder: str | os.PathLike[str] | None
        max_nbytes: float | str | None
        mmap_mode: Literal["r", "r+", "w+", "c"] | None
        prefer: Literal["processes", "threads"] | None
        require: Literal["sharedmem"] | None


#: What to write instead of what joblib's backends, and the pool behind one of them, take.
_INSTEAD = {
    "check_pickle": "nothing needs it",
    "context": "pass the context as backend=",
    "context_id": "nothing needs it",
    "env": "write worker_env, with the variables of each worker",
    "forward_reducers": "register them with copyreg",
    "backward_reducers": "register them with copyreg",
    "kill_workers": "workers end with the program, or by shutdown_workers()",
    "maxtasksperchild": "write worker_lifespan",
    "reducers": "register them with copyreg",
    "scheduler_host": "it is one of backend='dask'",
    "scatter": "it is one of backend='dask'",
}

#: Parameters that every backend with workers understands; others go to a backend's factory.
WORKER_PARAMS = tuple(WORKER_DEFAULTS)


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters that `function` lists, by name, with their defaults."""
    names = names_of(function)
    defaults = dict(zip(names, function.__defaults__ or (), strict=False))
    return {**defaults, **(function.__kwdefaults__ or {})}


def names_of(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters that `function` lists."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [name for name in names if name != "self"]


def unexpected(
    door: str, names: Iterable[str], known: Iterable[str], of_calls: Collection[str] = ()
) -> TypeError:
    """Return the error for `names` that the class or function `door` does not take.

    It takes `known` names; `of_calls` are those of `Parallel`, if `door` is another one.
    """
    import difflib

    known = list(known)
    told = []
    explanation = ""
    for name in sorted(names):
        if name in of_calls:
            told.append(f"{name!r}; give it to the call, Parallel({name}=...)")
        elif name in _INSTEAD:
            told.append(f"{name!r}; {_INSTEAD[name]}")
        elif close := difflib.get_close_matches(name, known, 1):
            told.append(f"{name!r}; did you mean {close[0]!r}?")
        else:
            told.append(repr(name))
            explanation = (
                " (only a backend that is registered, and given by its name, takes parameters of "
                "its own)"
            )
    return TypeError(f"{door} has no parameter {' and no '.join(told)}{explanation}")
