"""Text that goes elsewhere: into the result of its task, with the answers of its batch, nowhere.

::

    print ──▶ sys.stdout: _Proxy ──▶ the Sink of this context; else that of this worker process;
                                     else what sys.stdout was before

A proxy stands in the place of ``sys.stdout`` and ``sys.stderr`` while somebody redirects, in
whatever thread, and the last one puts back what was there. A context variable says whose text it
is: threads run several tasks at a time. A thread that a task starts has a context of its own, in
which nothing is set; in a worker process its text is the task's all the same, in the caller's
process it could be anybody's.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, Protocol

from memmapping.forks import in_child
from parallel_core.context.item import ContextItem, Part, Place
from parallel_core.observe.terminal import StandIn

_NAMES = ("stdout", "stderr")


class TaskOutput(NamedTuple):
    r"""Result of a task with its output: see ``output="capture"`` of `Parallel`.

    Attributes
    ----------
    value : object
        Return value of the task.
    stdout, stderr : str
        Text that the task wrote to ``sys.stdout`` and ``sys.stderr``.

    Examples
    --------
    >>> from parallel_core import Parallel, delayed
    >>> Parallel(output="capture")([delayed(print)("said")])
    [TaskOutput(value=None, stdout='said\n', stderr='')]
    """

    value: Any
    stdout: str
    stderr: str


class Sink(Protocol):
    """Takes what is printed."""

    def take(self, name: str, text: str) -> bool:
        """Take `text` that was written to the stream of that name; false: refuse it."""
        ...


class Captured:
    """Keeps what a task prints."""

    __slots__ = ("_texts",)

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {name: [] for name in _NAMES}

    def take(self, name: str, text: str) -> bool:
        """Keep `text`."""
        self._texts[name].append(text)
        return True

    def output(self, value: object) -> TaskOutput:
        """Return `value` with what was printed."""
        return TaskOutput(value, *("".join(self._texts[name]) for name in _NAMES))


class Discarded:
    """Keeps nothing."""

    __slots__ = ()

    def take(self, name: str, text: str) -> bool:
        """Drop `text`."""
        return True


_sink: ContextVar[Sink | None] = ContextVar("parallel_core_output", default=None)
_of_process: list[Sink] = []  # for threads with a context of their own, in a worker; the last one
_is_worker = False
_redirections = 0
_lock = threading.RLock()  # a signal handler may make a call of its own


def note_worker() -> None:
    """Note that this process is a worker: what any of its threads prints is a task's."""
    global _is_worker
    _is_worker = True


def current_sink() -> Sink | None:
    """Return the sink of what is printed here and now; None: the streams as they were."""
    sink = _sink.get()
    if sink is None and _of_process:
        try:
            return _of_process[-1]
        except IndexError:  # the task has just ended
            return None
    return sink


def is_redirected() -> bool:
    """Whether what is written to ``sys.stderr`` goes to the current sink."""
    return type(sys.stderr) is _Proxy


class redirected:
    """Within the block, what this context prints goes to `sink`."""

    __slots__ = ("_sink", "_token")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._token: Token[Sink | None] | None = None

    def __enter__(self) -> None:
        self._token = _sink.set(self._sink)
        if _is_worker:
            _of_process.append(self._sink)
        _begin()

    def __exit__(self, *raised: object) -> None:
        if self._token is not None:
            self._token.var.reset(self._token)
        if self._sink in _of_process:
            _of_process.remove(self._sink)
        _end()


def _begin() -> None:
    global _redirections
    with _lock:
        _redirections += 1
        for name in _NAMES:
            stream = getattr(sys, name, None)
            if type(stream) is not _Proxy:
                setattr(sys, name, _Proxy(name, stream))


def _end() -> None:
    global _redirections
    with _lock:
        _redirections -= 1
        if _redirections <= 0:
            _put_back()


def _put_back() -> None:
    for name in _NAMES:
        stream = getattr(sys, name, None)
        if type(stream) is _Proxy:
            setattr(sys, name, stream.original)


@in_child
def _forget_in_child() -> None:
    """Drop the sinks: nobody reads what a forked child gives to one."""
    global _lock, _sink
    _lock = threading.RLock()  # the thread that had it is not here
    _sink = ContextVar("parallel_core_output", default=None)  # so in every context
    _of_process.clear()


class _Proxy(StandIn):
    """Stands for a stream, and passes on the text of everybody whose text goes nowhere else."""

    def __init__(self, name: str, original: Any) -> None:
        self._name = name
        self.original = original  #: the stream; None where there is none

    def write(self, text: str) -> int:
        sink = current_sink()
        if sink is not None:
            if not isinstance(text, str):
                raise TypeError(f"write() argument must be str, not {type(text).__name__}")
            if sink.take(self._name, text):
                return len(text)
        if self.original is not None:
            self.original.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self.original is not None and current_sink() is None:
            self.original.flush()

    @property
    def buffer(self) -> Any:
        return self.original.buffer if current_sink() is None else _ProxyBytes(self)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self.original, attribute)

    def __iter__(self) -> Any:
        return iter(self.original)


class _ProxyBytes:
    """The ``buffer`` of a proxy whose text a sink takes: bytes go there as text, too."""

    def __init__(self, proxy: _Proxy) -> None:
        self._proxy = proxy

    def write(self, data: Any) -> int:
        whole = bytes(data)
        self._proxy.write(whole.decode("utf-8", "backslashreplace"))
        return len(whole)

    def flush(self) -> None:
        pass

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._proxy.original.buffer, attribute)


class CapturesOutput(ContextItem):
    """Each task returns a `TaskOutput`."""

    name = "output='capture'"
    places = tuple(Place)

    def begin(self, position: Callable[[], int], place: Place) -> Part:
        """Return what does that to the tasks of a batch."""
        return _Around(_capture)


class DiscardsOutput(ContextItem):
    """What tasks print is not shown."""

    name = "output='discard'"
    places = tuple(Place)

    def begin(self, position: Callable[[], int], place: Place) -> Part:
        """Return what does that to the tasks of a batch."""
        return _Around(_discard)


class _Around(Part):
    """Calls each task through another function."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def bind(self, function: Callable[..., Any], position: int) -> Callable[..., Any]:
        return functools.partial(self._call, function)


def _capture(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    captured = Captured()
    try:
        with redirected(captured):
            value = function(*args, **kwargs)
    except BaseException as error:
        with contextlib.suppress(Exception):  # some have no room for attributes
            error.task_output = captured.output(None)  # type: ignore[attr-defined]  # ours
        raise
    return captured.output(value)


def _discard(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    with redirected(Discarded()):
        return function(*args, **kwargs)
