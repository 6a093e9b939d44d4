"""What mypy and pyright make of a program that uses the library: one run of each."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import parallel_core

SAMPLES = Path(__file__).parent / "typing"
INSTALLED = Path(parallel_core.__file__).parents[1]
FILES = sorted(SAMPLES.glob("*.py"))

Errors = dict[tuple[str, int], set[str]]


def expected(checker: str) -> Errors:
    """What the comments of the samples say: codes of mypy are in lower case."""
    found: Errors = {}
    for file in FILES:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if mark := re.search(r"# error: (.*)", line):
                codes = mark[1].split(", ")
                found[file.name, number] = {
                    code for code in codes if code.islower() == (checker == "mypy")
                }
    return found


def mypy(folder: Path) -> list[str]:
    pytest.importorskip("mypy")
    config = folder / "mypy.ini"
    config.write_text("[mypy]\nstrict = True\nwarn_unreachable = True\npython_version = 3.11\n")
    where = INSTALLED / ".mypy_cache"
    cache = where / "samples" if os.access(where, os.W_OK) else folder / "cache"
    options = ["--follow-imports=silent", "--output=json", "--no-error-summary"]
    files = [file.name for file in FILES]
    return [
        *(sys.executable, "-m", "mypy", f"--config-file={config}", f"--cache-dir={cache}"),
        *(*options, *files),
    ]


def pyright(folder: Path) -> list[str]:
    pytest.importorskip("pyright")
    settings = {
        "include": [file.name for file in FILES],
        "extraPaths": [str(INSTALLED)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "standard",
        "enableTypeIgnoreComments": False,
    }
    config = folder / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    interpreter = f"--pythonpath={sys.executable}"
    return [sys.executable, "-m", "pyright", "--outputjson", interpreter, "-p", str(config)]


def of_mypy(output: str) -> Errors:
    found: Errors = defaultdict(set)
    for line in output.splitlines():
        said = json.loads(line)
        if said["severity"] == "error":
            found[Path(said["file"]).name, said["line"]].add(said["code"])
    return found


def of_pyright(output: str) -> Errors:
    found: Errors = defaultdict(set)
    for said in json.loads(output)["generalDiagnostics"]:
        line = said["range"]["start"]["line"] + 1
        found[Path(said["file"]).name, line].add(said["rule"])
    return found


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_a_type_checker_reports_every_marked_line_and_no_other(checker, tmp_path):
    for file in FILES:
        shutil.copy(file, tmp_path)
    command = {"mypy": mypy, "pyright": pyright}[checker](tmp_path)
    environment = {**os.environ, "MYPYPATH": str(INSTALLED)}
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    read = {"mypy": of_mypy, "pyright": of_pyright}[checker]
    try:
        reported = read(run.stdout)
    except (ValueError, KeyError):
        pytest.fail(f"{checker} said:\n{run.stdout}\n{run.stderr}")
    wanted = expected(checker)
    assert len(wanted) > 20
    wrong = {place: codes for place, codes in reported.items() if wanted.get(place) != codes}
    assert not wrong, "reported, and marked otherwise or not at all"
    assert reported == wanted


def test_both_packages_say_that_they_are_typed():
    assert (INSTALLED / "parallel_core" / "py.typed").exists()
    assert (INSTALLED / "memmapping" / "py.typed").exists()


@pytest.mark.core
def test_types_cost_a_program_nothing():
    # The kind may be written at run time, with as many words as one likes.
    kind = parallel_core.Parallel["list"]
    assert kind(n_jobs=1)([parallel_core.delayed(abs)(-1)]) == [1]

    class Listing(parallel_core.Parallel["list"]):
        pass

    assert isinstance(Listing(n_jobs=1), parallel_core.Parallel)
    source = "import sys, parallel_core as p; p.Parallel, p.delayed; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "typing_extensions" not in loaded
