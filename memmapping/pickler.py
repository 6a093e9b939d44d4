"""The picklers of packed objects: pickle's own in C, and cloudpickle's [1]_ where it is needed.

.. [1] https://github.com/cloudpipe/cloudpickle
"""

from __future__ import annotations

import enum
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from memmapping.modules import loaded

if TYPE_CHECKING:
    from cloudpickle import Pickler as CloudPickler

PROTOCOL = 5

#: What `pickle` raises when it cannot.
PICKLING_ERRORS = (pickle.PicklingError, TypeError, AttributeError, ImportError)

#: Whatever refers to the script that runs has this in its pickle.
_MAIN = b"__main__"


class ScriptObjects(enum.Enum):
    """How functions and classes of the script that runs, ``__main__``, are packed."""

    #: With their code: another process, whose ``__main__`` is another one, gets them, too.
    BY_VALUE = enum.auto()
    #: As `pickle` does it: the same script must read them, and finds its own classes.
    BY_NAME = enum.auto()


class Sink(Protocol):
    """Where the outcome of pickling goes."""

    #: Says how to pickle an object, or NotImplemented: as ever. None: never asked.
    reduce: Callable[[Any], Any] | None

    def write(self, data: Any, /) -> object:
        """Take the next bytes of the pickle."""

    def keep_buffer(self, buffer: pickle.PickleBuffer, /) -> object:
        """Take a buffer that the pickle refers to."""

    def contains(self, text: bytes, /) -> bool:
        """Whether the pickle contains `text`."""


AnySink = TypeVar("AnySink", bound=Sink)


def pickle_to(
    make_sink: Callable[[], AnySink], obj: object, script_objects: ScriptObjects
) -> AnySink:
    """Pickle `obj` by the C pickler where that is right, else by cloudpickle.

    Return the sink that has it all; `make_sink` is called again for another attempt.
    """
    try:
        sink = make_sink()
        _FastPickler(sink).dump(obj)
    except PICKLING_ERRORS:
        pass
    else:
        if script_objects is ScriptObjects.BY_NAME or not _needs_value(sink):
            return sink
    sink = make_sink()
    _value_pickler_class()(sink).dump(obj)
    return sink


def _needs_value(sink: Sink) -> bool:
    """Whether what the C pickler wrote may name what another process cannot import."""
    if sink.contains(_MAIN):
        return True
    cloudpickle = loaded("cloudpickle")
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


class _FastPickler(pickle.Pickler):
    def __init__(self, sink: Sink) -> None:
        super().__init__(sink, PROTOCOL, buffer_callback=sink.keep_buffer)
        if sink.reduce is not None:  # else it is faster without being asked
            self.reducer_override = sink.reduce  # type: ignore[method-assign]  # as documented


_value_pickler: type[CloudPickler] | None = None


def _value_pickler_class() -> type[CloudPickler]:
    """Return cloudpickle's pickler, which asks the sink first; imported when first needed."""
    global _value_pickler
    if _value_pickler is None:
        import cloudpickle

        class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # untyped base
            def __init__(self, sink: Sink) -> None:
                super().__init__(sink, PROTOCOL, buffer_callback=sink.keep_buffer)
                self._reduce_first = sink.reduce

            def reducer_override(self, obj: Any) -> Any:
                if self._reduce_first is not None:
                    reduced = self._reduce_first(obj)
                    if reduced is not NotImplemented:
                        return reduced
                return super().reducer_override(obj)

        _value_pickler = ValuePickler
    return _value_pickler
