"""The figures of a run."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from typing import Any

_SHOWN = 40  # findings printed in full


class Tally:
    """Counts, from any thread.

    Attributes
    ----------
    calls, tasks, results, unlucky : int
        How many calls were made, tasks yielded, results checked; and tasks that failed by the
        saboteur more often than they were to be tried again.
    faults : Counter
        Injected, by kind.
    found : Counter
        What must not be, by kind: "wrong", "lost", "doubled", "hung", "left behind".
    raised : Counter
        Calls that ended with an error, by its class.
    warned : Counter
        Warnings, by their beginning.
    """

    KINDS = ("wrong", "lost", "doubled", "hung", "left behind")

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.calls = self.tasks = self.results = self.unlucky = 0
        self.faults: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.raised: Counter[str] = Counter()
        self.warned: Counter[str] = Counter()
        self.findings: list[str] = []
        self._lock = threading.Lock()

    def inject(self, kind: str) -> None:
        """Count a fault."""
        with self._lock:
            self.faults[kind] += 1

    def warn(self, words: str) -> None:
        """Count a warning."""
        with self._lock:
            self.warned[words[:70]] += 1

    def find(self, kind: str, where: str, words: str) -> None:
        """Count, and tell at once, what must not be."""
        with self._lock:
            self.found[kind] += 1
            line = f"{kind}: {words}\n    seed {self.seed}, {where}"
            if len(self.findings) < _SHOWN:
                self.findings.append(line)
                print(line, file=sys.stderr, flush=True)

    def add(self, tasks: int, results: int, unlucky: int, error: BaseException | None) -> None:
        """Count a call."""
        with self._lock:
            self.calls += 1
            self.tasks += tasks
            self.results += results
            self.unlucky += unlucky
            if error is not None:
                self.raised[type(error).__name__] += 1

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not any(self.found.values())

    def figures(self) -> dict[str, Any]:
        """Return all counts, for JSON."""
        return {
            "seed": self.seed,
            "calls": self.calls,
            "tasks": self.tasks,
            "results checked": self.results,
            "unlucky tasks": self.unlucky,
            "faults injected": sum(self.faults.values()),
            "faults by kind": dict(sorted(self.faults.items())),
            "calls that raised, by kind": dict(sorted(self.raised.items())),
            "warnings": dict(sorted(self.warned.items())),
            "found": {kind: self.found[kind] for kind in self.KINDS},
            "findings": self.findings,
        }

    def as_text(self) -> str:
        """Return the figures as people read them."""
        injected = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        raised = ", ".join(f"{kind} {count}" for kind, count in sorted(self.raised.items()))
        warned = "".join(f"\n    {count} x {words}" for words, count in sorted(self.warned.items()))
        return (
            f"seed {self.seed}: {self.calls} calls, {self.tasks} tasks, {self.results} results "
            f"checked\n"
            f"faults injected: {sum(self.faults.values())} ({injected})\n"
            f"calls that raised: {raised or 'none'}\n"
            f"tasks that met more faults than retries: {self.unlucky}\n"
            f"warnings:{warned or ' none'}\n"
            + ", ".join(f"{kind} {self.found[kind]}" for kind in self.KINDS)
        )
