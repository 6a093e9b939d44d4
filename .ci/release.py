#!/usr/bin/env python3
"""Make a release, from a clean checkout of main: ``.ci/release.py 1.2.0``.

::

    version, date ──▶ _version.py, CHANGELOG.md ──▶ .ci/run ──▶ commit ──▶ .ci/package ──▶ tag
                                                                              dist/

1. It refuses a version that is not newer, a tree with changes, another branch than main, and a
   changelog that has nothing under *Unreleased*.
2. It writes the version to `parallel_core/_version.py`, and gives it a heading with today's date in
   `CHANGELOG.md`.
3. It runs `.ci/run`. If that fails, it undoes step 2, and nothing else has happened.
4. It commits, builds the source distribution and the wheel into `dist/`, tries both in empty
   environments, and writes their checksums to `dist/SHA256SUMS`.
5. It tags the commit, with a signature if git has a key (`user.signingkey`).
6. It prints the commands that publish what was made. Nothing has left the machine before.

It needs git, and what `.ci/run` needs.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?")


class Refused(Exception):
    """Says why no release can be made."""


def sortable(version: str) -> tuple[int, ...]:
    """Return a version in a form that sorts: ``a``, ``b``, ``rc``, and then the release."""
    match = VERSION.fullmatch(version)
    if match is None:
        raise Refused(f"{version!r} is no version such as 1.2.0, 1.2.0rc1, 1.2.0b2 or 1.2.0a3")
    *numbers, stage, count = match.groups()
    return (*map(int, numbers), {"a": 0, "b": 1, "rc": 2, None: 3}[stage], int(count or 0))


def with_version(text: str, version: str) -> str:
    """Return the text of `_version.py` with another version in it, which must be newer."""
    match = re.search(r'^__version__ = "(.*)"$', text, re.MULTILINE)
    if match is None:
        raise Refused("parallel_core/_version.py has no line __version__ = ...")
    if sortable(version) <= sortable(match[1]):
        raise Refused(f"{version} is not newer than {match[1]}")
    return text[: match.start(1)] + version + text[match.end(1) :]


def with_heading(text: str, version: str, date: str) -> str:
    """Return the changelog with what is unreleased under a heading of its own."""
    heading = "## [Unreleased]\n"
    before, found, after = text.partition(heading)
    if not found:
        raise Refused(f"CHANGELOG.md has no line {heading.strip()!r}")
    changes = re.split(r"^## ", after, maxsplit=1, flags=re.MULTILINE)[0]
    if not re.search(r"^- ", changes, re.MULTILINE):
        raise Refused("CHANGELOG.md has nothing under Unreleased")
    return f"{before}{heading}\n## [{version}] - {date}\n{after}"


def run(*command: str) -> str:
    """Run a command in the checkout, and return what it prints."""
    done = subprocess.run(command, cwd=HOME, text=True, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise Refused(f"{' '.join(command)} failed ({done.returncode})")
    return done.stdout


def check_tree(version: str) -> None:
    """Refuse a checkout that a release cannot be made from."""
    if run("git", "status", "--porcelain"):
        raise Refused("there are changes that are not committed")
    branch = run("git", "branch", "--show-current").strip()
    if branch != "main":
        raise Refused(f"releases are made from main, and this is {branch or 'no branch'}")
    if run("git", "tag", "--list", f"v{version}"):
        raise Refused(f"there is a tag v{version}")


def release(version: str) -> None:
    """Do all steps."""
    check_tree(version)
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    files = [HOME / "parallel_core" / "_version.py", HOME / "CHANGELOG.md"]
    texts = [file.read_text(encoding="utf-8") for file in files]
    changed = [with_version(texts[0], version), with_heading(texts[1], version, date)]
    try:
        for file, text in zip(files, changed, strict=True):
            file.write_text(text, encoding="utf-8")
        print(f"Running .ci/run for {version}", flush=True)
        subprocess.run([HOME / ".ci" / "run"], cwd=HOME, check=True)
    except BaseException:
        for file, text in zip(files, texts, strict=True):
            file.write_text(text, encoding="utf-8")
        raise
    run("git", "commit", "--quiet", "--all", "--message", f"Release {version}")
    shutil.rmtree(HOME / "dist", ignore_errors=True)
    run(str(HOME / ".ci" / "package"), str(HOME / "dist"))
    made = sorted((HOME / "dist").iterdir())
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in made]
    (HOME / "dist" / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    key = subprocess.run(
        ["git", "config", "user.signingkey"], cwd=HOME, stdout=subprocess.DEVNULL, check=False
    )
    kind = "--annotate" if key.returncode else "--sign"
    run("git", "tag", kind, "--message", f"parallel-core {version}", f"v{version}")
    print("".join(sums))
    print("Nothing was published. To do that:\n")
    print(f"  git push origin main v{version}")
    print(f"  python -m twine upload {' '.join(f'dist/{file.name}' for file in made)}")


def main() -> None:
    """Read the version from the command line."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    try:
        release(sys.argv[1])
    except Refused as reason:
        sys.exit(f"no release: {reason}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"no release: .ci/run failed ({error.returncode}); all files are as they were")


if __name__ == "__main__":
    main()
