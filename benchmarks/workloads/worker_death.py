"""A worker that is killed."""

from __future__ import annotations

from typing import Any

from benchmarks.bars import AtMost
from benchmarks.hardship import Hardship
from benchmarks.mishaps import harmless, killed_once
from benchmarks.trial import Trial
from benchmarks.workload import Figure, Sample, register

OURS: dict[str, dict[str, Any]] = {
    "list": {"retries": 1},
    "as they come": {"on_error": "return"},
}


class LoseWorker(Trial):
    """Have a warm pool, and one of its workers killed at a task."""

    def run(self) -> None:
        way = self.options["way"]
        asker = self.asker(**(OURS[way] if self.key == "ours" else {}))
        asker.as_list(harmless, range(2 * self.n_jobs))
        items = range(self.options["tasks"])
        if way == "list":
            with self.telling_errors():
                self.tell_results(asker.as_list(killed_once, items))
        else:
            self.tell_results(asker.as_they_come(killed_once, items))


@register
class WorkerDeath(Hardship):
    """SIGKILL at one of many tasks, at its first run.

    Once all results are wanted in a list, and for this ours has ``retries=1``, the only one that
    can try again. Once they are taken as they come, and no task may run twice.
    """

    name = "worker-death"
    place = 300
    title = "kill -9 of a worker at one of {tasks} tasks"
    tasks = quick_tasks = 40
    figures = (
        Figure("lost", "", (AtMost(0),), "results lost from a list"),
        Figure("lost_as_they_come", "", (AtMost(1),), "results lost, taken as they come"),
        Figure("unnamed", "", (AtMost(0),), "of these, tasks that no error names"),
    )
    trial = LoseWorker

    def sample_of(self, key: str) -> Sample:
        whole, stream = self.watched(key, [{"way": way, "tasks": self.n_tasks} for way in OURS])
        return {
            "lost": len(self.lost(whole.told)),
            "lost_as_they_come": len(self.lost(stream.told)),
            "unnamed": self.unnamed(stream.told),
            "hung": whole.hung + stream.hung,
        }
