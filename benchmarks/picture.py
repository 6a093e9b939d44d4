"""Ours against peers, on a logarithmic scale; matplotlib is imported only here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.contestants import OURS
from benchmarks.headlines import PEERS, Row
from benchmarks.report import number

COLOURS = {"joblib": "#d1495b", "mpire": "#edae49", "futures": "#2e7fb8", "pool": "#66a182"}
MARKERS = {"joblib": "o", "mpire": "s", "futures": "^", "pool": "D"}


def draw(rows: Sequence[Row], stem: Path) -> list[Path]:
    """Draw one line for each row: how many times as much as ours the peers need.

    Parameters
    ----------
    rows : sequence of Row
        What is drawn; a row without a figure above 0 cannot stand on this scale and is left out.
    stem : Path
        The picture's path without its suffix.

    Returns
    -------
    list of Path
        The file written; none if there is nothing to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row.medians[OURS.key] > 0]
    if not rows:
        return []
    figure, axes = pyplot.subplots(figsize=(10, 0.42 * len(rows) + 1.5), layout="constrained")
    for peer in PEERS:
        points = [
            (height, times)
            for height, row in enumerate(rows)
            if (times := row.times(peer.key)) is not None and times > 0
        ]
        axes.scatter(
            [times for _, times in points],
            [height for height, _ in points],
            label=peer.label,
            color=COLOURS[peer.key],
            marker=MARKERS[peer.key],
            s=46,
            zorder=3,
        )
    axes.axvline(1.0, color="#3b3b98", linewidth=2, label=OURS.label)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_formatter("{x:g} ×")
    axes.grid(axis="x", which="both", alpha=0.25)
    axes.set_xlabel("time, as a multiple of ours (right of the line: slower)")
    figure.legend(loc="outside lower center", ncols=len(PEERS) + 1, frameon=False)
    path = stem.with_suffix(".png")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return [path]


def _label(row: Row) -> str:
    return f"{row.headline.words}   {number(row.medians[OURS.key])} {row.headline.unit}"
