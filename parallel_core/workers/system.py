"""The seam to the operating system: Linux first, a slower path for everybody else.

Linux is what this project is tested on. The other paths here (no pidfd, no ``F_SETSIG``, no
memfd; no pool of our own at all on Windows) are meant for macOS and Windows and are **untested**;
nothing above this module asks which system it runs on.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

_F_SETSIG = 10  # fcntl.h on Linux; Python's fcntl names it only from 3.13 on
_PR_SET_PDEATHSIG = 1  # sys/prctl.h
_LAST_SECONDS = 0.5  # for threads that tasks have left


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor that turns readable when process `pid` ends, if there is such a thing.

    See pidfd_open(2). An OSError says that there are no descriptors left.
    """
    opener: Any = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        descriptor: int = opener(pid)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    return descriptor


def check_descriptors(number: int) -> None:
    """Raise OSError unless so many more files can be opened.

    For engines that leave some open, or fail in some other way, if they run out halfway.
    """
    opened: list[int] = []
    try:
        while len(opened) < number:
            opened += os.pipe()
    finally:
        for descriptor in opened:
            os.close(descriptor)


def arm_lifeline(descriptor: int) -> None:
    """Have this process killed when the other end of the pipe `descriptor` is closed.

    The kernel sends SIGKILL, so it works while C code holds the interpreter's lock; a thread
    that waited for the end would not get to run. See F_SETSIG in fcntl(2). Elsewhere such a
    thread has to do (untested).
    """
    system: str = sys.platform  # not narrowed: what follows is checked on every system
    if system == "linux":
        import fcntl

        fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        try:
            ended = os.read(descriptor, 1) == b""  # gone before the signal was armed
        except BlockingIOError:
            ended = False
        if ended:
            os._exit(1)
        return
    import threading

    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="parallel-core-lifeline").start()


def die_with(parent: int) -> None:
    """Have this process killed when the thread ends that started it, if it is a child of `parent`.

    That is a second lifeline, for a task that closes all descriptors. See PR_SET_PDEATHSIG in
    prctl(2); elsewhere there is none.
    """
    if sys.platform != "linux" or os.getppid() != parent:
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # gone before the signal was set
        os._exit(1)


def leave_threads() -> None:
    """Have this process end soon, though threads that tasks have left may go on for ever.

    Python waits for those that are no daemons; executors among them end when it begins to. SIGALRM
    ends the process after a moment, whatever it is doing. To be called in the main thread.
    """
    import threading

    main = threading.main_thread()
    left = [one for one in threading.enumerate() if one is not main and not one.daemon]
    if left and hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _LAST_SECONDS)


#: Has a worker write its stack, also while C code holds the interpreter's lock; 0 where there is
#: none that programs do not use themselves.
STACK_SIGNAL: int = getattr(signal, "SIGRTMAX", 5) - 5


def write_stacks(descriptor: int) -> None:
    """Have this process write its stack to `descriptor` as it dies of a fault, or when asked.

    See `faulthandler`, which does that in a signal handler.
    """
    import faulthandler

    faulthandler.disable()  # where it is enabled already, handlers that others set would stay
    faulthandler.enable(descriptor)
    if STACK_SIGNAL and hasattr(faulthandler, "register"):
        faulthandler.register(STACK_SIGNAL, descriptor)


def memory_file(size: int) -> int:
    """Return a descriptor of `size` zero bytes of shareable memory without a name."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("parallel-core-board")
    else:
        import tempfile

        descriptor, path = tempfile.mkstemp(prefix="parallel-core-board-")
        os.unlink(path)
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def block_interrupts() -> set[Any] | None:
    """Mask SIGINT in this thread, and so in children; return what `restore_interrupts` wants."""
    if not hasattr(signal, "pthread_sigmask"):
        return None
    blocked: set[Any] = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    return blocked


def restore_interrupts(mask: set[Any] | None) -> None:
    """Undo `block_interrupts`."""
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def handle_interrupts(handler: Callable[[], None] | None = None) -> None:
    """Have Ctrl-C call `handler`, if anything, in this process, a worker.

    The terminal sends it to every process of its group; what it means is for the parent to say.
    Not SIG_IGN: programs that a task starts get the default again.
    """
    signal.signal(signal.SIGINT, lambda *_: None if handler is None else handler())
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def has_own_pool() -> bool:
    """Whether our own workers can run here: they need poll(2), descriptors passed on, and mmap.

    Windows has none of these; there the default backend is loky's (untested).
    """
    return os.name == "posix"


def has_forkserver() -> bool:
    """Whether a process can fork workers on request and stay as it is: single-threaded.

    It needs a lifeline that is no thread, and descriptors that are sent over a socket.
    """
    import socket

    return sys.platform == "linux" and hasattr(os, "fork") and hasattr(socket, "send_fds")


def no_processes() -> str | None:
    """Return why this system cannot start processes at all, or None."""
    if sys.platform in ("emscripten", "wasi"):
        return f"{sys.platform} has no processes"
    if not sys.executable:
        return "this interpreter does not know its own executable (sys.executable is empty)"
    return None


def signal_name(number: int) -> str:
    """Return ``SIGKILL`` for 9, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def pin(pid: int, cpus: tuple[int, ...]) -> None:
    """Let all threads of a process run on `cpus` alone; those that it starts later follow."""
    os.sched_setaffinity(pid, cpus)
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:  # it has just ended, or there is no /proc
        return
    for thread in threads:
        try:
            os.sched_setaffinity(int(thread), cpus)
        except OSError:  # the thread has ended
            continue


def can_pin() -> bool:
    """Whether the system lets a process choose its CPUs."""
    return sys.platform != "darwin" and hasattr(os, "sched_setaffinity")
