"""Log records on their way from a worker to the caller's loggers and handlers.

What a record says is put into words where it was made. What else was given to it (``extra=``)
travels as it is if it can, each for itself, and as its ``repr`` if it cannot.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

from memmapping.modules import loaded

if TYPE_CHECKING:
    import logging

#: Takes a record, and whether some handler of this process has it, too. False: nobody will see it.
SendRecord = Callable[["logging.LogRecord", bool], bool]

_PLAIN = (str, int, float, bool, type(None))


def pack_record(record: logging.LogRecord, is_handled: bool) -> bytes:
    """Return the bytes of `record`, and of whether a handler of this process has had it, too."""
    plain: dict[str, Any] = {}
    others: dict[str, tuple[bytes, str]] = {}
    for name, value in record.__dict__.items():
        if type(value) in _PLAIN:
            plain[name] = value
        elif name not in ("args", "exc_info", "msg"):
            others[name] = _pack_value(value)
    plain["msg"] = _message_of(record)
    if record.exc_info:
        plain["exc_text"] = record.exc_text or _traceback_of(record)
    plain["args"] = plain["exc_info"] = None
    return pickle.dumps((plain, others, is_handled), 5)


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:
        return f"{record.msg!r} % {record.args!r} ({type(error).__name__}: {error})"


def _traceback_of(record: logging.LogRecord) -> str:
    from logging import Formatter

    information: Any = record.exc_info
    return Formatter().formatException(information)


def _pack_value(value: Any) -> tuple[bytes, str]:
    try:
        words = repr(value)
    except Exception as error:
        words = f"<{type(value).__name__}, whose repr raised {type(error).__name__}>"
    try:
        return pickle.dumps(value, 5), words
    except Exception:
        return b"", words


def handle(data: bytes, process_name: str | None) -> None:
    """Give a record to the logger of its name here, as if it had been made here.

    A record that a handler of the worker has had is not given to the caller's last resort, which
    writes to stderr what nobody wants.
    """
    import logging

    plain, others, is_handled = pickle.loads(data)
    logger = logging.getLogger(plain["name"])
    if not logger.isEnabledFor(plain["levelno"]) or (is_handled and not logger.hasHandlers()):
        return
    for name, (pickled, words) in others.items():
        try:
            plain[name] = pickle.loads(pickled)
        except Exception:
            plain[name] = words
    if process_name is not None:
        plain["processName"] = process_name
    logger.handle(logging.makeLogRecord(plain))


class _WithRelay(list["logging.Handler"]):
    """The handlers of the root logger, and the relay, which only `logging` itself gets to see.

    So a task that calls `logging.basicConfig` finds no handlers, as it would in the caller.
    """

    def __init__(self, handlers: Iterable[logging.Handler], relay: logging.Handler) -> None:
        super().__init__(handlers)
        self._relay = relay

    def __iter__(self) -> Iterator[logging.Handler]:
        yield from super().__iter__()
        yield self._relay

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return list, (self[:],)


def caller_handles() -> bool:
    """Whether the root logger of this process has handlers: then workers seem to have one, too."""
    logging = loaded("logging")
    return logging is not None and bool(logging.root.handlers)


def note_caller(handles: bool) -> None:
    """Have `logging.basicConfig` find handlers here if the caller's root logger `handles`."""
    global _caller_handles
    if handles != _caller_handles:
        _caller_handles = handles
        if _relay is not None:
            _place(_relay)


_caller_handles = False
_relay: logging.Handler | None = None


def relay_records(send: SendRecord) -> None:
    """Have `send` called with every record of this process, from when it imports `logging` on."""
    if "logging" in sys.modules:
        _install(send)
    else:
        sys.meta_path.insert(0, _WhenImported(send))


def _install(send: SendRecord) -> None:
    global _relay
    import logging

    class Relay(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                is_handled = _is_handled(record)
                if send(record, is_handled) or is_handled:
                    return
            except Exception:
                self.handleError(record)
                return
            last = logging.lastResort
            if last is not None and record.levelno >= last.level:
                last.handle(record)

    _relay = Relay()
    _place(_relay)


def _place(relay: logging.Handler) -> None:
    import logging

    root = logging.getLogger()
    others = [handler for handler in root.handlers[:] if handler is not relay]
    root.handlers = [*others, relay] if _caller_handles else _WithRelay(others, relay)


def _is_handled(record: logging.LogRecord) -> bool:
    """Whether a handler of this process has had `record`, or will."""
    import logging

    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        if any(handler is not _relay for handler in logger.handlers[:]):
            return True
        logger = logger.parent
    return False


class _WhenImported:
    """Stands in front of the importers until somebody imports `logging`."""

    def __init__(self, send: SendRecord) -> None:
        self._send = send

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "logging" or self not in sys.meta_path:
            return None
        from importlib.machinery import PathFinder

        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_install(module: Any) -> None:
            execute(module)
            _install(self._send)

        spec.loader.exec_module = execute_and_install  # type: ignore[method-assign]  # for once
        return spec


def handlers() -> list[logging.Handler]:
    """Return all handlers of this process."""
    return [handler for logger in _loggers() for handler in logger.handlers[:]]


def forget_handlers(dropped: list[logging.Handler]) -> None:
    """Drop handlers that a process has inherited from the caller, or has made as the caller did."""
    for logger in _loggers():
        for handler in logger.handlers[:]:
            if handler in dropped:
                logger.removeHandler(handler)


def _loggers() -> list[logging.Logger]:
    logging = loaded("logging")
    if logging is None:
        return []
    known = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    return [logger for logger in known if isinstance(logger, logging.Logger)]
