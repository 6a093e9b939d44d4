"""Progress is true, is drawn where somebody looks, and does no harm."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deadly_tasks import die_once
from progress_tasks import pause, wait_for
from simple_tasks import invert

from parallel_core import (
    BatchAnswered,
    Parallel,
    PerformanceWarning,
    Progress,
    WorkersSeen,
    delayed,
    parallel_config,
    pmap,
)
from parallel_core.dispatch.source import expected_length
from parallel_core.observe import bars, progress, terminal

BACKENDS = ["processes", "threading", "sequential", "loky"]
HERE = Path(__file__).parent
WIDTH = 120


class Terminal(io.StringIO):
    """A file that says that it is a terminal; in a ``with`` block, in the place of stderr."""

    def isatty(self) -> bool:
        return True

    def __enter__(self) -> Terminal:
        self._before, sys.stderr = sys.stderr, self
        return self

    def __exit__(self, *raised: object) -> None:
        assert sys.stderr is self
        sys.stderr = self._before


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal that can draw."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    for name in [name for name in os.environ if name.startswith("TQDM_")]:
        monkeypatch.delenv(name)
    return Terminal()


def in_terminal(program: str, **variables: str) -> tuple[str, list[str]]:
    """Run a program on a terminal; return what it wrote, and what stands there at the end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "NO_COLOR")}
    environment = {**kept, "TERM": "xterm", "PYTHONPATH": str(HERE), **variables}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        written = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
    text = written.decode()
    assert process.returncode == 0, text
    return text, screen_of(text)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end was closed
        return b""


def screen_of(text: str) -> list[str]:
    """Return the lines that stand on a terminal on which `text` was written."""
    rows: list[str] = [""]
    row = column = 0
    for piece in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\r\n\x1b]+", text):
        if piece == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif piece == "\r":
            column = 0
        elif piece.startswith("\x1b"):
            if piece.endswith("A"):
                row -= int(piece[2:-1] or 1)
            elif piece.endswith("K"):
                rows[row] = "" if piece[2:-1] == "2" else rows[row][:column]
        else:
            line = rows[row].ljust(column)
            rows[row] = line[:column] + piece + line[column + len(piece) :]
            column += len(piece)
    return [line.rstrip() for line in rows if line.strip()]


@pytest.mark.parametrize("backend", ["processes", "threading"])
@pytest.mark.parametrize("reduce", [None, max])
def test_it_moves_within_a_batch(backend: str, reduce: Any) -> None:
    told: list[Progress] = []
    parallel = Parallel(2, backend, batch_size=50, reduce=reduce, progress=told.append)
    parallel(delayed(pause)(0.01, x) for x in range(100))
    between = {one.completed for one in told if not one.is_over}
    assert len(between) >= 3 and len(between - {0, 50, 100}) >= 3
    # An answer may come before the first look at the workers.
    assert {one.workers for one in told if not one.is_over} - {0} == {2}
    assert {2} <= {one.busy for one in told}


def test_failures_retries_and_resumed_results(tmp_path: Path) -> None:
    told: list[Progress] = []
    common: dict[str, Any] = {"progress": told.append, "retry_backoff": 0}
    Parallel(2, retries=1, **common)(delayed(die_once)(str(tmp_path), x) for x in range(6))
    assert (told[-1].retried, told[-1].failed) == (1, 0)
    Parallel(2, on_error="skip", **common)(delayed(invert)(x) for x in [1, 0, 2])
    assert (told[-1].completed, told[-1].failed, told[-1].retried) == (3, 1, 0)
    for resumed in (0, 5):
        Parallel(2, journal=tmp_path / "journal", **common)(delayed(abs)(x) for x in range(5))
        assert (told[-1].completed, told[-1].resumed) == (5, resumed)
    assert told[-1].rate is None


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_a_call_that_fails(backend: str) -> None:
    told: list[Progress] = []
    with pytest.raises(ZeroDivisionError) as caught:
        Parallel(2, backend, progress=told.append)(delayed(invert)(x) for x in [1, 0])
    assert told[-1].is_over and told[-1].error is caught.value


