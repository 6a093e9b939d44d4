"""Open files, pipes and sockets as arguments of tasks."""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import pytest

from parallel_core import Parallel, SerializationError, delayed
from parallel_core.serialization.open_files import _newline_of

pytestmark = pytest.mark.warm_workers

PROCESSES = ["processes", "loky"]


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text"
    path.write_bytes(b"one\r\ntwo\nthr\xc3\xa9e\rfour\n")
    return path


def rest(file: Any) -> tuple[Any, ...]:
    about = type(file).__name__, file.name, file.mode, file.tell(), file.read(), file.tell()
    if isinstance(file, io.TextIOWrapper):
        about += file.encoding, file.errors, file.line_buffering
    file.seek(0)
    return (*about, file.readline())


def put(file: Any, text: Any) -> int:
    return file.write(text)


def begin(file: Any) -> None:
    """Read a little of `file`."""
    if isinstance(file, io.FileIO):
        file.read(2)
    else:
        file.readline()


# --- read -----------------------------------------------------------------------------------------

HOW_TO_READ: list[dict[str, Any]] = [
    {},
    {"newline": ""},
    {"newline": "\r"},
    {"encoding": "latin-1", "errors": "replace", "buffering": 1},
    {"mode": "rb"},
    {"mode": "rb", "buffering": 0},
]


@pytest.mark.parametrize("backend", PROCESSES)
def test_a_file_is_read_from_where_it_was_by_each_task(text_file: Path, backend: str) -> None:
    def tasks() -> Iterator[Any]:
        for how in HOW_TO_READ:
            for _ in range(2):
                with open(text_file, **how) as file:
                    begin(file)
                    where = file.tell()
                    yield delayed(rest)(file)
                    yield delayed(rest)(file)
                    assert file.tell() == where

    expected = []
    for how in HOW_TO_READ:
        for _ in range(4):
            with open(text_file, **how) as file:
                begin(file)
                expected.append(rest(file))
    assert Parallel(2, backend)(tasks()) == expected


@pytest.mark.core
@pytest.mark.parametrize("mode", ["r", "r+", "w", "a"])
@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
def test_what_newline_was_is_found_out(text_file: Path, mode: str, newline: str | None) -> None:
    for content in (b"", b"\n", b"\r\n", b"one\r\ntwo\n"):
        text_file.write_bytes(content)
        with open(text_file, mode, newline=newline) as file:
            assert _newline_of(file) == newline
            if file.writable():
                file.write("text")
                assert _newline_of(file) == newline
                file.seek(0)
            if file.readable():
                file.readline()
                assert _newline_of(file) == newline
                file.read()
                assert _newline_of(file) == newline
                file.read(1)
                assert _newline_of(file) == newline
                file.seek(0)
                assert _newline_of(file) == newline


def test_a_file_that_is_gone_and_one_within_another_object(text_file: Path) -> None:
    def tasks() -> Iterator[Any]:
        with open(text_file, "rb") as file:
            file.readline()
            text_file.unlink()
            yield delayed(read_within)({"file": [file, file]})

    assert Parallel(2)(tasks()) == [(b"two\n", b"thr\xc3\xa9e\rfour\n", True)]


def read_within(holder: dict[str, list[Any]]) -> tuple[bytes, bytes, bool]:
    first, second = holder["file"]
    return first.readline(), second.read(), first is second


def test_a_file_that_a_function_has_captured(text_file: Path) -> None:
    with open(text_file) as file:

        def line() -> str:
            return file.readline()

        def tasks() -> Iterator[Any]:
            yield delayed(line)()
            yield delayed(line)()
            file.readline()
            yield delayed(line)()

        assert Parallel(2, batch_size=3)(tasks()) == ["one\n", "one\n", "two\n"]


def test_thousands_of_files_are_not_open_at_once(tmp_path: Path) -> None:
    text = """
        import resource, socket
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

        def read(file):
            return int(file.read())

        def tasks():
            for number in range(1000):
                with open("number", "w") as file:
                    file.write(str(number))
                os.rename("number", f"number-{number}")
                with open(f"number-{number}") as file:
                    yield delayed(read)(file)

        print(Parallel(2)(tasks()) == list(range(1000)))
    """
    assert programs.run(tmp_path, text) == "True\n"


