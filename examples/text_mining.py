"""Find the words that are characteristic of each package of a source tree.

Run it with ``python examples/text_mining.py --jobs 2 --folder /path/to/sources``::

    files ──▶ Parallel(reduce=merge)(delayed(count_words)(file)) ──▶ words of each package
                     workers merge what they have counted                   │
    text_mining.png ◀── words that are common here and rare elsewhere ◀─────┘

Without ``--folder``, the tree is Python's standard library.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sysconfig
import time
import tokenize
from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure

from parallel_core import Parallel, delayed, effective_n_jobs

Words = dict[str, Counter[str]]  # of each package
NOT_SOURCES = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib"}
SPOKEN = {tokenize.NAME, tokenize.COMMENT, tokenize.STRING}


def count_words(root: Path, file: Path) -> Words:
    """Count the words in names, comments and strings of a file, for the package it is in."""
    package = file.relative_to(root).parts[0].removesuffix(".py")
    counts: Counter[str] = Counter()
    try:
        for token in tokenize.tokenize(io.BytesIO(file.read_bytes()).readline):
            if token.type in SPOKEN:  # thisName and this_name are two words each
                counts.update(re.findall(r"[a-z]{3,}|[A-Z][a-z]{2,}", token.string))
    except (SyntaxError, UnicodeDecodeError, tokenize.TokenError):
        return {}  # a file for tests of parsers
    lower: Counter[str] = Counter()
    for word, count in counts.items():
        lower[word.lower()] += count
    return {package: lower}


def merge(left: Words, right: Words) -> Words:
    """Add the counts of `right` to those of `left`."""
    for package, counts in right.items():
        left.setdefault(package, Counter()).update(counts)
    return left


def mine(root: Path, files: list[Path], jobs: int) -> Words:
    """Return the words of all packages."""
    parallel = Parallel(n_jobs=jobs, reduce=merge, reduce_initial={})
    words: Words = parallel(delayed(count_words)(root, file) for file in files)
    return words


def characteristic(words: Words, packages: int, top: int) -> dict[str, list[tuple[str, float]]]:
    """Return the words with the highest weights, for the packages with the most words."""
    known_by = Counter(word for counts in words.values() for word in counts)
    largest = sorted(words, key=lambda package: (-words[package].total(), package))[:packages]
    found = {}
    for package in largest:
        total = words[package].total()
        weights = [
            (word, count / total * math.log(len(words) / known_by[word]))
            for word, count in words[package].items()
            if word not in (package, "self")
        ]
        found[package] = sorted(weights, key=lambda pair: (-pair[1], pair[0]))[:top]
    return found


def draw(found: dict[str, list[tuple[str, float]]], path: Path) -> None:
    """Draw one small chart for each package."""
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(2.3 * columns, 1.6 * rows), layout="constrained")
    for axis in figure.subplots(rows, columns, squeeze=False).flat[len(found) :]:
        axis.axis("off")
    for axis, (package, weights) in zip(figure.axes, found.items(), strict=False):
        names, heights = zip(*reversed(weights), strict=True)
        axis.barh(names, heights, color="tab:green")
        axis.set_title(package, fontsize=9, fontweight="bold")
        axis.tick_params(axis="y", labelsize=7)
        axis.set_xticks([])
    figure.savefig(path, dpi=100)


def main() -> None:
    """Count with one job and with several, compare, and draw."""
    parser = argparse.ArgumentParser(description="Find the characteristic words of packages.")
    parser.add_argument("-j", "--jobs", type=int, default=-1, help="workers (default: all cores)")
    parser.add_argument("--folder", type=Path, default=Path(sysconfig.get_path("stdlib")))
    parser.add_argument("--packages", type=int, default=12, help="how many to show")
    parser.add_argument("--top", type=int, default=6, help="words of each package")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    root = options.folder
    files = sorted(
        file for file in root.rglob("*.py") if NOT_SOURCES.isdisjoint(file.relative_to(root).parts)
    )
    nbytes = sum(len(file.read_bytes()) for file in files)  # neither run shall wait for the disk
    print(f"{len(files):,} files, {nbytes / 2**20:.1f} MiB, of {root}")

    found, seconds = [], []
    for jobs in (1, options.jobs):
        began = time.perf_counter()
        found.append(mine(root, files, jobs))
        seconds.append(time.perf_counter() - began)
    workers, ratio = effective_n_jobs(options.jobs), seconds[0] / seconds[1]
    print(f"  one job    {seconds[0]:7.2f} s")
    print(f"  {workers:2} workers {seconds[1]:7.2f} s   {ratio:.2f} times as fast")
    if found[0] != found[1]:
        raise SystemExit("the words of one job and of several DIFFER")
    chosen = characteristic(found[1], options.packages, options.top)
    for package, weights in chosen.items():
        print(f"  {package:<18}{', '.join(word for word, _ in weights)}")
    draw(chosen, options.output / "text_mining.png")
    print(options.output / "text_mining.png")


main()
