"""Whether what came of a call is what must have come of it."""

from __future__ import annotations

import errno
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos.plan import DEADLY, Shape, Task
from benchmarks.chaos.tasks import RISKY, RUN, Flaky, Injected, NoWorker, is_right, position_of
from parallel_core.errors import (
    CallTimeoutError,
    SerializationError,
    TaskExitError,
    TaskTimeoutError,
    WorkerDiedError,
)


class SourceFailed(Exception):
    """The caller's generator was to raise this."""


@dataclass(frozen=True)
class Outcome:
    """What the caller got.

    Attributes
    ----------
    got : list
        Results and, by the policy, exceptions in their place.
    error : BaseException or None
        What the call raised.
    pulled : int
        How many tasks its generator had yielded.
    complete : bool
        Whether the caller has taken all that there was.
    """

    got: list[Any]
    error: BaseException | None
    pulled: int
    complete: bool


@dataclass(frozen=True)
class Circumstances:
    """What else went on while the call was made.

    Attributes
    ----------
    killed : frozenset of int
        Workers that the saboteur has killed, in the whole run.
    kills : int
        How many of them lately.
    starved : bool
        Whether descriptors were short lately.
    shares_loky : bool
        Whether another thread may have used loky's executor too, which then is not replaced.
    """

    killed: frozenset[int]
    kills: int
    starved: bool
    shares_loky: bool


@dataclass
class Judgement:
    """What is to be said of a call.

    Attributes
    ----------
    faults : list of (str, str)
        Kind and words: "wrong", "lost" or "doubled".
    unlucky : int
        Tasks that no fault was planned for, and that failed by one that met them more often than
        the call would try again.
    results : int
        Results that were checked.
    """

    faults: list[tuple[str, str]] = field(default_factory=list)
    unlucky: int = 0
    results: int = 0

    def add(self, kind: str, words: str) -> None:
        """Note something that must not be."""
        self.faults.append((kind, words))


_KINDS: dict[str, type[BaseException]] = {
    "raise": Injected,
    "exit": TaskExitError,
    "flaky": Flaky,
    **dict.fromkeys(DEADLY, WorkerDiedError),
    "stick": TaskTimeoutError,
    "stick-hard": TaskTimeoutError,
    **dict.fromkeys(("argument out", "argument in", "res-out", "res-in"), SerializationError),
}
#: What is tried again by any policy, so that it ends well.
_PASSING = ("", "flaky", "dies-once")


def is_planned(task: Task, error: BaseException) -> bool:
    """Whether `task` was to fail, in the end, with an error like this."""
    if task.cause in _PASSING:
        return False
    return isinstance(error, _KINDS[task.cause])


def position_in(error: BaseException) -> int | None:
    """Return which task an error is of."""
    words = " ".join([str(error), *getattr(error, "__notes__", ())])
    found = re.search(r"task (\d+) of the call", words)
    return None if found is None else int(found[1])


