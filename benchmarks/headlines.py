"""The ten rows of the README, and its picture: one work each, beside every peer that can do it.

::

    results/latest.json ──▶ rows ──▶ table ──▶ README.md, between its markers
                             │
                             └────▶ picture.draw ──▶ results/latest.png

The full table, with the bars, goes to ``doc/benchmarks.md`` in the same way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestants import CONTESTANTS, JOBLIB, LOOP, OURS
from benchmarks.report import NOTHING, RESULTS, number

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
#: Those that have the works of `HEADLINES`; sciris and scinexus have works of their own.
PEERS = tuple(
    who
    for who in CONTESTANTS.values()
    if who not in (OURS, LOOP) and who.key not in ("sciris", "scinexus")
)


@dataclass(frozen=True)
class Headline:
    """One row of the README.

    Attributes
    ----------
    workload, figure : str
        The name of a work, and the key of one of its figures.
    words : str
        What the row says.
    unit : str
        The unit that is shown.
    """

    workload: str
    figure: str
    words: str
    unit: str


HEADLINES = (
    Headline("warm-call", "time", "A call of two tiny tasks, workers warm", "ms"),
    Headline("main-function", "time", "100 000 tiny tasks of a script, per task", "µs"),
    Headline("threads", "time", "100 000 tiny tasks on threads, per task", "µs"),
    Headline("start-up", "time", "Import, start workers, first result", "s"),
    Headline("stream", "time", "A million results through a generator", "s"),
    Headline("slow-last", "beside_ideal", "5 000 short tasks, then 8 long ones", "× ideal"),
    Headline("one-array", "time", "64 tasks that share an array of 1 GiB", "s"),
    Headline("large-results", "time", "40 results of 64 MiB", "s"),
    Headline("sum-of-arrays", "time", "Sum of 2 000 results of 1 MiB", "s"),
    Headline("worker-death", "lost", "Results lost when a worker is killed", "of 40"),
)


@dataclass(frozen=True)
class Row:
    """A headline with its figures.

    Attributes
    ----------
    headline : Headline
        What was measured.
    medians : dict
        By the keys of contestants, in the unit of the headline.
    """

    headline: Headline
    medians: Mapping[str, float]

    def times(self, key: str) -> float | None:
        """Return how many times as much as ours a peer needs."""
        ours = self.medians[OURS.key]
        return self.medians[key] / ours if ours and key in self.medians else None


def rows(measured: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a report's JSON that have a figure of ours and of a peer."""
    found = []
    figures = {
        (work["name"], figure["key"]): figure["medians"]
        for work in measured["workloads"]
        for figure in work["figures"]
    }
    for headline in HEADLINES:
        medians = figures.get((headline.workload, headline.figure), {})
        if OURS.key in medians and any(peer.key in medians for peer in PEERS):
            found.append(Row(headline, medians))
    return found


def table(measured: Mapping[str, Any]) -> str:
    """Return the rows as Markdown."""
    head = ["work", OURS.label, *(peer.label for peer in PEERS), "joblib / ours"]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows(measured):
        ratio = row.times(JOBLIB.key)
        cells = [
            row.headline.words,
            f"**{_shown(row, OURS.key)}**",
            *(_shown(row, peer.key) for peer in PEERS),
            NOTHING if ratio is None else f"{number(ratio)} ×",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(row: Row, key: str) -> str:
    value = row.medians.get(key)
    return NOTHING if value is None else f"{number(value)} {row.headline.unit}"


def publish(root: Path, folder: Path = RESULTS) -> list[Path]:
    """Write the latest complete run into the README and the documentation, and draw the picture.

    Parameters
    ----------
    root : Path
        The repository.
    folder : Path
        Where the results are.

    Returns
    -------
    list of Path
        The files that were written.
    """
    from benchmarks.picture import draw

    measured = json.loads((folder / "latest.json").read_text(encoding="utf-8"))
    date = measured["moment"].partition("T")[0]
    texts = {
        root / "README.md": f"{table(measured)}\n\nMeasured on {date}.\n",
        root / "doc" / "benchmarks.md": (folder / "latest.md").read_text(encoding="utf-8"),
    }
    for path, text in texts.items():
        path.write_text(replaced(path.read_text(encoding="utf-8"), text), encoding="utf-8")
    return [*texts, *draw(rows(measured), folder / "latest")]


def replaced(page: str, text: str) -> str:
    """Return `page` with `text` between its two markers.

    Raises
    ------
    ValueError
        When a marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"
