"""A journal gives back what was recorded, to the same call only, whatever ended the program."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_core import JournalError, SerializationError, delayed
from parallel_core.journal import file, store
from parallel_core.journal.store import Journal
from parallel_core.tasks.placeholders import KnownResult
from watching import HOME, LIMIT

core = pytest.mark.core


def double(value: Any) -> Any:
    return value * 2


def triple(value: Any) -> Any:
    return value * 3


def tasks(count: int, function: Callable[..., Any] = double) -> list[Any]:
    return [delayed(function)(i) for i in range(count)]


def run(journal: Journal, items: Any) -> list[Any]:
    """Run a call as a plain loop would, and return its results."""
    results = []
    for position, item in enumerate(journal.look_up(items)):
        if isinstance(item, KnownResult):
            results.append(item.value)
        else:
            function, args, kwargs = item
            results.append(function(*args, **kwargs))
            journal.record(position, results[-1:])
    return results


def made(path: Path, count: int = 10) -> Path:
    with Journal.open(path) as journal:
        run(journal, tasks(count))
    return path


def around(path: Path) -> dict[str, bytes]:
    """Return all that is in the folder of `path`."""
    return {entry.name: entry.read_bytes() for entry in path.parent.iterdir() if entry.is_file()}


def assert_refused(path: Path, words: str) -> None:
    """Check that a file is refused, and that not a byte of it has changed."""
    before = around(path)
    with pytest.raises(JournalError, match=words):
        Journal.open(path).close()
    assert around(path) == before


class Program:
    """Runs text in another interpreter, in the folder of a test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, text: str, *arguments: str) -> subprocess.Popen[str]:
        script = self.folder / "program.py"
        script.write_text(textwrap.dedent(text))
        return subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(HOME)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, text: str, *arguments: str) -> str:
        with self.start(text, *arguments) as process:
            output, _ = process.communicate(timeout=LIMIT)
        assert process.returncode == 0
        return output


@pytest.fixture
def program(tmp_path: Path) -> Program:
    folder = tmp_path / "program"
    folder.mkdir()
    return Program(folder)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder / "journal"


# --- what is taken up -----------------------------------------------------------------------------


@core
def test_only_what_is_missing_is_computed(path: Path) -> None:
    made(path, 4)
    with Journal.open(path) as journal:
        items = list(journal.look_up(tasks(6)))
        assert [item.value for item in items[:4]] == [0, 2, 4, 6]
        assert items[4:] == tasks(6)[4:]
        assert (journal.taken_over, journal.recorded) == (4, 0)
        journal.record(4, [8, 10])
        assert journal.recorded == 2
    with Journal.open(path) as journal:
        assert run(journal, tasks(6)) == [0, 2, 4, 6, 8, 10]
        assert (journal.taken_over, journal.recorded) == (6, 0)


@core
def test_one_file_is_left(path: Path) -> None:
    made(path)
    assert os.listdir(path.parent) == ["journal"]


def test_results_come_in_any_order_and_with_gaps(path: Path) -> None:
    with Journal.open(path) as journal:
        list(journal.look_up(tasks(9)))
        journal.record(6, [12, 14])
        journal.record(1, [2])
    with Journal.open(path) as journal:
        known = [isinstance(item, KnownResult) for item in journal.look_up(tasks(9))]
        assert [i for i, found in enumerate(known) if found] == [1, 6, 7]


def test_what_came_from_the_journal_is_not_recorded_again(path: Path) -> None:
    made(path, 2)
    with Journal.open(path) as journal:
        list(journal.look_up(tasks(4)))
        journal.record(0, ["other", "other", 4, 6])
        assert journal.recorded == 2
        journal.record(2, ["other", "other"])
        assert journal.recorded == 2
    with Journal.open(path) as journal:
        assert run(journal, tasks(4)) == [0, 2, 4, 6]


