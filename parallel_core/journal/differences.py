"""Which arguments differ, and what of a function, for errors about journals that do not fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from parallel_core.journal.digest import digest
from parallel_core.journal.tokens import encode, hashed
from parallel_core.serialization.capture import SCALARS

_KEY_NBYTES = 8
_MAX_NAMED = 3


def keys_of_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    """Return a key for each argument, one after the other; named ones by their names' order."""
    keys = [_key(value) for value in args]
    keys += [_key(item) for item in sorted(kwargs.items())] if kwargs else ()
    return b"".join(keys)


def _key(value: object) -> bytes:
    if type(value) in SCALARS:
        try:
            return hashed(encode(value))[:_KEY_NBYTES]
        except ValueError:  # too large to be encoded in one go
            pass
    return digest(value)[:_KEY_NBYTES]


def differing_arguments(
    then: bytes, now: bytes, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> str:
    """Return the words for the arguments of which the keys differ."""
    if len(then) != len(now):
        return "the number of its arguments"
    names = [*map(repr, range(len(args))), *map(repr, sorted(kwargs))]
    found = [
        name
        for name, start in zip(names, range(0, len(now), _KEY_NBYTES), strict=True)
        if then[start : start + _KEY_NBYTES] != now[start : start + _KEY_NBYTES]
    ]
    return f"its argument{'s' if len(found) > 1 else ''} {', '.join(found[:_MAX_NAMED])}"


def differences(found: list[Any], now: Mapping[str, str]) -> str:
    """Return the words for what differs in a function, after a colon; none where nobody knows.

    `found` are the rows of the file about the function as it was, one or none; `now` its parts.
    """
    try:
        then = json.loads(found[0][0])
        first_then, first_now = next(iter(then)), next(iter(now))
        told = []
        if first_then != first_now:  # the code of what is called comes first
            told.append(f"{first_then} then, {first_now} now")
        else:
            for name in {**now, **then}:
                if then.get(name) != now.get(name):
                    told.append(name + _values(then.get(name), now.get(name)))
    except (ValueError, LookupError, StopIteration):
        return ""
    more = f" and {len(told) - _MAX_NAMED} more" if len(told) > _MAX_NAMED else ""
    return f": {', '.join(told[:_MAX_NAMED])}{more}" if told else ""


def _values(then: str | None, now: str | None) -> str:
    if then is None or now is None:
        return " (new)" if then is None else " (gone)"
    if len(then) == len(now) == 32:  # two digests, which say nothing to people
        return ""
    return f" ({then} then, {now} now)"
