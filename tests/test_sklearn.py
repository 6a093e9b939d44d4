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
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the program both ways, each once for all tests."""
    folder = tmp_path_factory.mktemp("sklearn")
    return {mode: run(mode, folder) for mode in ("registered", "installed")}


@pytest.mark.parametrize("mode", ["registered", "installed"])
@pytest.mark.parametrize("check", CHECKS)
def test_results_are_those_of_joblib(told: dict[str, Any], check: str, mode: str) -> None:
    assert told[mode]["ours"][check] == told["registered"]["plain"][check]


def test_the_checks_see_what_they_are_for(told: dict[str, Any]) -> None:
    plain = told["registered"]["plain"]
    assert set(plain) == set(CHECKS)
    scores, warnings, lines, last = plain["failures_counted"]
    assert scores.count("nan") == 2 and warnings == 1
    assert lines[0] == "6 fits failed out of a total of 12." and last.startswith("ValueError")
    assert plain["failure_raised"][0] == "ValueError: no fit at 0.25"
    ignored, refused = plain["filters"]
    assert ignored[1] == [] and refused[0] == "'UserWarning: a warning of a fit'"
    assert plain["configuration"] == [True] * 3


def test_what_runs_on_what(told: dict[str, Any]) -> None:
    under = ["ParallelCoreBackend", "ThreadingBackend", "SequentialBackend"]
    assert told["registered"]["below"] == [f"joblib {name}" for name in under]
    instead = ["ProcessesBackend", "ThreadingBackend", "SequentialBackend"]
    assert told["installed"]["below"] == [f"parallel_core {name}" for name in instead]
