"""Types of arguments that several commands take, for argparse; each says what it wants."""

from __future__ import annotations


def jobs(text: str) -> int:
    """Return a number of workers, as ``n_jobs`` takes it."""
    number = _whole(text)
    if number is None:
        raise _bad(f"a whole number is needed, not {text!r}")
    if number == 0:
        raise _bad("0 workers can do nothing; -1 means all cores")
    return number


def positive(text: str) -> int:
    """Return a number from 1 on."""
    number = _whole(text)
    if number is None or number < 1:
        raise _bad(f"a number from 1 on is needed, not {text!r}")
    return number


def count(text: str) -> int:
    """Return a number from 0 on."""
    number = _whole(text)
    if number is None or number < 0:
        raise _bad(f"a number from 0 on is needed, not {text!r}")
    return number


def seconds(text: str) -> float:
    """Return a time that is more than nothing."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise _bad(f"a positive number of seconds is needed, not {text!r}")
    return number


def batch_size(text: str) -> int | str:
    """Return a number of tasks from 1 on, or ``"auto"``."""
    if text == "auto":
        return text
    number = _whole(text)
    if number is None or number < 1:
        raise _bad(f'"auto" or a number from 1 on is needed, not {text!r}')
    return number


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _bad(message: str) -> Exception:
    import argparse

    return argparse.ArgumentTypeError(message)
