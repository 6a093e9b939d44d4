"""The command line, as a shell sees it: real processes, real pipes, exit codes."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import IO, Any

import pytest

import parallel_core
from memmapping.sizes import format_nbytes
from parallel_core.cli import main
from parallel_core.cli.source import LineSource, LineTasks
from watching import wait_until

HOME = Path(parallel_core.__file__).parents[1]
LIMIT = 50  # seconds after which a test gives up; nothing takes nearly as long

FUNCTIONS = '''
    import os
    import pathlib
    import signal
    import sys
    import time

    def upper(text):
        return text.upper()

    def same(value):
        return value

    def double(text):
        return 2 * int(text)

    def show(text):
        return repr(text)

    def nothing(text):
        return None

    def two_lines(text):
        return text + "\\n" + text

    def make_set(value):
        return {1, 2}

    def not_a_number(value):
        return float("nan")

    def not_three(text):
        if text == "3":
            raise ValueError("three\\nis bad")
        return text

    def not_every_thousandth(text):
        if int(text) % 1000 == 0:
            raise LookupError(text)
        return text

    def leaves(text):
        sys.exit("left at " + text)

    def dies(text):
        if text == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return text

    def meet(text):
        """Wait until a file is there, or make it."""
        go = pathlib.Path("go")
        if text == "make":
            go.touch()
        if text == "wait":
            limit = time.monotonic() + 100
            while not go.exists():
                assert time.monotonic() < limit
                time.sleep(0.01)
        return text

    def sleep_for_long(text):
        pathlib.Path("asleep-" + text).touch()
        time.sleep(100)

    def add_one(value):
        return value + 1

    async def arrives(text):
        return text

    def yields(text):
        yield text

    class Words:
        @staticmethod
        def turn(text):
            return text[::-1]

    shout = Words()
    shout.loudly = lambda text: text + "!"
    number = 7
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A current directory with a module of functions."""
    (tmp_path / "functions.py").write_text(textwrap.dedent(FUNCTIONS))
    return tmp_path


def environment() -> dict[str, str]:
    path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


def run(
    folder: Path, *arguments: str, given: bytes | None = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "parallel_core", *arguments],
        cwd=folder,
        env=environment(),
        input=given,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


