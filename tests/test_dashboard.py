"""The server of the dashboard: who gets what, and what it shows."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from programs import environment

pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

import parallel_core
from dashboard_tasks import fail_at, pause, sleep_soundly, wait_for
from dashboards import PORTS, Client, commanded, own_name, started
from parallel_core import (
    CallCancelledError,
    Parallel,
    connect_to_dashboard,
    delayed,
    get_stacklevel,
    set_stacklevel,
    shutdown_dashboard,
    start_dashboard,
)
from parallel_core.compat.mpire import dashboard as mpire_dashboard
from parallel_core.dashboard import control, server
from parallel_core.dashboard.app import MOST_BROWSERS
from parallel_core.dashboard.calls import State, WatchedCall
from parallel_core.dashboard.feed import MOST_PAST, Feed
from parallel_core.observe import listener
from watching import running, wait_until


@pytest.fixture(scope="module")
def dashboard() -> Iterator[Client]:
    with started() as client:
        yield client


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No dashboard is there, and this program has started none."""
    monkeypatch.setattr(control, "_process", None)
    monkeypatch.setattr(control, "_address", None)
    with own_name():
        yield


def newest(client: Client, label: str = "") -> dict[str, Any]:
    """Return the call that has begun last."""
    calls = [call for call in client.state()["calls"] if label in call["label"]]
    found: dict[str, Any] = calls[-1]
    return found


def headers_with(client: Client, **headers: str) -> dict[str, str]:
    return {"Cookie": client.cookie, **headers}


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment())


# --- who gets in ---


def test_the_page_needs_the_token(dashboard: Client) -> None:
    wrong = "x" * 43
    for path in ("/", "/?token=", f"/?token={wrong}", f"/?t={dashboard.token}", "/favicon.ico"):
        reply = dashboard.get(path)
        assert reply.status == 401 and "parallel-core dashboard" in reply.text
        assert "<" not in reply.text and "set-cookie" not in reply.headers
    assert dashboard.get(dashboard.base).status == 401
    assert dashboard.get(dashboard.base, **headers_with(dashboard)).status == 200


@pytest.mark.parametrize("path", ["events", "state", "calls/1/cancel", "nothing"])
def test_nothing_is_told_without_the_cookie(dashboard: Client, path: str) -> None:
    name = dashboard.cookie.partition("=")[0]
    for cookie in ("", "x=y", f"{name}=", f"{name}={dashboard.token}", f"{name}=é", "\x7f"):
        for method in ("GET", "POST"):
            reply = dashboard.ask(method, dashboard.base + path, Cookie=cookie)
            assert reply.status in (401, 403) and "calls" not in reply.text.lower()


def test_the_cookie_is_for_one_path_and_no_script(dashboard: Client) -> None:
    attributes = dashboard.set_cookie.lower()
    assert "httponly" in attributes and "samesite=strict" in attributes
    assert f"path={dashboard.base.lower()}" in attributes
    assert dashboard.token not in dashboard.set_cookie


