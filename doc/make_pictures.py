"""Run the programs of the gallery; with ``--guide``, make small copies of their pictures for it.

    python doc/make_pictures.py --output gallery      # all programs, as `make gallery` does
    python doc/make_pictures.py --guide               # and the pictures in doc/_static/gallery

A picture of the guide has a palette and at most `WIDTH` points across, so that it stays small.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

HOME = Path(__file__).resolve().parents[1]
GUIDE = HOME / "doc" / "_static" / "gallery"
WIDTH = 640
COLOURS = 64
MOST_BYTES = 60_000


def shrink(picture: Path, target: Path) -> None:
    """Write a small copy of a picture, with fewer colours or points until it is small enough."""
    with Image.open(picture) as image:
        whole = image.convert("RGB")
    for width in (WIDTH, 560, 480, 400, 320):
        small = whole.copy()
        small.thumbnail((width, width), Image.Resampling.LANCZOS)
        for colours in (COLOURS, COLOURS // 2):
            small.quantize(colours, dither=Image.Dither.NONE).save(target, optimize=True)
            if target.stat().st_size < MOST_BYTES:
                return
    sys.exit(f"{target} has {target.stat().st_size:,} bytes, however small it is")


def main() -> None:
    """Run the programs that are named, or all that draw something."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="programs, such as thumbnails; all by default")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="folder")
    parser.add_argument("--guide", action="store_true", help="make the pictures of the guide, too")
    options = parser.parse_args()
    programs = sorted((HOME / "examples").glob("*.py"))
    for program in programs:
        if options.names and program.stem not in options.names:
            continue
        if "--output" not in program.read_text(encoding="utf-8"):
            continue  # it draws nothing
        print(f"\n==== {program.name}", flush=True)
        began = time.perf_counter()
        subprocess.run([sys.executable, program, "--output", options.output], check=True)
        print(f"{time.perf_counter() - began:.1f} s in all")
        if options.guide:
            GUIDE.mkdir(parents=True, exist_ok=True)
            name = f"{program.stem}.png"
            shrink(options.output / name, GUIDE / name)


if __name__ == "__main__":
    main()
