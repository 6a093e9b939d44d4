"""Small real programs: how tests of signals, deaths and shutdowns start and watch them."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from watching import HOME, LIMIT, descendants, running, wait_until

BEGIN = """
    import atexit, gc, multiprocessing, os, pathlib, re, signal, sys, threading, time, warnings
    from parallel_core import Parallel, delayed, shutdown_workers

    def tell(name):
        "Leave the number of this process in a file."
        pathlib.Path(f".{name}").write_text(str(os.getpid()))
        os.rename(f".{name}", f"pid-{name}")

    def backend_of(name):
        kind, _, method = name.partition("-")
        if kind == "context":
            return multiprocessing.get_context(method)
        if kind == "executor":
            from concurrent.futures import ProcessPoolExecutor
            return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))
        return name

    def works(backend, **options):
        parallel = Parallel(2, backend=backend, **options)
        return list(parallel(delayed(abs)(-n) for n in range(6))) == list(range(6))
"""


def environment(**variables: str) -> dict[str, str]:
    path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **variables}


def write(folder: Path, text: str) -> None:
    (folder / "script.py").write_text(textwrap.dedent(BEGIN) + textwrap.dedent(text))


def start(
    folder: Path, text: str, *args: str, prefix: tuple[str, ...] = (), **options: Any
) -> subprocess.Popen[str]:
    """Start `text`, after `BEGIN`, as a program of its own in `folder`."""
    write(folder, text)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(
        [*prefix, sys.executable, "script.py", *args],
        cwd=folder,
        env=environment(),
        text=True,
        start_new_session=True,
        **options,
    )


def run(
    folder: Path, text: str, *args: str, code: int = 0, err: str | None = "", **options: Any
) -> str:
    """Run `text` to its end; return what it printed; with `err` None, it may complain."""
    child = start(folder, text, *args, **options)
    try:
        out, errors = child.communicate(timeout=LIMIT)
    except BaseException:
        kill_group(child.pid)
        child.wait()
        raise
    assert child.returncode == code, out + errors
    assert err is None or errors == err, errors
    return out


def kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass


def told(folder: Path) -> list[int]:
    """Return the numbers of the processes that told theirs."""
    return [int(path.read_text()) for path in folder.glob("pid-*")]


class Terminal:
    """A program in the foreground of a terminal of its own."""

    def __init__(self, folder: Path, text: str, *args: str) -> None:
        write(folder, text)
        self.folder = folder
        self.out = ""
        self.status: int | None = None
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(sys.executable, [sys.executable, "script.py", *args], environment())

    def read_until(self, text: str) -> None:
        limit = time.monotonic() + LIMIT
        while text not in self.out:
            assert time.monotonic() < limit, self.out
            if not self._read(0.05) and self.ended():
                assert text in self.out, self.out

    def _read(self, seconds: float) -> bool:
        poller = select.poll()
        poller.register(self._end, select.POLLIN)
        if not poller.poll(seconds * 1000):
            return False
        try:
            data = os.read(self._end, 65536)
        except OSError:  # so says a terminal that nobody has open any more
            return False
        self.out += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def press(self, key: bytes) -> None:
        os.write(self._end, key)

    def ended(self) -> bool:
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def wait(self) -> None:
        limit = time.monotonic() + LIMIT
        while not self.ended() and time.monotonic() < limit:
            self._read(0.02)
        while self._read(0.0):
            pass

    def close(self) -> None:
        below = set() if self.ended() else set(descendants(self.pid))
        for pid in [*below, *([] if self.ended() else [self.pid])]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if not self.ended():
            os.waitpid(self.pid, 0)
        os.close(self._end)


@contextlib.contextmanager
def kernel(folder: Path) -> Iterator[Callable[[str, Callable[[Any], None]], object]]:
    """Start the kernel of a notebook; give what executes a cell, and a hook for its messages."""
    pytest.importorskip("ipykernel", reason="a kernel needs ipykernel, of the extra 'test'")
    manager_module = pytest.importorskip(
        "jupyter_client.manager", reason="a kernel needs jupyter_client, of the extra 'test'"
    )
    manager = manager_module.KernelManager()
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(
        cwd=str(folder), env={**environment(), "IPYTHONDIR": str(folder / "ipython")}
    )
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LIMIT)
        yield lambda cell, hear: client.execute_interactive(cell, timeout=LIMIT, output_hook=hear)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        context = getattr(manager, "context", None)
        if context is not None:
            context.destroy(linger=0)


def are_gone(pids: set[int] | list[int], what: str) -> None:
    wait_until(lambda: not any(map(running, pids)), what)