def test_another_name_of_the_server_is_refused(dashboard: Client) -> None:
    for host in ("evil.example", f"evil.example:{dashboard.port}", "127.0.0.1", "127.0.0.1:1", ""):
        reply = dashboard.get(f"/?token={dashboard.token}", Host=host)
        assert reply.status == 403 and "set-cookie" not in reply.headers
    for host in (f"localhost:{dashboard.port}", f"127.0.0.1:{dashboard.port}"):
        assert dashboard.get(f"/?token={dashboard.token}", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_pages_of_others_are_refused(dashboard: Client, headers: dict[str, str]) -> None:
    reply = dashboard.get(dashboard.base + "state", **headers_with(dashboard, **headers))
    assert reply.status == 403
    given = headers_with(dashboard, **headers)
    assert dashboard.ask("POST", f"{dashboard.base}calls/1/cancel", **given).status == 403


def test_a_link_on_another_page_opens_it(dashboard: Client) -> None:
    headers = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert dashboard.get(f"/?token={dashboard.token}", **headers).status == 200
    assert dashboard.get("/?token=wrong", **headers).status == 403


def test_a_command_needs_an_origin_or_the_token(dashboard: Client) -> None:
    path = f"{dashboard.base}calls/999/cancel"
    assert dashboard.ask("POST", path, **headers_with(dashboard)).status == 403
    assert dashboard.ask("GET", path, **headers_with(dashboard)).status == 405
    assert dashboard.ask("DELETE", path, **headers_with(dashboard)).status == 405
    own = headers_with(dashboard, Origin=f"http://{dashboard.host}")
    assert dashboard.ask("POST", path, **own).status == 200
    assert dashboard.ask("POST", path, Authorization=f"Bearer {dashboard.token}").status == 200
    assert dashboard.ask("POST", path, Authorization="Bearer wrong").status == 401
    assert dashboard.ask("POST", path, Authorization=f"Basic {dashboard.token}").status == 401


def test_the_page_allows_nothing_from_elsewhere(dashboard: Client) -> None:
    first, second = (dashboard.get(f"/?token={dashboard.token}") for _ in range(2))
    policy = first.headers["content-security-policy"]
    [nonce] = set(re.findall("'nonce-([^']+)'", policy))
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and nonce not in second.text
    assert set(re.findall('nonce="([^"]*)"', first.text)) == {nonce}
    assert first.text.count("<script") == first.text.count("<style") == 1
    for name, value in (
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
    ):
        assert first.headers[name] == value
    assert not re.search(r"https?://|(src|href)=\"(?!#|data:,)", first.text)
    markup = ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "style=")
    for forbidden in (*markup, "eval("):
        assert forbidden not in first.text
    assert dashboard.token not in first.text and "{{" not in first.text


def test_too_many_browsers_are_told(dashboard: Client) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_BROWSERS):
            events = stack.enter_context(dashboard.events())
            assert next(events)["kind"] == "snapshot"
        for path in (dashboard.base, dashboard.base + "events"):
            reply = dashboard.get(path, **headers_with(dashboard))
            assert reply.status == 503 and "close one" in reply.text
    wait_until(
        lambda: dashboard.get(dashboard.base, **headers_with(dashboard)).status == 200,
        "the browsers that have gone are forgotten",
    )


# --- what it shows ---


