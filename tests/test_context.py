"""What the caller has set up holds inside the tasks, wherever they run, and for that call alone."""

from __future__ import annotations

import contextlib
import decimal
import functools
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from context_tasks import GREETING, everything_else

import parallel_core.workers.channel
from parallel_core import (
    ContextError,
    Parallel,
    delayed,
    register_context,
    shutdown_workers,
    unregister_context,
)
from parallel_core.workers.messages import RunBatch, from_wire
from watching import HOME, LIMIT, engines

pytestmark = pytest.mark.warm_workers

core = pytest.mark.core

THREADS = ("threading", "thread executor")


def counted(value: int) -> int:
    seen = GREETING.get()
    GREETING.set(value)
    return int(seen == "nothing")


@pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
def test_so_has_one_whose_result_is_folded(backend: str) -> None:
    total = Parallel(2, backend, reduce=int.__add__)(delayed(counted)(n) for n in range(50))
    assert total == 50


def change_decimal(n: int) -> int:
    decimal.getcontext().prec -= n
    return decimal.getcontext().prec


@pytest.mark.parametrize("precision", [28, 10])
@pytest.mark.parametrize("backend", ["processes", "threading"])
def test_a_task_has_a_copy_of_what_decimal_is_to_do(backend: str, precision: int) -> None:
    with decimal.localcontext() as numbers:
        numbers.prec = precision
        found = Parallel(2, backend, batch_size=2)(delayed(change_decimal)(n % 3) for n in range(6))
        assert found == [precision, precision - 1, precision - 2] * 2
        assert numbers.prec == precision


class Large:
    """Can be referred to weakly."""


def test_what_was_carried_is_not_kept() -> None:
    large = Large()
    GREETING.set(large)
    seen = weakref.ref(large)
    Parallel(2)(delayed(abs)(n) for n in range(3))
    GREETING.set("nothing")
    del large
    gc.collect()
    assert seen() is None


def test_values_that_do_not_pickle_are_left_out() -> None:
    token = GREETING.set(threading.Lock())
    try:
        assert Parallel(2)(delayed(GREETING.get)() for _ in range(2)) == ["nothing"] * 2
    finally:
        GREETING.reset(token)


SCRIPT = """
    import logging, sys, warnings
    from contextvars import ContextVar
    from parallel_core import Parallel, delayed, register_context

    class Own(UserWarning): pass
    class Value:
        def __init__(self, text): self.text = text
        def __eq__(self, other): return type(self) is type(other) and self.text == other.text

    variable = ContextVar("variable", default="default")
    class Holder:
        variable = ContextVar("variable")

    def task(x):
        found = variable.get(), Holder.variable.get(None), sys.own_state
        variable.set(x)
        try:
            warnings.warn("from a task", Own)
        except Own as raised:
            return (*found, str(raised), isinstance(found[1], Value))

    if __name__ == "__main__":
        print(Parallel(2)(delayed(variable.get)() for _ in range(2)))
        variable.set("set")
        Holder.variable.set(Value("here"))
        warnings.simplefilter("error", Own)
        register_context("state", lambda: [1, 2], lambda known: setattr(sys, "own_state", known))
        for engine in "processes", "loky":
            for n in range(2):
                got = Parallel(2, engine)(delayed(task)(x) for x in range(4))
                assert got == [("set", Value("here"), [1, 2], "from a task", True)] * 4, got
        back = Parallel(2)(delayed(lambda: (variable, Holder.variable))() for _ in range(2))
        assert all(one is variable and other is Holder.variable for one, other in back)
        variable.set("other")
        print(Parallel(2)(delayed(lambda: Parallel(2, "processes")(
            delayed(variable.get)() for _ in range(2)))() for _ in range(2)))
"""


def run_script(text: str, folder: Path) -> str:
    (folder / "script.py").write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_stands_in_the_script_itself(tmp_path: Path) -> None:
    """Variables are known again by a token, classes are those of the function that uses them."""
    printed = run_script(SCRIPT, tmp_path)
    assert printed.splitlines() == [
        "['default', 'default']",
        "[['other', 'other'], ['other', 'other']]",
    ]


