"""The examples of the README run as they stand, each in an interpreter of its own."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
TEXT = (HOME / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def with_its_value_printed(block: str) -> tuple[str, str | None]:
    """Return a program that prints what the last line comes to, and what a comment says of that."""
    comment = re.search(r"^# (.*)\n\Z", block, re.MULTILINE)
    last = ast.parse(block).body[-1]
    if comment is None or not isinstance(last, ast.Expr):
        return block, None
    lines = block.splitlines(keepends=True)[: last.lineno - 1]
    return "".join(lines) + f"print({ast.unparse(last.value)})\n", comment[1]


def test_there_are_examples() -> None:
    assert BLOCKS


@pytest.mark.timeout(600)  # one of them sorts a hundred million numbers
@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_runs_as_it_stands(block: str, tmp_path: Path) -> None:
    source, value = with_its_value_printed(block)
    program = tmp_path / "example.py"
    program.write_text(source, encoding="utf-8")
    path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    if value is not None:
        assert done.stdout.strip() == value