def test_a_call_is_followed_to_its_end(dashboard: Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    found: list[Any] = []

    def run() -> None:
        found.append(Parallel(2)(delayed(wait_for)(str(go), x) for x in range(8)))

    caller = threading.Thread(target=run)
    caller.start()
    wait_until(
        lambda: any(call["state"] == "running" for call in dashboard.state()["calls"]), "it runs"
    )
    number = newest(dashboard)["id"]
    with dashboard.events(number) as events:
        first = next(events)
        assert first["kind"] == "snapshot" and first["details"]["id"] == number
        go.touch()
        caller.join()
        spans: list[Any] = first["details"]["spans"]
        for event in events:
            assert event["kind"] == "update"
            spans += (event["details"] or {"spans": []})["spans"]
            changed = [call for call in event["calls"] if call["id"] == number]
            if changed and changed[0]["state"] != "running":
                break
    assert found == [list(range(8))]
    [call] = changed
    assert (call["state"], call["completed"], call["total"]) == ("finished", 8, 8)
    assert call["functions"] == ["dashboard_tasks.wait_for"] and call["place"][0] == __file__
    assert sum(span[4] for span in spans) == 8
    details = dashboard.state(number)["details"]
    assert sum(span[4] for span in details["spans"]) == 8  # a finished call stays


def test_memory_and_cpu_of_workers_are_told(dashboard: Client, tmp_path: Path) -> None:
    go = tmp_path / "go"
    caller = threading.Thread(
        target=lambda: Parallel(2)(delayed(wait_for)(str(go), x) for x in range(2))
    )
    caller.start()
    try:
        wait_until(lambda: newest(dashboard)["workers"] == 2, "its workers are told of")
        number = newest(dashboard)["id"]
        pids = {str(worker[1]) for worker in dashboard.state(number)["details"]["workers"]}
        with dashboard.events(number) as events:
            for event in events:
                usage = (event["details"] or {}).get("usage", {})
                if pids <= usage.keys():
                    break
        points = usage[pids.pop()]
        latest = points[-1] if isinstance(points[0], list) else points
        assert latest[1] > 1e6 and latest[2] >= 0
    finally:
        go.touch()
        caller.join()


def test_failures_and_what_ended_a_call_are_kept(dashboard: Client) -> None:
    Parallel(2, on_error="skip")(delayed(fail_at)(2, x) for x in range(5))
    wait_until(lambda: newest(dashboard)["state"] == "finished", "the first one is over")
    number = newest(dashboard)["id"]
    [failure] = dashboard.state(number)["details"]["failures"]
    assert failure["position"] == 2 and failure["message"].startswith("task 2 is <b>bad</b>")
    assert "fail_at" in failure["traceback"]
    with pytest.raises(ValueError, match="bad"):
        Parallel(2)(delayed(fail_at)(2, x) for x in range(5))
    wait_until(lambda: newest(dashboard)["id"] != number, "the second one has come")
    wait_until(lambda: newest(dashboard)["state"] == "failed", "the second one is over")
    assert newest(dashboard)["error"].startswith("ValueError: task 2")
    error = dashboard.state(newest(dashboard)["id"])["details"]["error"]
    assert error["type"] == "ValueError" and "Traceback" in error["traceback"]


def test_commands_reach_a_call(dashboard: Client) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            Parallel(2, on_error="skip")(delayed(sleep_soundly)(x) for x in range(100))
        except BaseException as error:
            raised.append(error)

    known = {call["id"] for call in dashboard.state()["calls"]}
    caller = threading.Thread(target=run)
    caller.start()

    def busy() -> bool:
        call = newest(dashboard)
        return call["id"] not in known and call["busy"] == 2

    wait_until(busy, "both workers sleep")
    number = newest(dashboard)["id"]
    stack = dashboard.post(f"calls/{number}/workers/1/stack")
    assert stack["done"] and "sleep_soundly" in stack["text"]
    again = dashboard.post(f"calls/{number}/workers/1/stack")
    assert again["done"] and again["text"].count("Current thread") == 1
    assert dashboard.post(f"calls/{number}/workers/0/end")["done"]
    wait_until(lambda: newest(dashboard)["failed"] == 1, "a task has failed")
    [failure] = dashboard.state(number)["details"]["failures"]
    assert failure["type"] == "WorkerDiedError" and "ended from the dashboard" in failure["message"]
    assert dashboard.post(f"calls/{number}/cancel")["done"]
    caller.join()
    assert [type(error) for error in raised] == [CallCancelledError]
    wait_until(lambda: newest(dashboard)["state"] == "cancelled", "that is shown")
    late = dashboard.post(f"calls/{number}/cancel")
    assert late == {"done": False, "text": "the call is over"}


def test_a_program_that_is_killed_is_lost(dashboard: Client, tmp_path: Path) -> None:
    program = (
        "import os, signal, time\n"
        "from parallel_core import Parallel, delayed\n"
        "Parallel(2, 'threading')(delayed(time.sleep)(100) for _ in range(2))\n"
    )
    known = {call["id"] for call in dashboard.state()["calls"]}
    with subprocess.Popen([sys.executable, "-c", program], env=environment()) as process:
        wait_until(lambda: newest(dashboard)["id"] not in known, "it is told of")
        call = newest(dashboard)
        assert call["pid"] == process.pid and call["state"] == "running"
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: newest(dashboard)["state"] == "lost", "its end is seen")


@pytest.mark.parametrize(
    "packet",
    [
        b"no JSON",
        b"[1]",
        b"{}",
        b'{"pid": "x"}',
        b'{"hello": 1, "pid": 1, "began": NaN}',
        b'{"hello": 1, "pid": 1, "n_jobs": []}',
        b"\xff\xfe",
    ],
)
def test_nonsense_is_let_go_of(dashboard: Client, packet: bytes) -> None:
    before = len(dashboard.state()["calls"])
    address = listener.address_of_user()
    assert address is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(address)
        sock.send(packet)
        sock.settimeout(50)
        assert sock.recv(100) == b""
    assert len(dashboard.state()["calls"]) == before


# --- bounds ---


def hello(**changed: Any) -> dict[str, Any]:
    return {"hello": 1, "pid": os.getpid(), "label": "x", "n_jobs": 2, **changed}


