"""A call that starts again after a crash of the program: `Parallel(journal=)`, and the CLI's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memmapping
from parallel_core import JournalError, Parallel, SerializationError, delayed
from watching import HOME, LIMIT, wait_until

pytestmark = pytest.mark.warm_workers

ALL = ["processes", "multiprocessing", "loky", "threading", "sequential"]
RETURNS = ["list", "generator", "generator_unordered"]


def work(x: int, folder: str) -> int:
    """Note that the task was run."""
    with Path(folder, str(x)).open("ab") as file:
        file.write(b".")
    if Path(folder, "fail").exists() and x == 7:
        raise ValueError("seven")
    return x * x


def runs(folder: Path) -> dict[int, int]:
    return {int(path.name): path.stat().st_size for path in folder.iterdir() if path.name.isdigit()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "runs"
    found.mkdir()
    return found


@pytest.mark.parametrize("return_as", RETURNS)
@pytest.mark.parametrize("backend", ALL)
def test_only_what_is_missing_is_computed(
    backend: str, return_as: str, tmp_path: Path, folder: Path
) -> None:
    path = tmp_path / "call.journal"
    (folder / "fail").touch()
    parallel = Parallel(2, backend, return_as, journal=path, batch_size=1)
    with pytest.raises(ValueError, match="seven"):
        list(parallel(delayed(work)(x, str(folder)) for x in range(12)))
    assert parallel.n_resumed_tasks == 0
    (folder / "fail").unlink()
    before = runs(folder)
    got = list(parallel(delayed(work)(x, str(folder)) for x in range(12)))
    assert sorted(got) == [x * x for x in range(12)]
    if return_as != "generator_unordered":
        assert got == sorted(got)
    after = runs(folder)
    resumed = parallel.n_resumed_tasks
    assert resumed == sum(after[x] == before.get(x, 0) for x in range(12))
    assert resumed >= 1 and after[7] == 2
    assert parallel.n_completed_tasks == 12
    assert list(parallel(delayed(work)(x, str(folder)) for x in range(12)))
    assert runs(folder) == after and parallel.n_resumed_tasks == 12
    assert sorted(tmp_path.iterdir()) == [path, folder], "one file, and nothing beside it"


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_after_a_crash_of_the_whole_program(backend: str, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            f"""
            import sys, time
            from pathlib import Path
            from parallel_core import Parallel, delayed

            FACTOR = 3

            def slowly(x):
                with Path({str(folder)!r}, str(x)).open("ab") as file:
                    file.write(b".")
                time.sleep(0.01)
                return FACTOR * x

            if __name__ == "__main__":
                parallel = Parallel(2, {backend!r}, journal="call.journal", batch_size=1, verbose=1)
                print(parallel(delayed(slowly)(x) for x in range(150)) == list(range(0, 450, 3)))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    command = [sys.executable, "program.py"]
    first = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(runs(folder)) > 50, "a third is done")
    first.send_signal(signal.SIGKILL)
    first.wait()
    time.sleep(0.2)  # until its workers are gone
    second = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, timeout=LIMIT, check=False
    )
    assert second.stdout == b"True\n", second.stderr
    again = sum(count > 1 for count in runs(folder).values())
    assert sum(runs(folder).values()) < 150 + 30 and again < 30
    assert b"Took over " in second.stderr and b" results from call.journal" in second.stderr