@pytest.mark.core
def test_how_many_tasks_there_will_be() -> None:
    xs = range(10)
    assert expected_length(delayed(abs)(x) for x in xs) == 10
    assert expected_length([delayed(abs)(1)]) == 1
    assert expected_length(delayed(abs)(x) for x in xs if x) is None
    assert expected_length(delayed(abs)(x) for _ in xs for x in xs) is None
    assert expected_length(delayed(abs)(x) for x in iter(map(abs, xs))) is None
    assert expected_length(delayed(abs)(x) for x in (y for y in xs if y)) is None
    told: list[Progress] = []
    assert pmap(pause, [0.1] * 10, xs, n_jobs=2, progress=told.append) == list(xs)
    assert {one.total for one in told} == {10}


def test_a_total_that_was_given() -> None:
    told: list[Progress] = []

    def tasks() -> Iterator[Any]:
        for x in range(20):
            yield delayed(pause)(0.02, x)

    Parallel(2, progress={"style": told.append, "total": 30})(tasks())
    assert told[0].total == 30 and told[-1].total == 20
    told.clear()
    Parallel(1, progress=told.append)(tasks())
    assert told[0].total is None and told[0].remaining is None and told[-1].total == 20


@pytest.mark.core
def test_looks_are_for_those_who_ask() -> None:
    class Log:
        def __init__(self) -> None:
            self.events: list[Any] = []

        def notify(self, event: Any) -> None:
            self.events.append(event)

    class Looking(Log):
        look_seconds = 0.01

    for log, expected in ((Log(), False), (Looking(), True)):
        Parallel(2, batch_size=20, observers=[log])(delayed(pause)(0.01, x) for x in range(40))
        assert any(isinstance(event, WorkersSeen) for event in log.events) == expected
    for log, count in ((Log(), range(1000, 1001)), (Looking(), range(1, 1000))):
        Parallel(1, observers=[log])(delayed(abs)(x) for x in range(1000))
        answered = [event for event in log.events if isinstance(event, BatchAnswered)]
        assert len(answered) in count and sum(event.tasks for event in answered) == 1000