def update(at: float, **changed: Any) -> dict[str, Any]:
    plain: dict[str, Any] = dict.fromkeys(
        ("completed", "failed", "retried", "resumed", "queue", "left_out"), 0
    )
    plain |= dict.fromkeys(("total", "rate", "remaining"))
    plain |= {name: [] for name in ("functions", "spans", "batches", "failures", "news", "workers")}
    return {"at": at, **plain, **changed}


def test_what_is_kept_of_a_call_is_bounded() -> None:
    call = WatchedCall(1, hello(), os.getpid())
    spans = [[0, 1.2345, 0.0123, 0, 12, 0.98, position] for position in range(1000)]
    plain = {"worker": 0, "type": "E", "message": "", "traceback": ""}
    for at in range(1500):
        failures = [{"position": at, "at": at, **plain}]
        call.take(update(float(at), spans=spans, batches=[[at, 1]] * 50, failures=failures))
        call.forget_news()
    assert len(call.details()) < 1_200_000
    call.take(update(1500.0, ended=True))
    assert call.state is State.FINISHED
    assert len(call.details()) < 300_000


def test_old_calls_make_room() -> None:
    feed = Feed()
    for number in range(MOST_PAST + 50):
        call = WatchedCall(number, hello(), os.getpid())
        feed.add(call)
        if number:
            call.take(update(0.0, ended=True))
    feed.tick()
    assert len(feed.calls) <= MOST_PAST + 2
    assert 0 in feed.calls  # it still runs
    assert json.loads(feed.snapshot(None))["details"] is None


def test_a_late_browser_gets_a_snapshot() -> None:
    import asyncio

    async def follow() -> list[str]:
        feed = Feed()
        call = WatchedCall(1, hello(), os.getpid())
        feed.add(call)
        events = feed.follow(1)
        kinds = []

        async def take() -> dict[str, Any]:
            text = (await anext_of(events)).decode()
            found = [json.loads(line[len("data: ") :]) for line in text.split("\n\n") if line]
            kinds.extend(event["kind"] for event in found)
            return found[-1]

        await take()
        for at in range(5):
            call.take(update(float(at), spans=[[0, at, 1.0, 0, 1, 1.0, at]]))
            feed.tick()
        assert (await take())["details"]["spans"][0][1] == 4
        for at in range(200):
            call.take(update(float(at), spans=[[0, at, 1.0, 0, 1, 1.0, at]]))
            feed.tick()
        last = await take()
        assert len(last["details"]["spans"]) == 205
        feed.stop()
        await events.aclose()  # type: ignore[attr-defined] # it is a generator
        return kinds

    assert asyncio.run(follow()) == ["snapshot", *["update"] * 5, "snapshot"]


async def anext_of(events: Any) -> bytes:
    found: bytes = await events.__anext__()
    return found


# --- starting, connecting, ending ---


def test_a_port_in_use_is_passed_over_and_that_is_said(nobody: None) -> None:
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(free_port())
        with free_port() as other:
            pass  # it was free a moment ago
        details = start_dashboard([port, other])
        try:
            assert details["dashboard_port_nr"] == other
        finally:
            shutdown_dashboard()
        with pytest.raises(OSError, match=rf"no port is free.*{port}"):
            start_dashboard([port])
        command = [sys.executable, "-m", "parallel_core", "dashboard"]
        refused = run([*command, f"--port-range={port}-{port}"])
        assert refused.returncode == 1 and "no port is free" in refused.stderr
        assert "Traceback" not in refused.stderr
        taken, skipped = server.take_port([port, 0], "127.0.0.1")
        taken.close()
        assert skipped == (port,)


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen()
        yield found.getsockname()[1]


def test_there_is_one_dashboard_a_program(dashboard: Client) -> None:
    with pytest.raises(RuntimeError, match="has started a dashboard already"):
        start_dashboard(PORTS)
    with pytest.raises(RuntimeError, match="has started a dashboard already"):
        connect_to_dashboard(dashboard.port)


