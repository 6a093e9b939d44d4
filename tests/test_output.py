"""What tasks print and log appears where the caller prints and logs: in order, live, and whole."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from programs import environment, kernel, run

from parallel_core import Parallel, delayed
from parallel_core.errors import SerializationError, TaskTimeoutError, WorkerDiedError
from parallel_core.output.connection import LONGEST, OutputReader, OutputWriter
from parallel_core.output.pieces import STDOUT
from parallel_core.workers.board import HAS_OUTPUT, PHASE, SINCE, Board, OutputNotice, Phase
from watching import LIMIT, Kept, wait_until

pytestmark = pytest.mark.warm_workers

AWAY = ["processes", "loky", "executor"]


@contextlib.contextmanager
def engine(name: str) -> Iterator[Any]:
    """Give a backend of that name; "executor": processes that the user has made."""
    if name == "executor":
        with warnings.catch_warnings():  # of threads beside a fork
            warnings.simplefilter("ignore")
            with ProcessPoolExecutor(2) as executor:
                yield executor
    else:
        yield name


def say(n: int) -> int:
    print("out", n)
    print("err", n, file=sys.stderr)
    return n


# --- text -----------------------------------------------------------------------------------------


class Answering(io.StringIO):
    """Makes a file when it sees a line."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def write(self, text: str) -> int:
        if "seen?" in text:
            self.path.touch()
        return super().write(text)


def ask(path: Path, **options: Any) -> bool:
    print("seen?", **options)
    wait_until(path.exists, "the line was seen")
    return True


@pytest.mark.parametrize("options", [{}, {"preload": "json"}, {"backend": "multiprocessing"}])
def test_a_line_is_seen_while_its_task_goes_on(tmp_path: Path, options: dict[str, Any]) -> None:
    with contextlib.redirect_stdout(Answering(tmp_path / "a")):
        assert Parallel(2, **options)([delayed(ask)(tmp_path / "a")]) == [True]
    with contextlib.redirect_stdout(Answering(tmp_path / "b")):
        tasks = [delayed(ask)(tmp_path / "b", end="", flush=True)]
        assert Parallel(2, **options)(tasks) == [True]


