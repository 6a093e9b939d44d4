"""The many parameters of a call that are rarely given: what they may be, and their defaults."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from memmapping.sizes import parse_nbytes
from parallel_core.backends.base import WorkerOptions
from parallel_core.config import UNSET, only_given
from parallel_core.context.seeds import check_seed
from parallel_core.dispatch.gaps import Gap
from parallel_core.dispatch.plan import ReturnAs, check_timeout
from parallel_core.dispatch.policy import check_policy, make_policy
from parallel_core.parallel.checks import check_idle_seconds, check_initializer, check_preload
from parallel_core.parallel.parameters import WORKER_PARAMS

if TYPE_CHECKING:
    from parallel_core.context.aspect import Aspect
    from parallel_core.dispatch.memory import MemoryGate
    from parallel_core.dispatch.policy import Policy
    from parallel_core.dispatch.reduction import Reduction

_PLAIN = WorkerOptions()

_NO_WORKERS = tuple(UNSET[name] for name in WORKER_PARAMS)
_NONE_GIVEN: dict[str, Any] = {}

RETRY_BACKOFF = 0.1
MEMORY_PATIENCE = 60.0


def given_workers(values: tuple[Any, ...]) -> dict[str, Any]:
    """Return by name what was given among `values`, those of `WORKER_PARAMS` in their order."""
    if all(map(operator.is_, values, _NO_WORKERS)):
        return _NONE_GIVEN
    return only_given(**dict(zip(WORKER_PARAMS, values, strict=True)))


def worker_options(params: dict[str, Any]) -> WorkerOptions:
    """Return `params`, checked.

    Raises
    ------
    ValueError, TypeError
        For parameters that make no sense.
    """
    if not params:
        return _PLAIN
    initializer, initargs = params.get("initializer"), params.get("initargs", ())
    check_initializer(initializer, initargs)
    return WorkerOptions(
        initializer=initializer,
        initargs=tuple(initargs),
        idle_seconds=check_idle_seconds(params.get("idle_worker_timeout", _PLAIN.idle_seconds)),
        thread_limit=_check_count(params.get("inner_max_num_threads"), "inner_max_num_threads"),
        lifespan=_check_count(params.get("worker_lifespan"), "worker_lifespan"),
        most_memory=_check_size(params.get("max_worker_memory"), "max_worker_memory"),
        preload=check_preload(params.get("preload")),
    )


def _check_count(given: Any, name: str) -> int | None:
    """Return `given` as a positive integer, or None."""
    if given is None:
        return None
    try:
        number = 0 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be a positive integer or None, not {given!r}")
    return number


def _check_size(given: Any, name: str) -> int | None:
    """Return `given` as a positive number of bytes, or None."""
    nbytes = parse_nbytes(given, name)
    if nbytes == 0:
        raise ValueError(f"{name} must be more than nothing, or None for no limit, not {given!r}")
    return nbytes


class CallOptions(NamedTuple):
    """What to do when tasks fail, time or memory runs short, or a program ends before its time.

    The parameters of `Parallel` of the same names.
    """

    on_error: Any = "raise"
    retries: int = 0
    retry_on: Any = ()
    retry_backoff: float = RETRY_BACKOFF
    call_timeout: float | None = None
    stop_when: Callable[[Any], object] | None = None
    pre_dispatch_nbytes: Any = None
    min_free_memory: Any = None
    memory_patience: float | None = MEMORY_PATIENCE
    journal: Any = None
    reduce: Callable[[Any, Any], Any] | None = None
    reduce_initial: Any = Gap.MISSING
    seed: Any = None
    output: str = "pass"

    def aspects(self) -> tuple[Aspect, ...]:
        """Return what is to surround the tasks, the outermost first."""
        if self.output == "pass":
            return ()
        from parallel_core.context.printed import CapturesOutput, DiscardsOutput

        return (CapturesOutput() if self.output == "capture" else DiscardsOutput(),)

    def policy(self) -> Policy:
        """Return the policy for one call."""
        return make_policy(self.on_error, self.retries, self.retry_on, self.retry_backoff)

    def gate(self) -> MemoryGate | None:
        """Return what holds back for want of memory in one call."""
        if self.min_free_memory is None:
            return None
        from parallel_core.dispatch.memory import MemoryGate

        return MemoryGate(self.min_free_memory, self.memory_patience)

    def reduction(self) -> Reduction | None:
        """Return how the results of one call are folded."""
        if self.reduce is None:
            return None
        from copy import deepcopy

        from parallel_core.dispatch.reduction import Reduction

        initial = deepcopy(self.reduce_initial)  # what is folded into it is for one call
        return Reduction(self.reduce, initial)


_NO_OPTIONS = CallOptions()


def call_options(given: tuple[Any, ...], return_as: ReturnAs) -> CallOptions:
    """Return `given`, the fields of `CallOptions`, checked.

    Raises
    ------
    ValueError, TypeError
        For parameters that make no sense.
    """
    if all(map(operator.is_, given, _NO_OPTIONS)):  # as in nearly every call
        return _NO_OPTIONS
    options = CallOptions(*given)
    check_policy(options.on_error, options.retries, options.retry_on, options.retry_backoff)
    if options.stop_when is not None and not callable(options.stop_when):
        raise TypeError(f"stop_when must be a function of a result, not {options.stop_when!r}")
    if options.journal is not None:
        _check_journal(options.journal)
    _check_output(options)
    _check_reduction(options, return_as)
    return options._replace(
        call_timeout=check_timeout(options.call_timeout, "call_timeout"),
        pre_dispatch_nbytes=_check_size(options.pre_dispatch_nbytes, "pre_dispatch_nbytes"),
        min_free_memory=_check_size(options.min_free_memory, "min_free_memory"),
        memory_patience=check_timeout(options.memory_patience, "memory_patience"),
        seed=check_seed(options.seed),
    )


def _check_reduction(options: CallOptions, return_as: ReturnAs) -> None:
    """Raise TypeError or ValueError unless what is said of folding makes sense with the rest."""
    if options.reduce is None:
        if options.reduce_initial is not Gap.MISSING:
            raise ValueError("reduce_initial has a meaning only together with reduce")
        return
    if not callable(options.reduce):
        raise TypeError(f"reduce must be a function of two results, not {options.reduce!r}")
    for name, is_given, why in (
        ("return_as='generator'", return_as is not ReturnAs.LIST, "the call returns one value"),
        ("on_error='return'", options.on_error == "return", "exceptions are no results to fold"),
        ("stop_when", options.stop_when is not None, "single results do not arrive"),
        ("journal", options.journal is not None, "single results do not arrive"),
    ):
        if is_given:
            raise ValueError(f"reduce does not go together with {name}: {why}")


def check_output(output: Any) -> None:
    """Raise ValueError unless `output` is one of its words."""
    if output not in ("pass", "capture", "discard"):
        raise ValueError(f"output must be 'pass', 'capture' or 'discard', not {output!r}")


def _check_output(options: CallOptions) -> None:
    """Raise ValueError unless what becomes of the output of tasks makes sense with the rest."""
    check_output(options.output)
    if options.output != "capture":
        return
    for name, given, why in (
        ("reduce", options.reduce, "what is folded are the results alone"),
        ("journal", options.journal, "it keeps results, for calls that may not capture"),
    ):
        if given is not None:
            raise ValueError(f"output='capture' does not go together with {name}: {why}")


def _check_journal(journal: Any) -> None:
    """Raise TypeError unless `journal` is a path, or an open journal of the command line's."""
    import os

    store = sys.modules.get("parallel_core.journal.store")
    if store is not None and isinstance(journal, store.Journal):
        return
    try:
        os.fspath(journal)
    except TypeError:
        raise TypeError(f"journal must be the path of a file or None, not {journal!r}") from None
