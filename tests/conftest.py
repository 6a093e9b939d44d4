"""What every test relies on: nothing stays behind, and no test leans on another's workers."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import parallel_core
from parallel_core.backends.base import Session
from parallel_core.backends.channel_session import ChannelSession
from watching import descendants

collect_ignore_glob = ["typing/*", "*_program.py"]  # for type checkers, and to be run

SHARED_MEMORY = Path("/dev/shm")
PATIENCE = 5.0


def descriptors() -> dict[int, str]:
    """Return what each open descriptor of this process refers to."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
    return found


def is_of_another(name: str) -> bool:
    """Whether an entry of shared memory bears the number of a process that is not of this run."""
    for number in map(int, re.findall(r"[-_](\d+)[-_]", name)):
        if (
            number != os.getpid()
            and number not in descendants()
            and Path(f"/proc/{number}").exists()
        ):
            return True
    return False


def left_behind(
    processes: set[int], shared: set[str], open_before: dict[int, str], threads: set[int | None]
) -> list[str]:
    """Return in words what there is now and was not before."""
    found = [
        f"process {pid}: {name}"
        for pid, name in descendants().items()
        if pid not in processes and "resource_tracker" not in name and "forkserver" not in name
    ]
    if SHARED_MEMORY.is_dir():
        new = set(os.listdir(SHARED_MEMORY)) - shared
        found += [f"/dev/shm/{name}" for name in new if not is_of_another(name)]
    found += [
        f"descriptor {number}: {target}"
        for number, target in descriptors().items()
        if open_before.get(number) != target
        and any(name in target for name in ("parallel-core", "pidfd", "/dev/shm/#", "userfaultfd"))
    ]
    found += [
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if thread.ident not in threads and thread.name.startswith("parallel-core")
    ]
    return found


_modules_frozen = 0


def freeze_modules() -> None:
    """Keep what is there now out of the garbage collections that follow each test."""
    global _modules_frozen
    if len(sys.modules) != _modules_frozen:
        gc.collect()
        gc.freeze()
        _modules_frozen = len(sys.modules)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process, a shared memory entry, a descriptor or a thread."""
    freeze_modules()
    before = (
        set(descendants()),
        set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else set(),
        descriptors(),
        {thread.ident for thread in threading.enumerate()},
    )
    yield
    gc.collect()
    parallel_core.shutdown_workers()
    gc.collect()  # loky's semaphores are unlinked with the objects that hold them
    deadline = time.monotonic() + PATIENCE
    while (found := left_behind(*before)) and time.monotonic() < deadline:
        time.sleep(0.02)
        gc.collect()
    assert not found, "left behind: " + "; ".join(found)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield what `engines` has named."""
    name = request.param
    if name == "thread executor":
        with ThreadPoolExecutor(2) as executor:
            yield executor
    elif name == "process executor":
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
            yield executor
    else:
        yield get_context("fork") if name == "fork" else name


@pytest.fixture
def nothing_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each batch stay with the worker that got it."""
    monkeypatch.setattr(ChannelSession, "steal", Session.steal)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Make a file system of one MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "memmapping-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what was skipped, so that it is seen."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests skipped; -rs tells why")