def test_arrays_and_large_results(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    arrays = [np.full(300_000, float(x)) for x in range(4)]
    for resumed in (0, 4):
        parallel = Parallel(2, journal=path)
        got = parallel(delayed(np.multiply)(array, 2) for array in arrays)
        assert [set(array) for array in got] == [{0.0}, {2.0}, {4.0}, {6.0}]
        assert parallel.n_resumed_tasks == resumed


def test_failures_are_not_kept(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "journal"
    (folder / "fail").touch()
    parallel = Parallel(2, journal=path, on_error="return")
    got = parallel(delayed(work)(x, str(folder)) for x in range(12))
    assert isinstance(got[7], ValueError)
    (folder / "fail").unlink()
    assert parallel(delayed(work)(x, str(folder)) for x in range(12)) == [x * x for x in range(12)]
    assert parallel.n_resumed_tasks == 11


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_the_calls_of_a_block_are_one_sequence(backend: str, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "journal"
    for round_ in range(2):
        with Parallel(2, backend, journal=path) as parallel:
            for start in (0, 5, 10):
                got = parallel(delayed(work)(x, str(folder)) for x in range(start, start + 5))
                assert got == [x * x for x in range(start, start + 5)]
                assert parallel.n_resumed_tasks == round_ * (start + 5)
    assert set(runs(folder).values()) == {1}


def test_a_call_that_failed_starts_over_in_its_block(tmp_path: Path, folder: Path) -> None:
    (folder / "fail").touch()
    with Parallel(2, journal=tmp_path / "journal") as parallel:
        with pytest.raises(ValueError, match="seven"):
            parallel(delayed(work)(x, str(folder)) for x in range(12))
        (folder / "fail").unlink()
        got = parallel(delayed(work)(x, str(folder)) for x in range(12))
    assert got == [x * x for x in range(12)]


def test_a_block_goes_on_after_a_call_that_failed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for again in (False, True):
        with Parallel(2, journal=path) as parallel:
            assert parallel(delayed(abs)(-x) for x in range(5)) == list(range(5))
            with pytest.raises(ValueError, match="could not convert"):
                parallel(delayed(float)(x) for x in ["1", "x"])
            assert parallel(delayed(float)(x) for x in ["1", "2"]) == [1.0, 2.0]
        assert (parallel.n_resumed_tasks >= 5 + 2) is again


def test_arrays_that_tasks_fill_are_refused(tmp_path: Path) -> None:
    out = memmapping.zeros(4, "int64")
    with pytest.raises(SerializationError, match="memory map that tasks can write to"):
        Parallel(2, journal=tmp_path / "journal")([delayed(np.copyto)(out, 7)])


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_another_call_is_refused_and_nothing_changed(backend: str, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Parallel(2, backend, journal=path)(delayed(abs)(-x) for x in range(6))
    before = path.read_bytes()
    for tasks, words in (
        ([delayed(float)(-x) for x in range(6)], "its function"),
        ([delayed(abs)(-x - 1) for x in range(6)], "its argument 0"),
    ):
        with pytest.raises(JournalError, match=words):
            Parallel(2, backend, journal=path)(tasks)
        assert path.read_bytes() == before
    assert Parallel(2, backend, journal=path)(delayed(abs)(-x) for x in range(8)) == list(range(8))


def test_two_calls_at_once_on_one_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    results = Parallel(2, return_as="generator", journal=path)(delayed(abs)(-x) for x in range(9))
    next(results)
    with pytest.raises(JournalError, match=r"open|use"):
        Parallel(2, journal=path)(delayed(abs)(-x) for x in range(9))
    assert list(results) == list(range(1, 9))
    assert Parallel(2, journal=path)(delayed(abs)(-x) for x in range(9)) == list(range(9))


def test_a_task_without_a_digest(tmp_path: Path) -> None:
    with pytest.raises(SerializationError, match="lock") as caught:
        Parallel(2, "threading", journal=tmp_path / "journal")(
            delayed(id)(argument) for argument in (1, threading.Lock())
        )
    assert "task 1 of the call" in str(caught.value)


def test_a_hit_from_the_journal_ends_the_call(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "journal"
    for backend in ("processes", "threading", "sequential"):
        got = Parallel(2, backend, journal=path, stop_when=lambda x: x == 9)(
            delayed(work)(x, str(folder)) for x in range(1000)
        )
        assert 9 in got and got == sorted(got)
    assert max(runs(folder).values()) <= 3


@pytest.mark.parametrize("return_as", RETURNS[1:])
def test_pulling_ahead_of_known_results_stays_bounded(return_as: str, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Parallel(2, journal=path)(delayed(abs)(-x) for x in range(1000))
    pulled = 0

    def tasks() -> Iterator[Any]:
        nonlocal pulled
        for x in range(1000):
            pulled += 1
            yield delayed(abs)(-x)

    results = Parallel(2, None, return_as, journal=path, pre_dispatch=10)(tasks())
    assert [next(results) for _ in range(20)] == list(range(20))
    assert pulled <= 40
    assert list(results) == list(range(20, 1000))


# --- the command line -----------------------------------------------------------------------------

FUNCTIONS = """
    import os, signal, time
    from pathlib import Path

    def slowly(text):
        with Path("runs", text).open("ab") as file:
            file.write(b".")
        time.sleep(0.01)
        if Path("fail").exists() and text == "7":
            raise ValueError("seven")
        return "<" + text + ">"
"""


@pytest.fixture
def lines(tmp_path: Path, folder: Path) -> Path:
    (tmp_path / "functions.py").write_text(textwrap.dedent(FUNCTIONS))
    (tmp_path / "lines").write_text("".join(f"{x}\n" for x in range(150)))
    return tmp_path


def command_line(lines: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=lines,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


COMMAND = [sys.executable, "-m", "parallel_core", "map", "--jobs", "2", "functions:slowly"]


@pytest.mark.parametrize("order", [[], ["--unordered"]])
def test_a_run_that_was_killed_goes_on(lines: Path, folder: Path, order: list[str]) -> None:
    arguments = ["lines", "--journal", "kept", *order]
    first = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=lines,
        env={**os.environ, "PYTHONPATH": str(HOME)},
        stdout=subprocess.DEVNULL,
    )
    wait_until(lambda: len(runs(folder)) > 50, "a third is done")
    first.kill()
    first.wait()
    time.sleep(0.2)  # until its workers are gone
    done = command_line(lines, *arguments)
    assert sorted(done.stdout.split()) == sorted(f"<{x}>" for x in range(150))
    if not order:
        assert done.stdout.split() == [f"<{x}>" for x in range(150)]
    assert " of 150 results were taken over from kept" in done.stderr
    assert done.returncode == 0
    assert sum(runs(folder).values()) < 200


def test_a_run_over_a_slow_pipe_is_one_sequence(lines: Path, folder: Path) -> None:
    """The command works through its input in rounds; the journal does not see them."""
    for resumed in (False, True):
        process = subprocess.Popen(
            [*COMMAND, "--journal", "kept"],
            cwd=lines,
            env={**os.environ, "PYTHONPATH": str(HOME)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None and process.stdout is not None
        for x in range(6):
            process.stdin.write(b"%d\n" % x)
            process.stdin.flush()
            assert process.stdout.readline() == b"<%d>\n" % x
        out, err = process.communicate(timeout=LIMIT)
        assert out == b""
        assert (b"6 of 6 results were taken over from kept" in err) is resumed
    assert set(runs(folder).values()) == {1}


def test_failed_lines_are_tried_again(lines: Path, folder: Path) -> None:
    (lines / "fail").touch()
    arguments = ["lines", "--journal", "kept", "--on-error", "report"]
    done = command_line(lines, *arguments)
    assert "line 8: ValueError: seven" in done.stderr and done.returncode == 3
    (lines / "fail").unlink()
    done = command_line(lines, *arguments)
    assert "149 of 150 results were taken over from kept" in done.stderr
    assert done.stdout.split() == [f"<{x}>" for x in range(150)] and done.returncode == 0


def test_other_code_of_the_function_is_another_call(lines: Path) -> None:
    command_line(lines, "lines", "--journal", "kept")
    before = (lines / "kept").read_bytes()
    source = (lines / "functions.py").read_text()
    (lines / "functions.py").write_text(source.replace('"<" + text', '"[" + text'))
    done = command_line(lines, "lines", "--journal", "kept")
    assert "of another call" in done.stderr and "its function" in done.stderr
    assert done.returncode == 2 and (lines / "kept").read_bytes() == before


@pytest.mark.core
def test_what_is_no_journal_is_refused(lines: Path) -> None:
    done = command_line(lines, "lines", "--journal", "functions.py")
    assert "functions.py" in done.stderr and done.returncode == 2 and done.stdout == ""
    done = command_line(lines, "lines", "--retries", "-1")
    assert "a number from 0 on" in done.stderr and done.returncode == 2
    done = command_line(lines, "lines", "--timeout", "no")
    assert "a positive number of seconds" in done.stderr and done.returncode == 2


def test_a_time_limit_for_lines(lines: Path) -> None:
    (lines / "functions.py").write_text(
        "import time\ndef slowly(text):\n    time.sleep(300 * (text == '7'))\n    return text\n"
    )
    done = command_line(lines, "lines", "--timeout", "0.5", "--on-error", "report")
    assert "line 8: parallel_core.errors.TaskTimeoutError" in done.stderr
    assert done.stdout.split() == [str(x) for x in range(150) if x != 7] and done.returncode == 3