# --- written to -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "a", "x+"])
def test_what_tasks_write_follows_what_was_written(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "log"
    with open(path, mode, encoding="utf-16") as file:
        file.write("head\n")
        with Parallel(2) as parallel:
            written = parallel(delayed(put)(file, f"line {i}\n") for i in range(20))
            parallel([delayed(file.write)("method\n")])
        file.write("foot\n")
    assert written == [len(f"line {i}\n") for i in range(20)]
    first, *lines, method, last = path.read_text("utf-16").splitlines()
    assert (first, method, last) == ("head", "method", "foot")
    assert sorted(lines) == sorted(f"line {i}" for i in range(20))


def test_a_file_that_is_read_and_written(text_file: Path) -> None:
    with open(text_file, "r+", newline="") as file:
        assert file.readline() == "one\r\n"
        Parallel(2)([delayed(put)(file, "TWO")])
        file.flush()
    assert text_file.read_bytes().startswith(b"one\r\nTWO\nthr")


def test_temporary_files_are_the_callers_to_remove() -> None:
    with tempfile.NamedTemporaryFile("w+") as named, tempfile.TemporaryFile() as nameless:
        with Parallel(2) as parallel:
            parallel([delayed(put)(named, "text"), delayed(put)(nameless, b"bytes")])
            parallel(delayed(abs)(i) for i in range(2))
        named.seek(0)
        nameless.seek(0)
        assert named.read() == "text"
        assert nameless.read() == b"bytes"
        assert os.path.exists(named.name)


def test_what_cannot_be_written_is_the_tasks_failure() -> None:
    with open("/dev/full", "w") as full:
        with pytest.raises(OSError, match="No space left") as caught:
            Parallel(2)([delayed(put)(full, "text")])
        assert caught.value.errno == errno.ENOSPC


def test_standard_output_is_the_workers(capfd: pytest.CaptureFixture[str]) -> None:
    with capfd.disabled():
        standard = sys.stdout
        names = Parallel(2)(delayed(standard_name)(stream) for stream in (standard, sys.stderr))
    assert names == ["stdout", "stderr"]


def standard_name(stream: Any) -> str:
    return next(name for name in ("stdout", "stderr") if stream is getattr(sys, name))


# --- descriptors that cross -----------------------------------------------------------------------


def say(sock: socket.socket, text: bytes) -> tuple[Any, ...]:
    sock.sendall(text)
    return sock.family, sock.type, sock.gettimeout(), sock.getpeername()


def test_a_connected_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Parallel(2) as parallel:
        for timeout in (None, 30.0):
            theirs.settimeout(timeout)
            about = (socket.AF_UNIX, socket.SOCK_STREAM, timeout, "")
            assert parallel(delayed(say)(theirs, b"x") for _ in range(20)) == [about] * 20
            assert ours.recv(20, socket.MSG_WAITALL) == b"x" * 20
            assert theirs.gettimeout() == timeout


def answer(listener: socket.socket) -> bytes:
    connection, _ = listener.accept()
    with connection:
        return connection.recv(100)


def ask(address: Any, text: bytes) -> None:
    with socket.create_connection(address) as connection:
        connection.sendall(text)


def test_a_listening_socket_and_one_that_was_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        done = Parallel(2)([delayed(answer)(listener), delayed(ask)(address, b"hello")])
        assert done == [b"hello", None]

        with socket.create_connection(address) as client:

            def connections() -> Iterator[Any]:
                connection, _ = listener.accept()
                with connection:  # closed here, before the task has it
                    yield delayed(say)(connection, b"welcome")

            assert Parallel(2)(connections())[0][0] == socket.AF_INET
            assert client.recv(100) == b"welcome"
            assert client.recv(100) == b""  # nobody has kept it


def wait_or_wake(number: int, reader: Any, writer: Any, last: int) -> bytes:
    if number == 0:
        return reader.read(1)
    if number == last:
        writer.write(b"x")
    return b""


def test_tasks_with_pipes_that_are_taken_back() -> None:
    # The first task ends when the last has run, in another worker.
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb", buffering=0) as reader, os.fdopen(write_end, "wb") as writer:
        tasks = [delayed(wait_or_wake)(i, reader, writer, 49) for i in range(50)]
        assert Parallel(2, batch_size=50)(tasks) == [b"x", *[b""] * 49]


def send(connection: Any, thing: Any) -> Any:
    connection.send(thing)
    return len(os.listdir("/proc/self/fd"))


def test_the_end_of_a_pipe_of_multiprocessing() -> None:
    # Pickle takes it for its number, and what has that number in the worker was closed after.
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs, Parallel(2) as parallel:
        parallel(delayed(send)(theirs, i) for i in range(50))
        assert sorted(ours.recv() for _ in range(50)) == list(range(50))
        assert parallel(delayed(abs)(-i) for i in range(50)) == list(range(50))
        refused(ours, "pass its name|connection in the task", "loky")


def die_once(sock: socket.socket, flag: str) -> bytes:
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        sock.sendall(b"alive")
        return b"done"
    os._exit(3)


def test_a_task_that_is_run_again_gets_its_socket_again(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        task = delayed(die_once)(theirs, str(tmp_path / "flag"))
        assert Parallel(2, retries=1)([task]) == [b"done"]
        assert ours.recv(100) == b"alive"


kept: list[Any] = []


def count_open(sock: socket.socket, fails: bool) -> int:
    kept.append(sock)
    if fails:
        raise ValueError("after it was given a socket")
    return len(os.listdir("/proc/self/fd"))


def test_nothing_stays_open_in_a_worker() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Parallel(2, on_error="return", batch_size=20) as parallel:
        counts = parallel(delayed(count_open)(theirs, i % 5 == 4) for i in range(200))
    counted = [count for count in counts if not isinstance(count, ValueError)]
    assert len(counted) == 160
    assert max(counted) < min(counted) + 10


def test_more_descriptors_than_one_message_takes() -> None:
    pairs = [socket.socketpair() for _ in range(150)]
    try:
        theirs = [pair[1] for pair in pairs]
        assert Parallel(2)([delayed(say_all)(theirs)]) == [150]
        assert [ours.recv(10) for ours, _ in pairs] == [b"x"] * 150
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


def say_all(socks: list[socket.socket]) -> int:
    return sum(sock.send(b"x") for sock in socks)


def read_and_fail(file: Any, sock: socket.socket) -> None:
    with file, sock:  # here, nobody else closes them
        sock.sendall(b"x")
        raise ValueError(file.read())


def test_a_task_that_failed_is_replayed_here(text_file: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with open(text_file, newline="") as file:
            file.readline()
            with pytest.raises(ValueError, match="two") as caught:
                Parallel(2)([delayed(read_and_fail)(file, theirs)])
        theirs.close()
        with pytest.raises(ValueError, match="two") as again:
            caught.value.replay()  # type: ignore[attr-defined]
        assert again.value.args == caught.value.args
        assert ours.recv(10) == b"xx"


# --- here -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"n_jobs": 1}, {"n_jobs": 2, "backend": "threading"}])
def test_in_this_process_they_are_the_same_objects(
    text_file: Path, options: dict[str, Any]
) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open(text_file) as file:
        things: list[Any] = [ours, file, sys.stdin]
        assert Parallel(**options)(delayed(id)(thing) for thing in things) == list(map(id, things))
        assert not file.closed


# --- what cannot be -------------------------------------------------------------------------------


def refused(thing: Any, words: str, backend: str = "processes") -> None:
    with pytest.raises(SerializationError, match=words) as caught:
        Parallel(2, backend)([delayed(abs)(-1), delayed(repr)(thing)])
    assert "task 1 of the call" in str(caught.value)
    assert "argument 0" in str(caught.value)


def test_what_cannot_cross_is_named_with_what_to_do(text_file: Path) -> None:
    with open(text_file) as file:
        next(file)
        refused([file], r"argument 0\[0\], <.*for loop.*readline")
    refused(file, "it is closed")
    refused(sys.__stdin__, "standard input; read it in the caller")
    refused(io.TextIOWrapper(io.BytesIO()), "BytesIO cannot be made anew in a worker")
    with socket.socket() as plain:
        refused(plain, "make the connection in the task, or use the backend", "loky")
        with pytest.raises(SerializationError, match=r"sock.*pass it to each task as"):
            Parallel(2)([delayed(lambda: plain.fileno())()])
    refused(plain, "closed")
    with ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="x") as secure:
        refused(secure, "SSLSocket has state in this process")
    with open(text_file, "a") as file:
        refused(file, "pass its name, or use the backend 'processes' or 'threading'", "loky")
        with open(text_file) as fine:
            refused([fine, threading.Lock()], r"argument 0\[1\]")


@pytest.mark.parametrize("backend", PROCESSES)
def test_an_open_file_is_no_result(text_file: Path, backend: str) -> None:
    words = r"result of _?io.open\(.*the file '.*/text' is open in the worker alone; return what"
    with pytest.raises(SerializationError, match=words):
        Parallel(2, backend)([delayed(open)(str(text_file))])
