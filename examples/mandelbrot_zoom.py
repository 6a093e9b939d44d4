"""Zoom into the Mandelbrot set: each strip of each frame is a task.

Run it with ``python examples/mandelbrot_zoom.py --jobs 2 --frames 12 --height 160``::

    strips of frames ──▶ Parallel(delayed(render)(strip)) ──▶ frames ──▶ mandelbrot_zoom.png

Some strips take many times as long as others. Nobody has to balance them: an idle worker takes over
what a busy one has not begun.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from parallel_core import Parallel, delayed, effective_n_jobs

CENTRE = -0.743643887037151 + 0.131825904205330j
ASPECT = 1.5  # width of a frame by its height
STRIPS = 8  # of each frame


class Strip(NamedTuple):
    """Some rows of a frame; each frame shows half the width of the frame before it."""

    frame: int
    part: int
    height: int  # of the whole frame, in points


def render(strip: Strip) -> np.ndarray:
    """Return for each point of a strip when it escapes; NaN for those that do not."""
    scale = 1.3 * 0.5**strip.frame
    across = np.linspace(-scale * ASPECT, scale * ASPECT, int(strip.height * ASPECT))
    down = np.array_split(np.linspace(scale, -scale, strip.height), STRIPS)[strip.part]
    constants = (CENTRE + across + 1j * down[:, np.newaxis]).ravel()
    escaped = np.full(constants.size, np.nan, np.float32)
    waiting, values = np.arange(constants.size), np.zeros_like(constants)
    for step in range(150 + 90 * strip.frame):
        values = values * values + constants
        is_out = values.real**2 + values.imag**2 > 2**8
        if is_out.any():
            # The fraction of a step makes colours smooth: 2**4 is the radius of escape.
            fraction = 1 - np.log2(np.log2(np.abs(values[is_out])) / 4)
            escaped[waiting[is_out]] = step + fraction
            waiting, values, constants = waiting[~is_out], values[~is_out], constants[~is_out]
    return escaped.reshape(len(down), len(across))


def zoom(frames: int, height: int, jobs: int) -> list[np.ndarray]:
    """Return the frames of a zoom, rendered by `jobs` workers."""
    strips = (Strip(frame, part, height) for frame in range(frames) for part in range(STRIPS))
    done = Parallel(n_jobs=jobs)(delayed(render)(strip) for strip in strips)
    return [np.vstack(done[first : first + STRIPS]) for first in range(0, len(done), STRIPS)]


def draw(frames: list[np.ndarray], path: Path) -> None:
    """Draw all frames, four beside each other."""
    columns = min(4, len(frames))
    rows = -(-len(frames) // columns)
    figure = Figure(figsize=(2.4 * columns, 1.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    colours = matplotlib.colormaps["twilight_shifted"].with_extremes(bad="black")
    for number, axis in enumerate(axes.flat):
        axis.axis("off")
        if number < len(frames):
            shades = np.log1p(frames[number] - np.nanmin(frames[number]))
            axis.imshow(shades, cmap=colours)
            axis.text(0.03, 0.05, f"× {2**number:,}", color="white", transform=axis.transAxes)
    figure.savefig(path, dpi=100)


def timed(frames: int, height: int, jobs: int) -> tuple[list[np.ndarray], float]:
    """Return the frames, and the seconds that they took."""
    began = time.perf_counter()
    return zoom(frames, height, jobs), time.perf_counter() - began


def main() -> None:
    """Render with one job and with several, compare, and draw."""
    parser = argparse.ArgumentParser(description="Zoom into the Mandelbrot set.")
    parser.add_argument("-j", "--jobs", type=int, default=-1, help="workers (default: all cores)")
    parser.add_argument("--frames", type=int, default=12, help="frames, each twice as deep")
    parser.add_argument("--height", type=int, default=160, help="height of a frame in points")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    size = f"{int(options.height * ASPECT)} × {options.height} points"
    print(f"{options.frames} frames of {size}, {options.frames * STRIPS} tasks")

    alone, seconds_alone = timed(options.frames, options.height, 1)
    print(f"  one job    {seconds_alone:7.2f} s", flush=True)
    frames, seconds = timed(options.frames, options.height, options.jobs)
    ratio = seconds_alone / seconds
    workers = effective_n_jobs(options.jobs)
    print(f"  {workers:2} workers {seconds:7.2f} s   {ratio:.2f} times as fast")
    if not all(np.array_equal(*pair, equal_nan=True) for pair in zip(alone, frames, strict=True)):
        raise SystemExit("the frames of one job and of several DIFFER")
    inside = sum(int(np.isnan(frame).sum()) for frame in frames)
    print(f"  {inside:,} points never escaped")
    draw(frames, options.output / "mandelbrot_zoom.png")
    print(options.output / "mandelbrot_zoom.png")


main()
