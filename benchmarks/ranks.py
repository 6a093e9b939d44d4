"""``python -m benchmarks.ranks``: MPI with three ranks, beside `mpi4py.futures` and raw messages.

The contestants run in turns, as programs of their own, for some rounds. Of each figure the median
over the rounds is taken, and all of one run are compared with each other only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median

_PROGRAM = Path(__file__).with_name("ranks_program.py")
_STARTS = {
    "ours": ["-m", "parallel_core.mpi"],
    "futures": ["-m", "mpi4py.futures"],
    "raw": [],
}
#: Work, what it is called, the figure of which contestant it is compared with, and the bar for
#: ours: at most so many times the other's.
_BARS = [
    ("roots", "100 000 × sqrt, a task", "futures", "roots", 1.0),
    ("mapped", "the same by `pmap`", "futures", "roots", 1.0),
    ("roots", "the same, beside one task at a time", "futures", "singly", 0.1),
    ("warm", "warm call of 2 tasks", "futures", "warm", 0.7),
    ("warm", "the same, beside a round trip of raw messages", "raw", "warm", 2.0),
    ("results", "a result of 64 MiB, of 20", "futures", "results", 0.5),
    ("array", "a task with an array of 256 MiB, of 64", "futures", "array", 0.2),
]


def measure(contestant: str, mpiexec: str) -> dict[str, float]:
    """Run a contestant once; return its figures, in seconds."""
    command = [mpiexec, "-n", "3", sys.executable, *_STARTS[contestant], str(_PROGRAM), contestant]
    path = os.pathsep.join([str(_PROGRAM.parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found: dict[str, float] = json.loads(line)
    return found


def main(arguments: list[str]) -> int:
    """Measure all for so many rounds, three by default, and print a table; 1 if a bar is missed."""
    rounds = int(arguments[0]) if arguments else 3
    mpiexec = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or "mpiexec"
    figures: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for contestant in _STARTS:
            for work, seconds in measure(contestant, mpiexec).items():
                figures.setdefault((contestant, work), []).append(seconds)
    print("| work | parallel-core | the other | ratio | to reach | reached |")
    print("|---|---:|---:|---:|---|---|")
    are_met = True
    for work, words, other, other_work, bar in _BARS:
        ours, theirs = median(figures["ours", work]), median(figures[other, other_work])
        ratio = ours / theirs
        are_met = are_met and ratio <= bar
        reached = "met" if ratio <= bar else "**missed**"
        print(f"| {words} | {_say(ours)} | {_say(theirs)} | {ratio:.3g} | ≤ {bar:g} | {reached} |")
    return 0 if are_met else 1


def _say(seconds: float) -> str:
    if seconds < 1e-4:
        return f"{seconds * 1e6:.3g} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
