"""Ctrl-C in a terminal and in a notebook, SIGTERM, and what they leave behind: nothing."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from programs import Terminal, are_gone, run, start, told

from memmapping.interrupts import HeldInterrupts, HeldSignals
from parallel_core import Parallel, delayed
from parallel_core.errors import cut_traceback
from watching import HOME, LIMIT, descendants, running, wait_until

core = pytest.mark.core

INTERRUPTED = """
    import traceback

    case, backend, return_as, within = sys.argv[1:5]

    def work(n):
        tell(n)
        if case == "loop":
            while True:
                pass
        elif case == "regex":
            re.match("(a+)+b", "a" * 40)
        elif case.startswith("nested"):
            Parallel(2, backend=case[7:], batch_size=1)(delayed(rest)(f"{n}-{k}") for k in (0, 1))
        else:
            time.sleep(300)

    def rest(name):
        tell(name)
        time.sleep(300)

    class Slow:
        def __reduce__(self):
            rest("pickling")

    def slow_initializer():
        rest(f"start-{os.getpid()}")

    def tasks():
        if case == "generator":
            yield delayed(abs)(1)
            rest("generator")
        elif case == "pickling":
            yield delayed(abs)(Slow())
        else:
            for n in range(4):
                yield delayed(work)(n)

    def main():
        engine = backend_of(backend)
        options = {"initializer": slow_initializer} if case == "start" else {}
        parallel = Parallel(2, backend=engine, return_as=return_as, batch_size=1, **options)
        try:
            if within == "with":
                with parallel:
                    list(parallel(tasks()))
            else:
                list(parallel(tasks()))
        except KeyboardInterrupt as error:
            print("interrupted", flush=True)
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f.name for f in frames if "parallel_core" in f.filename.split(os.sep)]
            print("one frame is the library's" if len(ours) == 1 else frames)
        if not backend.startswith("executor"):
            assert works(engine)
        print("works", flush=True)

    if __name__ == "__main__":
        main()
