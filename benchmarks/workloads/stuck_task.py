"""A task that never ends."""

from __future__ import annotations

import time

from benchmarks.bars import AtMost
from benchmarks.hardship import Hardship
from benchmarks.mishaps import harmless, sticks
from benchmarks.trial import Trial
from benchmarks.watch import Watch
from benchmarks.workload import Figure, Sample, register

TIMEOUT_SECONDS = 1.0
MOMENT_SECONDS = 1.0


class GetStuck(Trial):
    """Have a warm pool, and one of many tasks never end."""

    def run(self) -> None:
        own = {"on_error": "return"} if self.key == "ours" else {}
        asker = self.asker(**own)
        asker.as_list(harmless, range(2 * self.n_jobs))
        asker.timeout = TIMEOUT_SECONDS  # which may not be enough for the start of workers
        items = range(self.options["tasks"])
        if self.options["way"] == "list":
            with self.telling_errors():
                self.tell_results(asker.as_list(sticks, items))
        else:
            self.tell_results(asker.as_they_come(sticks, items))


@register
class StuckTask(Hardship):
    """One of many tasks sticks; all the others take a moment. Each has the limit that it knows.

    Afterwards the worker that had the task should be free for others, or be gone.
    """

    name = "stuck-task"
    place = 360
    title = "one of {tasks} tasks sticks for ever, timeout=1"
    tasks = quick_tasks = 40
    figures = (
        Figure("lost", "", (AtMost(1),), "results lost from a list"),
        Figure("lost_as_they_come", "", (AtMost(1),), "results lost, taken as they come"),
        Figure("unnamed", "", (AtMost(0),), "of these, tasks that no error names"),
        Figure("stuck", "", (AtMost(0),), "workers that are stuck a second later"),
    )
    trial = GetStuck

    def sample_of(self, key: str) -> Sample:
        self.stuck: dict[str, int] = {}
        ways = ("list", "as they come")
        whole, stream = self.watched(key, [{"way": way, "tasks": self.n_tasks} for way in ways])
        return {
            "lost": len(self.lost(whole.told)),
            "lost_as_they_come": len(self.lost(stream.told)),
            "unnamed": self.unnamed(stream.told),
            "stuck": max(self.stuck.values()),
            **{f"stuck, {way}": count for way, count in self.stuck.items()},
            "time_outs": sum(line.get("timeout", False) for line in whole.told),
            "hung": whole.hung + stream.hung,
        }

    def look_behind(self, watch: Watch) -> None:
        time.sleep(MOMENT_SECONDS)
        at_work = {process.pid for process in watch.alive()}
        stuck = {int(path.name.rpartition("-")[2]) for path in watch.folder.glob("stuck-*")}
        self.stuck[watch.options["way"]] = len(at_work & stuck)
