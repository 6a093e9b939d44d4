"""A short run of `benchmarks.chaos`; ``python -m benchmarks.chaos`` makes longer ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from watching import HOME


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