"""

#: What the tasks do, the backend, what is returned, within what, how many processes are at it.
CASES = [
    pytest.param("sleep", "processes", "list", "", 2, marks=core),
    pytest.param("sleep", "processes", "generator", "", 2, marks=core),
    ("sleep", "processes", "generator_unordered", "with", 2),
    ("loop", "processes", "list", "", 2),
    ("regex", "processes", "generator", "", 2),
    ("birth", "processes", "list", "", 2),
    ("nested-processes", "processes", "list", "", 6),
    ("nested-loky", "processes", "list", "", 6),
    pytest.param("generator", "processes", "list", "", 1, marks=core),
    ("generator", "threading", "generator", "", 1),
    ("pickling", "processes", "list", "", 1),
    pytest.param("sleep", "threading", "list", "", 2, marks=core),
    ("nested-processes", "threading", "list", "", 6),
    ("sleep", "sequential", "list", "", 1),
    ("sleep", "loky", "list", "", 2),
    ("regex", "loky", "generator", "with", 2),
    ("birth", "loky", "list", "", 2),
    ("sleep", "context-fork", "list", "", 2),
    ("regex", "context-spawn", "generator", "", 2),
    ("sleep", "context-forkserver", "list", "with", 2),
]


@pytest.mark.parametrize(("case", "backend", "return_as", "within", "count"), CASES)
def test_ctrl_c_in_a_terminal(
    tmp_path: Path, case: str, backend: str, return_as: str, within: str, count: int
) -> None:
    """The workers are in the same foreground group: the terminal sends it to all."""
    terminal = Terminal(tmp_path, INTERRUPTED, case, backend, return_as, within)
    try:
        wait_until(lambda: len(told(tmp_path)) == count or terminal.ended(), "all are busy")
        below = set(descendants(terminal.pid))
        terminal.press(b"\x03")
        terminal.read_until("works")  # which gives up long before a task would have ended
        terminal.wait()
        are_gone(below, "all are gone")
    finally:
        terminal.close()
    lines = terminal.out.replace("^C", "").splitlines()
    assert len(lines) == 3, terminal.out  # nobody else had anything to say
    assert lines[0] == "interrupted"
    assert lines[1] == "one frame is the library's"
    assert terminal.status == 0


@core
@pytest.mark.parametrize("flags", [[], ["-c"]])
def test_the_traceback_of_ctrl_c_shows_the_users_lines(tmp_path: Path, flags: list[str]) -> None:
    text = """
        def tasks():
            yield delayed(abs)(1)
            tell("begun")
            time.sleep(300)  # here

        Parallel(2)(tasks())  # and here
    """
    if flags:
        import textwrap

        from programs import BEGIN

        (tmp_path / "code").write_text(textwrap.dedent(BEGIN) + textwrap.dedent(text))
        text = "import sys\nexec(compile(open('code').read(), '<string>', 'exec'))\n"
        text = f"if True:\n    {text.splitlines()[1]}\n"
    child = start(tmp_path, text)
    try:
        wait_until(lambda: told(tmp_path), "it is in the generator")
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=LIMIT)
    finally:
        child.kill()
        child.wait()
    assert out == "" and err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count(str(HOME / "parallel_core")) == 1
    assert "in tasks" in err
    if not flags:
        assert "# here" in err and "# and here" in err
    assert child.returncode == -signal.SIGINT


@core
def test_what_is_cut_from_a_traceback() -> None:
    def tasks() -> Any:
        yield delayed(abs)(1)
        raise KeyboardInterrupt

    for return_as in ("list", "generator"):
        for backend in ("processes", "threading", "sequential"):
            with pytest.raises(KeyboardInterrupt) as caught:
                list(Parallel(2, backend=backend, return_as=return_as)(tasks()))
            names = [entry.name for entry in caught.traceback]
            assert names[-1] == "tasks" and len(names) == 3, names
    error = KeyboardInterrupt()
    assert cut_traceback(error) is error and error.__traceback__ is None


def test_ctrl_c_in_a_notebook(tmp_path: Path) -> None:
    manager_module = pytest.importorskip("jupyter_client.manager")
    pytest.importorskip("ipykernel")
    manager, client = manager_module.start_new_kernel(
        kernel_name="python3", cwd=str(tmp_path), env={**os.environ, "PYTHONPATH": str(HOME)}
    )

    def finish(message: str) -> list[dict[str, Any]]:
        """Return what the cell had to say, up to its end."""
        said = []
        while True:
            got = client.get_iopub_msg(timeout=LIMIT)
            if got["parent_header"].get("msg_id") == message:
                if got["content"].get("execution_state") == "idle":
                    return said
                said.append(got)

    try:
        finish(
            client.execute(
                "import os, pathlib, time\n"
                "from parallel_core import Parallel, delayed\n"
                "def work(n):\n"
                "    pathlib.Path(f'.{n}').write_text(str(os.getpid()))\n"
                "    os.rename(f'.{n}', f'pid-{n}')\n"
                "    time.sleep(300)\n"
            )
        )
        for return_as in ("list", "generator"):
            for path in tmp_path.glob("pid-*"):
                path.unlink()
            call = f"list(Parallel(2, batch_size=1, return_as={return_as!r})"
            message = client.execute(f"{call}(delayed(work)(n) for n in range(4)))")
            wait_until(lambda: len(told(tmp_path)) == 2, "both workers are busy")
            pids = told(tmp_path)
            manager.interrupt_kernel()
            said = finish(message)  # which gives up long before a task would have ended
            (error,) = [one["content"] for one in said if one["msg_type"] == "error"]
            assert error["ename"] == "KeyboardInterrupt"
            text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error["traceback"]))
            assert text.count(str(HOME / "parallel_core")) == 1
            assert not [one for one in said if one["msg_type"] == "stream"]
            are_gone(pids, "the busy workers are gone")
            said = finish(client.execute("print(Parallel(2)(delayed(abs)(-n) for n in range(3)))"))
            assert [one["content"]["text"] for one in said if one["msg_type"] == "stream"] == [
                "[0, 1, 2]\n"
            ]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()
        client.context.destroy()


# --- at any moment --------------------------------------------------------------------------------

AT_ANY_MOMENT = """
    import random, subprocess

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    def call(kind, backend):
        if kind == "starts":
            shutdown_workers()
        if kind == "arrays":
            import numpy
            array = numpy.ones(300_000)
            for n in range(3):
                array[0] = n
                Parallel(2, backend=backend)(delayed(numpy.sum)(array) for _ in range(3))
        elif kind == "generators":
            list(Parallel(2, backend=backend, return_as="generator")(
                delayed(abs)(-n) for n in range(50)
            ))
        elif kind == "with":
            with Parallel(2, backend=backend) as parallel:
                for _ in range(5):
                    parallel(delayed(abs)(-n) for n in range(50))
        else:
            works(backend)

    def main(kind, name, count):
        backend = backend_of(name)
        chance = random.Random(5)
        killer = subprocess.Popen(
            [sys.executable, "-c",
             "import os, sys, time\\n"
             "for line in sys.stdin:\\n"
             "    time.sleep(float(line))\\n"
             "    if os.getppid() == int(sys.argv[1]):\\n"
             "        os.kill(int(sys.argv[1]), 2)\\n",
             str(os.getpid())],
            stdin=subprocess.PIPE, text=True, start_new_session=True,
        )
        call(kind, backend)
        works(backend)
        shutdown_workers()
        before = descriptors()
        for _ in range(count):
            try:
                killer.stdin.write(f"{chance.random() * 0.05}\\n")
                killer.stdin.flush()
                limit = time.monotonic() + 5
                while time.monotonic() < limit:
                    call(kind, backend)
            except KeyboardInterrupt:
                pass
            assert works(backend)
        killer.kill()
        killer.wait()
        killer.stdin.close()
        gc.collect()
        shutdown_workers()
        gc.collect()
        limit = time.monotonic() + 5
        while descriptors() > before and time.monotonic() < limit:
            time.sleep(0.01)
        assert descriptors() <= before, os.system(f"ls -l /proc/{os.getpid()}/fd >&2")
        children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        lines = [pathlib.Path(f"/proc/{pid}/cmdline").read_text() for pid in children]
        assert not [line for line in lines if "resource_tracker" not in line], lines
        print("good")

    if __name__ == "__main__":
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("kind", "backend", "count"),
    [
        ("births", "processes", 8),
        ("lists", "processes", 12),
        ("arrays", "processes", 8),
        ("generators", "processes", 10),
        ("with", "processes", 10),
        ("births", "context-fork", 5),
        ("lists", "loky", 4),
    ],
)
def test_ctrl_c_at_any_moment_leaves_nothing(
    tmp_path: Path, kind: str, backend: str, count: int
) -> None:
    """Workers and segments used to be lost between two steps, until the program ended."""
    if kind == "arrays":
        pytest.importorskip("numpy")
    child = start(tmp_path, AT_ANY_MOMENT, kind, backend, str(count))
    try:
        out, err = child.communicate(timeout=LIMIT)
    finally:
        child.kill()
        child.wait()
    assert out == "good\n", err
    # What Python says of an interrupt within somebody's finalizer is not ours to prevent.
    assert not err or "Exception ignored in" in err