def modules_loaded(name: str) -> bool:
    return name in sys.modules


def warn_by(name: str) -> str:
    library = __import__(name)
    try:
        library.warn()
    except Warning as raised:
        return type(raised).__name__
    return "nothing"


def test_no_module_is_imported_for_the_sake_of_a_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And yet the filter holds as soon as a task imports it."""
    name = "a_library_that_warns"
    lines = (
        "import warnings",
        "class Special(Warning): pass",
        "def warn(): warnings.warn('x', Special)",
    )
    (tmp_path / f"{name}.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    library = __import__(name)
    shutdown_workers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", library.Special)
        assert Parallel(2)(delayed(modules_loaded)(name) for _ in range(2)) == [False] * 2
        nested = delayed(warn_by)(name)
        assert Parallel(2)([nested] * 3) == ["Special"] * 3
        inner = Parallel(2, "processes")([delayed(nested_warnings)(name)] * 2)
        assert inner == [["Special"] * 2] * 2
    sys.modules.pop(name)


def nested_warnings(name: str) -> list[str]:
    return list(Parallel(2, "processes")([delayed(warn_by)(name)] * 2))


def die_at_first(folder: str, value: int) -> Any:
    marker = Path(folder) / f"died-{value}"
    if value == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return GREETING.get(), os.getcwd()


def test_a_new_worker_is_told_as_the_others_were(tmp_path: Path) -> None:
    with everything_else(tmp_path):
        call = Parallel(2, retries=1, retry_backoff=0)
        got = call(delayed(die_at_first)(str(tmp_path), n) for n in range(8))
    assert got == [(["hello"], str(tmp_path))] * 8


def test_a_worker_is_told_once_a_call_and_not_again_what_it_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[bytes | None] = []
    send = parallel_core.workers.channel.Channel.send

    def watched(self: Any, message: Any) -> Any:
        said = from_wire(message)
        if isinstance(said, RunBatch):
            told.append(said.context)
        return send(self, message)

    monkeypatch.setattr(parallel_core.workers.channel.Channel, "send", watched)
    with Parallel(2, batch_size=1) as parallel:

        def news() -> int:
            told.clear()
            assert set(parallel(delayed(GREETING.get)() for n in range(40))) == {GREETING.get()}
            return sum(entry is not None for entry in told)

        news()
        token = GREETING.set("hello")
        assert 1 <= news() <= 2
        assert news() <= 1  # by a worker that had nothing to do before
        GREETING.reset(token)
        assert 1 <= news() <= 2


# What libraries register.


@pytest.fixture
def registered() -> Iterator[Any]:
    names: set[str] = set()

    def register(name: str, capture: Any, restore: Any) -> None:
        names.add(name)
        register_context(name, capture, restore)

    yield register
    for name in names:
        with contextlib.suppress(ValueError):
            unregister_context(name)


def fails_to_divide(_: object) -> str:
    import sklearn

    try:
        np.float64(1) / np.float64(0)
    except FloatingPointError as error:
        return f"{error}, {sklearn.get_config()['assume_finite']}"
    return "nothing raised"


@engines("processes", "threading", "sequential")
def test_configuration_of_scikit_learn_and_numpy(engine: Any, registered: Any) -> None:
    sklearn = pytest.importorskip("sklearn")
    registered("sklearn", sklearn.get_config, lambda c: sklearn.config_context(**c))
    registered("numpy", np.geterr, lambda state: np.errstate(**state))
    call = Parallel(2, engine)
    with sklearn.config_context(assume_finite=True), np.errstate(divide="raise"):
        got = call(delayed(fails_to_divide)(n) for n in range(4))
    assert got == ["divide by zero encountered in scalar divide, True"] * 4
    with np.errstate(divide="ignore"):
        assert call(delayed(fails_to_divide)(n) for n in range(2)) == ["nothing raised"] * 2
    assert not sklearn.get_config()["assume_finite"]


KNOWN: list[Any] = []


@contextlib.contextmanager
def known_within(state: Any) -> Iterator[None]:
    KNOWN.append(state)
    yield
    KNOWN.remove(state)


def known(_: object) -> list[Any]:
    return list(KNOWN)


def keep(state: Any) -> None:
    KNOWN[:] = [state]


@core
def test_registering_again_and_no_more(registered: Any) -> None:
    def look() -> list[Any]:
        return Parallel(2)(delayed(known)(n) for n in range(3))

    registered("known", lambda: "first", known_within)
    assert look() == [["first"]] * 3
    registered("known", lambda: {"second": 2}, known_within)
    assert look() == [[{"second": 2}]] * 3
    unregister_context("known")
    assert look() == [[]] * 3
    registered("kept", lambda: "third", keep)  # nothing ends what only sets
    assert look() == [["third"]] * 3


class Fails:
    """A context manager that fails as it is entered, or left."""

    def __init__(self, when: str) -> None:
        self.when = when

    def __enter__(self) -> None:
        if self.when == "enter":
            raise OSError("entering")

    def __exit__(self, *_: object) -> None:
        if self.when == "exit":
            raise OSError("leaving")


def raises(_: Any = None) -> Any:
    raise OSError("no such thing")


def exits(_: Any = None) -> Any:
    sys.exit(3)


BAD = {
    "capture": (raises, known_within, "could not be captured: OSError: no such thing"),
    "restore": (int, raises, "could not be restored where tasks run: OSError: no such thing"),
    "leave": (int, exits, "could not be restored where tasks run: SystemExit: 3"),
    "enter": (int, lambda _: Fails("enter"), "could not be restored .* OSError: entering"),
    "exit": (int, lambda _: Fails("exit"), "could not be put back .* OSError: leaving"),
    "neither": (int, lambda _: 5, "must return None or a context manager, not 5 of type 'int'"),
}


@engines("processes", "loky", *THREADS)
def test_a_context_that_fails_ends_the_call_and_nothing_more(engine: Any, registered: Any) -> None:
    some = ["capture", "exit"] if engine == "loky" else list(BAD)  # starting its workers takes long
    for options in ({}, {"on_error": "skip"}, {"retries": 2}, {"reduce": max}):
        call = Parallel(2, engine, **options)
        for capture, restore, words in map(BAD.__getitem__, some):
            registered("bad one", capture, restore)
            with pytest.raises(ContextError, match=words) as caught:
                call(delayed(abs)(n) for n in range(20))
            assert "bad one" in str(caught.value)
            assert isinstance(caught.value.__cause__, (Exception, SystemExit))
        unregister_context("bad one")
        assert call(delayed(abs)(n) for n in range(20))
        if engine == "loky":
            break


def test_a_state_that_does_not_pickle(registered: Any) -> None:
    registered("locked", threading.Lock, known_within)
    for backend in "processes", "loky":
        with pytest.raises(ContextError, match=r"'locked' has a state that .*: TypeError: cannot"):
            Parallel(2, backend)(delayed(abs)(n) for n in range(3))
    assert len(Parallel(2, "threading")(delayed(known)(n) for n in range(3))[0]) > 0
    registered("locked", int, functools.partial(known_within, threading.Lock()))
    with pytest.raises(ContextError, match=r"'locked' has a restore that .*: TypeError: cannot"):
        Parallel(2)(delayed(abs)(n) for n in range(3))
    assert Parallel(1)(delayed(abs)(n) for n in range(3)) == [0, 1, 2]  # nothing has to travel


def test_with_a_generator(registered: Any) -> None:
    registered("bad one", int, raises)
    results = Parallel(2, return_as="generator")(delayed(abs)(n) for n in range(3))
    with pytest.raises(ContextError, match="bad one"):
        list(results)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("", int, known_within), "the name of a context must be a text, not ''"),
        ((3, int, known_within), "must be a text, not 3"),
        (("x", None, known_within), "capture of the context 'x' is None, not callable"),
        (("x", int, None), "restore of the context 'x' is None.*unregister_context"),
    ],
)
def test_what_cannot_be_registered(arguments: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        register_context(*arguments)
    with pytest.raises(ValueError, match="no context is registered as 'x'; there is none"):
        unregister_context("x")
