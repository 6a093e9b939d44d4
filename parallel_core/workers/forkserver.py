"""Fork servers: processes that have imported modules for workers, and fork workers on request.

::

    this process                        fork server                       worker
    ┌───────────────────────┐  link   ┌─────────────────────┐        ┌────────────────┐
    │ ForkServer            │ ──────▶ │ imports the modules │ ─fork─▶│ as any other:  │
    │   socket, board and   │ ◀────── │ once                │        │ socket, board, │
    │   lifeline of each    │  pidfd  │                     │        │ lifeline       │
    │   worker ─────────────│─ ─ ─ ─ ─│─ SCM_RIGHTS ─ ─ ─ ─ │─ ─ ─ ─▶│                │
    │   lifeline ─ ─ ─ ─ ─ ─│─ SIGKILL▶                     │        └────────────────┘
    └───────────────────────┘         └─────────────────────┘

The kernel tells an exit code to the parent of a process alone, and that is the fork server: it is
asked. When it is gone, nobody knows how its workers end, but they live on and work.

A fork server is good for what was true when it imported its modules: path, folder, arguments,
environment, limit of threads, and modules that were not reloaded since.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from typing import Any

from memmapping.interrupts import HeldSignals
from parallel_core.workers import forkserver_channel as words
from parallel_core.workers.forkserver_channel import ForkServerChannel, ForkServerClosed
from parallel_core.workers.preload import NotPreloaded
from parallel_core.workers.process import NOT_KNOWN, Process, wait_for_exit
from parallel_core.workers.setup import ProcessState, WorkerKey
from parallel_core.workers.starting import WorkerStartError, start_interpreter, starts_held
from parallel_core.workers.system import check_descriptors, open_pidfd, signal_name

_PATIENCE = 10.0  # seconds for a fork, or for a word; a fork server that takes longer is stopped
_END_SECONDS = 0.5  # for handlers that its modules have registered with atexit
_KINDS = 4  # of fork servers that are kept


class ForkedProcess:
    """A worker that a fork server has forked, with the manners of `subprocess.Popen`."""

    def __init__(self, forkserver: ForkServer, pid: int, pidfd: int | None) -> None:
        self._forkserver = forkserver
        self.pid = pid
        self.pidfd = pidfd
        self.returncode: int | None = None
        #: The most that it ever held, in bytes; 0 while it runs, and where nobody knows.
        self.peak_memory = 0

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None and self._has_ended():
            outcome = self._forkserver.outcome(self.pid)
            if outcome is not None:
                self.returncode, self.peak_memory = outcome
                self._close()
        return self.returncode

    def _has_ended(self) -> bool:
        if self.pidfd is None:
            return self._forkserver.usable or not os.path.exists(f"/proc/{self.pid}")
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def kill(self) -> None:
        """Kill it."""
        if self.returncode is not None:
            return
        if self.pidfd is not None:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        elif self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _close(self) -> None:
        pidfd, self.pidfd = self.pidfd, None
        if pidfd is not None:
            os.close(pidfd)

    def __del__(self) -> None:
        self._close()


class ForkServer:
    """The handle on one of them.

    Raises
    ------
    WorkerStartError
        When the system refuses.
    """

    def __init__(self, key: WorkerKey, now: ProcessState, reloads: int) -> None:
        self._good_for = _conditions(key, now)
        self._reloads = reloads
        self._lock = threading.RLock()  # a finalizer may come in between, in the same thread
        self._is_asked = False
        self.is_ready = False  #: whether it has imported its modules, and so forks
        self._children: set[int] = set()
        self._is_retired = False
        self._idle_seconds = now.idle_seconds
        self.usable = True  #: whether it was not let go of
        try:
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    read_end, self._lifeline = os.pipe()
                except OSError:
                    ours.close()
                    raise
                try:
                    self._process = start_interpreter(
                        "forkserver_main", (theirs.fileno(), read_end), key
                    )
                except BaseException:
                    ours.close()
                    os.close(self._lifeline)
                    raise
                finally:
                    os.close(read_end)
        except (OSError, ValueError) as error:
            raise WorkerStartError(f"{type(error).__name__}: {error}") from error
        self._link = ForkServerChannel(ours)
        self._modules = key.preload
        self._pidfd: int | None = None
        with contextlib.suppress(OSError):  # no descriptors left: its end of the link has to do
            self._pidfd = open_pidfd(self._process.pid)

    def prepare(self, key: WorkerKey, now: ProcessState) -> None:
        """Have it import its modules, and wait until it has.

        Raises
        ------
        PreloadError
            When one of them does not import, or starts threads.
        """
        kept = frozenset(os.fsencode(name) for name, _ in key.environment)
        module = self._modules[0]
        try:
            self._link.send((words.PREPARE, now, kept, key.hooks, key.preload, now.idle_seconds))
            with contextlib.suppress(ImportError):
                import cloudpickle  # noqa: F401 - the call may need it, and there is time now
            while True:
                self._wait_for_word()
                kind, *rest = self._link.receive()[0]
                if kind == words.READY:
                    break
                module = rest[0]
                if kind == words.FAILED:
                    raise NotPreloaded(*rest).error()
                if kind == words.THREADS:
                    raise _has_threads(module)
            self._link.set_patience(_PATIENCE)
            self.is_ready = True
        except ForkServerClosed:
            raise _died(module, self.kill(1.0)) from None
        except BaseException:
            self.kill()
            raise

    def _wait_for_word(self) -> None:
        """Wait until it says something, or is gone: its end of the link may be open elsewhere."""
        poller = select.poll()
        poller.register(self._link, select.POLLIN)
        if self._pidfd is not None:
            poller.register(self._pidfd, select.POLLIN)
        ready = [descriptor for descriptor, _ in poller.poll()]
        if self._link.fileno() not in ready:
            raise ForkServerClosed("it has ended")

    def fits(self, key: WorkerKey, now: ProcessState, reloads: int | None = None) -> bool:
        """Whether its children are as workers should be that start now."""
        return (
            self.usable
            and self.is_ready
            and not self._is_retired
            and reloads in (None, self._reloads)
            and self._good_for == _conditions(key, now)
            and self._process.poll() is None
        )

    def outdated(self, reloads: int) -> bool:
        """Whether it is of no use any more."""
        return reloads != self._reloads or self._process.poll() is not None

    def spawn(self, of_worker: tuple[int, ...], key: WorkerKey) -> Process:
        """Have a worker forked; a `Spawn`."""
        check_descriptors(1)
        streams = tuple(number for number in (1, 2) if _is_open(number))
        descriptors = (*of_worker, *streams)
        with HeldSignals(), self._lock:
            if self._is_asked:
                raise ForkServerClosed(
                    "the fork server is just being asked, by what was interrupted"
                )
            message = (words.FORK, streams, self._idle_seconds)
            (kind, number, text), received = self._ask(message, descriptors)
            if kind == words.REFUSED:
                raise OSError(number, text)
            self._children.add(number)
        return ForkedProcess(self, number, received[0] if received else None)

    def outcome(self, pid: int) -> tuple[int, int] | None:
        """Return exit code and memory of a worker that has ended; None while it runs."""
        with HeldSignals():
            try:
                with self._lock:
                    if self._is_asked:
                        return None
                    kind, *rest = self._ask((words.OUTCOME, pid))[0]
            except ForkServerClosed:
                rest = [None, 0]
            else:
                if kind == words.RUNNING:
                    return None
            self._children.discard(pid)
            if self._is_retired and not self._children:
                self.end()
        code, memory = rest
        return NOT_KNOWN if code is None else code, memory

    def _ask(self, message: Any, descriptors: tuple[int, ...] = ()) -> tuple[Any, list[int]]:
        if not self.usable:
            raise ForkServerClosed("the fork server is gone")
        self._is_asked = True
        try:
            self._link.send(message, descriptors)
            return self._link.receive()
        except BaseException:  # what it says later would be taken for the answer to something else
            self.kill()
            raise
        finally:
            self._is_asked = False

    def retire(self) -> None:
        """Have it end when the last of its workers has."""
        self._is_retired = True
        if not self._children:
            self.end()

    def end(self) -> None:
        """Let it end in peace."""
        if self.usable:
            self._link.close()
            if self._pidfd is not None:
                poller = select.poll()
                poller.register(self._pidfd, select.POLLIN)
                poller.poll(_END_SECONDS * 1000)
            wait_for_exit(self._process, 0.02 if self._pidfd is not None else _END_SECONDS)
        self.kill()

    def kill(self, patience: float = 0.02) -> str:
        """Have the kernel end it, unless it ends by itself; return in words how it did."""
        if not self.usable:
            return "is gone"
        wait_for_exit(self._process, patience)
        self.disown()
        self._process.kill()
        wait_for_exit(self._process, 1.0)
        code = self._process.returncode
        if code is not None and code < 0:
            return f"was killed by {signal_name(-code)}"
        return f"ended with exit code {code}"

    def disown(self) -> None:
        """Close all descriptors: in a forked child, where it is not ours."""
        if self.usable:
            self.usable = False
            self._link.close()
            os.close(self._lifeline)
            if self._pidfd is not None:
                os.close(self._pidfd)


class ForkServers:
    """Those of this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._kept: list[ForkServer] = []  # the latest comes last
        self._retired: list[ForkServer] = []

    def prepare(self, key: WorkerKey, now: ProcessState, reloads: int) -> None:
        """Make sure that there is one for such workers, before Ctrl-C has to wait for starts.

        Raises
        ------
        PreloadError
            When a module does not import.
        WorkerStartError
            When the system refuses.
        """
        with self._lock:
            self._sort_out(reloads)
            fitting = [one for one in self._kept if one.fits(key, now, reloads)]
            if fitting:
                self._kept.remove(fitting[-1])
                self._kept.append(fitting[-1])
            else:
                self._start(key, now, reloads)

    def _start(self, key: WorkerKey, now: ProcessState, reloads: int) -> None:
        forkserver: ForkServer | None = None
        try:
            with HeldSignals(), starts_held():
                forkserver = ForkServer(key, now, reloads)
                self._kept.append(forkserver)
            forkserver.prepare(key, now)
        except BaseException:
            if forkserver is not None:
                self._kept.remove(forkserver)
                forkserver.kill()
            raise

    def find(self, key: WorkerKey, now: ProcessState) -> ForkServer | None:
        """Return one for such workers, if there is one."""
        return next((one for one in reversed(self._kept) if one.fits(key, now)), None)

    def _sort_out(self, reloads: int) -> None:
        """Retire those that are outdated, or too many."""
        ready = [one for one in self._kept if one.is_ready]
        outdated = [one for one in ready if one.outdated(reloads)]
        others = [one for one in ready if one not in outdated]
        too_many = others[: max(0, len(others) - _KINDS + 1)]
        for forkserver in [*outdated, *too_many]:
            self._kept.remove(forkserver)
            self._retired.append(forkserver)
            forkserver.retire()
        self._retired = [one for one in self._retired if one.usable]

    def shutdown(self) -> None:
        """Let them end, each when the last of its workers has; not if a call waits for one."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._retired += [one for one in self._kept if one.is_ready]
            self._kept = [one for one in self._kept if not one.is_ready]
            for forkserver in self._retired:
                forkserver.retire()
            self._retired = [one for one in self._retired if one.usable]
        finally:
            self._lock.release()

    def close(self) -> None:
        """At the end of the process: end all."""
        self.shutdown()
        for forkserver in [*self._kept, *self._retired]:
            forkserver.kill()

    def disown(self) -> None:
        """In a forked child: they are our parent's."""
        for forkserver in [*self._kept, *self._retired]:
            forkserver.disown()


def _conditions(key: WorkerKey, now: ProcessState) -> tuple[object, ...]:
    state = (now.path, now.folder, now.argv, now.environment, now.threads)
    return key.preload, key.hooks, key.environment, state


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _has_threads(module: str) -> Exception:
    from parallel_core.errors import PreloadError

    return PreloadError(
        f"preload: the import of {module!r} starts a thread, which workers would not have that are "
        "forked from the process that imported it: import it in an initializer instead"
    )


def _died(module: str, words: str) -> Exception:
    from parallel_core.errors import PreloadError

    return PreloadError(f"preload: the process that was to import {module!r} {words}")