class Judge:
    """Looks at one call.

    Parameters
    ----------
    shape : Shape
        What it was to be.
    outcome : Outcome
        What it was.
    around : Circumstances
        What else there was.
    """

    def __init__(self, shape: Shape, outcome: Outcome, around: Circumstances) -> None:
        self._shape = shape
        self._outcome = outcome
        self._around = around
        self._judgement = Judgement()

    def judge(self, folder: Path | None) -> Judgement:
        """Return what is to be said; `folder` has the diary of the tasks, if there is one."""
        outcome, judgement = self._outcome, self._judgement
        positions = [self._position(item) for item in outcome.got]
        found = [position for position in positions if position is not None]
        judgement.results = len(found)
        for position, times in Counter(found).items():
            if times > 1:
                judgement.add("doubled", f"task {position} came {times} times")
        if self._shape.return_as != "generator_unordered" and found != sorted(found):
            judgement.add("wrong", f"out of order: {found}")
        self._look_for_lost(set(found))
        if outcome.error is not None:
            self._judge_error(outcome.error)
        if folder is not None:
            self._read_diary(folder)
        return judgement

    def _position(self, item: Any) -> int | None:
        """Return which task `item` came from, where it may have come from that."""
        tasks, judgement = self._shape.tasks, self._judgement
        if isinstance(item, tuple) and item[:1] == ("instead",):
            return int(item[1])  # the policy of this call wanted to have that there
        if isinstance(item, BaseException):
            position = position_in(item)
            if position is None or not position < len(tasks):
                judgement.add("wrong", f"an error of no task: {item!r}")
            elif self._shape.policy == "skip":
                judgement.add("wrong", f"not skipped: {item!r}")
            elif not self._may_fail_with(tasks[position], item):
                judgement.add("wrong", f"task {position} ({tasks[position]}) failed with {item!r}")
            return position
        position = position_of(self._shape.call, item)
        if position is None or position >= len(tasks):
            judgement.add("wrong", f"a result of no task: {item!r:.200}")
            return None
        if not is_right(self._shape.call, position, tasks[position].form, item):
            judgement.add("wrong", f"the result of task {position} is {item!r:.200}")
        elif tasks[position].cause not in _PASSING:
            judgement.add("wrong", f"task {position} ({tasks[position]}) has a result")
        return position

    def _may_fail_with(self, task: Task, error: BaseException) -> bool:
        if is_planned(task, error):
            return True
        if isinstance(error, NoWorker):  # the call got threads for want of workers
            return self._around.starved or bool(self._around.kills)
        if self._is_unlucky(error):
            self._judgement.unlucky += 1
            return True
        return False

    def _is_unlucky(self, error: BaseException) -> bool:
        """Whether what the saboteur does may fail any task like this."""
        if self._around.starved and _is_shortage(error):
            return True
        if isinstance(error, (WorkerDiedError, Flaky)):  # by both together, its tries may run out
            deaths = sum(task.cause in DEADLY for task in self._shape.tasks)
            return bool(self._around.kills) or deaths > 2
        return isinstance(error, TaskTimeoutError) and "timeout" in self._shape.params

    def _look_for_lost(self, found: set[int]) -> None:
        shape, outcome = self._shape, self._outcome
        if not outcome.complete or shape.ending == "stop_when":
            if shape.return_as != "generator" or shape.policy == "skip" or not found:
                return
            if shape.ending == "stop_when":
                return
            wanted = set(range(max(found) + 1))  # what came in order came without gaps
        else:
            wanted = set(range(outcome.pulled))
            if outcome.pulled < len(shape.tasks):
                self._judgement.add("lost", f"{outcome.pulled} of {len(shape.tasks)} were pulled")
        for position in sorted(wanted - found):
            if shape.policy == "skip" and (
                shape.tasks[position].cause not in _PASSING or self._may_be_skipped()
            ):
                continue
            self._judgement.add("lost", f"nothing of task {position} ({shape.tasks[position]})")

    def _may_be_skipped(self) -> bool:
        if self._around.kills or self._around.starved or "timeout" in self._shape.params:
            self._judgement.unlucky += 1
            return True
        return False

    def _judge_error(self, error: BaseException) -> None:
        shape, judgement = self._shape, self._judgement
        if not self._may_be_raised(error):
            judgement.add("wrong", f"the call raised {error!r} from {error.__cause__!r:.1000}")
        results = getattr(error, "results", None)
        if results is None:
            if not isinstance(error, (KeyboardInterrupt, OSError)):
                judgement.add("wrong", f"{error!r} has no results")
            return
        for position, value in results.items():
            if isinstance(value, (BaseException, tuple)):
                continue  # put there by the policy
            judgement.results += 1
            if not is_right(shape.call, position, shape.tasks[position].form, value):
                judgement.add("wrong", f"results[{position}] of the error is {value!r:.200}")

    def _may_be_raised(self, error: BaseException) -> bool:
        shape = self._shape
        if isinstance(error, SourceFailed):
            return shape.ending == "source raises" and error.args == (shape.call,)
        if isinstance(error, KeyboardInterrupt):
            return shape.interrupt_after is not None
        if isinstance(error, CallTimeoutError):
            return "call_timeout" in shape.params
        if _is_shortage(error):
            return self._around.starved
        if shape.backend == "loky" and isinstance(error, (WorkerDiedError, TaskTimeoutError)):
            return self._around.shares_loky
        if "before it was ready" in str(error):  # the library has a limit for that
            return self._around.kills >= 2 * shape.n_jobs
        position = position_in(error)
        if shape.policy != "raise" or position is None:
            return self._around.starved and isinstance(error, WorkerDiedError)
        return self._may_fail_with(shape.tasks[position], error)

    def _read_diary(self, folder: Path) -> None:
        """Each run of a task, but for the last, must have a reason to have been followed by one."""
        try:
            lines = (folder / "diary").read_bytes()
        except OSError:
            return
        runs: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        for position, pid, mark in RUN.iter_unpack(lines):
            runs[position].append((pid, mark))
        doomed = {pid for entries in runs.values() for pid, mark in entries if mark == RISKY}
        doomed |= self._around.killed
        if "timeout" in self._shape.params or self._shape.backend == "loky":
            return  # loky ends all workers with one
        for position, entries in runs.items():
            for pid, _ in entries[:-1]:
                if pid not in doomed:
                    self._judgement.add("doubled", f"task {position} was run by {entries}")
                    break


def _is_shortage(error: BaseException) -> bool:
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None and all(seen is not known for known in chain):
        if isinstance(seen, OSError) and seen.errno in (errno.EMFILE, errno.ENFILE):
            return True
        if "Too many open files" in str(seen):
            return True
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__
    return False
