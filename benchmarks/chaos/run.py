"""A run: epochs of calls under fire, and after each a look at what is left."""

from __future__ import annotations

import itertools
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import parallel_core
from benchmarks.chaos import tasks
from benchmarks.chaos.calls import CallMaker, folder_for
from benchmarks.chaos.inventory import (
    MEMORY_TOLERANCE,
    Inventory,
    resident_megabytes,
    tame_allocator,
)
from benchmarks.chaos.judge import Circumstances, Judge, Outcome
from benchmarks.chaos.plan import Shape, draw
from benchmarks.chaos.saboteur import FRAIL, Saboteur, small_file_system, unmount
from benchmarks.chaos.tally import Tally
from benchmarks.chaos.watch import Watch
from parallel_core import Parallel, delayed

_REST_SECONDS = 12.0  # in which all is to end that will end by itself
_STRIDE = 4  # numbers of calls for one step
_LATELY = 2.0  # seconds before a call that still matter to it


@dataclass(frozen=True)
class Conditions:
    """What holds for a run.

    Attributes
    ----------
    seconds : float
        For how long.
    seed : int
        Where all choices come from.
    epoch_seconds : float
        After how long everything is ended and looked at.
    hang_seconds : float
        After how long a call hangs.
    first_epoch : int
        Which epoch to begin with, to see one again.
    backends : dict
        From the name of each to how often it is to be chosen.
    faults : tuple of str
        What the saboteur may do; all, if empty.
    """

    seconds: float
    seed: int
    epoch_seconds: float
    hang_seconds: float
    first_epoch: int
    backends: dict[str, int]
    faults: tuple[str, ...]