def start(folder: Path, *arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
    settings = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
    return subprocess.Popen(
        [sys.executable, "-m", "parallel_core", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        bufsize=0,
        **settings,
    )


def next_line(stream: IO[bytes] | None) -> bytes:
    """Read one line; fail when it does not come."""
    assert stream is not None
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([stream], [], [], LIMIT)[0], f"waited in vain after {line!r}"
        piece = os.read(stream.fileno(), 1)
        assert piece, f"the end came after {line!r}"
        line += piece
    return line


def give(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()


def numbers(first: int, last: int) -> bytes:
    return b"".join(b"%d\n" % number for number in range(first, last + 1))


# --- results and their order -----------------------------------------------------------


def test_results_come_in_the_order_of_the_lines(folder: Path) -> None:
    done = run(folder, "map", "functions:double", "--jobs", "2", given=numbers(1, 5000))
    assert done.stderr == b""
    assert done.stdout.split() == [b"%d" % (2 * number) for number in range(1, 5001)]
    assert done.returncode == 0


def test_a_later_line_that_is_done_first_waits_for_its_turn(folder: Path) -> None:
    arguments = ["functions:meet", "--jobs", "2", "--batch-size", "1"]
    done = run(folder, "map", *arguments, given=b"wait\nmake\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"wait\nmake\n", b"", 0)


def test_unordered_results_come_as_they_complete(folder: Path) -> None:
    arguments = ["functions:meet", "--jobs", "2", "--batch-size", "1", "--unordered"]
    with start(folder, "map", *arguments) as process:
        give(process, b"wait\nquick\n")
        assert next_line(process.stdout) == b"quick\n"
        (folder / "go").touch()
        assert next_line(process.stdout) == b"wait\n"
        out, err = process.communicate(timeout=LIMIT)
    assert (out, err, process.returncode) == (b"", b"", 0)


@pytest.mark.parametrize(
    "settings",
    [
        ["--jobs", "1"],
        ["--jobs", "2"],
        ["--jobs=-1"],
        ["--batch-size", "3"],
        ["--batch-size", "auto"],
        ["--backend", "threading", "--jobs", "2"],
        ["--backend", "sequential"],
        ["--backend", "loky", "--jobs", "2"],
        ["--prefer", "threads"],
        ["--prefer", "processes"],
    ],
    ids=" ".join,
)
def test_the_results_do_not_depend_on_how_they_are_computed(
    folder: Path, settings: list[str]
) -> None:
    done = run(folder, "map", "functions:upper", *settings, given=b"a\nb\n\nd\ne\nf\ng")
    assert (done.stdout, done.stderr, done.returncode) == (b"A\nB\n\nD\nE\nF\nG\n", b"", 0)


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("functions:Words.turn", b"cba\n"),
        ("functions:shout.loudly", b"abc!\n"),
        ("os.path:basename", b"abc\n"),
        ("builtins:len", b"3\n"),
    ],
)
def test_dotted_names_and_modules_from_anywhere(folder: Path, target: str, answer: bytes) -> None:
    done = run(folder, "map", target, given=b"abc\n")
    assert (done.stdout, done.stderr, done.returncode) == (answer, b"", 0)


def test_a_file_is_read_and_a_dash_is_standard_input(folder: Path) -> None:
    (folder / "lines.txt").write_text("a\nb\n")
    assert run(folder, "map", "functions:upper", "lines.txt").stdout == b"A\nB\n"
    assert run(folder, "map", "functions:upper", "-", given=b"c\n").stdout == b"C\n"


@pytest.mark.parametrize("policy", ["stop", "skip", "report"])
def test_empty_input_gives_empty_output(folder: Path, policy: str) -> None:
    done = run(folder, "map", "functions:upper", "--on-error", policy, given=b"")
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)


def test_the_installed_command_imports_from_the_current_directory(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = tmp_path_factory.mktemp("bin") / "parallel-core"
    script.write_text("from parallel_core.cli import main\nraise SystemExit(main())\n")
    done = subprocess.run(
        [sys.executable, str(script), "map", "functions:upper", "--jobs", "2"],
        cwd=folder,
        env=environment(),
        input=b"a\nb\n",
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"A\nB\n", b"", 0)


# --- text ------------------------------------------------------------------------------


def test_none_is_an_empty_line_and_strings_are_printed_as_they_are(folder: Path) -> None:
    assert run(folder, "map", "functions:nothing", given=b"a\nb\n").stdout == b"\n\n"
    assert run(folder, "map", "functions:two_lines", given=b"a\nb\n").stdout == b"a\na\nb\nb\n"


@pytest.mark.parametrize("how", ["-j1", "-j2", "--prefer=threads"])
def test_what_functions_and_modules_print_is_among_no_results(folder: Path, how: str) -> None:
    (folder / "chatty.py").write_text(
        "import sys\nprint('imported')\n"
        "def upper(text):\n    print(f'at {text}\\n', end='')\n    return text.upper()\n"
    )
    done = run(folder, "map", how, "chatty:upper", given=b"a\nb\nc\n")
    assert (done.stdout, done.returncode) == (b"A\nB\nC\n", 0)
    said = done.stderr.decode().splitlines()
    assert set(said) == {"imported", "at a", "at b", "at c"} and said.count("at a") == 1


def test_newlines_of_both_kinds_are_stripped_and_other_whitespace_stays(folder: Path) -> None:
    given = b"a\r\n b \n\x0c\nc\rd\ne"
    done = run(folder, "map", "functions:show", given=given)
    assert done.stdout.splitlines() == [rb"'a'", rb"' b '", rb"'\x0c'", rb"'c\rd'", rb"'e'"]


def test_unicode_and_bytes_that_are_not_utf8_pass_through(folder: Path) -> None:
    given = "naïve\n日本語\n🙂\n".encode() + b"\xff\xfe caf\xe9\n"
    done = run(folder, "map", "functions:same", "--jobs", "2", given=given)
    assert (done.stdout, done.stderr, done.returncode) == (given, b"", 0)
    assert (
        run(folder, "map", "functions:upper", given="é\xdf\n".encode()).stdout == "ÉSS\n".encode()
    )


def test_a_line_longer_than_any_buffer(folder: Path) -> None:
    given = b"x" * 3_000_000 + b"\n" + b"y\n"
    done = run(folder, "map", "builtins:len", given=given)
    assert (done.stdout, done.returncode) == (b"3000000\n1\n", 0)


# --- JSON ------------------------------------------------------------------------------


def test_json_in_and_out_one_line_each(folder: Path) -> None:
    values: list[Any] = [1, 2.5, "a\nb", None, True, [1, [2]], {"k": {"ü": "日"}}, "", {}]
    given = "".join(json.dumps(value) + "\n" for value in values).encode()
    done = run(folder, "map", "--json", "functions:same", given=given)
    assert [json.loads(line) for line in done.stdout.splitlines()] == values
    assert "日".encode() in done.stdout
    assert (done.stderr, done.returncode) == (b"", 0)


def test_json_strings_with_odd_characters(folder: Path) -> None:
    given = b'"caf\xe9"\n"\\ud800"\n'
    done = run(folder, "map", "--json", "functions:same", given=given)
    assert (done.stdout, done.stderr, done.returncode) == (given, b"", 0)


def test_a_line_that_is_not_json_is_a_failure_of_that_line(folder: Path) -> None:
    given = b"1\n{oops\n3\n"
    done = run(folder, "map", "--json", "functions:same", "--on-error", "report", given=given)
    assert (done.stdout, done.returncode) == (b"1\n3\n", 3)
    assert b"line 2: json.decoder.JSONDecodeError: " in done.stderr


@pytest.mark.parametrize(("name", "said"), [("make_set", b"set"), ("not_a_number", b"JSON")])
def test_a_result_that_json_cannot_hold_is_a_failure_of_its_line(
    folder: Path, name: str, said: bytes
) -> None:
    done = run(folder, "map", "--json", f"functions:{name}", given=b"1\n")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert b"line 1: " in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize(
    ("name", "said"), [("arrives", b"map another one that awaits"), ("yields", b"return a list")]
)
def test_a_function_that_has_not_run_yet_fails_its_line(
    folder: Path, name: str, said: bytes, form: list[str]
) -> None:
    done = run(folder, "map", *form, f"functions:{name}", given=b"1\n")
    assert (done.stdout, done.returncode) == (b"", 1)
    assert said in done.stderr
    assert b"never awaited" not in done.stderr


def test_a_function_that_wants_no_string_has_json_pointed_out_once(folder: Path) -> None:
    arguments = ["functions:add_one", "--on-error", "report", "--jobs", "1"]
    done = run(folder, "map", *arguments, given=b"1\n2\n")
    assert done.stderr.count(b"--json has it parsed") == 1
    done = run(folder, "map", "--json", *arguments, given=b'1\n"2"\n')
    assert (done.stdout, done.returncode) == (b"2\n", 3)
    assert b"--json" not in done.stderr


# --- streaming -------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[], ["--unordered"]])
@pytest.mark.parametrize("policy", ["stop", "report"])
def test_endless_input_and_a_reader_that_goes_away(
    folder: Path, policy: str, order: list[str]
) -> None:
    endless = [sys.executable, "-c", "while True: print('y')"]
    with (
        subprocess.Popen(endless, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as producer,
        start(
            folder, "map", "functions:upper", "--on-error", policy, *order, stdin=producer.stdout
        ) as process,
    ):
        assert producer.stdout is not None
        producer.stdout.close()
        assert process.stdout is not None
        assert [next_line(process.stdout) for _ in range(3)] == [b"Y\n"] * 3
        process.stdout.close()
        assert process.wait(timeout=LIMIT) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert producer.wait(timeout=LIMIT) != 0


@pytest.mark.skipif(os.name == "nt", reason="needs a shell with yes and head")
def test_yes_and_head(folder: Path) -> None:
    command = f'yes | "{sys.executable}" -m parallel_core map functions:upper | head -n 4'
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment(),
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"Y\nY\nY\nY\n", b"")


@pytest.mark.parametrize("settings", [["--jobs", "1"], ["--jobs", "2"], ["--unordered"]])
def test_who_waits_for_an_answer_before_going_on_gets_it(folder: Path, settings: list[str]) -> None:
    with start(folder, "map", "functions:upper", *settings) as process:
        for word in (b"one", b"two", b"three", b"four"):
            give(process, word + b"\n")
            assert next_line(process.stdout) == word.upper() + b"\n"
        give(process, b"half of a")
        give(process, b" line\nlast")
        assert next_line(process.stdout) == b"HALF OF A LINE\n"
        out, err = process.communicate(timeout=LIMIT)
    assert (out, err, process.returncode) == (b"LAST\n", b"", 0)


def test_line_numbers_go_on_after_a_pause_of_the_input(folder: Path) -> None:
    with start(folder, "map", "functions:not_three", "--on-error", "report") as process:
        for number in (b"1", b"2"):
            give(process, number + b"\n")
            assert next_line(process.stdout) == number + b"\n"
        give(process, b"3\n")
        assert b"line 3: ValueError" in next_line(process.stderr)
        give(process, b"4\n")
        assert next_line(process.stdout) == b"4\n"
        process.communicate(timeout=LIMIT)
    assert process.returncode == 3


def test_lines_are_there_as_they_come_and_the_dispatch_is_woken() -> None:
    if not os.path.exists("/dev/fd"):
        pytest.skip("no /dev/fd")
    reading, writing = os.pipe()
    source = LineSource(f"/dev/fd/{reading}")
    tasks = LineTasks(source, lambda number, line: (number, line))
    woken = threading.Event()
    tasks.wake_by(woken.set)
    assert (tasks.is_empty(), tasks.is_over(), next(tasks, None)) == (True, False, None)
    os.write(writing, b"a\nb\nc")
    assert woken.wait(LIMIT)
    assert (tasks.count(), next(tasks), next(tasks)) == (2, (1, b"a"), (2, b"b"))
    assert next(tasks, None) is None, "a line that has no end yet is none"
    woken.clear()
    os.write(writing, b"d\n")
    assert woken.wait(LIMIT)
    assert next(tasks) == (3, b"cd"), "to have nothing now is not the end"
    assert not tasks.is_over()
    os.close(writing)
    wait_until(tasks.is_over, "the input has ended")
    assert next(tasks, None) is None
    os.close(reading)
    source.close()


def test_no_more_is_read_than_is_wanted_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lines").write_bytes(numbers(1, 1_000_000))
    with open(tmp_path / "lines") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        source = LineSource("-")
        tasks = LineTasks(source, lambda number, line: line)
        tasks.wake_by(lambda: None)
        wait_until(lambda: os.lseek(stdin.fileno(), 0, os.SEEK_CUR) >= 1 << 20, "it is read ahead")
        assert tasks.count() < 20_000
        assert next(tasks) == b"1"
        assert os.lseek(stdin.fileno(), 0, os.SEEK_CUR) < 2 << 20
        source.close()


@pytest.mark.parametrize("order", [[], ["--unordered"]])
def test_who_waits_for_an_answer_gets_it_with_a_journal_too(folder: Path, order: list[str]) -> None:
    arguments = ["functions:upper", "--jobs", "2", "--journal", "kept", *order]
    for words in ([b"one", b"two"], [b"one", b"two", b"three"]):
        with start(folder, "map", *arguments) as process:
            for word in words:
                give(process, word + b"\n")
                assert next_line(process.stdout) == word.upper() + b"\n"
            out, err = process.communicate(timeout=LIMIT)
        assert (out, process.returncode) == (b"", 0)
    assert err == b"parallel-core map: 2 of 3 results were taken over from kept\n"


# --- failing lines ---------------------------------------------------------------------


def test_stop_names_the_line_and_the_error(folder: Path) -> None:
    done = run(folder, "map", "functions:not_three", "--jobs", "2", given=numbers(1, 2000))
    assert done.stderr == b"parallel-core map: line 3: ValueError: three is bad\n"
    assert numbers(1, 2).startswith(done.stdout)
    assert done.returncode == 1


def test_stop_does_not_wait_for_the_end_of_the_input(folder: Path) -> None:
    with start(folder, "map", "functions:not_three", "--jobs", "2") as process:
        give(process, b"3\n")
        assert process.wait(timeout=LIMIT) == 1


@pytest.mark.parametrize("order", [[], ["--unordered"]])
def test_skip_leaves_out_and_counts(folder: Path, order: list[str]) -> None:
    arguments = ["functions:not_every_thousandth", "--on-error", "skip", "--jobs", "2", *order]
    done = run(folder, "map", *arguments, given=numbers(1, 5000))
    assert sorted(int(line) for line in done.stdout.split()) == [
        number for number in range(1, 5001) if number % 1000
    ]
    assert done.stderr == b"parallel-core map: 5 lines of 5000 failed and were left out\n"
    assert done.returncode == 3


def test_report_names_each_line(folder: Path) -> None:
    arguments = ["functions:not_every_thousandth", "--on-error", "report", "--jobs", "2"]
    done = run(folder, "map", *arguments, given=numbers(1, 3000))
    assert done.stderr.decode().splitlines() == [
        f"parallel-core map: line {number}: LookupError: {number}" for number in (1000, 2000, 3000)
    ]
    assert len(done.stdout.split()) == 2997
    assert done.returncode == 3


@pytest.mark.parametrize("policy", ["skip", "report"])
def test_without_failures_skip_and_report_end_with_0(folder: Path, policy: str) -> None:
    done = run(folder, "map", "functions:upper", "--on-error", policy, given=b"a\n")
    assert (done.stdout, done.stderr, done.returncode) == (b"A\n", b"", 0)


@pytest.mark.parametrize("policy", ["stop", "report"])
def test_the_traceback_on_request(folder: Path, policy: str) -> None:
    arguments = ["functions:not_three", "--traceback", "--on-error", policy]
    done = run(folder, "map", *arguments, given=b"3\n")
    assert b"Traceback (most recent call last):" in done.stderr
    assert b"in not_three" in done.stderr
    assert b"applying.py" not in done.stderr


@pytest.mark.parametrize("settings", [["--jobs", "1"], ["--jobs", "2"]])
def test_a_function_that_exits_fails_its_line(folder: Path, settings: list[str]) -> None:
    arguments = ["functions:leaves", "--on-error", "report", *settings]
    done = run(folder, "map", *arguments, given=b"a\nb\n")
    assert done.stdout == b""
    assert done.stderr.decode().splitlines() == [
        f"parallel-core map: line {line}: SystemExit: left at {word}"
        for line, word in enumerate("ab", 1)
    ]
    assert done.returncode == 3


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_a_dead_worker_ends_the_run(folder: Path) -> None:
    arguments = ["functions:dies", "--jobs", "2"]
    done = run(folder, "map", *arguments, given=b"a\nb\ndie\nd\n" + 2000 * b"e\n")
    assert b"line 3: parallel_core.errors.WorkerDiedError: a worker process" in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
@pytest.mark.parametrize("order", [[], ["--unordered"]])
@pytest.mark.parametrize("policy", ["skip", "report"])
def test_a_dead_worker_fails_its_line(folder: Path, policy: str, order: list[str]) -> None:
    arguments = ["functions:dies", "--jobs", "2", "--on-error", policy, *order]
    done = run(folder, "map", *arguments, given=b"a\nb\ndie\nd\n" + 2000 * b"e\n")
    assert sorted(done.stdout.split()) == sorted([b"a", b"b", b"d", *2000 * [b"e"]])
    if policy == "report":
        assert b"line 3: parallel_core.errors.WorkerDiedError: a worker process" in done.stderr
    else:
        assert b"1 line of 2004 failed" in done.stderr
    assert done.returncode == 3


# --- what is wrong with the command ----------------------------------------------------


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("functions", "write package.module:function"),
        ("functions.upper", "such as functions:upper"),
        ("functions:", "write package.module:function"),
        (":upper", "write package.module:function"),
        ("..:upper", "write package.module:function"),
        ("function:upper", "did you mean functions"),
        ("functions.py:upper", "as in an import, functions:upper"),
        ("./pkg/mod.py:upper", "as in an import, pkg.mod:upper"),
        ("zzzzz:upper", "has: broken, empty, functions, incomplete"),
        ("functions.more:upper", "'functions' is a module, not a package"),
        ("json.decode:x", "did you mean json.decoder"),
        ("functions:uper", "did you mean upper?"),
        ("functions:zzzzz", "'functions' has: "),
        ("functions:Words.trun", "did you mean turn?"),
        ("functions:number", "'functions:number' cannot be called: it is of type 'int'"),
        ("empty:f", "'empty' has no attribute 'f'"),
        ("incomplete:f", "importing 'incomplete' failed: ModuleNotFoundError"),
        ("broken:f", "importing 'broken' failed: ZeroDivisionError"),
    ],
)
def test_a_function_that_is_not_there(folder: Path, target: str, said: str) -> None:
    (folder / "empty.py").touch()
    (folder / "incomplete.py").write_text("import no_such_module_anywhere\n")
    (folder / "broken.py").write_text("1 / 0\n")
    done = run(folder, "map", target, given=b"a\n")
    assert said in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1
    assert (done.stdout, done.returncode) == (b"", 2)


