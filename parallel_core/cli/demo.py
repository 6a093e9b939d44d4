"""``parallel-core demo``: parse the standard library, in a loop and in parallel.

::

  files ──▶ summarise, in a plain loop ─────────▶ summaries ─┐
    │                                                        ├─▶ equal? ──▶ report
    └─────▶ Parallel(delayed(summarise)(file)) ─▶ summaries ─┘
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from parallel_core.cli import arguments
from parallel_core.cli.exits import ExitCode, complain

if TYPE_CHECKING:
    import argparse
    import ast

_NOT_STANDARD = frozenset({"site-packages", "dist-packages", "__pycache__"})


class DemoOptions(NamedTuple):
    """What the command line asks for."""

    jobs: int
    top: int
    limit: int | None


class Function(NamedTuple):
    """A function definition; functions sort by their length."""

    lines: int
    name: str
    file: str
    first_line: int


class Summary(NamedTuple):
    """What one file holds: small, so that handing it over costs next to nothing."""

    file: str
    problem: str | None
    """Why the file cannot be parsed."""
    lines: int
    functions: int
    classes: int
    names: dict[str, int]
    """How often each name is used (`ast.Name`)."""
    largest: list[Function]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the options of this command to the command line."""
    parser = commands.add_parser(
        "demo",
        help="parse Python's standard library over all cores, and compare with a plain loop",
        description=(
            "Parse every .py file of this Python's standard library, first in a plain loop, "
            "then with Parallel; check that both give exactly the same, and report what is "
            "in there and how much faster it went. Exit code 1 if the results differ."
        ),
        allow_abbrev=False,
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=arguments.jobs,
        default=-1,
        metavar="N",
        help="workers (default: one per core)",
    )
    parser.add_argument(
        "--top",
        type=arguments.positive,
        default=10,
        metavar="N",
        help="how many names and functions to show (default: 10)",
    )
    parser.add_argument(
        "--limit", type=arguments.positive, metavar="N", help="parse the first N files only"
    )


def run(options: DemoOptions) -> int:
    """Run ``parallel-core demo`` and return its exit code."""
    import sysconfig

    from parallel_core import effective_n_jobs

    root = sysconfig.get_path("stdlib")
    files = standard_files(root)[: options.limit]
    if not files:
        complain("demo", f"there are no .py files in {root}")
        return ExitCode.USAGE
    page = _Page()
    version = ".".join(str(part) for part in sys.version_info[:3])
    page.heading(f"The standard library of Python {version}: {len(files):,} files to parse")
    for file in files:  # neither run shall be the one that waits for the disk
        _read(file)
    workers = effective_n_jobs(options.jobs)
    plain, plain_time = _timed(lambda: plain_loop(files, options.top))
    page.row("plain loop", f"{plain_time:7.2f} s")
    found, found_time = _timed(lambda: in_parallel(files, options.top, options.jobs))
    label = "Parallel, 1 worker" if workers == 1 else f"Parallel, {workers} workers"
    page.row(label, f"{found_time:7.2f} s   {plain_time / found_time:.2f} times as fast")
    difference = first_difference(plain, found)
    if difference is not None:
        complain("demo", f"the parallel result DIFFERS from that of the plain loop: {difference}")
        return ExitCode.FAILED
    page.row("results", "   equal, file by file")
    _report(page, root, found, options.top)
    return ExitCode.DONE


def standard_files(root: str) -> list[str]:
    """Return the paths of all ``.py`` files below `root`, sorted, without site-packages."""
    files = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_STANDARD]
        files += [os.path.join(folder, name) for name in names if name.endswith(".py")]
    return sorted(files)


def plain_loop(files: Sequence[str], top: int) -> list[Summary]:
    """Summarise `files` one after the other, here."""
    return [summarise(file, top) for file in files]


