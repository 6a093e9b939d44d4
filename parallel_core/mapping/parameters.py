"""The checks of what `map`, `imap` and `as_completed` take, made before any work starts."""

from __future__ import annotations

import operator
from typing import Any

from parallel_core.errors import warn_caller

_IF_SERIAL = ("raise", "warn", "ignore")
_INSTEAD = {
    "n_jobs": "write max_workers",
    "backend": "choose one by set_parallel_backend, or call a method of one",
    "return_as": "map, imap and as_completed say that",
    "batch_size": "write chunksize",
    "reduce": "parallel_core.Parallel takes it",
}


def check_function(f: object) -> None:
    """Raise TypeError unless `f` can be called."""
    if not callable(f):
        raise TypeError(f"f must be a function that takes an item of s, not {f!r}")


def check_items(s: object) -> None:
    """Raise TypeError unless `s` can be iterated over."""
    if not hasattr(type(s), "__iter__") and not hasattr(type(s), "__getitem__"):
        raise TypeError(f"s must be an iterable, whose items f takes, not {s!r}")


def check_options(options: dict[str, Any]) -> None:
    """Raise TypeError for parameters of `Parallel` that have other names here."""
    for name in options:
        if name in _INSTEAD:
            raise TypeError(f"map, imap and as_completed take no {name!r}: {_INSTEAD[name]}")


def check_positive(given: Any, name: str) -> int | None:
    """Return `given` as an integer of at least 1, or None."""
    if given is None:
        return None
    try:
        if isinstance(given, bool):
            raise TypeError
        number = operator.index(given)
    except TypeError:
        raise TypeError(f"{name} must be an integer or None, not {given!r}") from None
    if number < 1:
        raise ValueError(f"{name} must be at least 1, or None, not {given!r}")
    return number


def check_if_serial(given: Any) -> str:
    """Return `given` in lower case; raise ValueError unless it is a choice."""
    word = given.lower() if isinstance(given, str) else given
    if word not in _IF_SERIAL:
        raise ValueError(
            f"invalid choice {given!r} for if_serial: it is 'raise', 'warn' or 'ignore'"
        )
    return str(word)


def meet_serial(if_serial: str, reason: str) -> None:
    """Raise RuntimeError, warn, or do nothing, as `if_serial` says; `reason` is part of a text."""
    words = f"tasks would run one after the other, since {reason}"
    if if_serial == "raise":
        raise RuntimeError(f"{words}; pass if_serial='ignore' or 'warn' to run them all the same")
    if if_serial == "warn":
        warn_caller(words.replace("would ", ""), UserWarning)