def test_an_import_that_fails_names_the_place(folder: Path) -> None:
    (folder / "broken.py").write_text("\n\n1 / 0\n")
    done = run(folder, "map", "broken:f")
    assert b"broken.py:3)" in done.stderr
    (folder / "unfinished.py").write_text("def f(:\n")
    done = run(folder, "map", "unfinished:f")
    assert b"SyntaxError" in done.stderr
    assert b"unfinished.py, line 1" in done.stderr
    assert done.returncode == 2


def test_a_file_that_cannot_be_read(folder: Path) -> None:
    for name in ("missing.txt", "."):
        done = run(folder, "map", "functions:upper", name)
        assert f"cannot read '{name}': " in done.stderr.decode()
        assert (done.stdout, done.returncode) == (b"", 2)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that cannot be read")
def test_input_that_fails_while_it_is_read(folder: Path) -> None:
    done = run(folder, "map", "functions:upper", "/proc/self/mem")
    assert b"cannot read on in /proc/self/mem, after line 0: " in done.stderr
    assert done.returncode == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_cannot_be_written(folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "parallel_core", "map", "functions:upper"],
            cwd=folder,
            env=environment(),
            input=b"a\n",
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=LIMIT,
            check=False,
        )
    assert done.stderr.startswith(b"parallel-core map: cannot write the results: ")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--jobs", "0"], "0 workers can do nothing"),
        (["--jobs", "many"], "a whole number is needed, not 'many'"),
        (["--batch-size", "0"], "a number from 1 on is needed, not '0'"),
        (["--batch-size", "some"], "a number from 1 on is needed, not 'some'"),
        (["--prefer", "magic"], "invalid choice: 'magic'"),
        (["--on-error", "ignore"], "invalid choice: 'ignore'"),
        (["--backend", "no-such-backend"], "no-such-backend"),
        (["--unknown"], "--unknown"),
        (["one.txt", "two.txt"], "package.module:function [FILE]"),
        (["one.txt", "two.txt"], "parallel-core map: error: unrecognized arguments: two.txt"),
    ],
    ids=" ".join,
)
def test_bad_options(folder: Path, option: list[str], said: str) -> None:
    done = run(folder, "map", "functions:upper", *option, given=b"a\n")
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert (done.stdout, done.returncode) == (b"", 2)