def fail_after(text: str, how: str) -> None:
    print(text)
    print("unfinished", end="")
    if how == "killed":
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "raises":
        raise ZeroDivisionError
    while True:  # to be stopped
        print(text)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("killed", WorkerDiedError),
        ("raises", ZeroDivisionError),
        ("late", TaskTimeoutError),
    ],
)
def test_what_was_said_before_the_end_is_shown(
    how: str, error: type[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    with Parallel(2, timeout=0.3 if how == "late" else None) as parallel:
        with pytest.raises(error):
            parallel([delayed(fail_after)("last words", how)])
        said = capsys.readouterr().out
        assert said.startswith("last words\nunfinished")
        assert set(said.split("\n")) <= {"last words", "unfinished", "unfinishedlast words", ""}
        assert parallel([delayed(say)(3)]) == [3]
    assert capsys.readouterr().out.endswith("out 3\n")


class Alarm(Exception):
    pass


def interrupted(rounds: int) -> tuple[int, int]:
    """Print, while a signal raises out of it at any moment."""

    def ring(*_: object) -> None:
        print("ring")
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    rings = 0
    try:
        while rings < rounds:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0005 + rings * 1e-5)
                while True:
                    print("a line that is whole")
            except Alarm:
                rings += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return rings, os.getpid()


def test_a_signal_that_raises_tears_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Parallel(2) as parallel:
        found = parallel(delayed(interrupted)(60) for _ in range(2))
        assert [rings for rings, _ in found] == [60, 60]
        lines = capsys.readouterr().out
        assert lines.count("ring") == 120
        assert set(re.sub(r"ring|\n|a line that is whole", "", lines)) == set()
        assert parallel([delayed(os.getpid)()])[0] in [pid for _, pid in found]


class Talker:
    def __init__(self, name: str) -> None:
        self.me = self
        self.name = name

    def __del__(self) -> None:
        print(f"{self.name} is gone\n", end="")


def say_from_everywhere() -> None:
    import gc

    threads = [
        threading.Thread(target=lambda n=n: [print(f"thread {n}", k) for k in range(200)])
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for n in range(20):
        Talker(f"talker {n}")
        gc.collect()
    for thread in threads:
        thread.join()
    sys.stdout.write("begun, ")
    pid = os.fork()
    if pid == 0:  # its own words only, and not by our connection
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print("child")
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    print("finished")


@pytest.mark.filterwarnings("ignore:This process")
def test_threads_finalizers_and_forks(capsys: pytest.CaptureFixture[str]) -> None:
    Parallel(2)([delayed(say_from_everywhere)()])
    lines = capsys.readouterr().out.splitlines()
    for n in range(3):
        prefix = f"thread {n} "
        assert [line for line in lines if line.startswith(prefix)] == [
            f"{prefix}{k}" for k in range(200)
        ]
    assert sum(line.endswith("is gone") for line in lines) == 20
    assert lines[-1] == "begun, finished" and len(lines) == 621


def use_the_streams(folder: str) -> list[Any]:
    out: Any = sys.stdout
    with pytest.raises(TypeError, match="must be str, not bytes"):
        out.write(b"bytes")
    out.write("text, ")
    out.buffer.write(b"bytes, ")
    out.writelines(["li", "nes\n"])
    out.buffer.flush()
    print("é \udce9 \N{SNOWMAN}")
    subprocess.run(["true"], stdout=sys.stdout, stderr=sys.stderr, check=True)
    out.reconfigure(line_buffering=True)
    return [out.fileno(), sys.stderr.fileno(), out.encoding, out.writable(), out.isatty(), out.name]


@pytest.mark.core
def test_they_are_like_files(tmp_path: Path) -> None:
    raw = io.BytesIO()
    narrow = io.TextIOWrapper(raw, encoding="ascii")
    with contextlib.redirect_stdout(narrow):
        ((out, err, encoding, *rest),) = Parallel(2)([delayed(use_the_streams)(str(tmp_path))])
        sys.stdout.flush()
    assert (out, err) == (1, 2) and rest == [True, os.isatty(1), "<stdout>"]
    assert encoding == sys.__stdout__.encoding  # type: ignore[union-attr]
    assert raw.getvalue() == b"text, bytes, lines\n\\xe9 \\udce9 \\u2603\n"


def test_a_program_shows_all_to_its_end(tmp_path: Path) -> None:
    text = """
        def task(n):
            if not n:
                atexit.register(print, "at exit")
            for k in range(1000):
                print("task", n, k)
            print(n, end=";")
            os.write(2, b"x")  # as C code does

        def later():
            "A thread that is left behind talks when nobody listens."
            def talk():
                go.wait()
                print("left behind")
            go = threading.Event()
            threading.Thread(target=talk, daemon=True).start()
            print.go = go

        Parallel(2, batch_size=1)(delayed(task)(n) for n in range(6))
        nested = Parallel(2)(
            delayed(lambda n: Parallel(2, backend="processes")([delayed(print)("nested", n)]))(n)
            for n in range(2)
        )
        shutdown_workers()
        print("end")
    """
    out = run(tmp_path, text, err="x" * 6)
    for n in range(6):
        numbers = re.findall(rf"task {n} (\d+)\n", out)
        assert numbers == [str(k) for k in range(1000)]
        assert f"{n};" in out
    assert out.count("nested") == 2 and "at exit\n" in out and out.endswith("end\n")


def leave_a_thread_behind(path: Path, go: Path) -> None:
    def talk() -> None:
        wait_until(go.exists, "nobody listens")
        print("between two calls")
        path.touch()

    threading.Thread(target=talk, daemon=True).start()


def test_what_is_said_between_two_calls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said, go = tmp_path / "said", tmp_path / "go"
    with Parallel(2) as parallel:
        parallel([delayed(leave_a_thread_behind)(said, go)])
        go.touch()
        wait_until(said.exists, "it was said")
        assert parallel(delayed(abs)(-n) for n in range(40)) == list(range(40))
    import parallel_core

    parallel_core.shutdown_workers()
    assert capsys.readouterr().out == "between two calls\n"


def print_much(lines: int) -> int:
    for n in range(lines):
        print("much", n)
    return lines


def test_nobody_listens_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    """More than the kernel holds: the tasks wait for the consumer, who may also go away."""
    for ends in ("exhausted", "closed"):
        results = Parallel(2, return_as="generator", batch_size=1)(
            delayed(print_much)(10 if n == 0 else 6_000) for n in range(3)
        )
        assert next(results) == 10
        if ends == "exhausted":
            assert list(results) == [6_000] * 2
            assert capsys.readouterr().out.count("much") == 12_010
        results.close()
    assert Parallel(2)([delayed(say)(1)]) == [1]


def test_waiting_for_the_caller_is_no_time_of_the_task() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    board, descriptor = Board.make()
    os.close(descriptor)
    checks: list[int] = []
    writer = OutputWriter(theirs, OutputNotice(board, lambda: checks.append(board.words[PHASE])))
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)  # soon full
    reader = OutputReader(ours)
    board.words[PHASE], board.times[SINCE] = Phase.RUNNING, 1.0
    pieces = []

    def read() -> None:
        wait_until(lambda: board.words[PHASE] == Phase.SENDING, "the writer waits")
        while len(pieces) < 2000:
            pieces.extend(reader.read())

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(1999):
        assert writer.send(STDOUT, b"a line")
    assert writer.send(STDOUT, b"x" * (3 * LONGEST + 1))
    thread.join()
    assert pieces[:1999] == [(STDOUT, b"a line")] * 1999 and len(pieces[-1][1]) == 3 * LONGEST + 1
    assert (
        board.times[SINCE] > 1.0 and board.words[PHASE] == Phase.RUNNING and board.words[HAS_OUTPUT]
    )
    assert set(checks) == {Phase.RUNNING}
    reader.close()
    assert not writer.send(STDOUT, b"nobody there")
    writer.close()
    board.close()


class Broken(io.StringIO):
    """A stream whose reader has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.raised = 0

    def write(self, text: str) -> int:
        self.raised += 1
        raise BrokenPipeError("gone")


@pytest.mark.parametrize("backend", ["processes", "loky"])
def test_a_stream_that_raises(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Parallel(2, backend=backend) as parallel:
        for at_once in ("list", "generator")[: 2 if backend == "processes" else 1]:
            with contextlib.redirect_stdout(Broken()), pytest.raises(BrokenPipeError, match="gone"):
                list(
                    Parallel(2, backend=backend, return_as=at_once)(
                        delayed(say)(n) for n in range(6)
                    )
                )
        closed = io.StringIO()
        closed.close()
        with contextlib.redirect_stdout(closed), pytest.raises(ValueError, match="closed file"):
            parallel([delayed(say)(1)])
        capsys.readouterr()
        with contextlib.redirect_stdout(None):
            assert parallel([delayed(say)(2)]) == [2]
        assert parallel([delayed(say)(3)]) == [3]
    assert capsys.readouterr() == ("out 3\n", "err 2\nerr 3\n")


def greet(name: str) -> None:
    print("hello from", name)


@pytest.mark.parametrize("backend", ["processes", "loky"])
def test_initializers_speak_too(backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    parallel = Parallel(2, backend=backend, initializer=greet, initargs=("here",))
    assert parallel(delayed(abs)(n) for n in range(2)) == [0, 1]
    import parallel_core

    parallel_core.shutdown_workers()
    assert set(capsys.readouterr().out.splitlines()) == {"hello from here"}


# --- logging --------------------------------------------------------------------------------------


@pytest.fixture
def handler() -> Iterator[Kept]:
    kept = Kept()
    logging.getLogger("of.tests").addHandler(kept)
    yield kept
    logging.getLogger("of.tests").removeHandler(kept)


def log_at(level: int) -> None:
    logging.getLogger("of.tests").log(level, "at %d", level)


def test_the_callers_levels_and_filters_hold(handler: Kept) -> None:
    logger = logging.getLogger("of.tests")
    logger.setLevel(logging.ERROR)
    logger.addFilter(is_no_fifty)
    try:
        Parallel(2)(delayed(log_at)(level) for level in (30, 40, 50))
        assert [record.levelno for record in handler.records] == [40]
        logger.addFilter(is_broken)
        with pytest.raises(ArithmeticError, match="a filter"):
            Parallel(2)([delayed(log_at)(40)])
    finally:
        logger.removeFilter(is_no_fifty)
        logger.removeFilter(is_broken)
        logger.setLevel(logging.NOTSET)


def is_no_fifty(record: logging.LogRecord) -> bool:
    return record.levelno != 50


def is_broken(record: logging.LogRecord) -> bool:
    raise ArithmeticError("a filter")


LOGGING = """
    import logging

    def first():
        import logging  # nobody has, in a new worker
        logging.getLogger("a").warning("of a task")

    def sets_up():
        logging.basicConfig(level=logging.INFO, format="task's: %(message)s")
        logging.info("info")
        logging.warning("warning")

    def opens(path):
        handler = logging.FileHandler(path)
        logging.getLogger().addHandler(handler)
"""


def test_programs_that_log(tmp_path: Path) -> None:
    """Nothing twice, and nothing lost, whoever sets up logging."""
    text = (
        LOGGING
        + """
    Parallel(2)([delayed(first)()])  # no handler anywhere: the last resort, which is on stderr
    Parallel(2)([delayed(sets_up)()])
    shutdown_workers()
    logging.basicConfig(format="caller's: %(name)s %(message)s")
    for options in ({}, {"backend": "multiprocessing"}, {"backend": "loky"}):
        Parallel(2, **options)([delayed(sets_up)()])  # does nothing, as it would here
    Parallel(2, initializer=opens, initargs=("log",))([delayed(first)()])
    print(open("log").read(), end="")
    """
    )
    child = subprocess.run(
        [sys.executable, "-c", _with_begin(text)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    )
    assert child.stderr.splitlines() == [
        "of a task",
        "task's: info",
        "task's: warning",
        *["caller's: root warning"] * 3,
        "caller's: a of a task",
    ]
    assert child.stdout == "of a task\n"


def _with_begin(text: str) -> str:
    import textwrap

    from programs import BEGIN

    return textwrap.dedent(BEGIN) + textwrap.dedent(text)


class Special(logging.Logger):
    """Nobody finds one by its name."""


def use_logger(logger: Any) -> str:
    logger.warning("given")
    return str(logger.name)


def test_a_logger_as_argument(handler: Kept) -> None:
    logger = logging.getLogger("of.tests.given")
    assert Parallel(2)([delayed(use_logger)(logger)]) == ["of.tests.given"]
    assert [record.getMessage() for record in handler.records] == ["given"]
    with pytest.raises(SerializationError, match=r"task 1 of the call: .*use_logger\(.*Special"):
        Parallel(2)([delayed(use_logger)(logger), delayed(use_logger)(Special("alone"))])
    with pytest.raises(SerializationError, match=r"'Special' \(pass its name, and have the task"):
        Parallel(2)([delayed(use_logger)(Special("alone"))])
    with pytest.raises(SerializationError, match=r"'StreamHandler' \(a handler stays here: what"):
        Parallel(2)([delayed(use_logger)([logging.StreamHandler()])])
    assert Parallel(2)([delayed(use_logger)(logger)]) == ["of.tests.given"]


# --- a notebook -----------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_cells_of_a_notebook(tmp_path: Path) -> None:
    said: list[tuple[str, str]] = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            said.append((content["name"], content["text"]))
            if "seen?" in content["text"]:
                (tmp_path / "seen").touch()
        elif message["msg_type"] == "error":
            said.append(("error", "\n".join(content["traceback"])))

    def cell(text: str) -> dict[str, str]:
        said.clear()
        execute(text, hear)
        names = {name for name, _ in said}
        return {name: "".join(part for one, part in said if one == name) for name in names}

    with kernel(tmp_path) as execute:
        assert cell(NOTEBOOK) == {}
        told = cell("Parallel(2)(delayed(f)(n) for n in range(3));")
        assert sorted(told["stdout"].splitlines()) == ["out 0", "out 1", "out 2"]
        assert sorted(told["stderr"].splitlines()) == sorted(
            line for n in range(3) for line in (f"err {n}", f"logged: {n}")
        )
        assert cell("Parallel(2)([delayed(ask)()])")["stdout"] == "seen?\n"  # while it goes on


NOTEBOOK = """
import logging, os, sys, time
from parallel_core import Parallel, delayed
handler = logging.StreamHandler(sys.stderr)
handler.setFormatter(logging.Formatter("logged: %(message)s"))
logging.getLogger("mine").addHandler(handler)
def f(n):
    print("out", n)
    print("err", n, file=sys.stderr)
    logging.getLogger("mine").warning("%d", n)
def ask():
    print("seen?")
    until = time.monotonic() + 50
    while not os.path.exists("seen") and time.monotonic() < until:
        time.sleep(0.005)
    assert os.path.exists("seen")
"""


def test_threads_of_an_executor_are_here(capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(2) as executor:
        Parallel(2, backend=executor)(delayed(say)(n) for n in range(2))
    assert sorted(capsys.readouterr().out.splitlines()) == ["out 0", "out 1"]