def test_many_results_of_all_sizes(path: Path) -> None:
    values: list[Any] = [bytes([i % 256]) * (i * 40) for i in range(300)]
    values += [None, np.arange(50_000), {"a": [1.5]}, "ü" * 9000]
    with Journal.open(path) as journal:
        list(journal.look_up(tasks(len(values))))
        journal.record(0, values)
    with Journal.open(path) as journal:
        found = [item.value for item in journal.look_up(tasks(len(values)))]
    assert found[:301] == values[:301]
    assert np.array_equal(found[301], values[301])
    assert found[302:] == values[302:]


@pytest.mark.parametrize("kind", [list, tuple])
def test_other_forms_of_tasks(path: Path, kind: Any) -> None:
    items = [kind([double, [i], {}]) for i in range(3)] + [kind([double, (), {"value": 5}])]
    for recorded in (4, 0):
        with Journal.open(path) as journal:
            assert run(journal, items) == [0, 2, 4, 10]
            assert journal.recorded == recorded


def test_what_is_no_task_is_passed_on(path: Path) -> None:
    strange = [5, "abc", None, (1, (), {}), (double, 1, {}), [], iter("abc")]
    with Journal.open(path) as journal:
        found = list(journal.look_up([*strange, *tasks(1)]))
        assert all(one is other for one, other in zip(found[:-1], strange, strict=True))
        assert list(found[-2]) == ["a", "b", "c"]


def test_two_calls_one_after_the_other(path: Path) -> None:
    with Journal.open(path) as journal:
        assert run(journal, tasks(3)) == run(journal, tasks(3)) == [0, 2, 4]
        assert (journal.taken_over, journal.recorded) == (3, 3)


def test_one_call_at_a_time(path: Path) -> None:
    with Journal.open(path) as journal:
        looking = journal.look_up(tasks(3))
        next(looking)
        with pytest.raises(JournalError, match="in use by another call"):
            next(journal.look_up(tasks(3)))
        looking.close()
        assert run(journal, tasks(3)) == [0, 2, 4]


def test_classes_of_the_script_come_back_as_themselves(program: Program) -> None:
    text = """
        from parallel_core import delayed
        from parallel_core.journal.store import Journal

        class Point:
            def __init__(self, x):
                self.x = x

        def shift(point):
            return Point(point.x + 1), lambda: point.x

        with Journal.open("journal") as journal:
            for position, item in enumerate(journal.look_up([delayed(shift)(Point(1))])):
                if isinstance(item, tuple):
                    journal.record(position, [item[0](*item[1])])
                else:
                    point, function = item.value
                    print(type(point) is Point, point.x, function())
    """
    assert program(text) == ""
    assert program(text) == "True 2 1\n"


# --- the caller's iterable ------------------------------------------------------------------------


def test_what_the_iterable_raises_is_raised_as_it_is(path: Path) -> None:
    error = JournalError("of the caller's own")

    def failing() -> Iterator[Any]:
        yield from tasks(2)
        raise error

    with Journal.open(path) as journal:
        looking = journal.look_up(failing())
        assert len([next(looking), next(looking)]) == 2
        with pytest.raises(JournalError) as caught:
            next(looking)
        assert caught.value is error
        with pytest.raises(TypeError, match="not iterable"):
            journal.look_up(5)  # type: ignore[arg-type]


def test_closing_closes_the_callers_generator(path: Path) -> None:
    closed = []

    def noting() -> Iterator[Any]:
        try:
            yield from tasks(5)
        finally:
            closed.append(True)
            raise KeyError("while closing")

    with Journal.open(path) as journal:
        looking = journal.look_up(noting())
        next(looking)
        with pytest.raises(KeyError, match="while closing"):
            looking.close()
        assert closed == [True]


def test_a_refused_task_closes_it_too(path: Path) -> None:
    made(path, 3)
    closed = []

    def noting() -> Iterator[Any]:
        try:
            yield from tasks(5, triple)
        finally:
            closed.append(True)

    with Journal.open(path) as journal, pytest.raises(JournalError):
        next(journal.look_up(noting()))
    assert closed == [True]


