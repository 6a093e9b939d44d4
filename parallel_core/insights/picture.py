"""A report as HTML with a picture, for notebooks: no script, no request, light or dark."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from parallel_core.insights.figures import (
    PARTS,
    Figures,
    WorkerFigures,
    count_of,
    duration_of,
)

_COLORS = {
    "start_up": "#9467bd",
    "waiting": "#c7c7c7",
    "loading": "#ff9f1c",
    "working": "#2a9d5c",
    "pickling": "#d1495b",
    "sending": "#3a86c8",
}
_NAMES = {part: part.replace("_", "-") for part in PARTS}
_WIDTH, _LEFT, _ROW, _BAR = 760, 60, 18, 13  # pixels
_MOST_ROWS = 32  # workers
_LEAST_PIXELS = 0.4  # of a slice


def html_of(figures: Figures, headline: str, advice: list[str]) -> str:
    """Return a report as HTML."""
    parts = [f"<p><b>{escape(headline)}</b></p>"]
    if figures.workers:
        parts += [_legend(), _picture(figures)]
        hidden = len(figures.workers) - _MOST_ROWS
        if hidden > 0:
            parts.append(f"<p>{count_of(hidden, 'worker')} more</p>")
    if figures.slowest:
        rows = (
            f"<tr><td>{escape(duration_of(slow.seconds))}</td><td>{slow.position}</td>"
            f"<td><code>{escape(slow.call)}</code></td></tr>"
            for slow in figures.slowest
        )
        head = "<tr><th>Seconds</th><th>Task</th><th>Call</th></tr>"
        parts.append(f"<table>{head}{''.join(rows)}</table>")
    if advice:
        items = "".join(f"<li>{escape(said)}.</li>" for said in advice)
        parts.append(f"<p><b>Advice</b></p><ol>{items}</ol>")
    return f'<div class="parallel-core-report">{"".join(parts)}</div>'


def _legend() -> str:
    entries = (
        f'<span style="white-space:nowrap;margin-right:1em"><span style="display:inline-block;'
        f'width:.8em;height:.8em;background:{_COLORS[part]}"></span> {_NAMES[part]}</span>'
        for part in PARTS
    )
    return f"<p>{''.join(entries)}</p>"


def _picture(figures: Figures) -> str:
    """Return shares of the time of each worker, and below when it was busy."""
    workers = figures.workers[:_MOST_ROWS]
    height = 2 * (len(workers) + 2) * _ROW
    top = _ROW
    shapes = [_text(_LEFT, top - 5, "what each worker spent its time on")]
    for row, worker in enumerate(workers):
        shapes += _shares(worker, top + row * _ROW, figures.seconds)
    top += (len(workers) + 2) * _ROW
    shapes.append(_text(_LEFT, top - 5, f"when it was busy, in {duration_of(figures.seconds)}"))
    for row, worker in enumerate(workers):
        shapes += _stream(worker, top + row * _ROW, figures)
    title = f"Time of {count_of(len(workers), 'worker')}, efficiency {figures.efficiency:.0%}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" style="max-width:100%;font:11px sans-serif">'
        f"<title>{escape(title)}</title>{''.join(shapes)}</svg>"
    )


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="currentColor">{words}</text>'


def _rect(x: float, y: float, width: float, color: str, title: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{_BAR}" fill="{color}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _shares(worker: WorkerFigures, y: float, seconds: float) -> Iterator[str]:
    """Yield a bar of all parts."""
    yield _text(_LEFT - 6, y + _BAR - 3, str(worker.worker), "end")
    x = float(_LEFT)
    for part in PARTS:
        spent = getattr(worker, part)
        width = spent / seconds * (_WIDTH - _LEFT) if seconds else 0.0
        if width >= _LEAST_PIXELS:
            title = f"worker {worker.worker}: {_NAMES[part]} {duration_of(spent)}"
            yield _rect(x, y, width, _COLORS[part], title)
        x += width


def _stream(worker: WorkerFigures, y: float, figures: Figures) -> Iterator[str]:
    """Yield a bar for each time in which a worker was busy."""
    yield _text(_LEFT - 6, y + _BAR - 3, str(worker.worker), "end")
    scale = (_WIDTH - _LEFT) / figures.seconds if figures.seconds else 0.0
    for one in worker.slices:
        x = _LEFT + max(one.began - figures.record.began, 0.0) * scale
        width = (one.ended - one.began) * scale
        # A gap of a part of a pixel tells one from the next.
        width = max(width - 0.3, _LEAST_PIXELS)
        took = duration_of(one.ended - one.began)
        yield _rect(x, y, width, _COLORS["working"], f"{count_of(one.tasks, 'task')} in {took}")
