"""``make demo``: the main job on real input, equal to a plain loop."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import parallel_core

HOME = Path(parallel_core.__file__).parents[1]
PROGRAM = HOME / "examples" / "standard_library.py"

SOURCE = '''\
import os


class Tree:
    """A class."""

    def grow(self, by):
        # as every tree
        self.height += by

        def leaf():
            return by

        return leaf


async def wait(tree):
    return tree
'''


@pytest.fixture(scope="module")
def demo() -> Iterator[Any]:
    """The program, as a module."""
    spec = importlib.util.spec_from_file_location("standard_library", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["standard_library"] = module  # dataclasses and pickle look there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["standard_library"]


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_forty_files_are_parsed_and_verified(jobs: str) -> None:
    done = run_demo("--limit", "40", "--jobs", jobs, "--top", "3")
    assert (done.stderr, done.returncode) == ("", 0)
    assert "40 files to parse" in done.stdout
    assert "equal, file by file" in done.stdout
    assert "times as fast" in done.stdout
    assert f"Parallel, {jobs} worker" in done.stdout
    assert "\033" not in done.stdout
    lines = done.stdout.splitlines()
    assert max(len(line) for line in lines) <= 100
    names = lines[lines.index("Commonest names") + 1 :]
    assert names.index("") == 3
    assert "self" in names[0]
    assert len(lines[lines.index("Largest functions (lines)") + 1 :]) == 3


@pytest.mark.parametrize("option", [["--top", "0"], ["--limit", "-1"], ["--jobs", "0"]])
def test_bad_options(option: list[str], demo: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(option)
    assert ended.value.code == 2
    assert option[0] in capsys.readouterr().err


def test_a_result_that_differs_is_an_error(
    demo: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = demo.plain_loop

    def wrong(files: list[str], top: int) -> list[Any]:
        summaries = right(files, top)
        summaries[1] = summaries[1]._replace(functions=10_000_000)
        return summaries

    monkeypatch.setattr(demo, "plain_loop", wrong)
    assert demo.main(["--limit", "3", "--jobs", "1"]) == 1
    said = capsys.readouterr()
    assert "DIFFERS" in said.err
    assert "in functions" in said.err
    assert "equal" not in said.out


def test_a_result_of_another_length_is_an_error(demo: Any) -> None:
    assert demo.first_difference([], []) is None
    one = demo.Summary("a.py", None, 1, 0, 0, {}, [])
    assert demo.first_difference([one], [one]) is None
    assert demo.first_difference([one], []) == "0 files instead of 1"


def test_a_summary_counts_what_is_there(demo: Any, tmp_path: Path) -> None:
    file = tmp_path / "tree.py"
    file.write_text(SOURCE)
    summary = demo.summarise(str(file), top=2)
    assert summary == demo.Summary(
        file=str(file),
        problem=None,
        lines=18,
        functions=3,
        classes=1,
        names={"tree": 1, "self": 1, "by": 2, "leaf": 1},
        largest=[
            demo.Function(8, "Tree.grow", str(file), 7),
            demo.Function(2, "wait", str(file), 17),
        ],
    )


@pytest.mark.parametrize("text", ["def f(:\n", "x = 1\0\n", "# coding: no-such-coding\n"])
def test_files_that_do_not_parse_are_counted_and_named(
    text: str,
    demo: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "good.py").write_text(SOURCE)
    (tmp_path / "bad.py").write_text(text)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert demo.main(["--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "1  do not parse: bad.py" in out
    assert "good.py:7" in out


def test_warnings_of_the_parser_are_silent(demo: Any, tmp_path: Path) -> None:
    file = tmp_path / "escapes.py"
    file.write_text("pattern = '\\d'\n1 is 1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert demo.summarise(str(file), top=1).problem is None


def test_packages_beside_the_standard_library_are_left_out(demo: Any, tmp_path: Path) -> None:
    for name in ("a.py", "b.txt", "site-packages/c.py", "pkg/d.py", "pkg/__pycache__/e.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    found = demo.standard_files(str(tmp_path))
    assert [os.path.relpath(file, tmp_path) for file in found] == [
        "a.py",
        os.path.join("pkg", "d.py"),
    ]


def test_no_files_at_all(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert demo.main([]) == 2
    assert "no .py files" in capsys.readouterr().err