# --- another call ---------------------------------------------------------------------------------


@core
@pytest.mark.parametrize(
    ("items", "seed", "words"),
    [
        (tasks(2, triple), 1, r"task 0 of the call: .*triple\(0\).* differs in its function"),
        ([*tasks(1), delayed(double)(9)], 1, r"task 1 .*double\(9\).* differs in its argument 0\."),
        ([delayed(double)(0.0)], 1, "its argument 0"),
        ([delayed(double)(value=0)], 1, "its argument 'value'"),
        ([delayed(double)(0, 1)], 1, "the number of its arguments"),
        ([delayed(double)(2)], 1, r"argument 0 \(they are those of task 2 there\)"),
        (tasks(2), None, r"task 0 .* differs in its seed\. Name another file, or delete this one"),
        (tasks(2), 2, "its seed"),
        ([delayed(triple)(1)], 2, "its function: .*, and in its argument 0 .*, and in its seed"),
    ],
)
def test_another_call_is_refused(path: Path, items: Any, seed: Any, words: str) -> None:
    with Journal.open(path, seed=1) as journal:
        run(journal, tasks(3))
    before = path.read_bytes()
    with Journal.open(path, seed=seed) as journal:
        with pytest.raises(JournalError, match=words):
            run(journal, items)
        assert journal.recorded == 0
    assert path.read_bytes() == before
    with Journal.open(path, seed=1) as journal:
        assert run(journal, tasks(3)) == [0, 2, 4]
        assert journal.taken_over == 3


AS_IT_WAS = """
import math
RATE, TABLE, OTHER = 2, {"a": [1]}, 5
class Model:
    size = 1
def helper(x):
    return RATE * x
def work(x, y=1):
    return helper(x) + RATE + TABLE["a"][0] + Model.size + y + math.sqrt(x)
"""


@core
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "RATE, TABLE, OTHER = 2",
            "RATE, TABLE, OTHER = 3",
            r"the global 'RATE' \(2 then, 3 now\)",
        ),
        ('{"a": [1]}', '{"a": [2]}', "function: the global 'TABLE'"),
        ("RATE * x", "x * RATE", "function: the code of helper"),
        ("y + math", "y - math", "function: the code of work"),
        ("y=1", "y=2", "function: the defaults of work"),
        ("size = 1", "size = 7", r"the attribute Model.size \(1 then, 7 now\)"),
        ("import math", "import cmath as math", "the global 'math'"),
        ("+ y", "+ y + OTHER", r"the code of work, the global 'OTHER' \(new\)"),
        ("work(x", "job(x", "the code of work then, the code of job now"),
    ],
)
def test_what_has_changed_in_a_function_is_named(
    path: Path, old: str, new: str, words: str
) -> None:
    for text, is_same in ((AS_IT_WAS, True), (AS_IT_WAS.replace(old, new), False)):
        scope: dict[str, Any] = {"__name__": "__main__"}
        exec(text, scope)
        task = delayed(scope.get("work") or scope["job"])(4)
        with Journal.open(path) as journal:
            if is_same:
                run(journal, [task])
                continue
            with pytest.raises(JournalError, match=rf"differs in its .*{words}"):
                run(journal, [task])


@core
@pytest.mark.parametrize("value", ["time.time()", "time.time_ns()", "datetime.datetime.now()"])
def test_a_global_made_at_the_start_is_told_of_at_once(path: Path, value: str) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(f"import datetime, time\nnow = {value}\ndef since(x): return x, now", scope)
    with Journal.open(path) as journal:
        with pytest.warns(RuntimeWarning, match="will not fit .*since uses the global 'now' = "):
            run(journal, [delayed(scope["since"])(i) for i in range(3)])
    with Journal.open(path, own=frozenset({"now"})) as journal:
        with pytest.raises(JournalError, match=r"the global 'now' \(.*gone"):
            run(journal, [delayed(scope["since"])(0)])


