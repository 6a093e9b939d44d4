"""Rounds of fresh processes, contestants in turn.

Within a round every contestant has one process, and each round begins with another contestant, so
that a machine that slows down, or a neighbour that wakes up, meets all of them alike. A process
gets a session of its own; before the next one starts, everything of that session has ended or has
been killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.conditions import Conditions
from benchmarks.contestants import Contestant
from benchmarks.outcome import Outcome, Record
from benchmarks.workload import Workload

ROOT = Path(__file__).resolve().parents[1]
GRACE_SECONDS = 2.0
GIVE_UP = "gave up after this"


def run_workload(
    workload: Workload, conditions: Conditions, announce: Callable[[str], None]
) -> Outcome:
    """Run all rounds of one work.

    Parameters
    ----------
    workload : Workload
        What is run.
    conditions : Conditions
        Workers, rounds and sizes.
    announce : callable
        Is told, in words, what runs now.
    """
    contestants = workload.contestants()
    outcome = Outcome.blank(workload, contestants)
    for number in range(workload.rounds):
        first = number % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            record = outcome.records[contestant.key]
            if _is_hopeless(record):
                continue
            announce(f"round {number + 1} of {workload.rounds}, {contestant.key}")
            _run_once(workload, contestant, conditions, record)
    return outcome


def _is_hopeless(record: Record) -> bool:
    return record.missing is not None or any(GIVE_UP in error for error in record.errors)


def _run_once(
    workload: Workload, contestant: Contestant, conditions: Conditions, record: Record
) -> None:
    """Run one fresh process and put what it said into `record`."""
    command = workload.command(contestant, conditions)
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            process.wait(workload.timeout)
        except subprocess.TimeoutExpired:
            record.errors.append(f"no answer within {workload.timeout:g} s, {GIVE_UP}")
            return
        finally:
            _end_session(process)
        stdout.seek(0)
        stderr.seek(0)
        answer = _last_answer(stdout.read().decode(errors="replace"))
        complaint = stderr.read().decode(errors="replace")
    if "sample" in answer and process.returncode == 0:
        record.samples.append(answer["sample"])
    elif "missing" in answer:
        record.missing = answer["missing"]
    else:
        words = answer.get("error") or _last_words(process.returncode, complaint)
        record.errors.append(without_paths(words))


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """See that nothing of the session of `process` runs on.

    Workers and resource trackers have a moment to end by themselves, since they clean up.
    """
    if process.poll() is not None:
        deadline = time.monotonic() + GRACE_SECONDS
        while _runs_on(process.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _runs_on(group: int) -> bool:
    """Return whether anything of a process group runs; the dead that nobody waited for do not."""
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _last_answer(printed: str) -> dict[str, Any]:
    """Return the last line of JSON, or nothing."""
    for line in reversed(printed.splitlines()):
        if line.startswith("{"):
            try:
                answer: dict[str, Any] = json.loads(line)
            except ValueError:
                continue
            return answer
    return {}


def _last_words(code: int, complaint: str) -> str:
    """Return in words how a process ended that gave no answer."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
    return f"{how}: {lines[-1]}" if lines else how


def without_paths(words: str) -> str:
    """Return `words` without the folders that would tell whose machine this is."""
    for folder in (str(ROOT), sys.prefix, sys.base_prefix, str(Path.home()), tempfile.gettempdir()):
        if len(folder) > 1:
            words = words.replace(folder, "…")
    return words