@pytest.mark.parametrize("style", [True, "tqdm", "rich"])
def test_no_bar_where_nobody_looks(style: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert Parallel(2, "threading", progress=style)(delayed(abs)(x) for x in range(5))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true")])
def test_no_bar_on_such_terminals(
    name: str, value: str, seen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with seen:
        Parallel(2, "threading", progress=True)(delayed(abs)(x) for x in range(5))
    assert seen.getvalue() == ""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bar(backend: str, seen: Terminal) -> None:
    pytest.importorskip("tqdm")
    parallel = Parallel(2, backend, progress={"desc": "Working", "unit": " lines"})
    with seen:
        parallel(delayed(pause)(0.01, x) for x in range(30))
    line = seen.getvalue().strip().rpartition("\r")[2]
    assert line.startswith("Working: 100%|") and "30/30" in line and "lines/s" in line


def test_forced_and_forbidden(capsys: pytest.CaptureFixture[str], seen: Terminal) -> None:
    pytest.importorskip("tqdm")
    file = io.StringIO()
    options = {"disable": False, "file": file, "ncols": 60}
    Parallel(2, "threading", progress=options)(delayed(abs)(x) for x in range(5))
    assert "5/5" in file.getvalue()
    with seen:
        Parallel(2, "threading", progress={"disable": True})(delayed(abs)(x) for x in range(5))
    assert seen.getvalue() == ""


def test_an_error_stays_visible(seen: Terminal) -> None:
    pytest.importorskip("tqdm")
    with seen, pytest.raises(ZeroDivisionError):
        Parallel(2, "threading", progress=True)(delayed(invert)(x) for x in [1, 0])
    assert "ended by ZeroDivisionError" in seen.getvalue() and seen.getvalue().endswith("\n")


def test_a_class_of_ones_own(seen: Terminal) -> None:
    tqdm = pytest.importorskip("tqdm").tqdm
    made: list[Any] = []

    class Own(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    with seen:
        Parallel(2, "threading", progress=Own)(delayed(abs)(x) for x in range(5))
    [bar] = made
    assert bar.n == bar.total == 5 and bar.disable


def test_several_calls_in_several_threads(seen: Terminal) -> None:
    pytest.importorskip("tqdm")

    def work(number: int) -> None:
        options = {"desc": f"call {number}", "leave": True}
        Parallel(2, "threading", progress=options)(delayed(pause)(0.01, x) for x in range(20))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    with seen:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for number in range(4):
        assert f"call {number}: 100%" in seen.getvalue()
    assert not terminal._writers


def test_lines_of_a_log(capsys: pytest.CaptureFixture[str], caplog: Any) -> None:
    options = {"style": "log", "interval": 0.05}
    Parallel(2, "threading", progress=options)(delayed(pause)(0.02, x) for x in range(20))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1 and all(line.startswith("[Parallel(n_jobs=2)]: ") for line in lines)
    assert "20 of 20" in lines[-1] and "took" in lines[-1] and "left" in lines[0]
    import logging

    with caplog.at_level(logging.INFO):
        options = {"style": "log", "logger": logging.getLogger("progress")}
        Parallel(1, progress=options)(delayed(abs)(x) for x in range(3))
    assert "3 of 3" in caplog.records[-1].getMessage() and not capsys.readouterr().err


class TestOnATerminal:
    @pytest.mark.parametrize("backend", ["processes", "threading", "sequential", "loky"])
    @pytest.mark.parametrize("style", ["tqdm", "rich"])
    def test_what_tasks_print_goes_above(self, style: str, backend: str) -> None:
        pytest.importorskip(style)
        _, screen = in_terminal(
            "import logging; logging.basicConfig(format='%(message)s')\n"
            "from parallel_core import Parallel, delayed\n"
            "from progress_tasks import say\n"
            f"parallel = Parallel(2, {backend!r}, progress={style!r}, batch_size=1)\n"
            "parallel(delayed(say)(x) for x in range(4))\n"
        )
        expected = {f"{what} {x}" for what in ("printed", "complained", "logged") for x in range(4)}
        assert set(screen[:-1]) == expected and len(screen) == 13
        assert "4/4" in screen[-1]

    def test_a_loop_that_prints(self) -> None:
        pytest.importorskip("tqdm")
        _, screen = in_terminal(
            "from parallel_core import Parallel, delayed\n"
            "from progress_tasks import pause\n"
            "parallel = Parallel(2, return_as='generator', progress=True)\n"
            "for x in parallel(delayed(pause)(0.05, x) for x in range(5)):\n"
            "    print('got', end=' ')\n"
            "    print(x)\n"
            "print('after')\n"
        )
        assert screen[:5] == [f"got {x}" for x in range(5)]
        assert "5/5" in screen[5] and screen[6:] == ["after"]

    @pytest.mark.parametrize("style", ["tqdm", "rich"])
    def test_an_interrupt_leaves_the_bar_where_it_was(self, style: str) -> None:
        pytest.importorskip(style)
        _, screen = in_terminal(
            "import os, signal, sys\n"
            "from parallel_core import Parallel, delayed\n"
            "from progress_tasks import pause\n"
            "def tasks():\n"
            "    for x in range(100):\n"
            "        if x == 50:\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "        yield delayed(pause)(0.01, x)\n"
            "streams = sys.stdout, sys.stderr\n"
            "try:\n"
            f"    Parallel(2, progress={style!r})(tasks())\n"
            "except KeyboardInterrupt:\n"
            "    assert (sys.stdout, sys.stderr) == streams\n"
            "    print('interrupted')\n"
        )
        assert "ended by KeyboardInterrupt" in screen[0] and screen[1:] == ["interrupted"]

    def test_a_bar_of_the_user_above(self) -> None:
        pytest.importorskip("tqdm")
        _, screen = in_terminal(
            "from tqdm import tqdm\n"
            "from parallel_core import Parallel, delayed\n"
            "from progress_tasks import pause\n"
            "for _ in tqdm(range(2), desc='outer'):\n"
            "    tasks = (delayed(pause)(0.05, x) for x in range(5))\n"
            "    Parallel(2, progress={'desc': 'inner'})(tasks)\n"
        )
        assert len(screen) == 1 and screen[0].startswith("outer: 100%")

    def test_a_bar_of_the_user_below(self) -> None:
        pytest.importorskip("tqdm")
        written, screen = in_terminal(
            "from tqdm import tqdm\n"
            "from parallel_core import Parallel, delayed\n"
            "from progress_tasks import pause\n"
            "parallel = Parallel(2, return_as='generator', progress={'desc': 'ours'})\n"
            "for x in parallel(delayed(pause)(0.05, x) for x in range(3)):\n"
            "    list(tqdm(range(3), desc='theirs', leave=False))\n"
        )
        assert "theirs: " in written and len(screen) == 1 and screen[0].startswith("ours: 100%")

    @pytest.mark.parametrize("backend", ["processes", "threading"])
    def test_calls_within_tasks(self, backend: str) -> None:
        pytest.importorskip("tqdm")
        written, _ = in_terminal(
            "from parallel_core import Parallel, delayed\n"
            "from progress_tasks import call_within\n"
            f"parallel = Parallel(2, {backend!r}, progress={{'desc': 'outer'}})\n"
            "assert parallel(delayed(call_within)({'desc': 'inner'}, x) for x in range(2))\n",
        )
        assert ("inner" in written) == (backend == "threading")

    def test_the_environment(self) -> None:
        pytest.importorskip("tqdm")
        program = (
            "from parallel_core import Parallel, delayed, parallel_config\n"
            "from progress_tasks import call_within\n"
            "Parallel(2)(delayed(call_within)(None, x) for x in range(2))\n"
            "Parallel(2, progress=False)(delayed(abs)(x) for x in range(3))\n"
            "with parallel_config(progress=False):\n"
            "    Parallel(2)(delayed(abs)(x) for x in range(4))\n"
        )
        written, screen = in_terminal(program, PARALLEL_CORE_PROGRESS="1")
        assert "2/2" in screen[-1] and len(screen) == 1
        written, _ = in_terminal(program, PARALLEL_CORE_PROGRESS="0")
        assert written == ""
        words = "from parallel_core import Parallel\ntry:\n    Parallel()\n"
        words += "except ValueError as error:\n    print(error)\n"
        written, _ = in_terminal(words, PARALLEL_CORE_PROGRESS="square")
        assert "PARALLEL_CORE_PROGRESS must be" in written and "'rich'" in written


def test_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("tqdm")
    lines = tmp_path / "lines"
    lines.write_text("".join(f"line {x}\n" for x in range(20)))
    command = ["map", "--progress", "--jobs", "2", "--batch-size", "1"]
    program = (
        "from parallel_core.cli import main\n"
        f"main({[*command, 'progress_tasks:slow_upper', str(lines)]!r})\n"
    )
    _, screen = in_terminal(program)
    assert screen[:-1] == [f"LINE {x}" for x in range(20)] and "20/20" in screen[-1]


def test_settings_are_for_outermost_calls() -> None:
    told: list[Progress] = []
    with parallel_config(progress=told.append):
        Parallel(2, "threading")(delayed(nested)(x) for x in range(3))
    assert [one.total for one in told if one.is_over] == [3]


def nested(x: int) -> list[int]:
    return Parallel(2, "threading")(delayed(abs)(y) for y in range(x))


class TestBadInput:
    @pytest.mark.core
    @pytest.mark.parametrize(
        ("given", "error", "words"),
        [
            ("square", ValueError, "'tqdm', 'rich', 'notebook', 'log'"),
            (3, TypeError, "name of a style, a function"),
            ({"style": "square"}, ValueError, r"progress\['style'\]"),
            ({3: 4}, TypeError, "names of options"),
            ({"total": -1}, ValueError, "number of tasks"),
            ({"style": "log", "interval": 0}, ValueError, "number of seconds"),
            ({"style": "log", "width": 3}, TypeError, "no option 'width'"),
            ({"style": print, "desc": "x"}, TypeError, "no option 'desc'"),
        ],
    )
    def test_it_is_refused(self, given: Any, error: type[Exception], words: str) -> None:
        makers: list[Callable[..., Any]] = [Parallel, parallel_config]
        for make in makers:
            with pytest.raises(error, match=words):
                make(progress=given)

    @pytest.mark.parametrize(
        ("style", "missing", "words"),
        [
            (True, ("tqdm", "rich"), r"tqdm: pip install 'parallel-core\[progress\]'"),
            ("tqdm", ("tqdm",), r"parallel-core\[progress\]"),
            ("rich", ("rich",), r"rich: pip install 'parallel-core\[progress\]'"),
            ("notebook", ("ipywidgets",), r"parallel-core\[notebook\]"),
        ],
    )
    def test_what_is_not_installed(
        self, style: Any, missing: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in missing:
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ImportError, match=words):
            Parallel(progress=style)
        if style is True:
            monkeypatch.setenv(progress.VARIABLE, "1")
            progress._of_environment.cache_clear()
            with pytest.warns(RuntimeWarning, match="needs tqdm"):
                assert Parallel(2, "threading")(delayed(abs)(x) for x in range(3)) == [0, 1, 2]
            progress._of_environment.cache_clear()

    @pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
    def test_a_function_that_raises_is_reported_once(self, backend: str) -> None:
        told: list[Progress] = []

        def fail(now: Progress) -> None:
            told.append(now)
            raise OSError("no room")

        parallel = Parallel(2, backend, progress=fail)
        tasks = [delayed(pause)(0.02, x) for x in range(20)]
        with pytest.warns(RuntimeWarning, match="OSError: no room") as caught:
            found = parallel(tasks)
        assert found == list(range(20)) and len(told) == 1
        assert len([one for one in caught if one.category is not PerformanceWarning]) == 1

    def test_options_that_a_bar_does_not_know(self, seen: Terminal) -> None:
        pytest.importorskip("tqdm")
        parallel = Parallel(2, "threading", progress={"shape": "square"})
        tasks = [delayed(abs)(x) for x in range(3)]
        with seen, pytest.warns(RuntimeWarning, match="Unknown argument"):
            assert parallel(tasks) == [0, 1, 2]

    def test_a_terminal_that_goes_away(self, seen: Terminal) -> None:
        pytest.importorskip("tqdm")

        def tasks() -> Iterator[Any]:
            for x in range(10):
                if x == 5:
                    seen.close()
                yield delayed(pause)(0.03, x)

        parallel = Parallel(2, "threading", progress=True)
        with seen:
            assert parallel(tasks()) == list(range(10))


def test_nothing_is_loaded_where_nothing_is_drawn() -> None:
    program = (
        "import sys\n"
        "from parallel_core import Parallel, delayed\n"
        "Parallel(2)(delayed(abs)(x) for x in range(3))\n"
        "Parallel(2, progress=print)(delayed(abs)(x) for x in range(0))\n"
        "assert not {'tqdm', 'rich'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_who_waits_sees_it(tmp_path: Path) -> None:
    """A bar stands at 9 of 10 while the last task runs."""

    def look(now: Progress) -> None:
        if now.completed == 9:
            (tmp_path / "seen").touch()

    parallel = Parallel(2, progress=look)
    assert parallel(delayed(wait_for)(str(tmp_path), x) for x in range(10)) == list(range(10))
    assert bars._rich is None