def in_parallel(files: Sequence[str], top: int, jobs: int) -> list[Summary]:
    """Summarise `files` with `Parallel`."""
    from parallel_core import Parallel, delayed

    tasks = (delayed(summarise)(file, top) for file in files)
    return cast("list[Summary]", Parallel(n_jobs=jobs)(tasks))


def first_difference(plain: Sequence[Summary], found: Sequence[Summary]) -> str | None:
    """Say where two results differ; ``None`` when they are equal."""
    if len(plain) != len(found):
        return f"{len(found)} files instead of {len(plain)}"
    for one, other in zip(plain, found, strict=True):
        if one != other:
            fields = [
                name for name in Summary._fields if getattr(one, name) != getattr(other, name)
            ]
            return f"{one.file}, in {', '.join(fields)}"
    return None


def summarise(file: str, top: int) -> Summary:
    """Parse a file and sum up what it holds: this is what runs in the workers.

    Parameters
    ----------
    file : str
        The path of the file.
    top : int
        How many of its largest functions to return.
    """
    import ast  # here, so that the other commands do not import it
    import warnings

    source = _read(file)
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


def _read(file: str) -> bytes:
    with open(file, "rb") as stream:
        return stream.read()


def _timed(work: Callable[[], list[Summary]]) -> tuple[list[Summary], float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _report(page: _Page, root: str, summaries: Sequence[Summary], top: int) -> None:
    parsed = [summary for summary in summaries if summary.problem is None]
    left_out = [summary.file for summary in summaries if summary.problem is not None]
    page.heading("In there")
    page.row("files", f"{len(parsed):10,}")
    page.row("lines", f"{sum(summary.lines for summary in parsed):10,}")
    page.row("functions", f"{sum(summary.functions for summary in parsed):10,}")
    page.row("classes", f"{sum(summary.classes for summary in parsed):10,}")
    if left_out:
        shown = ", ".join(os.path.relpath(file, root) for file in left_out)
        page.row("left out", f"{len(left_out):10,}  do not parse: {shown}")
    page.heading("Commonest names")
    names: Counter[str] = Counter()
    for summary in parsed:
        names.update(summary.names)
    commonest = sorted(names.items(), key=lambda item: (-item[1], item[0]))[:top]
    for name, count in commonest:
        page.bar(name, count, commonest[0][1])
    page.heading("Largest functions (lines)")
    largest = sorted((one for summary in parsed for one in summary.largest), reverse=True)[:top]
    page.places(
        (one.lines, one.name, f"{os.path.relpath(one.file, root)}:{one.first_line}")
        for one in largest
    )


class _Page:
    """Writes to stdout, in as many columns as there are between 60 and 100."""

    def __init__(self) -> None:
        import shutil

        self._width = min(100, max(60, shutil.get_terminal_size((80, 24)).columns))
        plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
        self._colours = sys.stdout.isatty() and not plain
        self._block = "█" if _can_print("█") else "#"
        self._begun = False

    def heading(self, text: str) -> None:
        if self._begun:
            print()
        self._begun = True
        print(f"\033[1m{text}\033[0m" if self._colours else text, flush=True)

    def row(self, label: str, text: str) -> None:
        print(_cut(f"  {label:<22}{text}", self._width), flush=True)

    def bar(self, label: str, count: int, most: int) -> None:
        room = self._width - 36
        length = max(1, round(room * count / most))
        blocks = self._block * length
        if self._colours:
            blocks = f"\033[36m{blocks}\033[0m"
        print(f"  {_cut(label, 20):<20} {count:>10,}  {blocks}")

    def places(self, rows: Iterable[tuple[int, str, str]]) -> None:
        """Write figures, names and places, each in its column."""
        rows = list(rows)
        room = self._width - 12
        longest = max((len(place) for _, _, place in rows), default=0)
        width = max(room // 2, room - longest)
        width = min(width, max((len(name) for _, name, _ in rows), default=0))
        for figure, name, place in rows:
            print(_cut(f"{figure:8,}  {_cut(name, width):<{width}}  {place}", self._width))


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
