"""What came out of the fresh processes: samples, errors, medians."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks.bars import Judgement
from benchmarks.contestants import Contestant
from benchmarks.workload import Figure, Sample, Workload


@dataclass
class Record:
    """All rounds of one contestant on one work.

    Attributes
    ----------
    samples : list of dict
        One for each fresh process that came back with figures.
    errors : list of str
        One for each that did not, in words.
    missing : str or None
        Why this contestant could not take part at all.
    """

    samples: list[Sample] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    missing: str | None = None

    def medians(self) -> Sample:
        """Return the median over rounds of every value that the samples hold."""
        keys = dict.fromkeys(key for sample in self.samples for key in sample)
        return {
            key: statistics.median(sample[key] for sample in self.samples if key in sample)
            for key in keys
        }

    def trouble(self) -> str | None:
        """Return in words what went wrong, if anything did."""
        if self.missing is not None:
            return self.missing
        if not self.errors:
            return None
        rounds = len(self.samples) + len(self.errors)
        return f"{len(self.errors)} of {rounds} rounds failed: {self.errors[-1]}"


@dataclass
class Outcome:
    """All contestants on one work.

    Attributes
    ----------
    workload : Workload
        The work, with the conditions of the run.
    records : dict
        A record for each contestant, by its key.
    """

    workload: Workload
    records: dict[str, Record]

    @classmethod
    def blank(cls, workload: Workload, contestants: tuple[Contestant, ...]) -> Outcome:
        """Return an outcome that waits for its first round."""
        return cls(workload, {contestant.key: Record() for contestant in contestants})

    def medians_of(self, figure: Figure) -> dict[str, float]:
        """Return the medians of one figure for every contestant that has one."""
        found = {key: record.medians().get(figure.key) for key, record in self.records.items()}
        return {key: value for key, value in found.items() if value is not None}

    def judgements_of(self, figure: Figure) -> list[Judgement]:
        """Return every bar of one figure, judged."""
        medians = self.medians_of(figure)
        return [bar.judge(figure.unit, medians) for bar in figure.bars]

    def heading_of(self, figure: Figure) -> str:
        """Return what the row of one figure is called."""
        heading = self.workload.heading
        return f"{heading}: {figure.label}" if figure.label else heading
