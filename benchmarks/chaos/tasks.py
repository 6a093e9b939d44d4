"""What the workers run: the right outcome of each task is known from its number."""

from __future__ import annotations

import os
import re
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from parallel_core import Parallel, delayed

_STRIDE = 1_000_003
_SMALL, _LARGE = 4_000, 200_000  # items of eight bytes
RUN = struct.Struct("<iii")  # a line of the diary: position, process, mark
CALM, RISKY = 0, 1  # marks; a risky task raises, or takes its worker with it

#: Lets tasks end that stick in a thread of this process.
released = threading.Event()


class Injected(Exception):
    """A task was to raise this."""


class Flaky(Exception):
    """A task raises this at first, and not when it is tried again."""


class Corrupt(Exception):
    """The arguments of a task are not what they were."""


class NoWorker(Exception):
    """A task that would end its process has found itself in the caller's own."""


class Refusing:
    """Does not pickle, or does not unpickle in any other process."""

    def __init__(self, leg: str) -> None:
        self.leg = leg

    def __reduce__(self) -> Any:
        if self.leg == "out":
            raise RuntimeError("this goes nowhere")
        return _refuse, (self.leg, os.getpid())


def _refuse(leg: str, pid: int) -> Refusing:
    if os.getpid() != pid:
        raise RuntimeError("this arrives nowhere")
    return Refusing(leg)


# --- what is right --------------------------------------------------------------------------------


def value_of(call: int, position: int, form: str) -> Any:
    """Return the result of a task."""
    base = call * _STRIDE + position
    if form == "number":
        return base
    if form == "list":
        return [base, position, str(base)]
    if form == "text":
        return f"{base}:" + "y" * (base % 300)
    if form == "bytes":
        return b"%d:" % base + bytes(400_000)
    return np.full(_LARGE if form == "large" else _SMALL, base)


def base_of(value: Any) -> int | None:
    """Return the number that a result is made from, if it looks like one."""
    if type(value) is int:
        return value
    if type(value) is list and value and type(value[0]) is int:
        return value[0]
    if type(value) in (str, bytes):
        found = re.match(r"\d+", value[:30] if type(value) is str else value[:30].decode("latin1"))
        return int(found[0]) if found else None
    if isinstance(value, np.ndarray) and value.ndim == 1 and len(value):
        return int(value[0])
    return None


def position_of(call: int, value: Any) -> int | None:
    """Return which task of `call` has given `value`; None where none can have."""
    base = base_of(value)
    if base is None or not 0 <= base - call * _STRIDE < _STRIDE:
        return None
    return base - call * _STRIDE


def is_right(call: int, position: int, form: str, value: Any) -> bool:
    """Whether `value` is the result of that task, to the last item."""
    wanted = value_of(call, position, form)
    if isinstance(wanted, np.ndarray):
        return (
            isinstance(value, np.ndarray)
            and value.shape == wanted.shape
            and bool((value == wanted).all())
        )
    return type(value) is type(wanted) and bool(value == wanted)


def payload_of(position: int, kind: str) -> Any:
    """Return the argument that a task gets beside its number."""
    if kind == "list":
        return [position, [position] * 3]
    if kind == "array":
        return np.full(_LARGE, position)
    if kind == "bytes":
        return b"%d" % position * 20_000
    if kind in ("out", "in"):
        return Refusing(kind)
    return None


def _check_payload(position: int, kind: str, payload: Any) -> None:
    wanted = payload_of(position, kind)
    if isinstance(wanted, np.ndarray):
        fits = payload.shape == wanted.shape and bool((payload == wanted).all())
    else:
        fits = payload == wanted
    if not fits:
        raise Corrupt(f"the argument of task {position} of the call is {payload!r:.200}")


# --- what is run ----------------------------------------------------------------------------------


def note(folder: str, position: int, mark: int) -> None:
    """Write a line into the diary of the call: this process begins that task."""
    if folder:
        try:
            diary = os.open(f"{folder}/diary", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        except OSError:  # descriptors are short: the judge then knows of one run less
            return
        os.write(diary, RUN.pack(position, os.getpid(), mark))
        os.close(diary)


def _tries(folder: str, position: int) -> int:
    path = Path(folder, f"tries-{position}")
    with path.open("ab") as file:
        file.write(b".")
    return path.stat().st_size


def work(
    call: int,
    position: int,
    deed: str,
    form: str,
    diary: str,
    tries: str,
    home: int,
    kind: str,
    payload: Any,
) -> Any:
    """Do what the task is to do, in whichever process this is.

    Parameters
    ----------
    call, position : int
        Number of the call in the run, and of the task in the call.
    deed : str
        What it does; see `plan`.
    form : str
        What its result looks like.
    diary, tries : str
        Folders where it notes that it was run (empty for nowhere), and how often it was tried.
    home : int
        The process of the caller, which no task may end.
    kind, payload
        What the argument should be, and the argument.
    """
    plain = deed in ("quick", "slow", "nap") or deed.startswith("res-")
    note(diary, position, CALM if plain else RISKY)
    if os.getpid() == home and (kind in ("out", "in") or deed.startswith("res-")):
        raise NoWorker(f"task {position} of the call")
    _check_payload(position, kind, payload)
    if deed == "slow":
        time.sleep(0.001 + position % 7 * 0.008)
    elif deed == "nap":
        time.sleep(0.25)
    elif deed.startswith("res-"):
        return Refusing(deed[4:])
    elif deed.startswith("nested"):
        return _nested(call, position, form, deed[7:])
    elif not plain:
        _misbehave(deed, position, tries, home)
    return value_of(call, position, form)


def alone(call: int, position: int, deed: str, form: str, diary: str, tries: str, home: int) -> Any:
    """Do the same with arguments that all go by value."""
    return work(call, position, deed, form, diary, tries, home, "", None)


def _misbehave(deed: str, position: int, folder: str, home: int) -> None:
    where = f"task {position} of the call"
    if deed == "raise":
        raise Injected(where)
    if deed == "flaky":
        if _tries(folder, position) < 2:
            raise Flaky(where)
        return
    if deed == "exit":
        sys.exit(where)
    if deed == "dies-once":
        if os.getpid() == home or _tries(folder, position) > 1:
            return
        deed = "kill"
    if deed in ("stick", "stick-hard") and os.getpid() == home:
        released.wait(300)
        raise NoWorker(where)
    if os.getpid() == home:
        raise NoWorker(where)
    end(deed)


def end(deed: str) -> None:
    """End this process, or stay for ever."""
    if deed == "quit":
        os._exit(3)
    while deed == "stick":
        time.sleep(300)
    while deed == "stick-hard":
        try:
            time.sleep(300)
        except BaseException:
            continue
    number = {"kill": signal.SIGKILL, "fault": signal.SIGSEGV, "abort": signal.SIGABRT}[deed]
    if number != signal.SIGKILL:
        _no_core()
    os.kill(os.getpid(), number)
    time.sleep(300)


def _no_core() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _nested(call: int, position: int, form: str, backend: str) -> Any:
    """Have the parts of the result computed by a call of its own; any death is tried again."""
    parallel = Parallel(2, backend or None, retries=50, retry_backoff=0)
    parts = parallel(delayed(_part)(position, index) for index in range(6))
    if parts != [(position, index) for index in range(6)]:
        raise Corrupt(f"the nested call of task {position} of the call gave {parts}")
    return value_of(call, position, form)


def _part(position: int, index: int) -> tuple[int, int]:
    time.sleep(0.002)
    return position, index
