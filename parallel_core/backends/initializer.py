"""The initializer of a call on its way to workers."""

from __future__ import annotations

from parallel_core.backends.base import WorkerOptions
from parallel_core.errors import SerializationError
from parallel_core.tasks.description import function_name
from parallel_core.tasks.pickling import dumps, explain


def pickle_initializer(options: WorkerOptions) -> bytes:
    """Return the pickle of ``(initializer, initargs)``.

    Raises
    ------
    SerializationError
        When it does not pickle; it names the part at fault.
    """
    task = (options.initializer, tuple(options.initargs))
    try:
        return dumps(task)
    except Exception as error:
        what = f"the initializer {function_name(options.initializer)}"
        explained: SerializationError = explain(what, task, "(function, initargs)", error)
        raise explained from error
