"""Watching a program in which something goes wrong, and tidying up after it.

Whatever the program started is known by a variable in its environment, which workers inherit
however they are born; what it left in ``/dev/shm`` by its number in the name. When a watch ends,
all of it is gone, so that no contestant leaves anything to the next.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from benchmarks.measure import SHARED_MEMORY
from benchmarks.mishaps import FOLDER
from benchmarks.runner import ROOT
from benchmarks.trial import Trial

PATIENCE_SECONDS = 4.0
"""A program that tells nothing for so long hangs; no contestant takes nearly as long to answer."""

MARK = "PARALLEL_CORE_BENCHMARKS_WATCH"
LOOKING_SECONDS = 0.02


class Watch:
    """One program under watch, from its start to the last of what it left.

    Parameters
    ----------
    trial : type
        What it runs.
    key : str
        For which contestant.
    n_jobs : int
        With how many workers.
    **options
        Which variant of the trial.

    Attributes
    ----------
    told : list of dict
        All that it told.
    hung : bool
        Whether it fell silent and was given up.
    options : dict
        Which variant it runs.
    folder : Path
        Where its tasks leave word.
    """

    def __init__(self, trial: type[Trial], key: str, n_jobs: int, **options: Any) -> None:
        self.told: list[dict[str, Any]] = []
        self.hung = False
        self.options = options
        self.folder = Path(tempfile.mkdtemp())
        self._mark = uuid.uuid4().hex
        self._numbers: set[int] = set()
        self._there_before = _shared_memory()
        self._rest = b""
        self._reader, writer = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "benchmarks.trial",
                    f"{trial.__module__}:{trial.__qualname__}",
                    key,
                    str(n_jobs),
                    json.dumps(options),
                    str(writer),
                ],
                env={**os.environ, MARK: self._mark, FOLDER: str(self.folder)},
                cwd=ROOT,
                pass_fds=[writer],
            )
        finally:
            os.close(writer)
        self._numbers.add(self._process.pid)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kill_all()
        os.close(self._reader)
        for entry in self.entries():
            if _numbers_in(entry):  # anybody may have put there what bears no number
                _remove(Path(SHARED_MEMORY, entry))
        shutil.rmtree(self.folder, ignore_errors=True)

    def listen(self) -> list[dict[str, Any]]:
        """Return all that the program tells until it ends its trial, dies, or falls silent.

        Raises
        ------
        RuntimeError
            If it could not do what it was meant to.
        """
        silent_since = time.monotonic()
        while True:
            gone = self._process.poll() is not None  # before the last look at what it told
            if self._read():
                silent_since = time.monotonic()
            if self.told and "broken" in self.told[-1]:
                raise RuntimeError(self.told[-1]["broken"])
            if gone or (self.told and "end" in self.told[-1]):
                return self.told
            if time.monotonic() > silent_since + PATIENCE_SECONDS:
                self.hung = True
                return self.told

    def _read(self) -> bool:
        """Take what was told by now, and return whether there was anything."""
        if not select.select([self._reader], [], [], LOOKING_SECONDS)[0]:
            return False
        lines = (self._rest + os.read(self._reader, 1 << 16)).split(b"\n")
        self._rest = lines.pop()
        self.told.extend(map(json.loads, lines))
        return bool(lines)

    def wait_for(self, pattern: str, count: int) -> list[Path]:
        """Return what tasks left in their folder, as soon as there is so much of it."""
        limit = time.monotonic() + 2 * PATIENCE_SECONDS
        while len(found := list(self.folder.glob(pattern))) < count:
            if time.monotonic() > limit or self._process.poll() is not None:
                raise RuntimeError(f"{len(found)} of {count} workers had a task")
            time.sleep(LOOKING_SECONDS)
        return found

    def kill(self, number: signal.Signals) -> None:
        """Kill the program itself, and nothing that it started."""
        self._process.send_signal(number)

    def alive(self) -> list[psutil.Process]:
        """Return what the program started and what still runs; it does not count itself."""
        return [process for process in self._marked() if process.pid != self._process.pid]

    def entries(self) -> set[str]:
        """Return what there is in ``/dev/shm`` since the program was started.

        What bears the number of a process that is not of this program was put there by others.
        """
        new = _shared_memory() - self._there_before
        return {name for name in new if not (found := _numbers_in(name)) or found & self._numbers}

    def _marked(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if (
                    process.environ().get(MARK) == self._mark
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    self._numbers.add(process.pid)
                    yield process

    def _kill_all(self) -> None:
        """Kill until there is nothing left: what is found may just have had a child."""
        while True:
            found = list(self._marked())
            for process in found:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if not found:
                break
            time.sleep(LOOKING_SECONDS)
        self._process.wait()


def _shared_memory() -> set[str]:
    try:
        return set(os.listdir(SHARED_MEMORY))
    except OSError:
        return set()


def _numbers_in(name: str) -> set[int]:
    """Return the numbers of processes that the name of an entry bears."""
    return {int(number) for number in re.findall(r"(?<=[-_])\d+(?=[-_]|$)", name)}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
