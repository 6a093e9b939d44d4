"""Text that is printed while bars are drawn on the terminal: it goes above them.

::

    print, logging ──▶ sys.stdout, sys.stderr: _AboveBars ── whole lines ──▶ whoever draws bars
                                                          └─ else ─────────▶ the stream as it was

Only streams that are terminals are replaced, for as long as a bar is there. A line without an end
is kept until it has one. tqdm and rich, whose bars of others may be there, too, write as ever.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from memmapping.forks import in_child

if TYPE_CHECKING:
    import logging

#: Writes lines, the last one ended, to a stream, above its bars.
WriteAbove = Callable[[Any, str], None]

_NAMES = ("stdout", "stderr")
_DRAWERS = ("tqdm", "rich")

_lock = threading.RLock()  # a signal handler may print
_writers: list[WriteAbove] = []  # of the bars that are drawn now; the last one writes
_installed: list[_AboveBars] = []


class StandIn:
    """Stands in the place of a stream of `sys`, and passes on what is written to it."""

    original: Any  #: the stream; None where there is none


class _AboveBars(StandIn):
    """Stands for a terminal on which bars are drawn."""

    def __init__(self, name: str, original: Any) -> None:
        self.name = name
        self.original = original
        self._starts: dict[int, str] = {}  # of lines that have no end yet, by thread

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not _writers or _is_drawing(sys._getframe(1).f_globals):
            self.original.write(text)
            return len(text)
        with _lock:
            text_so_far = self._starts.pop(get_ident(), "") + text
            lines, end, start = text_so_far.rpartition("\n")
            if start:
                self._starts[get_ident()] = start
            if end:
                self._write_lines(lines + end)
        return len(text)

    def _write_lines(self, lines: str) -> None:
        if _writers:
            _writers[-1](self.original, lines)
        else:
            self.original.write(lines)

    def finish(self) -> None:
        """Write what has no end of line: the bars are gone."""
        with _lock:
            starts, self._starts = self._starts, {}
            for start in starts.values():
                self.original.write(start)

    def forget(self) -> None:
        """In a forked child: what was not written is not its own."""
        self._starts.clear()

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self.original.flush()

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self.original, attribute)

    def __iter__(self) -> Any:
        return iter(self.original)


def _is_drawing(caller: dict[str, Any]) -> bool:
    """Whether the code with these globals draws a bar itself, and moves the cursor."""
    return str(caller.get("__name__")).partition(".")[0] in _DRAWERS


def terminal_of(stream: Any) -> Any:
    """Return the stream that `stream` stands for, where bars are drawn."""
    while isinstance(stream, StandIn):
        stream = stream.original
    return stream


def begin_above(writer: WriteAbove) -> None:
    """Have what is printed from now on written by `writer`."""
    with _lock:
        _writers.append(writer)
        if len(_writers) == 1:
            for name in _NAMES:
                _install(name)


def end_above(writer: WriteAbove) -> None:
    """Undo `begin_above`; the last one puts the streams back."""
    with _lock:
        _writers.remove(writer)
        if not _writers:
            while _installed:
                _remove(_installed.pop())


class _Encoded:
    """Writes text to a file of bytes."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "surrogateescape"))

    def flush(self) -> None:
        self._file.flush()


def write_above(file: Any, data: bytes) -> bool:
    """Write whole lines to a file of bytes, above the bars on its terminal; False: no bars."""
    with _lock:
        if not _writers or not data or not file.isatty():
            return False
        _writers[-1](_Encoded(file), data.decode("utf-8", "surrogateescape"))
    return True


def _install(name: str) -> None:
    stream = getattr(sys, name, None)
    try:
        is_terminal = stream is not None and stream.isatty()
    except (AttributeError, ValueError, OSError):  # no file, or a closed one
        return
    if not is_terminal:
        return
    # Below what stands there for another reason: that decides whose text comes here at all.
    outer = None
    while isinstance(stream, StandIn):
        outer, stream = stream, stream.original
    above = _AboveBars(name, stream)
    if outer is None:
        setattr(sys, name, above)
    else:
        outer.original = above
    _hand_handlers(stream, above)
    _installed.append(above)


def _remove(above: _AboveBars) -> None:
    stream = getattr(sys, above.name, None)
    if stream is above:
        setattr(sys, above.name, above.original)
    else:
        while isinstance(stream, StandIn):
            if stream.original is above:
                stream.original = above.original
            stream = stream.original
    _hand_handlers(above, above.original)
    above.finish()


def _hand_handlers(stream: Any, other: Any) -> None:
    """Have handlers of `logging` that write to `stream` write to `other`."""
    module: Any = sys.modules.get("logging")
    if module is None:
        return
    known = [module.getLogger(), *module.Logger.manager.loggerDict.values()]
    handlers: list[logging.Handler] = [
        handler for logger in known for handler in getattr(logger, "handlers", ())
    ]
    for handler in handlers:
        if isinstance(handler, module.StreamHandler) and handler.stream is stream:
            handler.stream = other


@in_child
def _forget_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # the thread that had it is not here
    _writers.clear()
    for above in _installed:
        above.forget()
