"""What goes wrong from outside: workers killed and stopped, folders filled, descriptors short.

What is not ours is spared some of it. A worker of loky's that is killed while it sends a result
leaves half of it in the pipe that all share, and loky waits for the rest for ever; tasks that end
their worker do so there as well. Without a descriptor loky's manager thread ends before it has
cleaned up, and the server of multiprocessing's "forkserver" ends altogether.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from benchmarks.chaos.inventory import own_workers, workers
from benchmarks.chaos.tally import Tally
from parallel_core import shutdown_workers

#: Backends that are not used while descriptors may be short.
FRAIL = ("loky", "forkserver")
_SMALL = "16m"  # size of the file system that is filled


@contextlib.contextmanager
def small_file_system(folder: Path) -> Iterator[str | None]:
    """Mount a small file system at `folder`; yield it, or None where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_SMALL}", "chaos", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield str(folder)
    finally:
        unmount(folder)


def unmount(folder: Path) -> None:
    """Let go of a file system, whoever still uses it."""
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


class Saboteur:
    """Injects faults, at random times of its own and whenever it is asked to.

    Parameters
    ----------
    tally : Tally
        Where they are counted.
    small_folder : str or None
        What it may fill.
    allowed : tuple of str
        The faults that it may inject; all, if empty.

    Attributes
    ----------
    killed : set of int
        All workers that it has killed.
    """

    def __init__(self, tally: Tally, small_folder: str | None, allowed: tuple[str, ...]) -> None:
        self._allowed = allowed
        self._may_starve = False
        self._until = 0.0
        self._tally = tally
        self._small_folder = small_folder
        self.killed: set[int] = set()
        self._kill_times: list[float] = []
        self._stopped: dict[int, float] = {}
        self._children: list[int] = []
        self._filled_until = 0.0
        self._starved_until = self._last_starved = 0.0
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        self._faults: dict[str, tuple[int, Callable[[Random], None]]] = {
            "kill": (40, self.kill),
            "kill several": (6, self._kill_several),
            "kill newborn": (12, self._kill_newborn),
            "stop": (16, self.stop),
            "fork": (3, self.fork),
            "shut down": (6, self.shut_down),
            "starve": (3, self.starve),
            "fill": (6, self.fill),
        }

    # --- at random times --------------------------------------------------------------------------

    def begin(self, random: Random, may_starve: bool, until: float) -> None:
        """Start to inject faults, until some time; descriptors are short only where that may be.

        Calls that are running then come to their end in peace: among ever new kills, a task that
        is to run out of time never gets to.
        """
        self._may_starve = may_starve
        self._until = until
        self._ends.clear()
        self._thread = threading.Thread(target=self._run, args=(random,), name="saboteur")
        self._thread.start()

    def end(self) -> None:
        """Inject no more, and undo what can be undone."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._undo(float("inf"))
        while self._children:
            os.waitpid(self._children.pop(), 0)

    def _run(self, random: Random) -> None:
        names = list(self._faults)
        weights = [weight for weight, _ in self._faults.values()]
        rest = random.choice((0.03, 0.1, 0.3))
        while not self._ends.wait(random.expovariate(1 / rest)):
            if time.monotonic() < self._until:
                self.inject(random.choices(names, weights)[0], random)
            else:
                self._undo(time.monotonic())

    def inject(self, name: str, random: Random) -> None:
        """Inject the fault of that name, unless there is nothing that it could meet."""
        self._undo(time.monotonic())
        if (self._allowed and name not in self._allowed) or (
            name == "starve" and not self._may_starve
        ):
            return
        with contextlib.suppress(OSError):  # descriptors are short for everybody
            if name == "kill all":
                self._kill_all(random)
            elif name == "fork long":
                self.fork(random, 0.2)
            else:
                self._faults[name][1](random)

    def _undo(self, now: float) -> None:
        with self._lock:
            due = [pid for pid, until in self._stopped.items() if now >= until]
            for pid in due:
                del self._stopped[pid]
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGCONT)
            if self._starved_until and now >= self._starved_until:
                resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)
                self._starved_until, self._last_starved = 0.0, time.monotonic()
            if self._filled_until and now >= self._filled_until:
                self._filled_until = 0.0
                Path(str(self._small_folder), "filler").unlink()

    # --- the faults -------------------------------------------------------------------------------

    def kill(self, random: Random) -> None:
        """Kill a worker."""
        self._kill(random, 1)

    def _kill_several(self, random: Random) -> None:
        self._kill(random, random.choice((2, 3)))

    def _kill_all(self, random: Random) -> None:
        self._kill(random, 1000)

    def _kill(self, random: Random, most: int) -> None:
        found = sorted(own_workers())
        for pid in random.sample(found, min(most, len(found))):
            self._end(pid, "kill a worker")

    def _end(self, pid: int, kind: str) -> None:
        self.killed.add(pid)  # first, so that nobody learns of it before
        self._kill_times.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        self._tally.inject(kind)

    def _kill_newborn(self, random: Random) -> None:
        """Wait a while for a start, and kill the child at a moment of its first 60 ms."""
        before = set(own_workers())
        until = time.monotonic() + 0.3
        while time.monotonic() < until and not self._ends.is_set():
            born = set(own_workers()) - before
            if born:
                time.sleep(random.choice((0, 0.005, random.uniform(0, 0.06))))
                self._end(random.choice(sorted(born)), "kill a newborn worker")
                return
            time.sleep(0.001)

    def stop(self, random: Random) -> None:
        """Stop a worker for a while."""
        found = sorted(workers())
        if found:
            pid = random.choice(found)
            with self._lock:
                self._stopped[pid] = time.monotonic() + random.uniform(0.001, 0.3)
                os.kill(pid, signal.SIGSTOP)
            self._tally.inject("stop a worker")

    def fork(self, random: Random, seconds: float = 0.0) -> None:
        """Fork this process; the child ends by itself after some seconds."""
        child = os.fork()
        if child == 0:
            try:
                time.sleep(seconds)
            finally:
                os._exit(0)
        self._children.append(child)
        self._tally.inject("fork the caller")

    def shut_down(self, random: Random) -> None:
        """Shut the idle workers down."""
        self._tally.inject("shut workers down")
        shutdown_workers()

    def starve(self, random: Random) -> None:
        """Let there be hardly a descriptor to be had, for a while."""
        used = len(os.listdir("/proc/self/fd"))
        with self._lock:
            limit = min(used + random.randrange(12), self._limits[0])
            self._starved_until = time.monotonic() + random.uniform(0.01, 0.15)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, self._limits[1]))
        self._tally.inject("starve of descriptors")

    def fill(self, random: Random) -> None:
        """Fill the small file system, for a while."""
        if self._small_folder is None:
            return
        with self._lock:
            self._filled_until = time.monotonic() + random.uniform(0.02, 0.3)
            path = Path(self._small_folder, "filler")
            with contextlib.suppress(OSError), path.open("ab", 0) as file:
                while True:
                    file.write(bytes(1 << random.choice((12, 16, 20))))
        self._tally.inject("fill the temporary folder")

    # --- what was going on ------------------------------------------------------------------------

    def kills_since(self, then: float) -> int:
        """Return how many workers it has killed since a moment."""
        return sum(moment >= then for moment in reversed(self._kill_times[-1000:]))

    def starved_since(self, then: float) -> bool:
        """Whether descriptors have been short since a moment."""
        return bool(self._starved_until) or self._last_starved >= then