def test_another_program_uses_the_same_one(dashboard: Client) -> None:
    program = (
        "from parallel_core import *\n"
        "details = start_dashboard()\n"
        "print(details['url'])\n"
        "shutdown_dashboard()\n"
        f"connect_to_dashboard({dashboard.port})\n"
        "shutdown_dashboard()\n"
        f"connect_to_dashboard({dashboard.port}, 'localhost')\n"
        "shutdown_dashboard()\n"
        "try:\n"
        f"    connect_to_dashboard({dashboard.port + 1})\n"
        "except ConnectionRefusedError as error:\n"
        "    print(error)\n"
    )
    found = run([sys.executable, "-c", program])
    assert found.stdout.splitlines() == [
        dashboard.url,
        f"there is no dashboard at port {dashboard.port + 1} of this machine: yours is at port "
        f"{dashboard.port} of this machine",
    ], found.stderr
    assert dashboard.state()["kind"] == "snapshot"  # the other program has not ended it
    command = [sys.executable, "-m", "parallel_core", "dashboard"]
    second = run(command)
    assert second.returncode == 0 and dashboard.url in second.stdout


def test_to_connect_to_nobody_is_refused(nobody: None) -> None:
    with pytest.raises(ConnectionRefusedError, match="start one by"):
        connect_to_dashboard(8080)
    with pytest.raises(ConnectionRefusedError, match="'elsewhere'"):
        connect_to_dashboard(8080, "elsewhere")
    with pytest.raises(TypeError, match="manager_host"):
        connect_to_dashboard(8080, 7)  # type: ignore[arg-type] # that is the point
    shutdown_dashboard()  # there is none


@pytest.mark.parametrize(
    ("ports", "error", "words"),
    [
        ("8080-8090", TypeError, "a range of port numbers"),
        (8080, TypeError, "a range of port numbers"),
        ([], ValueError, "at least one port"),
        ([1.5], TypeError, "whole numbers"),
        ([True], TypeError, "whole numbers"),
        ([-1], ValueError, "from 0 to 65535"),
        (range(65530, 65540), ValueError, "not 65536"),
    ],
)
def test_ports_are_checked(ports: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        start_dashboard(ports)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_NEEDED", ("starlette", "no_such_package"))
    for function in (start_dashboard, lambda: connect_to_dashboard(8080)):
        words = r"needs no_such_package: .*parallel-core\[dashboard\]"
        with pytest.raises(ImportError, match=words):
            function()


def test_it_ends_with_the_program_that_has_started_it() -> None:
    program = (
        "import os, time\n"
        "from parallel_core import start_dashboard\n"
        "from parallel_core.dashboard import control\n"
        "start_dashboard(range(8200, 8400))\n"
        "print(control._process.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    with (
        own_name(),
        subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment()
        ) as process,
    ):
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert running(pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not running(pid), "the dashboard has ended")
        assert listener.connect() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_ended(number: int) -> None:
    with commanded() as (client, process):
        Parallel(2, "threading")(delayed(pause)(0.01, x) for x in range(20))
        wait_until(lambda: client.state()["calls"], "the call is shown")
        with client.events() as events:
            next(events)
            process.send_signal(number)
            process.wait()
        assert process.stderr is not None
        complaints = process.stderr.read()
        assert "Traceback" not in complaints and "Cancel" not in complaints, complaints


@pytest.mark.parametrize("given", ["x", "5-", "9-8", "-1-5", "1-65536", "1.5-3"])
def test_a_wrong_port_range_of_the_command(given: str) -> None:
    command = [sys.executable, "-m", "parallel_core", "dashboard", f"--port-range={given}"]
    found = run(command)
    assert found.returncode == 2 and "port numbers are needed" in found.stderr


def test_the_level_of_the_stack() -> None:
    assert get_stacklevel() == 1
    set_stacklevel(3)
    assert get_stacklevel() == 3
    set_stacklevel(1)
    for wrong, error in ((0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="stacklevel"):
            set_stacklevel(wrong)  # type: ignore[arg-type] # that is the point


def test_names_of_mpire() -> None:
    names = ("start_dashboard", "connect_to_dashboard", "shutdown_dashboard")
    for name in (*names, "set_stacklevel", "get_stacklevel"):
        function: Callable[..., Any] = getattr(mpire_dashboard, name)
        assert function is getattr(parallel_core, name) is getattr(control, name)
