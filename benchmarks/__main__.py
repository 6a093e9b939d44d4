"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from datetime import UTC, datetime

from benchmarks import machine
from benchmarks.conditions import Conditions
from benchmarks.report import RESULTS, Report
from benchmarks.runner import run_workload
from benchmarks.workload import Workload, discover, select


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; the exit status does not depend on whether bars are met."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.publish:
        return _publish(parser)
    if options.picture and importlib.util.find_spec("matplotlib") is None:
        parser.error("--picture needs matplotlib, which the extra named bench installs")
    chosen = list(select(discover(), options.only))
    if not chosen:
        parser.error(f"no workload is named like {', '.join(options.only)}; see --list")
    rounds = options.rounds or (2 if options.quick else 5)
    conditions = Conditions(options.n_jobs, rounds, options.quick)
    workloads = [workload(conditions) for workload in chosen]
    if options.list:
        print("\n".join(map(_described, workloads)))
        return 0

    facts = machine.facts()
    outcomes = []
    try:
        for workload in workloads:
            _announce("")
            _say(f"{workload.name}\n")
            outcomes.append(run_workload(workload, conditions, _announce))
    except KeyboardInterrupt:
        print("\ninterrupted; what was measured until now:", file=sys.stderr)
    _announce("")
    complete = len(outcomes) == len(discover()) and not options.quick
    report = Report(outcomes, conditions, facts, datetime.now(UTC), complete)
    print(report.as_text())
    for path in report.write():
        print(f"wrote {path.relative_to(RESULTS.parents[1])}", file=sys.stderr)
    if options.picture:
        from benchmarks.headlines import rows
        from benchmarks.picture import draw

        for path in draw(rows(report.as_json()), RESULTS / report.stem):
            print(f"wrote {path.relative_to(RESULTS.parents[1])}", file=sys.stderr)
    return 0


def _publish(parser: argparse.ArgumentParser) -> int:
    """Write the latest complete run into the README and the documentation."""
    from benchmarks.headlines import publish

    try:
        written = publish(RESULTS.parents[1])
    except FileNotFoundError as error:
        parser.error(f"{error.filename} is missing: run all workloads first")
    for path in written:
        print(f"wrote {path.relative_to(RESULTS.parents[1])}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure parallel-core beside its peers."
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="run the workloads whose name contains NAME (may be repeated)",
    )
    parser.add_argument("--rounds", type=_positive, help="fresh processes each (default: 5)")
    parser.add_argument("--n-jobs", type=_positive, default=2, help="workers (default: 2)")
    parser.add_argument("--quick", action="store_true", help="two rounds, smaller works")
    parser.add_argument("--list", action="store_true", help="list the workloads and run nothing")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="run nothing; put the latest complete run into README.md and doc/benchmarks.md",
    )
    parser.add_argument(
        "--picture", action="store_true", help="draw the picture of the README (matplotlib)"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _described(workload: Workload) -> str:
    who = ", ".join(contestant.key for contestant in workload.contestants())
    return f"{workload.name:16} {workload.heading}\n{'':16} {who}"


def _announce(words: str) -> None:
    """Show what runs now in one changing line, where there is a terminal to show it on."""
    if sys.stderr.isatty():
        _say(f"\r\x1b[2K{words}")


def _say(words: str) -> None:
    sys.stderr.write(words)
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
