"""How a worker comes into the world.

``"subprocess"``, the default, is a bare interpreter that imports this package's few modules and
is told everything else over its socket: no guard in the caller's script, nothing inherited by
accident, two workers within 40 ms. A `multiprocessing` context gives the same worker by its own
start method.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from memmapping.forks import around_forks, in_child
from memmapping.interrupts import HeldInterrupts
from parallel_core import config
from parallel_core.output.connection import output_pair
from parallel_core.workers.board import Board
from parallel_core.workers.channel import ChannelClosed
from parallel_core.workers.passing import Sender
from parallel_core.workers.process import Process, wait_for_exit
from parallel_core.workers.setup import ProcessState, WorkerKey, start_settings
from parallel_core.workers.system import (
    block_interrupts,
    check_descriptors,
    no_processes,
    restore_interrupts,
)
from parallel_core.workers.worker import Worker, wait_for_end

if TYPE_CHECKING:
    from parallel_core.workers.interpreter import Interpreter

_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# The empty entry is the current folder, whose modules must not stand in for the library's. What is
# imported stays: to look for garbage among it, now and later, takes 2 to 4 ms of the 50 of a start.
_BOOT = (
    "import gc, sys; gc_on = gc.isenabled(); gc.disable(); "
    "sys.path[:] = [p for p in sys.path if p] + [sys.argv[1]]; "
    "from parallel_core.workers.{} import main; gc.freeze(); gc_on and gc.enable(); "
    "main(*map(int, sys.argv[2:]))"
)


_FOR_CONTEXT = 16  # descriptors, more than any context opens to start a process


class WorkerStartError(OSError):
    """No worker process could be started; the message says why."""


#: Starts a process, given the child's descriptors (channel, board, lifeline, output) and its kind.
Spawn = Callable[[tuple[int, int, int, int], WorkerKey], Process]

#: What a child forked during a start must not keep: its own lifeline would never end.
_our_ends: set[int] = set()


class _Starts:
    """One at a time, and no fork of any thread meanwhile.

    A forked child would keep what is open for the start. `subprocess` waits for the end of such a
    pipe: for as long as the child lives, and a worker of the fork method lives long.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a start may itself be a fork

    def stop(self) -> None:
        self.lock.acquire()

    def go_on(self) -> None:
        self.lock.release()

    def go_on_in_child(self) -> None:
        self.lock = threading.RLock()
        for descriptor in _our_ends:
            try:
                os.close(descriptor)
            except OSError:
                continue
        _our_ends.clear()


_starts = _Starts()
around_forks(_starts.stop, _starts.go_on)
in_child(_starts.go_on_in_child)


def starts_held() -> AbstractContextManager[object]:
    """Return a block in which no thread forks, and none but this one starts a process.

    Raises
    ------
    WorkerStartError
        When no processes may be started here.
    """
    reason = config.processes_forbidden() or no_processes()
    if reason is not None:
        raise WorkerStartError(reason)
    return _starts.lock


def start_worker(key: WorkerKey, state: ProcessState, spawn: Spawn | None = None) -> Worker:
    """Start a worker and send it what it must know.

    Parameters
    ----------
    key : WorkerKey
        What it is to be set up for.
    state : ProcessState
        What is true here now.
    spawn : callable, optional
        Starts the process, given the child's descriptors and the key.

    Raises
    ------
    WorkerStartError
        When the system refuses.
    """
    with starts_held():
        worker = _start(key, spawn or spawn_subprocess)
    _tell(worker, state, key)
    return worker


def _start(key: WorkerKey, spawn: Spawn) -> Worker:
    opened: list[Callable[[], object]] = []
    our_ends: set[int] = set()
    process: Process | None = None
    try:
        ours, theirs = socket.socketpair()
        opened += [theirs.close, ours.close]
        read_end, lifeline = os.pipe()
        opened += [lambda: os.close(read_end), lambda: os.close(lifeline)]
        output, their_output = output_pair()
        opened += [lambda: os.close(their_output), output.close]
        our_ends = {ours.fileno(), lifeline, output.fileno()}
        _our_ends.update(our_ends)
        board, page = Board.make()
        opened += [lambda: os.close(page), board.close]
        process = spawn((theirs.fileno(), page, read_end, their_output), key)
        worker = Worker(process, Sender(ours), board, lifeline, output)
    except BaseException as error:
        _our_ends.difference_update(our_ends)
        for close in opened:
            close()
        if process is not None:  # its lifeline has killed it
            wait_for_exit(process, 1.0)
        if isinstance(error, Exception):
            raise WorkerStartError(f"{type(error).__name__}: {error}") from error
        raise
    theirs.close()
    for descriptor in (read_end, page, their_output):
        os.close(descriptor)
    return worker


