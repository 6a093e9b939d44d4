"""scikit-learn on our workers, under joblib and without it: results are joblib's to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import environment

pytest.importorskip("sklearn")

pytestmark = pytest.mark.timeout(180)  # the first one of each program waits for all of it

PROGRAM = Path(__file__).with_name("sklearn_program.py")
CHECKS = (
    "grid_search",
    "validation",
    "forest",
    "voting",
    "search_in_search",
    "filters",
    "failures_counted",
    "failure_raised",
    "configuration",
)


def run(mode: str, folder: Path) -> Any:
    command = [sys.executable, "-W", "error", str(PROGRAM), mode]
    ended = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the program once for all tests: plain, and under joblib."""
    return run("registered", tmp_path_factory.mktemp("registered"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the program once for all tests, with ours in joblib's place."""
    return run("installed", tmp_path_factory.mktemp("installed"))


@pytest.mark.parametrize("check", CHECKS)
def test_results_under_joblib(registered: Any, check: str) -> None:
    assert registered["ours"][check] == registered["plain"][check]


@pytest.mark.parametrize("check", CHECKS)
def test_results_in_its_place(registered: Any, installed: Any, check: str) -> None:
    assert installed["ours"][check] == registered["plain"][check]


def test_the_checks_see_what_they_are_for(registered: Any) -> None:
    plain = registered["plain"]
    assert set(plain) == set(CHECKS)
    scores, warnings, lines, last = plain["failures_counted"]
    assert scores.count("nan") == 2 and warnings == 1
    assert lines[0] == "6 fits failed out of a total of 12." and last.startswith("ValueError")
    assert plain["failure_raised"][0] == "ValueError: no fit at 0.25"
    ignored, refused = plain["filters"]
    assert ignored[1] == [] and refused[0] == "'UserWarning: a warning of a fit'"
    assert plain["configuration"] == [True] * 3


def test_what_runs_on_what(registered: Any, installed: Any) -> None:
    under = ["ParallelCoreBackend", "ThreadingBackend", "SequentialBackend"]
    assert registered["below"] == [f"joblib {name}" for name in under]
    instead = ["ProcessesBackend", "ThreadingBackend", "SequentialBackend"]
    assert installed["below"] == [f"parallel_core {name}" for name in instead]
