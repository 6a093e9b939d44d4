"""Bars to reach, and their judgement: pure functions of medians."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.contestants import OURS, Contestant


class Verdict(enum.Enum):
    """What became of a bar."""

    MET = "met"
    MISSED = "missed"
    NOT_JUDGED = "not judged"


@dataclass(frozen=True)
class Judgement:
    """A bar beside what was measured.

    Attributes
    ----------
    bar : str
        The bar in words.
    verdict : Verdict
        Whether it was reached.
    measured : str
        The ratio that decided, or why there is none.
    """

    bar: str
    verdict: Verdict
    measured: str

    def __str__(self) -> str:
        return f"{self.verdict.value} ({self.measured})"


class Bar(ABC):
    """Something to reach, judged on the medians of one figure; smaller figures are better."""

    @abstractmethod
    def wording(self, unit: str) -> str:
        """Return the bar in words, for a figure in `unit`."""

    @abstractmethod
    def compare(self, ours: float, medians: Mapping[str, float]) -> tuple[bool, str]:
        """Return whether `ours` reaches the bar, and the ratio that decides, in words.

        Raises
        ------
        KeyError
            If a contestant that the bar compares with has no median.
        """

    def judge(self, unit: str, medians: Mapping[str, float]) -> Judgement:
        """Judge the medians of all contestants, by their keys."""
        wording = self.wording(unit)
        try:
            reached, measured = self.compare(medians[OURS.key], medians)
        except KeyError as error:
            return Judgement(wording, Verdict.NOT_JUDGED, f"no figure of {error.args[0]}")
        return Judgement(wording, Verdict.MET if reached else Verdict.MISSED, measured)


@dataclass(frozen=True)
class AtMost(Bar):
    """An absolute limit, in the unit of the figure."""

    limit: float

    def wording(self, unit: str) -> str:
        return f"≤ {self.limit:g} {unit}".rstrip()

    def compare(self, ours: float, medians: Mapping[str, float]) -> tuple[bool, str]:
        if self.limit == 0:
            return ours <= 0, f"{ours:.3g}"
        return ours <= self.limit, f"{ours / self.limit:.3g} × the bar"


@dataclass(frozen=True)
class TimesFaster(Bar):
    """A peer needs at least `times` as much as we do."""

    times: float
    than: Contestant

    def wording(self, unit: str) -> str:
        return f"≥ {self.times:g} × faster than {self.than.label}"

    def compare(self, ours: float, medians: Mapping[str, float]) -> tuple[bool, str]:
        times = medians[self.than.key] / ours
        return times >= self.times, f"{times:.3g} ×"


@dataclass(frozen=True)
class AtMostTimes(Bar):
    """We need at most `times` as much as a peer does."""

    times: float
    of: Contestant

    def wording(self, unit: str) -> str:
        if self.times == 1:
            return f"no more than {self.of.label}"
        return f"≤ {self.times:g} × {self.of.label}"

    def compare(self, ours: float, medians: Mapping[str, float]) -> tuple[bool, str]:
        times = ours / medians[self.of.key]
        return times <= self.times, f"{times:.3g} × {self.of.label}"
