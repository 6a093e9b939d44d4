"""Record the progress bar of a call, and write it as a moving picture to ``doc/_static/bar.svg``.

    python doc/make_bar.py

The program parses Python's standard library. What its bar writes is kept with its times, so the
picture moves as the bar did.
"""

from __future__ import annotations

import ast
import io
import sys
import sysconfig
import time
from pathlib import Path
from xml.sax.saxutils import escape

from parallel_core import Parallel, delayed

TARGET = Path(__file__).parent / "_static" / "bar.svg"
COLUMNS = 84
REST = 2.0  # seconds that the finished bar stands before the picture starts anew
CODE = "Parallel(n_jobs=2, progress=True)(delayed(parse)(path) for path in paths)"


class Recorder(io.StringIO):
    """A file that keeps what is written to it, with the seconds since its start."""

    encoding = "utf-8"  # a terminal's, so that the bar has parts of blocks

    def __init__(self) -> None:
        super().__init__()
        self.began = time.perf_counter()
        self.frames: list[tuple[float, str]] = []

    def write(self, text: str) -> int:
        """Keep `text` if it is a bar, and not what clears or ends a line."""
        line = text.strip("\r\n").rstrip()
        if "|" in line:
            self.frames.append((time.perf_counter() - self.began, line))
        return len(text)


def parse(path: Path) -> int:
    """Return how many nodes the syntax tree of a module has."""
    return sum(1 for _ in ast.walk(ast.parse(path.read_bytes())))


def record() -> list[tuple[float, str]]:
    """Run the program, and return the frames of its bar."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*/*.py"))
    paths = [path for path in paths if path.parent.name != "site-packages"][:700]
    recorder = Recorder()
    options = {"style": "tqdm", "file": recorder, "disable": False, "ncols": COLUMNS}
    Parallel(n_jobs=2, progress=options)(delayed(parse)(path) for path in paths)
    return recorder.frames


def row(y: int, text: str, more: str = "") -> str:
    """Return a line of the terminal, of a fixed length, since widths of blocks differ by font."""
    length = f'textLength="{len(text) * 8.4:.1f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="14" y="{y}" xml:space="preserve" {length}{more}>{escape(text)}'


def picture(frames: list[tuple[float, str]]) -> str:
    """Return an SVG file in which one frame follows the other. A still one shows the last."""
    whole = frames[-1][0] + REST
    width = int(COLUMNS * 8.4 + 30)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} 70" width="{width}" '
        'height="70" role="img" aria-label="A progress bar that fills while a call runs">',
        f'<rect width="{width}" height="70" rx="6" fill="#1f2430"/>',
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14" fill="#d7dce2">',
        row(28, CODE) + "</text>",
    ]
    ends = [began for began, _ in frames[1:]] + [whole]
    for (began, text), end in zip(frames, ends, strict=True):
        is_last = end == whole
        shown = "visible" if is_last else "hidden"
        times = f"0;{began / whole:.4f}" + ("" if is_last else f";{end / whole:.4f}")
        values = "hidden;visible" + ("" if is_last else ";hidden")
        moves = (
            f'<animate attributeName="visibility" values="{values}" keyTimes="{times}" '
            f'calcMode="discrete" dur="{whole:.2f}s" repeatCount="indefinite"/>'
        )
        lines.append(row(52, text, f' visibility="{shown}"') + moves + "</text>")
    return "\n".join([*lines, "</g>", "</svg>", ""])


if __name__ == "__main__":
    frames = record()
    TARGET.write_text(picture(frames), encoding="utf-8")
    print(f"{TARGET}: {len(frames)} frames", file=sys.stderr)
