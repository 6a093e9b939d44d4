"""A consumer of results that pauses."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks import payloads
from benchmarks.bars import AtMost
from benchmarks.hardship import Hardship
from benchmarks.trial import Trial
from benchmarks.workload import Figure, Sample, register

TAKEN = 10
AHEAD = 10
STILL_SECONDS = 1.0
A_SIGN_OF_LIFE = 1_000
LONG_ENOUGH_SECONDS = 3.0
KNOW_A_LIMIT = ("ours", "joblib", "mpire")


class Pause(Trial):
    """Take a few results, and see how many items are pulled until nothing moves any more."""

    def run(self) -> None:
        self.pulled = 0
        results = iter(
            self.asker().in_order(payloads.sqrt, self.items(), self.options.get("ahead"))
        )
        for number in range(TAKEN):
            if next(results) != payloads.sqrt(number):
                raise AssertionError("wrong results")
        self.tell({"ahead": self.after_a_pause() - TAKEN})

    def items(self) -> Iterator[int]:
        """Yield the items, and count those that were wanted."""
        for number in range(self.options["tasks"]):
            self.pulled += 1
            if number % A_SIGN_OF_LIFE == 0:
                self.tell({"pulled": number})
            yield number

    def after_a_pause(self) -> int:
        """Wait as long as items are pulled, but not for ever, and return how many were."""
        begin = since = time.monotonic()
        before = self.pulled
        while time.monotonic() < min(since + STILL_SECONDS, begin + LONG_ENOUGH_SECONDS):
            time.sleep(0.05)
            if self.pulled != before:
                before, since = self.pulled, time.monotonic()
        return before


@register
class PausedConsumer(Hardship):
    """How far a contestant runs ahead of a consumer that took ten results and pauses.

    As it does by default, and with the limit that it knows: ``pre_dispatch=10, batch_size=1``, or
    ``max_tasks_active=10`` for MPIRE. The standard library knows none.
    """

    name = "paused-consumer"
    place = 350
    title = "items pulled ahead of a consumer that pauses, of {tasks}"
    tasks = 100_000
    quick_tasks = 10_000
    figures = (
        Figure("by_default", "", (), "by default"),
        Figure("with_limit", "", (AtMost(AHEAD),), f"with a limit of {AHEAD}"),
    )
    trial = Pause

    def sample_of(self, key: str) -> Sample:
        variants = {"by_default": {"tasks": self.n_tasks}}
        if key in KNOW_A_LIMIT:
            variants["with_limit"] = {"tasks": self.n_tasks, "ahead": AHEAD}
        seen = zip(variants, self.watched(key, variants.values()), strict=True)
        return {
            name: line["ahead"] for name, watch in seen for line in watch.told if "ahead" in line
        }