@pytest.mark.parametrize("value", ["1_000_000_000.0", "7", "None", "datetime.datetime.max", "'x'"])
def test_other_globals_are_not(path: Path, value: str) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(f"import datetime\nfixed = {value}\ndef work(x): return x, fixed", scope)
    with Journal.open(path) as journal:
        run(journal, [delayed(scope["work"])(1)])


def test_a_global_that_changes_between_two_tasks_counts(path: Path) -> None:
    scope: dict[str, Any] = {"factor": 2, "__name__": "__main__"}
    exec("def scale(value): return factor * value", scope)

    def scaled(*factors: int) -> Iterator[Any]:
        for value, scope["factor"] in enumerate(factors):
            yield delayed(scope["scale"])(value)

    with Journal.open(path) as journal:
        assert run(journal, scaled(2, 5, 5, 2)) == [0, 5, 10, 6]
    with Journal.open(path) as journal:
        with pytest.raises(JournalError, match=r"task 2 .* its function"):
            run(journal, scaled(2, 5, 2))


def test_what_an_initializer_sets_does_not_count(path: Path) -> None:
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec("def scale(value): return state * value", scope)
    for state in (2, 3):
        scope["state"] = state
        with Journal.open(path, own=frozenset({"state"})) as journal:
            assert run(journal, [delayed(scope["scale"])(4)]) == [8]


def test_an_argument_without_a_digest_is_named(path: Path) -> None:
    with Journal.open(path) as journal:
        for task, words in [
            (delayed(double)([1, threading.Lock()]), r"argument 0\[1\], <unlocked .* 'lock'"),
            (delayed(double)(value=iter_nothing()), "argument 'value', .*'generator'"),
        ]:
            with pytest.raises(SerializationError, match=rf"task 1 of the call: .*{words}"):
                list(journal.look_up([*tasks(1), task]))


def iter_nothing() -> Iterator[Any]:
    yield from ()


# --- results that cannot be recorded --------------------------------------------------------------


def test_a_result_that_does_not_pickle_is_named_and_the_others_are_kept(path: Path) -> None:
    with Journal.open(path) as journal:
        list(journal.look_up(tasks(4)))
        with pytest.raises(SerializationError, match=r"task 1 .*double.*result\['a'\].*lock"):
            journal.record(0, [0, {"a": threading.Lock()}, 4])
        assert journal.recorded == 2
        journal.record(1, ["again"])  # its place is taken by nothing, and stays so
    with Journal.open(path) as journal:
        run(journal, tasks(4))
        assert journal.taken_over == 2


def test_a_result_that_is_too_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LARGEST", 1000)
    with Journal.open(path) as journal:
        list(journal.look_up(tasks(3)))
        with pytest.raises(JournalError, match=r"task 1 .*double.*takes 20\d\d bytes.*than 1000"):
            journal.record(0, [0, bytes(2000), 4])
        assert journal.recorded == 2


def test_the_limit_is_one_that_sqlite_has() -> None:
    with sqlite3.connect(":memory:") as connection:
        if hasattr(connection, "getlimit"):
            assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) > store.LARGEST
    connection.close()


def test_a_class_that_is_gone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal.open(path) as journal:
        list(journal.look_up(tasks(1)))
        journal.record(0, [Program(path)])
    monkeypatch.delattr(sys.modules[__name__], "Program")
    with Journal.open(path) as journal:
        with pytest.raises(JournalError, match=r"result of task 0 .* cannot be unpickled.*Program"):
            run(journal, tasks(1))


