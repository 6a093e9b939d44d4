"""The generator of ``return_as="generator"``, which cleans up however it ends."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

from parallel_core.errors import cut_traceback, without_our_frames

_Results = Generator[Any, None, None]


def result_generator(
    chunks: Iterator[list[Any]],
    finish: Callable[[bool], None],
    attach: Callable[[BaseException], None],
    name: str,
) -> _Results:
    """Return a generator of the items of `chunks`.

    `finish` is called once at the end, with whether `chunks` was exhausted; `attach` gets the
    exception that ends the generator early; `name` is for the warning of a dropped generator.
    """
    itself: list[weakref.ref[_Results]] = []
    generator = _generate(chunks, finish, attach, name, itself)
    next(generator)  # into the `try`: a generator that never ran would not clean up
    itself.append(weakref.ref(generator))
    return generator


def _generate(
    chunks: Iterator[list[Any]],
    finish: Callable[[bool], None],
    attach: Callable[[BaseException], None],
    name: str,
    itself: list[weakref.ref[_Results]],
) -> _Results:
    complete = at_rest = False
    try:
        yield
        for values in chunks:
            at_rest = True
            for value in values:  # noqa: UP028 - `yield from` a list would break send()
                yield value
            at_rest = False
        complete = True
    except GeneratorExit:
        if not at_rest and itself and itself[0]() is not None:
            raise  # a task raised it
        # Weak references are cleared before a dropped generator is finalized; a caller of close()
        # still holds it.
        if itself and itself[0]() is None:
            warnings.warn(
                f"the generator of {name} was dropped before its end; the rest of its tasks is "
                "cancelled: exhaust it, or close() it",
                ResourceWarning,
                stacklevel=2,
            )
    except KeyboardInterrupt as error:
        if not at_rest:
            attach(error)
        raise cut_traceback(error) from error.__cause__
    except BaseException as error:
        if at_rest:  # the consumer threw it in
            raise
        attach(error)
        if isinstance(error, Exception):
            raise without_our_frames(error)  # noqa: B904 - it is the same
        raise
    finally:
        finish(complete)
