"""Tasks that warn."""

from __future__ import annotations

import contextlib
import io
import warnings


class Strange(UserWarning):
    """Does not unpickle by itself."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(f"{what} {number}")
        self.number = number


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    warnings.warn(text, category, stacklevel=1)


def warn_strangely(number: int) -> None:
    warnings.warn(Strange("seen", number), stacklevel=1)


def warn_into_text(text: str) -> str:
    with contextlib.redirect_stderr(io.StringIO()) as said:
        warn(text)
    return said.getvalue()


def warn_and_record(text: str) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        warn(text)
    return [str(one.message) for one in found]