def test_a_full_disk(full_disk: Path) -> None:
    path = full_disk / "journal"
    filler = full_disk / "filler"
    filler.write_bytes(bytes(700_000))
    value = bytes(40_000)

    def record_all(journal: Journal) -> None:
        for position in range(100):
            journal.record(position, [value])

    with Journal.open(path) as journal:
        list(journal.look_up(tasks(100)))
        with pytest.raises(JournalError, match=r"could not be appended .*no room left") as caught:
            record_all(journal)
        fitted = journal.recorded
        assert fitted > 0
        assert f"task {fitted} could" in str(caught.value)
        assert f"({fitted} of this program)" in str(caught.value)
        with pytest.raises(JournalError, match="no room left"):
            journal.record(fitted, [value])
        filler.write_bytes(bytes(500_000))
        journal.record(fitted, [value])
        with pytest.raises(JournalError, match="no room left"):
            record_all(journal)
        fitted = journal.recorded
    fill(filler)
    with pytest.raises(JournalError, match="is the disk full"):
        Journal.open(path)
    filler.unlink()
    with Journal.open(path) as journal:
        assert sum(isinstance(item, KnownResult) for item in journal.look_up(tasks(100))) == fitted
    path.unlink()
    fill(filler)
    with pytest.raises(JournalError, match="disk"):
        Journal.open(path)
    assert os.listdir(full_disk) == ["filler"]
    filler.unlink()
    made(path)


def fill(path: Path) -> None:
    """Let a file take all the room that there is."""
    with open(path, "ab", 0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:  # there is no more
            pass


# --- programs that end ----------------------------------------------------------------------------

LOOP = """
    import sys
    from parallel_core import delayed
    from parallel_core.journal.store import Journal

    def work(i):
        return {"i": i, "data": bytes([i % 256]) * 1000}

    with Journal.open(sys.argv[1]) as journal:
        computed = 0
        for position, item in enumerate(journal.look_up(delayed(work)(i) for i in range(3000))):
            if isinstance(item, tuple):
                journal.record(position, [item[0](*item[1])])
                computed += 1
                print(position, flush=True)
            else:
                assert item.value == work(position), position
    print("done", journal.taken_over, computed)
"""


@core
def test_after_a_kill_everything_recorded_is_there(program: Program, path: Path) -> None:
    told = 0
    for kill_after in (1, 700):
        with program.start(LOOP, str(path)) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(kill_after)][-1] + 1
            process.send_signal(signal.SIGKILL)
            told += len(process.stdout.read().splitlines()) - 1  # the last line may be half
    assert "journal-wal" in os.listdir(path.parent)
    assert program(LOOP, str(path)).splitlines()[-1].startswith("done")
    assert os.listdir(path.parent) == ["journal"]
    assert program(LOOP, str(path)) == "done 3000 0\n"
    assert told >= 700


@pytest.fixture
def killed(program: Program, path: Path) -> Path:
    """Return a journal whose program was killed, with the log that it left."""
    with program.start(LOOP, str(path)) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 900:  # by then, a part has gone into the file
            pass
        process.kill()
    assert (path.parent / "journal-wal").stat().st_size
    return path


def test_the_log_of_a_killed_program_is_not_touched_by_a_refusal(killed: Path) -> None:
    data = bytearray(killed.read_bytes())
    data[0] ^= 255
    killed.write_bytes(data)
    assert_refused(killed, "another kind of file")
    data[0] ^= 255
    data[60:64] = (file.FORMAT + 1).to_bytes(4, "big")
    killed.write_bytes(data)
    assert_refused(killed, "newer version")


