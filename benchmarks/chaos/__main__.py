"""The command line: ``python -m benchmarks.chaos --help``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.chaos.plan import BACKENDS
from benchmarks.chaos.run import Conditions, run


def main(arguments: list[str] | None = None) -> int:
    """Run, print the figures; return 0 if nothing was wrong, lost, doubled, hung or left."""
    options = _parser().parse_args(arguments)
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)
    conditions = Conditions(
        options.seconds,
        seed,
        options.epoch_seconds,
        options.hang_seconds,
        options.first_epoch,
        {name: BACKENDS[name] for name in options.backend or BACKENDS},
        tuple(options.fault),
    )
    began = time.monotonic()
    chaos = run(conditions)
    print(chaos.tally.as_text())
    memory = [round(number, 1) for number in chaos.megabytes]
    print(f"resident megabytes after each epoch: {memory}")
    if options.json is not None:
        figures = {
            "machine": machine.facts(),
            "seconds": round(time.monotonic() - began, 1),
            **chaos.tally.figures(),
            "resident megabytes": memory,
        }
        options.json.write_text(json.dumps(figures, indent=2, default=str) + "\n")
    return 0 if chaos.tally.is_clean else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description="Make calls of random shape under random faults, and check every outcome.",
    )
    parser.add_argument("--seconds", type=float, default=120, help="how long (default: 120)")
    parser.add_argument("--seed", type=int, help="where all choices come from (default: the time)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument(
        "--epoch-seconds", type=float, default=8, help="between two looks at what is left behind"
    )
    parser.add_argument(
        "--hang-seconds", type=float, default=90, help="a call that takes longer hangs"
    )
    parser.add_argument(
        "--first-epoch", type=int, default=0, help="begin with this one, to see it again"
    )
    parser.add_argument(
        "--backend", action="append", choices=list(BACKENDS), help="only this (may be repeated)"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME",
        help="from outside, inject only this (may be repeated): kill, stop, starve, ...",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
