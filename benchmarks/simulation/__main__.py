"""The study: ``python -m benchmarks.simulation [--full]``."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterator

from benchmarks.report import RESULTS
from benchmarks.simulation.study import KINDS, Case, Figures, run

BAR = 1.05  # 10 000 workers, 10 000 000 tasks of a heavy tail
FLUSH = 0.02
HEADINGS = (
    "workers",
    "tasks",
    "durations",
    "taking back",
    "makespan / ideal",
    "tasks in a batch",
    "dispatcher busy",
    "its CPU, µs a task",
)


def cases(full: bool) -> Iterator[Case]:
    """Yield what is simulated, like next to like."""
    sizes = {2: 2000, 16: 16_000, 100: 30_000, 1000: 50_000, 10_000: 100_000}
    if full:
        yield Case(10_000, 10_000_000, "heavy tail")
        yield Case(10_000, 1_000_000, "heavy tail", flush_seconds=FLUSH)
        sizes = {2: 5000, 16: 20_000, 100: 50_000, 1000: 100_000, 10_000: 1_000_000}
    for n_workers, n_tasks in sizes.items():
        for kind in KINDS:
            for takes_back in (True, False):
                yield Case(n_workers, n_tasks, kind, takes_back)


def row(figures: Figures) -> tuple[str, ...]:
    """Return the cells of one line."""
    return (
        f"{figures.n_workers:,}".replace(",", " "),
        f"{figures.n_tasks:,}".replace(",", " "),
        figures.kind + ("" if figures.flush_seconds is None else ", answers every 20 ms"),
        "yes" if figures.takes_back else "no",
        f"{figures.ratio:.3f}",
        f"{figures.n_tasks / figures.batches:.1f}",
        f"{figures.busy_share:.0%}",
        f"{figures.cpu_seconds_per_task * 1e6:.1f}",
    )


def as_markdown(all_figures: list[Figures]) -> str:
    """Return the table."""
    lines = [" | ".join(HEADINGS), "|".join(["---:", "---:", "---", "---", *["---:"] * 4])]
    lines += [" | ".join(row(figures)) for figures in all_figures]
    table = "\n".join(f"| {line} |" for line in lines)
    return (
        "# The dispatcher on simulated workers\n\n"
        "`python -m benchmarks.simulation`: the shipped dispatcher, tasks of 0.1 s on average, in "
        "virtual time. A message takes\n0.1 ms, a worker 30 µs for a batch; sending a batch and "
        "reading an answer keep the dispatcher busy for 20 µs each,\npulling a task for 0.4 µs. "
        f"Ideal is list scheduling in order, without any of this.\n\n{table}\n"
    )


def write(all_figures: list[Figures]) -> None:
    """Write what there is until now."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "simulation.md").write_text(as_markdown(all_figures), encoding="utf-8")
    data = [figures.as_dict() for figures in all_figures]
    (RESULTS / "simulation.json").write_text(json.dumps(data, indent=1) + "\n")


def main() -> int:
    """Run from the command line; return 0 if the bar is met, where it was tried."""
    parser = argparse.ArgumentParser(description="The dispatcher on simulated workers.")
    parser.add_argument("--full", action="store_true", help="up to 10 000 000 tasks; many minutes")
    parser.add_argument("--only", default="", help="durations of this kind")
    options = parser.parse_args()
    done: list[Figures] = []
    met = True
    for case in cases(options.full):
        if options.only not in case.kind:
            continue
        gc.collect()
        figures = run(case)
        done.append(figures)
        print(" | ".join(row(figures)), file=sys.stderr, flush=True)
        if case.n_tasks >= 10_000_000 and case.flush_seconds is None:
            met = figures.ratio <= BAR
        done.sort(key=lambda figures: (figures.n_workers, figures.n_tasks))  # and as they were run
        if not options.only:
            write(done)
    print(as_markdown(done))
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