def test_no_command_and_no_function(folder: Path) -> None:
    assert run(folder).returncode == 2
    assert run(folder, "map").returncode == 2
    assert run(folder, "no-such-command").returncode == 2


# --- ends ------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="needs process groups")
@pytest.mark.parametrize("settings", [["--jobs", "1"], ["--jobs", "2"]])
def test_ctrl_c_while_tasks_run(folder: Path, settings: list[str]) -> None:
    with start(
        folder,
        "map",
        "functions:sleep_for_long",
        *settings,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        give(process, b"a\nb\nc\n")
        limit = time.monotonic() + LIMIT
        while not (folder / "asleep-a").exists():
            assert time.monotonic() < limit
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does: to all of us
        assert process.wait(timeout=LIMIT) == 130
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.skipif(os.name == "nt", reason="needs process groups")
def test_ctrl_c_while_waiting_for_input(folder: Path) -> None:
    with start(
        folder,
        "map",
        "functions:upper",
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        give(process, b"a\n")
        assert next_line(process.stdout) == b"A\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=LIMIT) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""


# --- help, version, info ---------------------------------------------------------------


def test_the_help_lists_the_exit_codes(folder: Path) -> None:
    done = run(folder, "map", "--help")
    assert done.returncode == 0
    text = done.stdout.decode()
    for code in ("0  ", "1  ", "2  ", "3  ", "130", "141"):
        assert f"\n  {code}  " in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_main_returns_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"parallel-core {parallel_core.__version__}\n"
    assert main(["--help"]) == 0
    assert main(["nonsense"]) == 2


def test_info(folder: Path) -> None:
    done = run(folder, "info")
    assert (done.stderr, done.returncode) == (b"", 0)
    text = done.stdout.decode()
    assert parallel_core.__version__ in text
    assert f"{parallel_core.cpu_count()} usable" in text
    for name in (
        "python",
        "platform",
        "loky",
        "cloudpickle",
        "numpy",
        "threadpoolctl",
        "start method",
    ):
        assert f"\n{name} " in text


def test_info_as_json(folder: Path) -> None:
    done = run(folder, "info", "--json")
    assert (done.stderr, done.returncode) == (b"", 0)
    facts = json.loads(done.stdout)
    assert facts["versions"]["parallel-core"] == parallel_core.__version__
    assert facts["cores"]["usable"] == parallel_core.cpu_count()
    assert facts["cores"]["machine"] == os.cpu_count()
    candidates = facts["arrays"]["candidates"]
    usable = [candidate for candidate in candidates if candidate["problem"] is None]
    assert facts["arrays"]["folder"] == (usable[0]["path"] if usable else None)


def test_info_imports_no_companion_that_is_not_needed_to_count_cores(folder: Path) -> None:
    program = (
        "import sys; from parallel_core.cli import main; main(['info']); "
        "assert not {'numpy', 'threadpoolctl'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=LIMIT,
    )


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert format_nbytes(size) == text
