"""Ours against peers, on a logarithmic scale; matplotlib is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.bars import AtMost
from benchmarks.contestants import CONTESTANTS, OURS
from benchmarks.outcome import Outcome
from benchmarks.workload import Figure

COLOURS = {
    "joblib": "#d1495b",
    "mpire": "#edae49",
    "futures": "#2e7fb8",
    "pool": "#66a182",
    "loop": "#8d8d8d",
}
MARKERS = {"joblib": "o", "mpire": "s", "futures": "^", "pool": "D", "loop": "|"}


def draw(outcomes: Sequence[Outcome], stem: Path) -> list[Path]:
    """Draw one row for each figure: how many times as much as ours the peers need.

    Parameters
    ----------
    outcomes : sequence of Outcome
        The works of a run.
    stem : Path
        The pictures' path without its suffix.

    Returns
    -------
    list of Path
        The files written, ``.png`` and ``.svg``; none if ours has no figure.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = _rows(outcomes)
    if not rows:
        return []
    figure, axes = pyplot.subplots(figsize=(9.5, 0.42 * len(rows) + 1.6), layout="constrained")
    for key in CONTESTANTS:
        points = [
            (height, medians[key] / medians[OURS.key])
            for height, (_, _, medians) in enumerate(rows)
            if key in medians and key != OURS.key
        ]
        if points:
            axes.scatter(
                [times for _, times in points],
                [height for height, _ in points],
                label=CONTESTANTS[key].label,
                color=COLOURS.get(key),
                marker=MARKERS.get(key, "o"),
                s=42,
                zorder=3,
            )
    limits = [
        (height, bar.limit / medians[OURS.key])
        for height, (_, row, medians) in enumerate(rows)
        for bar in row.bars
        if isinstance(bar, AtMost)
    ]
    if limits:
        axes.scatter(
            [times for _, times in limits],
            [height for height, _ in limits],
            label="bar to reach",
            color="black",
            marker="|",
            s=120,
        )
    axes.axvline(1.0, color="#3b3b98", linewidth=2, label=OURS.label)
    axes.set_xscale("log")
    axes.set_yticks(
        range(len(rows)),
        [f"{heading}   {medians[OURS.key]:.3g} {row.unit}" for heading, row, medians in rows],
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.xaxis.set_major_formatter("{x:g} ×")
    axes.grid(axis="x", which="both", alpha=0.25)
    axes.set_xlabel("times as much as parallel-core (further right: slower)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    paths = [stem.with_suffix(suffix) for suffix in (".png", ".svg")]
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)
    return paths


def _rows(outcomes: Sequence[Outcome]) -> list[tuple[str, Figure, dict[str, float]]]:
    """Return heading, figure and medians of what can stand on a logarithmic scale beside ours."""
    rows = []
    for outcome in outcomes:
        for figure in outcome.workload.figures:
            medians = {key: v for key, v in outcome.medians_of(figure).items() if v > 0}
            if figure.in_picture and OURS.key in medians:
                rows.append((outcome.heading_of(figure), figure, medians))
    return rows
