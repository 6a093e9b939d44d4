"""Make thumbnails of a thousand pictures, and a sheet of them in the order of their colours.

Run it with ``python examples/thumbnails.py --jobs 2``, or with ``--folder`` on pictures of yours::

    pictures ──▶ Parallel(return_as="generator")(delayed(shrink)(picture)) ──▶ thumbnails ──▶ sheet
                     read, scaled and written in the workers                     thumbnails.png

Only names go to the workers, and only small pictures come back, while the others are being made. A
file that is no picture is named at the end; it does not stop the rest.
"""

from __future__ import annotations

import argparse
import colorsys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from parallel_core import Parallel, delayed, effective_n_jobs, rng

SMALL = (48, 36)
KINDS = {".jpg", ".jpeg", ".png", ".gif", ".webp"}


class Thumbnail(NamedTuple):
    """A small picture, and its mean colour."""

    file: Path
    hue: float
    pixels: np.ndarray


def paint(file: Path, width: int, height: int) -> None:
    """Make a picture: waves of light in random colours, and write it to a file."""
    draws = rng()
    down, across = np.mgrid[0:1:48j, 0:1:64j]
    light = np.zeros((48, 64))
    for _ in range(4):
        x, y, phase = draws.uniform(-15, 15, 3)
        light += np.sin(x * across + y * down + phase)
    colour = np.array(colorsys.hsv_to_rgb(draws.random(), 0.8, 1))
    pixels = ((light[..., np.newaxis] / 8 + 0.5) * colour * 255).astype(np.uint8)
    Image.fromarray(pixels).resize((width, height)).save(file, quality=85)


def shrink(file: Path, target: Path) -> Thumbnail:
    """Write a small copy of a picture, and return it."""
    with Image.open(file) as picture:
        picture.thumbnail(SMALL)  # as it is read, where the format can do that
        small = picture.convert("RGB")
    small.save(target)
    red, green, blue = np.asarray(small).reshape(-1, 3).mean(axis=0) / 255
    hue, _, _ = colorsys.rgb_to_hsv(red, green, blue)
    return Thumbnail(file, hue, np.asarray(small))


def shrink_all(files: list[Path], folder: Path, jobs: int) -> list[Thumbnail | Exception]:
    """Return thumbnails of all files, or why there is none, and write them into a folder."""
    folder.mkdir()
    parallel = Parallel(n_jobs=jobs, return_as="generator", on_error="return")
    return list(parallel(delayed(shrink)(file, folder / f"{file.stem}.png") for file in files))


def draw(thumbnails: list[Thumbnail], path: Path) -> None:
    """Paste thumbnails into one sheet, by hue."""
    columns = max(1, round((len(thumbnails) * 1.5) ** 0.5))
    rows = -(-len(thumbnails) // columns)
    sheet = Image.new("RGB", (columns * SMALL[0], rows * SMALL[1]), "white")
    for place, each in enumerate(sorted(thumbnails, key=lambda each: (each.hue, each.file))):
        row, column = place % rows, place // rows
        sheet.paste(Image.fromarray(each.pixels), (column * SMALL[0], row * SMALL[1]))
    sheet.save(path)


def main() -> None:
    """Make thumbnails with one job and with several, compare, and make a sheet."""
    parser = argparse.ArgumentParser(description="Make thumbnails of many pictures.")
    parser.add_argument("-j", "--jobs", type=int, default=-1, help="workers (default: all cores)")
    parser.add_argument("--folder", type=Path, help="pictures of yours, instead of new ones")
    parser.add_argument("--pictures", type=int, default=1000, help="how many to make")
    parser.add_argument("--width", type=int, default=640, help="of those, in points")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    workers = effective_n_jobs(options.jobs)

    with tempfile.TemporaryDirectory() as own:
        files = [Path(own, f"{number:04}.jpg") for number in range(options.pictures)]
        if options.folder is not None:
            files = sorted(f for f in options.folder.iterdir() if f.suffix.lower() in KINDS)
        else:
            began = time.perf_counter()
            Parallel(n_jobs=options.jobs, seed=3)(
                delayed(paint)(file, options.width, options.width * 3 // 4) for file in files
            )
            seconds = time.perf_counter() - began
            print(f"{len(files):,} pictures, made by {workers} workers in {seconds:.2f} s")

        found, times = [], []
        for name, jobs in (("alone", 1), ("together", options.jobs)):
            began = time.perf_counter()
            found.append(shrink_all(files, Path(own, name), jobs))
            times.append(time.perf_counter() - began)
    print(f"  one job    {times[0]:7.2f} s")
    print(f"  {workers:2} workers {times[1]:7.2f} s   {times[0] / times[1]:.2f} times as fast")
    for file, result in zip(files, found[1], strict=True):
        if isinstance(result, Exception):
            print(f"  {file.name}: {result}")
    alone, thumbnails = ([each for each in one if isinstance(each, Thumbnail)] for one in found)
    pairs = zip(alone, thumbnails, strict=True)
    if not all(np.array_equal(one.pixels, other.pixels) for one, other in pairs):
        raise SystemExit("the thumbnails of one job and of several DIFFER")
    if not thumbnails:
        raise SystemExit("there are no pictures")
    print(f"  {len(thumbnails):,} thumbnails, in the order of their colours")
    draw(thumbnails, options.output / "thumbnails.png")
    print(options.output / "thumbnails.png")


main()
