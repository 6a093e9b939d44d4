"""What every test relies on: nothing stays behind, and no test leans on another's workers."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import contract
import pytest

import parallel_core
from parallel_core.backends.base import Session
from parallel_core.backends.channel_session import ChannelSession
from parallel_core.workers.pool import worker_pool
from watching import descendants

pytest.register_assert_rewrite("engine_promises")

collect_ignore_glob = ["typing/*", "*_program.py"]  # for type checkers, and to be run

SHARED_MEMORY = Path("/dev/shm")
PATIENCE = 5.0
#: Words in the names of processes that outlive a test; a browser's fixture sees to its end.
OF_MANY_TESTS = ("resource_tracker", "forkserver", "chrom", "ray::")


def descriptors() -> dict[int, str]:
    """Return what each open descriptor of this process refers to."""
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
    return found


def is_mpiexec(pid: int) -> bool:
    """Whether a process that is not of this run starts programs of MPI."""
    try:
        words = Path(f"/proc/{pid}/comm").read_text().split()
    except OSError:  # it has just ended
        return False
    return words[:1] in (["mpiexec"], ["mpiexec.hydra"], ["hydra_pmi_proxy"]) and (
        pid not in descendants()
    )


def is_of_another(name: str) -> bool:
    """Whether an entry of shared memory is of a process that is not of this run."""
    if name.startswith("mpich_shm_"):  # which bears no number of a process
        return any(is_mpiexec(pid) for pid in map(int, filter(str.isdigit, os.listdir("/proc"))))
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
        if pid not in processes and not any(kind in name for kind in OF_MANY_TESTS)
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


class State(NamedTuple):
    """What `left_behind` compares with."""

    processes: set[int]
    shared: set[str]
    descriptors: dict[int, str]
    threads: set[int | None]


def state_now() -> State:
    return State(
        set(descendants()),
        set(os.listdir(SHARED_MEMORY)) if SHARED_MEMORY.is_dir() else set(),
        descriptors(),
        {thread.ident for thread in threading.enumerate()},
    )


#: What there was when no worker was kept, and the test that came next; None where none is kept.
_before_kept: tuple[State, str] | None = None
_next_item: pytest.Item | None = None
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Note which test comes next: fixtures are not told."""
    global _next_item
    _next_item = nextitem


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note whether a test has failed, so that nothing that it has used is used again."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test of what was measured up to four times before it counts."""
    # The library measures rightly, but another program may have stopped a worker in that moment.
    # A folder of the test's own would hold what the attempt before has left: once has to do.
    if pyfuncitem.get_closest_marker("measures") is None or "tmp_path" in pyfuncitem.funcargs:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    for _ in range(4):
        with contextlib.suppress(AssertionError):
            pyfuncitem.obj(**arguments)
            return True
    return None  # the last attempt is pytest's own


def takes_warm_workers(item: pytest.Item | None) -> bool:
    return (
        item is not None
        and item.get_closest_marker("warm_workers") is not None
        and item.get_closest_marker("fresh_workers") is None
    )


def keeps_workers(item: pytest.Item) -> bool:
    """Whether the test that comes next in the same file takes the workers that `item` has used."""
    return (
        takes_warm_workers(item)
        and takes_warm_workers(_next_item)
        and _next_item is not None
        and _next_item.path == item.path
        and not item.stash.get(FAILED, False)
    )


def in_use() -> list[str]:
    """Return in words which workers still belong to a call."""
    leased = worker_pool().demand.leased()
    return [f"{number} workers in a call" for number in leased if number]


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a process, a shared memory entry, a descriptor or a thread.

    A test of `warm_workers` may leave idle workers to the next one in its file; the last of them
    is then held to what there was before the first.
    """
    global _before_kept
    if _before_kept is None:  # what is kept ends some day, and what is frozen is never found then
        freeze_modules()
    before, since = _before_kept or (state_now(), request.node.name)
    yield
    gc.collect()
    if keeps_workers(request.node):
        _before_kept = before, since
        look: Callable[[], list[str]] = in_use
    else:
        _before_kept = None
        parallel_core.shutdown_workers()
        gc.collect()  # loky's semaphores are unlinked with the objects that hold them
        look = functools.partial(left_behind, *before)
    deadline = time.monotonic() + PATIENCE
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.02)
        gc.collect()
    assert not found, f"left behind since {since} began: " + "; ".join(found)


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


@pytest.fixture(scope="module")
def backend(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield what to pass as ``backend=`` for the engine that `contract.every` has named.

    What it starts is there until the last test of the module with this engine has ended, so it is
    not left behind by a test.
    """
    before = state_now()
    with contract.BACKENDS[request.param].start() as started:
        if _before_kept is not None:
            now = state_now()
            kept = _before_kept[0]
            kept.processes.update(now.processes - before.processes)
            kept.shared.update(now.shared - before.shared)
            kept.descriptors.update(
                {n: what for n, what in now.descriptors.items() if n not in before.descriptors}
            )
            kept.threads.update(now.threads - before.threads)
        yield started


@pytest.fixture
def can(request: pytest.FixtureRequest) -> frozenset[str]:
    """Return what the engine of the test can do, in the words of `contract`."""
    return contract.BACKENDS[request.node.callspec.params["backend"]].can


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
        terminalreporter.write_line(f"{len(skipped)} tests skipped, for the reasons below")