class Run:
    """One run.

    Parameters
    ----------
    conditions : Conditions
        How long, and by which seed.
    folder : Path
        The temporary folder, its own.
    small_folder : str or None
        A small file system below it.
    """

    def __init__(self, conditions: Conditions, folder: Path, small_folder: str | None) -> None:
        self.tally = Tally(conditions.seed)
        self.megabytes: list[float] = []
        self._conditions = conditions
        self._folder = folder
        self._small_folder = small_folder
        self._saboteur = Saboteur(self.tally, small_folder, conditions.faults)
        self._watch = Watch(self._on_hang)
        self._before: Inventory | None = None
        self._loky_calls = 0

    def go(self) -> None:
        """Run until the time is over."""
        until = time.monotonic() + self._conditions.seconds
        self._watch.start()
        warnings.simplefilter("always")
        warnings.showwarning = self._on_warning
        sys.unraisablehook = self._on_unraisable
        threading.excepthook = self._on_thread_error
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _leave)
        self._warm_up()
        for epoch in itertools.count(self._conditions.first_epoch):
            if time.monotonic() >= until or not self._may_go_on():
                return
            self._run_epoch(epoch, min(until, time.monotonic() + self._conditions.epoch_seconds))

    def _may_go_on(self) -> bool:
        return sum(self.tally.found.values()) < 200

    def _warm_up(self) -> None:
        """Use every backend once: what stays open for the life of this process stays open."""
        contexts = [multiprocessing.get_context(name) for name in ("spawn", "forkserver")]
        for backend in ("processes", "threading", "loky", *contexts):
            with self._watch.limit(60, f"warm-up of {backend}"):
                Parallel(2, backend)(delayed(abs)(x) for x in range(8))
        self._rest("the warm-up")

    def _run_epoch(self, epoch: int, until: float) -> None:
        random = Random(f"{self._conditions.seed}/{epoch}")
        callers = random.choice((1, 2, 2, 3))
        may_starve = random.random() < 0.5
        backends = self._conditions.backends
        if may_starve:  # which these do not bear; see `saboteur`
            backends = {name: backends[name] for name in backends if name not in FRAIL}
        self._saboteur.begin(Random(random.random()), may_starve, until)
        threads = [
            threading.Thread(target=self._call, args=(epoch, caller, until, backends))
            for caller in range(1, callers)
        ]
        for thread in threads:
            thread.start()
        self._call(epoch, 0, until, backends)
        for thread in threads:
            thread.join()
        with self._watch.limit(60, f"the saboteur ends epoch {epoch}"):
            self._saboteur.end()
        self._rest(f"epoch {epoch}")

    def _call(self, epoch: int, caller: int, until: float, backends: dict[str, int]) -> None:
        """Make calls, one after the other: what each thread does."""
        for step in itertools.count():
            if time.monotonic() >= until or not self._may_go_on():
                return
            where = f"epoch {epoch}, caller {caller}, step {step}"
            random = Random(f"{self._conditions.seed}/{epoch}/{caller}/{step}")
            number = ((epoch % 50 * 8 + caller) * 2000 + step % 2000) * _STRIDE
            shape = draw(random, number, caller == 0, self._small_folder, backends)
            with self._watch.limit(self._conditions.hang_seconds, f"{where}: {shape}"):
                self._make(shape, random, where)

    def _make(self, shape: Shape, random: Random, where: str) -> None:
        def report(shape: Shape, outcome: Outcome, began: float, diary: Path | None) -> None:
            then = began - _LATELY
            around = Circumstances(
                frozenset(self._saboteur.killed),
                self._saboteur.kills_since(then),
                self._saboteur.starved_since(then),
                self._loky_calls > 1,
            )
            judgement = Judge(shape, outcome, around).judge(diary)
            for kind, words in judgement.faults:
                self.tally.find(kind, f"{where}: {shape}", words)
            self.tally.add(outcome.pulled, judgement.results, judgement.unlucky, outcome.error)

        is_loky = shape.backend == "loky"
        self._loky_calls += is_loky
        try:
            with folder_for(self._folder, shape.call) as folder:
                CallMaker(shape, random, folder, self._saboteur, self.tally).make(report)
        except BaseException as error:
            self.tally.find("wrong", f"{where}: {shape}", f"outside of the call: {error!r}")
        finally:
            self._loky_calls -= is_loky

    def _rest(self, where: str) -> None:
        """End all that may be ended, and look at what is left."""
        tasks.released.set()
        with self._watch.limit(60, f"the rest after {where}"):
            limit = time.monotonic() + _REST_SECONDS
            while True:
                parallel_core.shutdown_workers()
                megabytes = resident_megabytes()
                now = Inventory.take(self._folder)
                if self._before is None:
                    self._before = now
                beyond = now.beyond(self._before)
                if not beyond or time.monotonic() > limit:
                    break
                time.sleep(0.05)
        tasks.released.clear()
        for words in beyond:
            self.tally.find("left behind", f"after {where}", words)
        if beyond:
            self._before = now  # once is enough
        self.megabytes.append(megabytes)

    def judge_memory(self) -> None:
        """Compare the memory at the end with that after the first epochs."""
        warm = max(self.megabytes[:4])
        if self.megabytes[-1] > warm + MEMORY_TOLERANCE:
            grown = ", ".join(f"{number:.0f}" for number in self.megabytes)
            self.tally.find("left behind", "in the whole run", f"megabytes of memory: {grown}")

    def _on_hang(self, words: str) -> None:
        self.tally.find("hung", words, "no end within the time limit")
        print(self.tally.as_text(), flush=True)
        if self._small_folder is not None:
            unmount(Path(self._small_folder))

    def _on_warning(self, message: Any, category: type[Warning], *rest: Any) -> None:
        words = f"{category.__name__}: {message}"
        self.tally.warn(words)
        own = ("was dropped before its end", "/tries-")  # the latter by a task that was interrupted
        if category is ResourceWarning and not any(part in words for part in own):
            self.tally.find("left behind", "somewhere", words)

    def _on_unraisable(self, unraisable: Any) -> None:
        words = f"{unraisable.exc_value!r} in {unraisable.object!r}"
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            self.tally.warn(f"interrupt where nothing can be raised: {unraisable.object!r}")
            return
        self.tally.find("wrong", "somewhere", f"{unraisable.err_msg}: {words}")

    def _on_thread_error(self, error: Any) -> None:
        self.tally.find("wrong", f"thread {error.thread}", f"{error.exc_value!r}")


def _leave(*_: object) -> None:
    """End the process, and unmount what it has mounted."""
    raise SystemExit(1)


def run(conditions: Conditions) -> Run:
    """Run, in a temporary folder of its own; return the figures."""
    tame_allocator()
    multiprocessing.util.get_temp_dir()  # which lives as long as this process, elsewhere
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        os.environ["TMPDIR"] = tempfile.tempdir = name
        with small_file_system(Path(name, "small")) as small_folder:
            chaos = Run(conditions, Path(name), small_folder)
            try:
                chaos.go()
                chaos.judge_memory()
            finally:
                parallel_core.shutdown_workers()
        tempfile.tempdir = None
        del os.environ["TMPDIR"]
    return chaos