def _tell(worker: Worker, state: ProcessState, key: WorkerKey) -> None:
    try:
        worker.tell(state, start_settings(key))
    except BaseException as error:
        settle(worker)
        if not isinstance(error, ChannelClosed):
            worker.kill()
        wait_for_end(worker, 1.0)
        words = worker.exit_reason()
        worker.end()
        if isinstance(error, ChannelClosed):
            raise WorkerStartError(f"the new process {words} before it was told anything") from None
        raise


def settle(worker: Worker) -> None:
    """Note that `worker` is known to its pool, which sees to its descriptors from now on."""
    _our_ends.difference_update(worker.ends())


def spawn_subprocess(descriptors: tuple[int, ...], key: WorkerKey) -> Process:
    """Start an interpreter of its own."""
    return start_interpreter("main", descriptors, key)


def start_interpreter(module: str, descriptors: tuple[int, ...], key: WorkerKey) -> Interpreter:
    """Start an interpreter, with the flags of this one, that runs `main` of a module of ours.

    Parameters
    ----------
    module : str
        Of this folder.
    descriptors : tuple of int
        What is passed on, and by number to `main`.
    key : WorkerKey
        With its variables.
    """
    import subprocess

    from parallel_core.workers.interpreter import Interpreter

    private: Any = subprocess  # for a function that multiprocessing relies on too
    flags: list[str] = private._args_from_interpreter_flags()
    mask = block_interrupts()
    try:
        return Interpreter(
            [sys.executable, *flags, "-c", _BOOT.format(module), _ROOT, *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            env={**os.environ, **dict(key.environment)} if key.environment else None,
        )
    finally:
        restore_interrupts(mask)


def _make_ours(process: Any) -> None:
    """Have multiprocessing forget about `process`.

    At the end of the program it would end all that it knows, and wait for them: while a daemon
    thread starts others in their place.
    """
    from multiprocessing import process as processes

    known: Any = getattr(processes, "_children", None)  # there is no public way
    if isinstance(known, set):
        known.discard(process)


def _close(process: Any) -> None:
    try:
        process.close()
    except AttributeError:  # loky's cannot be
        pass


class ContextProcess:
    """A process of a `multiprocessing` context, with the manners of `subprocess.Popen`."""

    def __init__(self, process: Any) -> None:
        self._process = process
        self.pid: int = process.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is not None:
            return self.returncode
        try:
            with HeldInterrupts():
                code: int | None = self._process.exitcode
                if code is not None:  # else multiprocessing keeps its pipes until the next one
                    self._process.join()
                    if threading.current_thread() is threading.main_thread():
                        _close(self._process)  # elsewhere it might be amidst its own last steps
                    self.returncode = code
        except (ValueError, AssertionError):  # closed, or seen from a forked child
            return 0
        return code

    def kill(self) -> None:
        """Kill it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class PassedDescriptor:
    """A descriptor that reaches the child by whatever way its context has."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Callable[[Any], PassedDescriptor], tuple[Any]]:
        from multiprocessing import reduction

        return _received, (reduction.DupFd(self.descriptor),)


def _received(duplicate: Any) -> PassedDescriptor:
    return PassedDescriptor(duplicate.detach())


def spawn_from(context: Any) -> Spawn:
    """Return a `Spawn` that uses the `multiprocessing` (or loky) context `context`."""

    def spawn(descriptors: tuple[int, ...], key: WorkerKey) -> Process:
        from parallel_core.workers.context_child import run

        check_descriptors(_FOR_CONTEXT)
        arguments = [PassedDescriptor(number) for number in descriptors]
        shared = None if key.exclusive is None else key.exclusive.shared
        to_run = arguments, key.environment, shared
        process = context.Process(target=run, args=to_run, daemon=True)
        mask = block_interrupts()
        try:
            process.start()
            _make_ours(process)
        finally:
            restore_interrupts(mask)
        return ContextProcess(process)

    return spawn
