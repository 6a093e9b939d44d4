"""A short run of `benchmarks.chaos`; ``python -m benchmarks.chaos`` makes longer ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from watching import HOME

sys.path.insert(0, str(HOME))  # the benchmarks are no part of what is installed
pytest.importorskip("benchmarks", reason="the fast subset has only what is installed")

from benchmarks.chaos.inventory import Inventory
from benchmarks.chaos.judge import Circumstances, Judge, Outcome
from benchmarks.chaos.plan import BACKENDS, Shape, Task, draw
from benchmarks.chaos.tasks import RUN, Injected, value_of

CALL = 7
TASKS = tuple(Task("quick", "list", "") for _ in range(5))
RIGHT = [value_of(CALL, position, "list") for position in range(5)]


def shape(return_as: str = "list", policy: str = "return", tasks: Any = TASKS) -> Shape:
    return Shape(
        CALL, "processes", 2, return_as, policy, tasks, "whole", 0, {}, None, True, False, {}
    )


def judged(shape: Shape, got: list[Any], error: Any = None, folder: Path | None = None) -> set[str]:
    """Return the kinds of what is found in a call without any fault from outside."""
    around = Circumstances(frozenset(), 0, False, False)
    outcome = Outcome(got, error, len(shape.tasks), error is None)
    return {kind for kind, _ in Judge(shape, outcome, around).judge(folder).faults}


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
def test_what_is_right_passes(return_as: str) -> None:
    assert judged(shape(return_as), RIGHT) == set()
    assert judged(shape("generator_unordered"), RIGHT[::-1]) == set()


@pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
@pytest.mark.parametrize("missing", range(5))
def test_a_lost_result_is_noticed(return_as: str, missing: int) -> None:
    got = RIGHT[:missing] + RIGHT[missing + 1 :]
    for policy in ("return", "skip", "decide", "raise"):
        assert judged(shape(return_as, policy), got) == {"lost"}


def test_a_doubled_result_is_noticed() -> None:
    assert judged(shape("generator_unordered"), [*RIGHT, RIGHT[2]]) == {"doubled"}
    assert judged(shape(), [*RIGHT[:3], *RIGHT[2:]]) == {"doubled"}


def test_a_wrong_result_is_noticed() -> None:
    other = value_of(CALL + 1, 3, "list")
    changed = [*RIGHT[3][:2], "other"]
    assert judged(shape(), [RIGHT[1], RIGHT[0], *RIGHT[2:]]) == {"wrong"}, "out of place"
    for wrong in (other, changed, None, np.arange(3), KeyError("task 3 of the call")):
        assert "wrong" in judged(shape(), [*RIGHT[:3], wrong, RIGHT[4]])


def test_a_failure_that_was_not_to_be_is_noticed() -> None:
    tasks = (*TASKS[:4], Task("raise", "list", ""))
    planned = Injected("task 4 of the call")
    assert judged(shape(tasks=tasks), [*RIGHT[:4], planned]) == set()
    assert judged(shape(tasks=tasks), RIGHT) == {"wrong"}, "it has a result"
    planned.results = dict(enumerate(RIGHT[:2]))  # type: ignore[attr-defined]  # as a call does
    assert judged(shape(policy="raise", tasks=tasks), [], planned) == set()
    assert judged(shape(policy="raise"), [], planned) == {"wrong"}
    planned.results = {0: RIGHT[1]}  # type: ignore[attr-defined]  # as above
    assert judged(shape(policy="raise", tasks=tasks), [], planned) == {"wrong"}


def test_a_task_that_was_run_twice_is_noticed(tmp_path: Path) -> None:
    once = b"".join(RUN.pack(position, 1000, 0) for position in range(5))
    (tmp_path / "diary").write_bytes(once)
    assert judged(shape(), RIGHT, folder=tmp_path) == set()
    (tmp_path / "diary").write_bytes(once + RUN.pack(2, 1001, 0))
    assert judged(shape(), RIGHT, folder=tmp_path) == {"doubled"}


def test_what_is_left_behind_is_noticed(tmp_path: Path) -> None:
    before = Inventory.take(tmp_path)
    assert Inventory.take(tmp_path).beyond(before) == []
    pipe = subprocess.PIPE
    with (
        (tmp_path / "file").open("w"),
        subprocess.Popen(["sh", "-c", "echo; read answer"], stdin=pipe, stdout=pipe) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()  # before that, it may have no command line yet
        found = " ".join(Inventory.take(tmp_path).beyond(before))
        process.kill()
    assert "descriptor" in found and "echo; read answer" in found and "file file" in found


def test_the_seed_decides() -> None:
    shapes = [[draw(Random(seed), 0, True, None, BACKENDS) for _ in range(3)] for seed in range(40)]
    assert all(first == second == third for first, second, third in shapes)
    assert len({str(same[0]) for same in shapes}) == 40


@pytest.mark.skipif(sys.platform != "linux", reason="looks around in /proc")
@pytest.mark.parametrize("seed", [1])
def test_calls_under_fire(seed: int, tmp_path: Path) -> None:
    """In a process of its own, which gets signals, and whose descriptors run short."""
    figures = tmp_path / "figures.json"
    options = {
        "--seed": seed,
        "--seconds": 18,
        "--epoch-seconds": 6,
        "--hang-seconds": 25,
        "--json": figures,
    }
    command = [sys.executable, "-m", "benchmarks.chaos", *map(str, sum(options.items(), ()))]
    with subprocess.Popen(
        command, cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=52)
        except subprocess.TimeoutExpired:
            process.terminate()
            said, _ = process.communicate()
            pytest.fail(f"no end:\n{said}")
    assert process.returncode == 0, said
    counted = json.loads(figures.read_text())
    assert counted["calls"] >= 5 and counted["faults injected"] >= 20
    assert not any(counted["found"].values())
