"""The initializer of a call on its way to workers."""

from __future__ import annotations

from parallel_core.backends.options import WorkerOptions
from parallel_core.errors import SerializationError
from parallel_core.serialization.pickling import dumps, explain, why_not_picklable
from parallel_core.tasks.description import function_name


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
        parts = [(options.initializer, "it"), (task[1], "initargs")]
        at_fault = [part for part in parts if why_not_picklable(*part) is not None]
        explained: SerializationError = explain(what, *(at_fault or parts)[-1], error)
        raise explained from error
