"""Parse Python's standard library, in a plain loop and in parallel, and compare.

Run it with ``make demo``, or ``python examples/standard_library.py --jobs 2 --limit 200``::

    files ──▶ summarise, in a plain loop ─────────▶ summaries ─┐
      │                                                        ├─▶ equal? ──▶ report
      └─────▶ Parallel(delayed(summarise)(file)) ─▶ summaries ─┘

It exits with 1 when the results differ.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import sysconfig
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from parallel_core import Parallel, delayed, effective_n_jobs

NOT_STANDARD = {"site-packages", "dist-packages", "__pycache__"}


class Function(NamedTuple):
    """A function definition; functions sort by their length."""

    lines: int
    name: str
    file: str
    first_line: int


class Summary(NamedTuple):
    """What one file holds: small, so that handing it over costs next to nothing."""

    file: str
    problem: str | None  # why the file cannot be parsed
    lines: int
    functions: int
    classes: int
    names: dict[str, int]  # how often each name is used
    largest: list[Function]


def summarise(file: str, top: int) -> Summary:
    """Parse a file and sum up what it holds: this is what runs in the workers."""
    source = read(file)
    lines = source.count(b"\n") + (not source.endswith(b"\n") and bool(source))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Summary(file, type(error).__name__, lines, 0, 0, {}, [])
    names: Counter[str] = Counter()
    functions: list[Function] = []
    classes = 0
    waiting: list[tuple[ast.AST, str]] = [(tree, "")]
    while waiting:
        node, scope = waiting.pop()
        if isinstance(node, ast.Name):
            names[node.id] += 1
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{scope}{node.name}"
            scope = f"{name}."
            if isinstance(node, ast.ClassDef):
                classes += 1
            else:
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                functions.append(Function(length, name, file, node.lineno))
        waiting.extend((child, scope) for child in ast.iter_child_nodes(node))
    largest = sorted(functions, reverse=True)[:top]
    return Summary(file, None, lines, len(functions), classes, dict(names), largest)


def plain_loop(files: Sequence[str], top: int) -> list[Summary]:
    """Summarise `files` one after the other, here."""
    return [summarise(file, top) for file in files]


def in_parallel(files: Sequence[str], top: int, jobs: int) -> list[Summary]:
    """Summarise `files` in the workers."""
    return Parallel(n_jobs=jobs)(delayed(summarise)(file, top) for file in files)


def standard_files(root: str) -> list[str]:
    """Return the paths of all ``.py`` files below `root`, sorted, without site-packages."""
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in NOT_STANDARD]
        files += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return sorted(files)


def first_difference(plain: Sequence[Summary], found: Sequence[Summary]) -> str | None:
    """Say where two results differ; None when they are equal."""
    if len(plain) != len(found):
        return f"{len(found)} files instead of {len(plain)}"
    for one, other in zip(plain, found, strict=True):
        if one != other:
            fields = [
                name for name in Summary._fields if getattr(one, name) != getattr(other, name)
            ]
            return f"{one.file}, in {', '.join(fields)}"
    return None


def read(file: str) -> bytes:
    """Return what is in a file."""
    with open(file, "rb") as stream:
        return stream.read()


def timed(work: Callable[[], list[Summary]]) -> tuple[list[Summary], float]:
    """Return the result of `work`, and the seconds that it took."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def report(root: str, summaries: Sequence[Summary], top: int) -> None:
    """Print what is in the files."""
    parsed = [summary for summary in summaries if summary.problem is None]
    left_out = [summary.file for summary in summaries if summary.problem is not None]
    print("\nIn there")
    print(f"  files      {len(parsed):10,}")
    print(f"  lines      {sum(summary.lines for summary in parsed):10,}")
    print(f"  functions  {sum(summary.functions for summary in parsed):10,}")
    print(f"  classes    {sum(summary.classes for summary in parsed):10,}")
    if left_out:
        shown = ", ".join(os.path.relpath(file, root) for file in left_out)
        print(f"  left out   {len(left_out):10,}  do not parse: {shown}"[:100])
    print("\nCommonest names")
    names: Counter[str] = Counter()
    for summary in parsed:
        names.update(summary.names)
    for name, count in sorted(names.items(), key=lambda item: (-item[1], item[0]))[:top]:
        print(f"  {count:10,}  {name[:80]}")
    print("\nLargest functions (lines)")
    largest = sorted((one for summary in parsed for one in summary.largest), reverse=True)
    for one in largest[:top]:
        place = f"{os.path.relpath(one.file, root)}:{one.first_line}"
        print(f"  {one.lines:10,}  {one.name}  {place}"[:100])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both, compare, and report; return the exit code."""
    parser = argparse.ArgumentParser(description="Parse Python's standard library in parallel.")
    parser.add_argument("-j", "--jobs", type=int, default=-1, help="workers (default: all cores)")
    parser.add_argument("--top", type=int, default=10, help="how many names and functions to show")
    parser.add_argument("--limit", type=int, help="parse the first files only")
    options = parser.parse_args(arguments)
    for name, value in (("--top", options.top), ("--limit", options.limit)):
        if value is not None and value < 1:
            parser.error(f"{name}: a number from 1 on is needed, not {value}")
    if options.jobs == 0:
        parser.error("--jobs: 0 workers can do nothing; -1 means all cores")

    root = sysconfig.get_path("stdlib")
    files = standard_files(root)[: options.limit]
    if not files:
        print(f"there are no .py files in {root}", file=sys.stderr)
        return 2
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"The standard library of Python {version}: {len(files):,} files to parse")
    for file in files:  # neither run shall be the one that waits for the disk
        read(file)
    workers = effective_n_jobs(options.jobs)
    plain, plain_seconds = timed(lambda: plain_loop(files, options.top))
    print(f"  {'plain loop':<20}{plain_seconds:7.2f} s", flush=True)
    found, seconds = timed(lambda: in_parallel(files, options.top, options.jobs))
    label = "Parallel, 1 worker" if workers == 1 else f"Parallel, {workers} workers"
    print(f"  {label:<20}{seconds:7.2f} s   {plain_seconds / seconds:.2f} times as fast")
    difference = first_difference(plain, found)
    if difference is not None:
        print(
            f"the parallel result DIFFERS from that of the plain loop: {difference}",
            file=sys.stderr,
        )
        return 1
    print("  results                equal, file by file")
    report(root, found, options.top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
