"""The benchmarks judge and show what goes wrong, and leave nothing of it behind."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("benchmarks", reason="the fast subset has only what is installed")

from benchmarks.bars import AtMost, Verdict
from benchmarks.conditions import Conditions
from benchmarks.contestants import CONTESTANTS
from benchmarks.hardship import numbers_in
from benchmarks.headlines import HEADLINES, replaced, table
from benchmarks.outcome import Outcome
from benchmarks.report import Report
from benchmarks.watch import PATIENCE_SECONDS, Watch
from benchmarks.workload import discover
from benchmarks.workloads.carried import Carried
from benchmarks.workloads.parent_death import GetBusy
from benchmarks.workloads.same_numbers import SameNumbers
from watching import LIMIT, running


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for what a program tells, and for its end; nobody judges how fast it is here."""
    monkeypatch.setattr("benchmarks.watch.PATIENCE_SECONDS", LIMIT)


def test_nothing_is_a_bar() -> None:
    bar = AtMost(0)
    assert bar.judge("", {"ours": 0}).verdict is Verdict.MET
    missed = bar.judge("", {"ours": 2})
    assert missed.verdict is Verdict.MISSED and str(missed) == "missed (2)"


def test_an_error_names_its_task_in_any_words() -> None:
    assert 17 in numbers_in("task 17 of the call: f(17)") and 17 in numbers_in("Arg 0: 17")
    assert 17 not in numbers_in("exit codes 117, 170; line 17 of file.py")


def test_the_table() -> None:
    conditions = Conditions(rounds=1)
    outcomes = []
    for workload in discover():
        outcome = Outcome.blank(workload(conditions), workload.contestants())
        for record in outcome.records.values():
            record.samples.append({figure.key: 4.0 for figure in workload.figures})
        outcomes.append(outcome)
    facts = {
        "versions": dict.fromkeys(CONTESTANTS, "1"),
        "load_average_before": 0,
        "cores": 2,
        "processor": "",
        "system": "",
        "kernel": "",
        "python": "",
    }
    moment = datetime.now(UTC)
    report = Report(outcomes, conditions, facts, moment, complete=True)
    table = [line for line in report.as_markdown().splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert sum("when things go wrong" in line for line in table) == 1
    assert f"> {PATIENCE_SECONDS:g} s" in report.as_markdown()
    assert "\nwhen things go wrong\n" in report.as_text()


def test_every_headline_has_a_row_with_a_peer() -> None:
    works = {workload.name: workload for workload in discover()}
    for headline in HEADLINES:
        assert headline.figure in {figure.key for figure in works[headline.workload].figures}
    measured = {
        "workloads": [
            {
                "name": headline.workload,
                "figures": [{"key": headline.figure, "medians": {"ours": 2.0, "joblib": 7.0}}],
            }
            for headline in HEADLINES
        ]
        + [{"name": "nested", "figures": [{"key": "time", "medians": {"ours": 1.0}}]}]
    }
    lines = table(measured).splitlines()
    assert len(lines) == 2 + len(HEADLINES)
    assert len({line.count("|") for line in lines}) == 1
    assert all(line.endswith(" 3.5 × |") for line in lines[2:])


def test_figures_replace_what_stands_between_the_markers() -> None:
    page = "before\n<!-- figures: begin -->\nold\n<!-- figures: end -->\nafter\n"
    fresh = replaced(page, "new\n")
    assert fresh == page.replace("old", "new")
    with pytest.raises(ValueError, match="figures: end"):
        replaced("<!-- figures: begin -->", "new")


@pytest.mark.usefixtures("patient")
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc and /dev/shm")
def test_a_watch_leaves_nothing() -> None:
    with Watch(GetBusy, "ours", 2, nbytes=8 << 20) as watch:
        busy = {int(path.name.rpartition("-")[2]) for path in watch.wait_for("busy-*", 2)}
        assert busy <= {process.pid for process in watch.alive()}
        left = Path("/dev/shm", f"left-{min(busy)}-behind")
        left.touch()
        of_another = Path("/dev/shm", "left-1-behind")
        of_another.touch()
        assert watch.entries() == {left.name}
    assert not any(map(running, busy)) and not watch.folder.exists()
    assert not left.exists() and of_another.exists()
    of_another.unlink()


@pytest.mark.usefixtures("patient")
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc and /dev/shm")
def test_what_is_set_up_holds_and_what_is_drawn_stays() -> None:
    pytest.importorskip("numpy")
    assert {name: lost for name, lost in _lost(Carried).items() if lost} == {}
    assert {name: lost for name, lost in _lost(SameNumbers).items() if lost} == {}


def _lost(workload: type[Carried] | type[SameNumbers]) -> dict[str, float]:
    return workload(Conditions(rounds=1)).sample_of("ours")
