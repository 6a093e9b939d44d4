"""Outcomes as a table for the terminal, as Markdown, and as JSON."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bars import Judgement, Verdict
from benchmarks.conditions import Conditions
from benchmarks.contestants import CONTESTANTS, OURS, Contestant
from benchmarks.outcome import Outcome
from benchmarks.workload import Figure, spaced

RESULTS = Path(__file__).resolve().parent / "results"
NOTHING = "–"


@dataclass(frozen=True)
class Report:
    """One run, ready to be shown.

    Attributes
    ----------
    outcomes : sequence of Outcome
        The works, in the order of the table.
    conditions : Conditions
        What held for the run.
    machine : dict
        Facts about the machine.
    moment : datetime
        When the run ended.
    complete : bool
        Whether all works ran in their full size; only then is it the latest run.
    """

    outcomes: Sequence[Outcome]
    conditions: Conditions
    machine: dict[str, Any]
    moment: datetime
    complete: bool

    @property
    def stem(self) -> str:
        """Name of the undated files: partial and quick runs do not replace the latest one."""
        return "latest" if self.complete else "partial"

    def write(self, folder: Path = RESULTS) -> list[Path]:
        """Write the JSON files and the Markdown table, and return where they are."""
        folder.mkdir(exist_ok=True)
        dated = self.moment.astimezone(UTC).strftime("%Y-%m-%dT%H%M%SZ")
        content = json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n"
        files = {
            folder / f"{self.stem}.json": content,
            folder / f"{dated}.json": content,
            folder / f"{self.stem}.md": self.as_markdown(),
        }
        for path, text in files.items():
            path.write_text(text, encoding="utf-8")
        return list(files)

    def as_json(self) -> dict[str, Any]:
        """Return everything that was measured, for ``json``."""
        return {
            "schema": 1,
            "moment": self.moment.astimezone(UTC).isoformat(timespec="seconds"),
            "complete": self.complete,
            "conditions": asdict(self.conditions),
            "machine": self.machine,
            "workloads": [_outcome_as_json(outcome) for outcome in self.outcomes],
        }

    def as_text(self) -> str:
        """Return the table for a terminal, a line beneath each row for each of its bars."""
        columns = self._columns()
        rows: list[list[str] | str] = [["", *(who.label for who in columns)]]
        for section, outcome, figure in self._rows_in_sections():
            if section:
                rows += ["", section]
            rows.append([outcome.heading_of(figure), *_cells(outcome, figure, columns, mark=True)])
            rows.extend(
                f"    {_mark(verdict)} {verdict.bar}: {verdict}"
                for verdict in outcome.judgements_of(figure)
            )
        notes = [f"! {note}" for note in self._troubles()]
        return "\n".join([self._caption(), "", *_aligned(rows), "", self._score(), *notes])

    def as_markdown(self) -> str:
        """Return the table as Markdown, the bars in its last two columns."""
        columns = self._columns()
        lines = [
            "| work | " + " | ".join(who.label for who in columns) + " | to reach | reached |",
            "|---|" + "---:|" * len(columns) + "---|---|",
        ]
        for section, outcome, figure in self._rows_in_sections():
            if section:
                lines.append(f"| **{section}** |" + " |" * (len(columns) + 2))
            judgements = outcome.judgements_of(figure)
            cells = [
                outcome.heading_of(figure),
                *_cells(outcome, figure, columns, mark=False),
                "<br>".join(judgement.bar for judgement in judgements) or NOTHING,
                "<br>".join(map(_markdown_verdict, judgements)) or NOTHING,
            ]
            lines.append("| " + " | ".join(map(_escaped, cells)) + " |")
        notes = [f"- {note}" for note in self._troubles()]
        if notes:
            notes = ["", "What failed:", "", *notes]
        return "\n".join([*lines, "", self._caption(), "", self._score(), *notes]) + "\n"

    def _columns(self) -> list[Contestant]:
        present = {key for outcome in self.outcomes for key in outcome.records}
        return [who for key, who in CONTESTANTS.items() if key in present]

    def _rows(self) -> Iterator[tuple[Outcome, Figure]]:
        for outcome in self.outcomes:
            for figure in outcome.workload.figures:
                yield outcome, figure

    def _rows_in_sections(self) -> Iterator[tuple[str, Outcome, Figure]]:
        """Yield each row, and with the first of a section its heading."""
        current = ""
        for outcome, figure in self._rows():
            section = outcome.workload.section
            yield (section if section != current else ""), outcome, figure
            current = section

    def _troubles(self) -> Iterator[str]:
        for outcome in self.outcomes:
            for key, record in outcome.records.items():
                trouble = record.trouble()
                if trouble is not None:
                    yield f"{outcome.workload.name}, {CONTESTANTS[key].label}: {trouble}"

    def _caption(self) -> str:
        """Return one paragraph on where and how this was measured."""
        machine = self.machine
        versions = [
            f"{who.label} {machine['versions'][key]}"
            for key, who in CONTESTANTS.items()
            if who.distribution is not None
        ]
        size = "quick sizes (the bars are stated for full ones)" if self.conditions.quick else ""
        parts = [
            f"{self.conditions.n_jobs} workers",
            f"medians of {self.conditions.rounds} rounds in fresh processes",
            *self._fewer_rounds(),
            *([size] if size else []),
            f"{machine['cores']} cores ({machine['processor']})",
            f"{machine['system']} {machine['kernel']}",
            str(machine["python"]),
            *versions,
            self.moment.strftime("%Y-%m-%d"),
            *self._disturbance(),
        ]
        return "; ".join(parts) + "."

    def _fewer_rounds(self) -> list[str]:
        """Return which works had fewer rounds than the run, if any had."""
        works = [outcome.workload for outcome in self.outcomes]
        fewer = [work for work in works if work.rounds < self.conditions.rounds]
        counts = sorted({work.rounds for work in fewer}, reverse=True)
        return [
            f"{count} of {', '.join(work.name for work in fewer if work.rounds == count)}"
            for count in counts
        ]

    def _disturbance(self) -> list[str]:
        """Return a word of warning if the machine had other work when the run began."""
        load = self.machine["load_average_before"]
        if load is None or load < 0.5:
            return []
        return [f"the machine was not idle before the run (load average {load})"]

    def _score(self) -> str:
        verdicts = [
            judgement.verdict
            for outcome, figure in self._rows()
            for judgement in outcome.judgements_of(figure)
        ]
        counts = ", ".join(f"{verdicts.count(verdict)} {verdict.value}" for verdict in Verdict)
        return f"Bars: {counts}."


def _outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "name": outcome.workload.name,
        "title": outcome.workload.heading,
        "tasks": outcome.workload.n_tasks,
        "rounds": outcome.workload.rounds,
        "figures": [
            {
                "key": figure.key,
                "label": figure.label,
                "unit": figure.unit,
                "medians": outcome.medians_of(figure),
                "bars": [
                    {
                        "bar": judgement.bar,
                        "verdict": judgement.verdict.value,
                        "measured": judgement.measured,
                    }
                    for judgement in outcome.judgements_of(figure)
                ],
            }
            for figure in outcome.workload.figures
        ],
        "contestants": {key: asdict(record) for key, record in outcome.records.items()},
    }


def _cells(
    outcome: Outcome, figure: Figure, columns: Sequence[Contestant], *, mark: bool
) -> list[str]:
    """Return the cells of one row; a trouble shows in its cell, in words further down."""
    medians = outcome.medians_of(figure)
    cells = []
    for who in columns:
        record = outcome.records.get(who.key)
        words = []
        if who.key in medians:
            words.append(_shown(medians[who.key], figure))
        if record is not None and record.missing is not None:
            words.append("not installed")
        elif record is not None and record.errors:
            words.append(_short_error(record.errors[-1]))
        cell = ", ".join(words) or NOTHING
        cells.append(f"**{cell}**" if who is OURS and not mark and words else cell)
    return cells


def _shown(value: float, figure: Figure) -> str:
    """Return a figure with its unit."""
    if figure.ceiling is not None and value >= figure.ceiling:
        return f"> {number(figure.ceiling)} {figure.unit}".rstrip()
    return f"{number(value)} {figure.unit}".rstrip()


def _short_error(error: str) -> str:
    """Return the kind of an error, short enough for a cell."""
    kind = error.partition(":")[0].partition(",")[0]
    return f"failed ({kind})"


def number(value: float) -> str:
    """Return three significant digits, and never a power of ten."""
    if abs(value) >= 1000:
        return spaced(round(value))
    digits = f"{value:.3g}"
    return digits if "e" not in digits else f"{value:.4f}"


def _mark(judgement: Judgement) -> str:
    return {Verdict.MET: "✓", Verdict.MISSED: "✗", Verdict.NOT_JUDGED: "?"}[judgement.verdict]


def _markdown_verdict(judgement: Judgement) -> str:
    text = str(judgement)
    return f"**{text}**" if judgement.verdict is Verdict.MISSED else text


def _escaped(cell: str) -> str:
    """Return a cell for Markdown, with nothing that ends it or that makes ``__main__`` bold."""
    return cell.replace("|", r"\|").replace("__", r"\_\_")


def _aligned(rows: Sequence[list[str] | str]) -> list[str]:
    """Return the rows with their columns below one another; plain lines stay as they are."""
    tables = [row for row in rows if not isinstance(row, str)]
    widths = [max(map(_width, column)) for column in zip(*tables, strict=True)]
    lines = []
    for row in rows:
        if isinstance(row, str):
            lines.append(row)
            continue
        head, *cells = row
        padded = [head + " " * (widths[0] - _width(head))]
        padded += [
            " " * (width - _width(cell)) + cell
            for cell, width in zip(cells, widths[1:], strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _width(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    return sum(not unicodedata.combining(character) for character in text)
