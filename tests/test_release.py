"""``.ci/release.py``: what a release changes, and when it is refused; in a small repository."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "release.py"
CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- Wings.

## [0.1.0] - 2026-01-01

- Legs.
"""


def git(home: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", *arguments]
    done = subprocess.run(command, cwd=home, check=True, capture_output=True, text=True)
    return done.stdout


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A repository whose checks pass at once, and whose packages are two small files."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(SCRIPT, tmp_path / ".ci" / "release.py")
    write_program(tmp_path / ".ci" / "run", "grep -h version parallel_core/_version.py")
    write_program(tmp_path / ".ci" / "package", 'mkdir -p "$1"; echo one >"$1/b.whl"; : >"$1/a.gz"')
    (tmp_path / "parallel_core").mkdir()
    (tmp_path / "parallel_core" / "_version.py").write_text('"""It."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / ".gitignore").write_text("dist/\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "config", "user.name", "T")
    git(tmp_path, "config", "user.email", "t@example.org")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "Begin")
    return tmp_path


def release(home: Path, version: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ".ci/release.py", version]
    return subprocess.run(command, cwd=home, capture_output=True, text=True, check=False)


def test_a_release(home: Path) -> None:
    done = release(home, "0.2.0rc1")
    assert (done.stderr, done.returncode) == ("", 0)
    assert '__version__ = "0.2.0rc1"' in done.stdout  # what the checks have seen
    assert "twine upload dist/a.gz dist/b.whl" in done.stdout
    assert '__version__ = "0.2.0rc1"\n' in (home / "parallel_core" / "_version.py").read_text()
    text = (home / "CHANGELOG.md").read_text()
    unreleased, released = text.split("\n## [0.2.0rc1] - 20")
    assert unreleased.endswith("## [Unreleased]\n")
    assert "- Wings." in released.split("## [0.1.0]")[0]
    assert git(home, "tag", "--list").split() == ["v0.2.0rc1"]
    assert git(home, "log", "-1", "--format=%s").strip() == "Release 0.2.0rc1"
    assert git(home, "status", "--porcelain") == ""
    sums = (home / "dist" / "SHA256SUMS").read_text().splitlines()
    assert sums[1] == f"{hashlib.sha256(b'one' + bytes([10])).hexdigest()}  b.whl"


def test_checks_that_fail_undo_everything(home: Path) -> None:
    write_program(home / ".ci" / "run", "exit 3")
    git(home, "commit", "--quiet", "--all", "--message", "Break")
    done = release(home, "0.2.0")
    assert done.returncode == 1
    assert done.stderr == "no release: .ci/run failed (3); all files are as they were\n"
    assert git(home, "status", "--porcelain") == ""
    assert git(home, "tag", "--list") == ""
    assert not (home / "dist").exists()


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("0.1.0", "0.1.0 is not newer than 0.1.0"),
        ("0.1.0rc3", "is not newer"),
        ("1.0", "is no version such as"),
        ("v1.0.0", "is no version such as"),
    ],
)
def test_versions_that_are_refused(home: Path, version: str, reason: str) -> None:
    done = release(home, version)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no release: ")
    assert reason in done.stderr
    assert git(home, "status", "--porcelain") == ""


def test_states_that_are_refused(home: Path) -> None:
    (home / "new.txt").touch()
    assert "changes that are not committed" in release(home, "0.2.0").stderr
    (home / "new.txt").unlink()
    git(home, "tag", "v0.2.0")
    assert "there is a tag v0.2.0" in release(home, "0.2.0").stderr
    git(home, "checkout", "--quiet", "-b", "side")
    assert "made from main, and this is side" in release(home, "0.3.0").stderr
    git(home, "checkout", "--quiet", "main")
    (home / "CHANGELOG.md").write_text(CHANGELOG.replace("- Wings.", ""))
    git(home, "commit", "--quiet", "--all", "--message", "Forget")
    assert "nothing under Unreleased" in release(home, "0.3.0").stderr
