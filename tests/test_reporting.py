"""A call tells a dashboard what happens, if there is one, and never suffers from it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard_tasks import fail_at, pause, sleep_soundly, wait_as_last, wait_for
from dashboards import Listening, own_name
from parallel_core import (
    BatchAnswered,
    CallCancelledError,
    Parallel,
    WorkerDiedError,
    WorkerPool,
    delayed,
    get_executor,
    set_stacklevel,
)
from parallel_core.observe import listener, reporting
from watching import wait_until

pytestmark = pytest.mark.warm_workers


@pytest.fixture(autouse=True)
def name() -> Iterator[str]:
    with own_name() as name:
        yield name


def last_numbers(dashboard: Listening) -> dict[str, Any]:
    """Return what was told at the end of a call."""
    wait_until(lambda: "ended" in (dashboard.updates() or [{}])[-1], "the end was told")
    return dashboard.updates()[-1]


def test_nobody_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(listener, "connect", lambda: looks.append(1))
    for _ in range(20):
        assert reporting.find_reporter("a call") is None
    assert len(looks) == 1  # the next one is after a second


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_what_is_told(backend: str) -> None:
    with Listening() as dashboard:
        assert Parallel(2, backend)(delayed(pause)(0.01, x) for x in range(40)) == list(range(40))
        last = last_numbers(dashboard)
    [hello] = dashboard.hellos()
    assert hello["pid"] == os.getpid() and hello["label"] == "Parallel(n_jobs=2)"
    file, line, function, source = hello["place"]
    assert file == __file__ and function == "test_what_is_told" and "Parallel(2" in source
    assert Path(file).read_text().splitlines()[line - 1].strip() == source
    assert (last["completed"], last["total"], last["failed"]) == (40, 40, 0)
    assert last["ended"] is True
    spans = [span for update in dashboard.updates() for span in update["spans"]]
    assert sum(span[4] for span in spans) == 40
    assert all(span[2] > 0 and 0 < span[5] <= 1 for span in spans)
    if backend != "sequential":
        names = [name for update in dashboard.updates() for name in update["functions"]]
        assert names == ["dashboard_tasks.pause"]


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_a_dashboard_that_is_started_later_is_told(backend: str, tmp_path: Path) -> None:
    go = str(tmp_path / "go")
    found: list[Any] = []

    def run() -> None:
        found.append(Parallel(2, backend)(delayed(wait_for)(go, x) for x in range(4)))

    caller = threading.Thread(target=run)
    caller.start()
    with Listening() as dashboard:
        assert dashboard.has_come.wait(50)
        Path(go).touch()
        caller.join()
        last = last_numbers(dashboard)
    assert found == [[0, 1, 2, 3]]
    assert (last["completed"], last["ended"]) == (4, True)


def test_the_place_of_a_call_can_be_further_out() -> None:
    def around() -> list[int]:
        return Parallel(2, "threading")(delayed(abs)(x) for x in range(3))

    with Listening() as dashboard:
        set_stacklevel(2)
        try:
            around()
        finally:
            set_stacklevel(1)
        last_numbers(dashboard)
    assert dashboard.hellos()[0]["place"][2] == "test_the_place_of_a_call_can_be_further_out"


def test_pools_and_executors_tell_too() -> None:
    with Listening() as dashboard:
        with WorkerPool(2, start_method="threading") as pool:
            bar = {"progress_bar": True, "progress_bar_style": "dashboard"}
            assert pool.map(abs, range(3), **bar) == [0, 1, 2]
        with get_executor(2, backend="threading") as executor:
            assert list(executor.map(abs, range(3))) == [0, 1, 2]
        wait_until(lambda: len(dashboard.hellos()) >= 2, "both have told")
    labels = [hello["label"] for hello in dashboard.hellos()]
    assert labels[0] == "WorkerPool(2).map" and "xecutor" in labels[1]


def test_calls_within_tasks_are_not_told_of() -> None:
    def outer(x: int) -> int:
        return sum(Parallel(2, "threading")(delayed(abs)(y) for y in range(x)))

    with Listening() as dashboard:
        assert Parallel(2, "threading")(delayed(outer)(x) for x in range(3)) == [0, 0, 1]
        last_numbers(dashboard)
    assert len(dashboard.hellos()) == 1


def test_failures_come_with_their_tracebacks() -> None:
    with Listening() as dashboard:
        Parallel(2, on_error="skip")(delayed(fail_at)(3, x) for x in range(6))
        last = last_numbers(dashboard)
        with pytest.raises(ValueError, match="task 1 is"):
            Parallel(2)(delayed(fail_at)(1, x) for x in range(3))
        wait_until(lambda: dashboard.updates()[-1].get("ended", True) is not True, "both ended")
    [failure] = [failure for update in dashboard.updates()[:-1] for failure in update["failures"]][
        :1
    ]
    assert failure["position"] == 3 and failure["type"] == "ValueError"
    assert "in fail_at" in failure["traceback"]
    assert "parallel_core/" not in failure["traceback"]
    assert last["failed"] == 1
    assert dashboard.updates()[-1]["ended"]["type"] == "ValueError"


def test_an_error_that_cannot_be_shown_does_no_harm() -> None:
    class Strange(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def fail(x: int) -> int:
        raise Strange

    with Listening() as dashboard:
        Parallel(2, "threading", on_error="skip")(delayed(fail)(x) for x in range(2))
        assert last_numbers(dashboard)["failed"] == 2


def test_a_dashboard_that_does_not_read_delays_nothing() -> None:
    with Listening(reads=False):
        calls = (delayed(pause)(0.001, x) for x in range(400))
        assert Parallel(2, batch_size=1)(calls) == list(range(400))


def test_a_dashboard_that_dies_costs_nothing(tmp_path: Path) -> None:
    class Killer:
        def notify(self, event: Any) -> None:
            if isinstance(event, BatchAnswered) and dashboard.has_come.is_set():
                dashboard.close()

    with Listening() as dashboard:
        calls = (delayed(pause)(0.01, x) for x in range(80))
        assert Parallel(2, observers=[Killer()])(calls) == list(range(80))


def test_a_stranger_at_the_address_is_told_nothing(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    address = listener.address_of_user()
    program = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        f"s.bind({address!r}); s.listen(4)\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
        "s.setblocking(False)\n"
        "end, _ = s.accept()\n"
        "print(end.recv(100))\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True
    ) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "up\n"
        listener.look_again()
        assert Parallel(2, "threading")(delayed(abs)(x) for x in range(3)) == [0, 1, 2]
        heard, _ = stranger.communicate()
    assert heard == "b''\n"


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_a_call_is_cancelled(backend: str) -> None:
    with Listening(commands=({"command": 7, "do": "cancel"},)) as dashboard:
        with pytest.raises(CallCancelledError, match="from the dashboard"):
            Parallel(2, backend)(delayed(pause)(0.05, x) for x in range(10_000))
        last = last_numbers(dashboard)
    answers = [answer for update in dashboard.updates() for answer in update["answers"]]
    assert answers == [{"command": 7, "done": True, "text": "the call ends"}]
    assert last["ended"]["type"] == "CallCancelledError"


def test_a_generator_is_cancelled_after_its_results() -> None:
    with Listening(commands=({"command": 7, "do": "cancel"},)):
        results = Parallel(2, return_as="generator")(delayed(pause)(0.01, x) for x in range(10_000))
        taken = []
        with pytest.raises(CallCancelledError):
            taken.extend(results)
    assert taken == list(range(len(taken)))


@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_the_stack_of_a_worker(backend: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = {"command": 5, "do": "stack", "worker": 0}
    with Listening(commands=(command,)) as dashboard:
        observer = _Touching(go, dashboard)
        tasks = (delayed(wait_for)(str(go), x) for x in range(2))
        assert Parallel(2, backend, observers=[observer])(tasks) == [0, 1]
    [answer] = observer.answers()
    assert answer["command"] == 5 and answer["done"] is True
    assert "wait_for" in answer["text"]


class _Touching:
    """Has the tasks go on when the dashboard has got an answer."""

    look_seconds = 0.05

    def __init__(self, go: Path, dashboard: Listening) -> None:
        self._go = go
        self._dashboard = dashboard

    def answers(self) -> list[dict[str, Any]]:
        return [answer for update in self._dashboard.updates() for answer in update["answers"]]

    def notify(self, event: Any) -> None:
        if self.answers():
            self._go.touch()


def test_a_worker_is_ended() -> None:
    with Listening(commands=({"command": 1, "do": "end", "worker": 0},)):
        with pytest.raises(WorkerDiedError, match="ended from the dashboard"):
            Parallel(2)(delayed(sleep_soundly)(x) for x in range(2))


@pytest.mark.parametrize(
    "command",
    [
        {"command": 1, "do": "stack", "worker": 99},
        {"command": 2, "do": "end", "worker": "0"},
        {"command": 3, "do": "dance"},
        {"do": "cancel"},
        {},
    ],
)
def test_a_command_that_cannot_be_followed(command: dict[str, Any]) -> None:
    with Listening(commands=(command,)) as dashboard:
        calls = (delayed(pause)(0.01, x) for x in range(60))
        assert Parallel(2, "threading")(calls) == list(range(60))
        last_numbers(dashboard)
    answers = [answer for update in dashboard.updates() for answer in update["answers"]]
    assert not any(answer["done"] for answer in answers)
    assert len(answers) == ("command" in command)


def test_of_many_short_calls_some_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    reporting._told.clear()
    with Listening() as dashboard:
        for _ in range(3 * reporting._SHORT_CALLS):
            Parallel(1)(delayed(abs)(x) for x in range(3))
        reporting._told.clear()
        Parallel(1)(delayed(abs)(x) for x in range(3))
        wait_until(lambda: any(hello["untold"] for hello in dashboard.hellos()), "they are counted")
    untold = sum(hello["untold"] for hello in dashboard.hellos())
    assert len(dashboard.hellos()) + untold == 3 * reporting._SHORT_CALLS + 1


def test_what_a_message_has_is_bounded() -> None:
    told: list[dict[str, Any]] = []

    class Full:
        def send(self, message: dict[str, Any]) -> bool:
            told.append(message)
            return len(told) > 1

        def receive(self) -> list[dict[str, Any]]:
            return []

        def close(self) -> None:
            pass

    reporter = reporting.Reporter("a call")
    reporter._connection = Full()  # type: ignore[assignment] # it has what is called
    for position in range(5000):
        for worker in (0, 1):
            answer = BatchAnswered(1, worker, position, 1, 1.0, position, None)
            reporter._note_answer(answer)
    reporter.show(reporting.Progress("a call"))
    reporter.show(reporting.Progress("a call"))
    assert len(told[0]["spans"]) == reporting._MOST_SPANS
    assert told[1]["spans"] == []  # there was no room for the first message
    assert told[1]["left_out"] == 10_000


@pytest.mark.parametrize("word", ["off", "0", "No"])
def test_there_may_be_none(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(listener.VARIABLE, word)
    assert listener.address_of_user() is None and listener.connect() is None


def test_names_keep_dashboards_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(listener.VARIABLE)
    plain = listener.address_of_user()
    assert plain == f"\0parallel-core-dashboard-{os.geteuid()}".encode()
    assert listener.address_of_user("on") == plain != listener.address_of_user("mine")
    long = listener.address_of_user("x" * 500)
    assert long is not None and len(long) < 108  # see unix(7)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(long)


def test_the_last_task_shows_while_it_runs(tmp_path: Path) -> None:
    """Workers that are on long tasks are told of before any answer comes."""
    go = tmp_path / "go"
    with Listening() as dashboard:

        def seen() -> bool:
            return any(
                worker[4] == "RUNNING" and worker[5] == 9
                for update in dashboard.updates()
                for worker in update["workers"]
            )

        def release() -> None:
            wait_until(seen, "task 9 is told of")
            go.touch()

        releaser = threading.Thread(target=release)
        releaser.start()
        Parallel(2)(delayed(wait_as_last)(str(go), x, 9) for x in range(10))
        releaser.join()
