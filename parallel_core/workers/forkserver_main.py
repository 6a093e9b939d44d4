"""What runs in a fork server: import modules once, then fork a worker for each that is asked for.

::

    (PREPARE, …) ─▶ the environment, as in a worker ─▶ the modules ─▶ (READY,)
    (FORK, …) with its descriptors ─▶ fork ─▶ (BORN, pid) with the pidfd
                                                └─▶ child: closes what is the fork server's, `main`
    (OUTCOME, pid) ─▶ wait4 ─▶ (ENDED, …)

A child that has ended is waited for only when its outcome is asked for, so the number of a worker
stands for that worker until its parent knows all about it.
"""

from __future__ import annotations

import _thread
import contextlib
import gc
import os
import select
import socket
import sys
import warnings
from typing import Any, NamedTuple

import parallel_core.workers.main as worker_main
from parallel_core import config
from parallel_core.workers import forkserver_channel as words
from parallel_core.workers.forkserver_channel import ForkServerChannel, ForkServerClosed
from parallel_core.workers.preload import NotPreloaded, import_modules
from parallel_core.workers.setup import ProcessState, apply
from parallel_core.workers.system import arm_lifeline, handle_interrupts, open_pidfd

_KIB = 1024  # the unit of ru_maxrss on Linux; see getrusage(2)


class _Start(NamedTuple):
    """What a child is to become a worker with."""

    connection: int
    board: int
    lifeline: int
    output: int
    told: ProcessState


def main(connection: int, lifeline: int) -> None:
    """Serve the parent at the other end of `connection`, and be a worker in each child.

    Parameters
    ----------
    connection, lifeline : int
        Descriptors: a stream socket, the read end of a pipe that the parent never writes to.
    """
    for descriptor in (connection, lifeline):
        os.set_inheritable(descriptor, False)
    arm_lifeline(lifeline)
    handle_interrupts()
    channel = ForkServerChannel(socket.socket(fileno=connection))
    start_settings: _Start | None = None
    with contextlib.suppress(ForkServerClosed):
        start_settings = _ForkServer(channel).serve()
    channel.close()
    if start_settings is not None:
        os.close(lifeline)
        worker_main.main(*start_settings)


class _ForkServer:
    """The state of a fork server between requests."""

    def __init__(self, channel: ForkServerChannel) -> None:
        self._link = channel
        self._told: ProcessState | None = None
        self._idle_seconds: float | None = None
        self._children: set[int] = set()

    def serve(self) -> _Start | None:
        """Do what the parent asks for; return None at the end, in a child what it is to be."""
        while self._wait():
            message, descriptors = self._link.receive()
            kind = message[0]
            if kind == words.PREPARE:
                if not self._prepare(*message[1:]):
                    return None
            elif kind == words.FORK:
                start_settings = self._fork(descriptors, *message[1:])
                if start_settings is not None:
                    return start_settings
            else:
                self._link.send(self._outcome(*message[1:]))
        return None

    def _wait(self) -> bool:
        """Wait for a request; return False when none came for long, and no child runs."""
        poller = select.poll()
        poller.register(self._link, select.POLLIN)
        seconds = self._idle_seconds
        while not poller.poll(None if seconds is None else seconds * 1000):
            if not any(map(_runs, self._children)):
                return False
        return True

    def _prepare(
        self,
        now: ProcessState,
        kept: frozenset[bytes],
        hooks: tuple[str, ...],
        modules: tuple[str, ...],
        idle_seconds: float | None,
    ) -> bool:
        apply(now, None, kept)
        self._told = now
        self._idle_seconds = idle_seconds
        imported = ""

        def note(module: str) -> None:
            nonlocal imported
            imported = imported if _thread._count() else module
            self._link.send((words.IMPORTING, module))

        collects = gc.isenabled()
        gc.disable()
        try:
            config.run_hooks(hooks)
            import_modules(modules, note)
        except NotPreloaded as failure:
            self._link.send((words.FAILED, failure.module, failure.data, failure.text))
            return False
        if _thread._count():
            self._link.send((words.THREADS, imported))
            return False
        import faulthandler  # noqa: F401 - what each child would import itself
        import fcntl  # noqa: F401

        with contextlib.suppress(ImportError):
            import cloudpickle  # noqa: F401 - every function that goes by value needs it
        gc.freeze()  # else the first collection in each child would copy every page
        if collects:
            gc.enable()
        self._link.send((words.READY,))
        return True

    def _fork(
        self, descriptors: list[int], streams: tuple[int, ...], idle_seconds: float | None
    ) -> _Start | None:
        assert self._told is not None
        self._idle_seconds = idle_seconds
        (connection, board, lifeline, output), files = descriptors[:4], descriptors[4:]
        _flush()
        try:
            with warnings.catch_warnings():  # of threads, which are those of native libraries
                warnings.simplefilter("ignore")
                pid = os.fork()
        except OSError as error:
            answer, pidfd = (words.REFUSED, error.errno, str(error)), None
        else:
            if pid == 0:
                for number, file in zip(streams, files, strict=True):
                    os.dup2(file, number)
                    os.close(file)
                _seed()
                return _Start(connection, board, lifeline, output, self._told)
            self._children.add(pid)
            answer, pidfd = (words.BORN, pid, ""), open_pidfd(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        self._link.send(answer, () if pidfd is None else (pidfd,))
        if pidfd is not None:
            os.close(pidfd)
        return None

    def _outcome(self, pid: int) -> tuple[Any, ...]:
        try:
            ended, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:  # a module has waited for all children
            self._children.discard(pid)
            return (words.ENDED, None, 0)
        if ended != pid:
            return (words.RUNNING,)
        self._children.discard(pid)
        return (words.ENDED, os.waitstatus_to_exitcode(status), usage.ru_maxrss * _KIB)


def _runs(child: int) -> bool:
    """Whether a child runs still; one that does not is left for who asks for its outcome."""
    try:
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _flush() -> None:
    """Write what modules have printed, or every child would."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # there is none, or closed
            stream.flush()


def _seed() -> None:
    """Have numpy's global generator start anew in this child; `random` sees to itself."""
    module: Any = sys.modules.get("numpy.random")
    if module is not None:
        with contextlib.suppress(Exception):  # another numpy than we know
            module.seed()