def test_a_damaged_file_with_a_log_is_not_touched(killed: Path) -> None:
    whole, log = killed.read_bytes(), killed.parent / "journal-wal"
    log_data = log.read_bytes()
    refused = 0
    for page in range(0, len(whole) // 4096, 40):
        data = bytearray(whole)
        data[page * 4096 : page * 4096 + 200] = bytes([171]) * 200
        killed.write_bytes(data)
        log.write_bytes(log_data)
        before = around(killed)
        try:
            Journal.open(killed).close()
        except JournalError:
            refused += 1
            assert around(killed) == before, page
    assert refused > 2


def test_a_damaged_log_loses_its_end_at_most(killed: Path, program: Program) -> None:
    log = killed.parent / "journal-wal"
    data, whole = log.read_bytes(), killed.read_bytes()
    for place in (40, len(data) // 3, len(data) - 50):
        damaged = bytearray(data)
        damaged[place] ^= 255
        killed.write_bytes(whole)
        log.write_bytes(damaged)
        assert program(LOOP, str(killed)).splitlines()[-1].startswith("done")


def test_a_log_without_its_file_is_nothing(killed: Path) -> None:
    killed.unlink()  # as the advice was
    with Journal.open(killed) as journal:
        assert run(journal, tasks(3)) == [0, 2, 4]
        assert journal.taken_over == 0


@pytest.mark.parametrize("step", ["_make_tables", "_check_tables"])
def test_a_program_killed_while_it_made_the_file(path: Path, program: Program, step: str) -> None:
    text = f"""
        import os, sys
        from parallel_core.journal import file
        from parallel_core.journal.store import Journal

        def ended(*arguments, step=file.{step}):
            step(*arguments)
            os.kill(os.getpid(), 9)

        file.{step} = ended
        Journal.open(sys.argv[1])
    """
    with program.start(text, str(path)) as process:
        process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGKILL
    assert path.exists()
    made(path, 3)
    with Journal.open(path) as journal:
        run(journal, tasks(3))
        assert journal.taken_over == 3
    assert os.listdir(path.parent) == ["journal"]


def test_a_dropped_journal_lets_go(path: Path) -> None:
    journal = Journal.open(path)
    run(journal, tasks(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del journal
        gc.collect()
    with Journal.open(path) as journal:
        run(journal, tasks(3))
        assert journal.taken_over == 3


@pytest.mark.parametrize("child_ends", ["os._exit(0)", "sys.exit(0)", "raise SystemExit"])
def test_a_forked_child_leaves_it_alone(program: Program, path: Path, child_ends: str) -> None:
    text = f"""
        import gc, os, sys
        from parallel_core import JournalError, delayed
        from parallel_core.journal.store import Journal

        journal = Journal.open(sys.argv[1])
        looking = journal.look_up(delayed(abs)(i) for i in range(10))
        next(looking)
        journal.record(0, [0])
        sys.stdout.flush()
        child = os.fork()
        if not child:
            for use in (lambda: next(looking), lambda: journal.record(0, [0])):
                try:
                    use()
                except JournalError as error:
                    assert "belongs to process" in str(error), error
            journal.close()
            try:
                Journal.open(sys.argv[1])
            except JournalError as error:
                assert "has it open" in str(error), error
            del journal, looking
            gc.collect()
            {child_ends}
        assert os.waitpid(child, 0)[1] == 0
        assert sorted(os.listdir(os.path.dirname(sys.argv[1]))) == ["journal", "journal-wal"]
        next(looking)
        journal.record(1, [1])
        os.kill(os.getpid(), 9)
    """
    with program.start(text, str(path)) as process:
        process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGKILL
    with Journal.open(path) as journal:
        items = list(journal.look_up(delayed(abs)(i) for i in range(2)))
        assert [item.value for item in items] == [0, 1]


# --- one writer -----------------------------------------------------------------------------------


def test_another_call_in_this_program(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    with Journal.open(path) as journal:
        run(journal, tasks(3))
        for name in (path, link):
            with pytest.raises(JournalError, match="another call in this program has it open"):
                Journal.open(name)
        run(journal, tasks(4))
    with Journal.open(link) as journal:
        run(journal, tasks(4))
        assert journal.taken_over == 4
    assert os.listdir(path.parent) == ["journal"]


@core
@pytest.mark.parametrize("rows", [0, 3])
def test_another_program(path: Path, program: Program, rows: int) -> None:
    text = """
        import sys
        from parallel_core import delayed
        from parallel_core.journal.store import Journal
        with Journal.open(sys.argv[1]) as journal:
            list(journal.look_up(delayed(abs)(i) for i in range(3)))
            journal.record(0, list(range(int(sys.argv[2]))))
            print("open", flush=True)
            input()
    """
    with program.start(text, str(path), str(rows)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert_refused(path, "another program has it open")
        process.communicate("\n", timeout=LIMIT)
    with Journal.open(path) as journal:
        found = list(journal.look_up(delayed(abs)(i) for i in range(3)))
        assert sum(isinstance(item, KnownResult) for item in found) == rows


def test_results_are_recorded_while_another_thread_looks_up(path: Path) -> None:
    count = 3000
    for _ in range(2):
        with Journal.open(path) as journal:
            ready: list[int] = []
            done = threading.Event()

            def pull(journal: Journal = journal, ready: Any = ready, done: Any = done) -> None:
                for position, item in enumerate(journal.look_up(tasks(count))):
                    if not isinstance(item, KnownResult):
                        ready.append(position)
                done.set()

            thread = threading.Thread(target=pull)
            thread.start()
            while not done.is_set() or ready:
                if ready:
                    position = ready.pop()
                    if position % 2 or position > 2000:
                        journal.record(position, [2 * position])
            thread.join()
    with Journal.open(path) as journal:
        for position, item in enumerate(journal.look_up(tasks(count))):
            assert not isinstance(item, KnownResult) or item.value == 2 * position
        assert journal.taken_over == 1000 + 999


def test_a_closed_journal_says_so(path: Path) -> None:
    journal = Journal.open(path)
    looking = journal.look_up(tasks(3))
    next(looking)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.record(0, [0])
    with pytest.raises(JournalError, match="closed"):
        next(journal.look_up(tasks(2)))


# --- files that are refused -----------------------------------------------------------------------


def test_other_files(path: Path) -> None:
    for content in (b"x", b"some text\n" * 100, b"SQLite format 3\0", bytes(5000)):
        path.write_bytes(content)
        assert_refused(path, "another kind of file.*Name another file, or delete")


def test_a_database_of_something_else(path: Path) -> None:
    for mode in ("DELETE", "WAL"):
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE IF NOT EXISTS results (a, b)")
        connection.execute("INSERT INTO results VALUES (1, 2)")
        connection.commit()
        if mode == "DELETE":
            assert_refused(path, "database of something else")
        connection.close()
        assert_refused(path, "database of something else")


def alter(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_a_newer_format(path: Path) -> None:
    alter(made(path), f"PRAGMA user_version = {file.FORMAT + 1}")
    assert_refused(path, rf"format {file.FORMAT + 1}.*newer version")


def test_another_python(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.implementation, "cache_tag", "cpython-39")
    made(path)
    monkeypatch.undo()
    assert_refused(path, r"written by cpython-39.*and this is \w+-3\d+.*Use the Python that wrote")


def test_another_version_of_this_library(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "__version__", "0.0.1")
    made(path, 3)
    monkeypatch.undo()
    with Journal.open(path) as journal:
        run(journal, tasks(3))
        assert journal.taken_over == 3


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE results",
        "ALTER TABLE results ADD COLUMN more",
        "CREATE INDEX index_of_results ON results (function)",
        "DELETE FROM about",
        "UPDATE about SET python = 'cpython-000'",
    ],
)
def test_tables_that_are_not_ours(path: Path, statement: str) -> None:
    alter(made(path), statement)
    assert_refused(path, "damaged.*nothing in it was changed")


def test_places_where_no_file_can_be(path: Path) -> None:
    folder = path.parent
    with pytest.raises(JournalError, match="it is a folder"):
        Journal.open(folder)
    with pytest.raises(JournalError, match=r"there is no folder '.*/missing'"):
        Journal.open(folder / "missing" / "journal")
    with pytest.raises(JournalError, match="Not a directory"):
        Journal.open(made(path) / "journal")
    os.mkfifo(folder / "pipe")
    with pytest.raises(JournalError, match="not a regular file"):
        Journal.open(folder / "pipe")
    with pytest.raises(JournalError, match="null"):
        Journal.open("a\0b")


def test_names_that_sqlite_has_uses_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    names = [":memory:", "file:a?mode=memory", "per%cent#?", "a b", os.fsdecode(b"\xff\xfe")]
    for name in names:
        for taken_over in (0, 3):
            with Journal.open(name) as journal:
                run(journal, tasks(3))
                assert journal.taken_over == taken_over
    assert sorted(os.listdir()) == sorted(names)


def test_without_permission(path: Path, program: Program) -> None:
    made(path)
    text = """
        import os, sys
        from parallel_core import JournalError
        from parallel_core.journal.store import Journal
        folder = os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)
        os.fchdir(folder)
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        for name in ("journal", "new"):
            try:
                Journal.open(name)
            except JournalError as error:
                print(error)
    """
    before = around(path)
    for mode, folder_mode in [(0o444, 0o755), (0o000, 0o755), (0o666, 0o555)]:
        path.chmod(mode)
        path.parent.chmod(folder_mode)
        for parent in path.parents[:3]:
            if parent.owner() == path.owner() and str(parent).startswith(str(path.parents[3])):
                parent.chmod(parent.stat().st_mode | 0o111)
        said = program(text, str(path)).splitlines()
        assert len(said) == 2 and all("cannot be used" in line for line in said)
    path.chmod(0o600)
    path.parent.chmod(0o755)
    assert around(path) == before


# --- damage ---------------------------------------------------------------------------------------


def test_a_journal_cut_short(path: Path, tmp_path: Path) -> None:
    whole = made(path, 300).read_bytes()
    assert len(whole) > 3 * 4096
    for length in (50, 99, 100, 4095, 4096, 8192, len(whole) - 4096, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert_refused(path, "damaged|another kind of file")


def test_damage_at_any_place_is_noticed_or_does_not_matter(tmp_path: Path, path: Path) -> None:
    values = [bytes([i]) * (i % 7 * 30) for i in range(60)] + [b"large" * 3000]
    with Journal.open(path) as journal:
        list(journal.look_up(tasks(61)))
        journal.record(0, values)
    whole = path.read_bytes()
    noticed = 0
    for place in [*range(0, 100, 3), *range(100, len(whole), len(whole) // 150)]:
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        before = bytes(data)
        try:
            with Journal.open(path) as journal, warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                items = list(journal.look_up(tasks(61)))
            lost = [i for i, item in enumerate(items) if not isinstance(item, KnownResult)]
            assert len(told) == bool(lost)
            assert len(lost) <= 2, place  # one, or its position
            kept = [i for i in range(61) if i not in lost]
            assert [items[i].value for i in kept] == [values[i] for i in kept]
            noticed += bool(lost)
        except JournalError:
            noticed += 1
            assert path.read_bytes() == before, place
            assert os.listdir(path.parent) == ["journal"], place
    assert noticed > 100


@core
@pytest.mark.parametrize("column", ["value", "function", "arguments"])
def test_a_damaged_result_is_computed_again(path: Path, column: str) -> None:
    made(path)
    alter(path, f"UPDATE results SET {column} = {column} || x'00' WHERE position IN (4, 7)")
    with Journal.open(path) as journal:
        with pytest.warns(RuntimeWarning, match="damaged: the result of task 4 is not") as told:
            assert run(journal, tasks(10)) == [2 * i for i in range(10)]
        assert len(told) == 1
        assert (journal.taken_over, journal.recorded) == (8, 2)
    with Journal.open(path) as journal:
        assert run(journal, tasks(10)) == [2 * i for i in range(10)]
        assert journal.taken_over == 10


# --- what it costs others -------------------------------------------------------------------------


@core
def test_it_is_imported_when_a_journal_is_opened(program: Program) -> None:
    text = """
        import sys
        from math import sqrt
        from parallel_core import Parallel, delayed
        from parallel_core.tasks.placeholders import KnownResult
        Parallel(n_jobs=2)(delayed(sqrt)(i) for i in range(4))
        print([name for name in ("sqlite3", "hashlib", "parallel_core.journal")
               if name in sys.modules])
    """
    assert program(text) == "[]\n"
