"""A limit of time for each call: one that hangs is a finding, and ends the run."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.chaos.inventory import descendants


class Watch(threading.Thread):
    """Looks whether anything takes longer than it may.

    Parameters
    ----------
    on_hang : callable
        Told which, in words; then the process ends.
    """

    def __init__(self, on_hang: Callable[[str], None]) -> None:
        super().__init__(name="watch", daemon=True)
        self._on_hang = on_hang
        self._limits: dict[int, tuple[float, str]] = {}

    @contextlib.contextmanager
    def limit(self, seconds: float, words: str) -> Iterator[None]:
        """Give what runs within so many seconds."""
        thread = threading.get_ident()
        self._limits[thread] = (time.monotonic() + seconds, words)
        try:
            yield
        finally:
            self._limits.pop(thread, None)

    def run(self) -> None:
        """Look, a few times in a second."""
        while True:
            time.sleep(0.2)
            now = time.monotonic()
            # Where not even this thread gets on, a lock is held for ever in C code.
            faulthandler.dump_traceback_later(120, exit=True)
            for thread, (limit, words) in list(self._limits.items()):
                if now > limit and thread in self._limits:
                    self._give_up(f"thread {thread:#x}: {words}")

    def _give_up(self, words: str) -> None:
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        below = descendants()
        for pid, name in below.items():
            print(f"    process {pid}: {name} {_waits_for(pid)}", file=sys.stderr)
        self._on_hang(words)
        for pid in below:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        sys.stderr.flush()
        sys.stdout.flush()
        os._exit(1)


def _waits_for(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return ""