@core
@pytest.mark.parametrize("kind", [HeldInterrupts, HeldSignals])
def test_an_interrupt_waits_for_the_end_of_the_block(kind: type[HeldInterrupts]) -> None:
    steps = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - which step raises is at issue
        with kind():
            signal.raise_signal(signal.SIGINT)
            steps.append("on")
        steps.append("never")
    assert steps == ["on"]
    with pytest.raises(KeyboardInterrupt), kind():  # noqa: PT012 - as below
        with kind():
            signal.raise_signal(signal.SIGINT)
        steps.append("outer")
    assert steps == ["on", "outer"]
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - as above
        with kind():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            steps.append("never")
    assert steps == ["on", "outer"]
    assert signal.getsignal(signal.SIGINT) is before


@core
def test_each_signal_that_came_is_heard() -> None:
    heard = []

    def note(number: int, frame: Any) -> None:
        heard.append(number)
        if number == signal.SIGUSR1:
            raise LookupError

    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.signal(number, note) for number in numbers]
    try:
        with pytest.raises(LookupError), HeldSignals():  # noqa: PT012 - as above
            for number in numbers:
                signal.raise_signal(number)
            assert heard == []
        assert sorted(heard) == sorted(numbers)
        assert [signal.getsignal(number) for number in numbers] == [note, note]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


# --- SIGTERM --------------------------------------------------------------------------------------

BUSY = """
    def work(n):
        tell(n)
        time.sleep(300)

    def leave(*_):
        sys.exit(7)

    if __name__ == "__main__":
        backend, return_as, handler = sys.argv[1:4]
        if handler:
            signal.signal(signal.SIGTERM, leave)
        list(Parallel(2, backend=backend_of(backend), return_as=return_as, batch_size=1)(
            delayed(work)(n) for n in range(4)
        ))
"""


@pytest.mark.parametrize("handler", ["", "handler"])
@pytest.mark.parametrize(
    ("backend", "return_as"),
    [
        pytest.param("processes", "list", marks=core),
        ("processes", "generator"),
        ("threading", "list"),
        ("loky", "list"),
        ("context-fork", "list"),
    ],
)
def test_sigterm_is_as_for_any_program(
    tmp_path: Path, backend: str, return_as: str, handler: str
) -> None:
    child = start(tmp_path, BUSY, backend, return_as, handler)
    try:
        wait_until(lambda: len(told(tmp_path)) == 2, "both are busy")
        below = set(descendants(child.pid))
        child.terminate()
        out, err = child.communicate(timeout=LIMIT)
        assert child.returncode == (7 if handler else -signal.SIGTERM)
        assert (out, err) == ("", "")
        are_gone(below, "all are gone")
    finally:
        child.kill()
        child.wait()
        for pid in filter(running, told(tmp_path)):
            os.kill(pid, signal.SIGKILL)


@core
@pytest.mark.parametrize("end", ["sys.exit(3)", "raise SystemExit(3)"])
@pytest.mark.parametrize("place", ["tasks", "progress", "consumer"])
def test_the_end_of_the_program_amidst_a_call(tmp_path: Path, end: str, place: str) -> None:
    text = f"""
        class Own(Parallel):
            def print_progress(self):
                if {place!r} == "progress":
                    {end}

        def tasks():
            for n in range(100):
                if n == 50 and {place!r} == "tasks":
                    {end}
                yield delayed(os.getpid)()

        parallel = Own(2, return_as="generator" if {place!r} == "consumer" else "list")
        results = parallel(tasks())
        if {place!r} == "consumer":
            print(next(results))
            {end}
    """
    out = run(tmp_path, text, code=3)
    are_gone([int(line) for line in out.split()], "the worker is gone")
