"""What a caller has set up, and what of it holds inside tasks."""

from __future__ import annotations

from typing import Any

from benchmarks import setting_up
from benchmarks.bars import AtMost
from benchmarks.hardship import Hardship
from benchmarks.mishaps import harmless
from benchmarks.trial import Trial
from benchmarks.workload import Figure, Sample, register

COUNT = len(setting_up.ALL)


class SetUp(Trial):
    """Set up ten things, have a call, and tell which of them hold in all of its tasks."""

    def run(self) -> None:
        asker = None
        if self.options["warm"]:
            asker = self.asker()
            asker.as_list(harmless, range(2 * self.n_jobs))
        count = self.options["tasks"]
        with setting_up.everything_set_up() as ears, self.telling_errors():
            asker = asker or self.asker()
            seen: list[Any] = asker.as_list(setting_up.seen, range(count))
            for name in set(setting_up.SEEN_BY_TASKS).intersection(*seen):
                self.tell({"kept": name})
            for name in ears.heard(count):
                self.tell({"kept": name})


@register
class Carried(Hardship):
    """Filters, levels, variables, the folder, and where output and records go."""

    name = "carried"
    place = 370
    title = "set up by the caller"
    tasks = quick_tasks = 20
    figures = (
        Figure("lost", f"of {COUNT}", (AtMost(0),), "does not hold in tasks, workers warm"),
        Figure(
            "lost_at_birth",
            f"of {COUNT}",
            (AtMost(0),),
            "does not hold in tasks, workers born afterwards",
        ),
    )
    trial = SetUp

    def sample_of(self, key: str) -> Sample:
        warm, born = self.watched(key, [{"warm": warm, "tasks": self.n_tasks} for warm in (1, 0)])
        lost, lost_at_birth = (
            {f"{when}{name}": float({"kept": name} not in watch.told) for name in setting_up.ALL}
            for when, watch in (("lost ", warm), ("lost at start ", born))
        )
        return {
            "lost": sum(lost.values()),
            "lost_at_birth": sum(lost_at_birth.values()),
            **lost,
            **lost_at_birth,
            "hung": warm.hung + born.hung,
        }
