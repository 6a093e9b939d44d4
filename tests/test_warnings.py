"""Warnings of tasks are the caller's: its filters, its record, each once."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import pytest
import warning_tasks
from programs import start
from warning_tasks import Strange, warn, warn_and_record, warn_into_text, warn_strangely

from parallel_core import Parallel, delayed
from watching import engines

pytestmark = pytest.mark.warm_workers

ALL = ("processes", "fork", "loky", "process executor", "threading", "sequential")
anywhere = engines(*ALL, fast=("processes",))


@anywhere
@pytest.mark.parametrize("return_as", ["list", "generator_unordered"])
def test_they_are_seen_where_one_looks_for_them(engine: Any, return_as: str) -> None:
    parallel = Parallel(2, engine, return_as=return_as)
    with pytest.warns(UserWarning, match="task") as found:
        list(parallel(delayed(warn)(f"task {n}") for n in range(20)))
    assert sorted(str(one.message) for one in found) == sorted(f"task {n}" for n in range(20))
    assert {one.filename for one in found} == {warning_tasks.__file__}
    assert len({one.lineno for one in found}) == 1


@anywhere
def test_a_line_that_warns_in_several_workers_warns_once_a_call(engine: Any) -> None:
    parallel = Parallel(2, engine, batch_size=1)
    for _ in range(2):  # a new block has Python forget what was shown, and so with workers
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("default")
            for _ in range(2):
                parallel(delayed(warn)("the same") for _ in range(20))
        assert [str(one.message) for one in found] == ["the same"]


@engines("processes", "loky")
def test_a_class_of_its_own(engine: Any) -> None:
    with pytest.warns(Strange) as found:
        Parallel(2, engine)(delayed(warn_strangely)(n) for n in range(2))
    messages: list[Any] = sorted((one.message for one in found), key=str)
    assert [one.number for one in messages] == [0, 1] and type(messages[0]) is Strange


@engines("processes", "loky", "sequential")
def test_a_class_that_cannot_be_sent(engine: Any) -> None:
    class Local(DeprecationWarning):
        def __reduce__(self) -> Any:
            raise TypeError("not this one")

    with pytest.warns(DeprecationWarning, match="local"):
        Parallel(2, engine)(delayed(warn)("local", kind) for kind in [Local, Local])


@anywhere
def test_filters_that_raise(engine: Any) -> None:
    """In the task, as they hold there."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(UserWarning, match="task") as caught:
            Parallel(2, engine)(delayed(warn)("task") for _ in range(2))
        failed = Parallel(2, engine, on_error="return")([delayed(warn)("kept")])
    assert isinstance(failed[0], UserWarning)
    assert any(" of the call" in note for note in caught.value.__notes__)


@engines("processes", "loky")
def test_filters_that_raise_when_the_call_has_begun(engine: Any) -> None:
    parallel = Parallel(2, engine, return_as="generator", pre_dispatch=1, batch_size=1)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        results = parallel(delayed(warn)(f"task {n}") for n in range(20))
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="task"):
            list(results)
    with pytest.warns(UserWarning, match="again"):
        Parallel(2, engine)(delayed(warn)("again") for _ in range(2))


@pytest.mark.fresh_workers
@anywhere
def test_its_text_goes_with_what_else_a_task_says(
    engine: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = warnings._showwarning_orig  # type: ignore[attr-defined]
        warnings._showwarnmsg_impl = _plain  # type: ignore[attr-defined]  # pytest records
        said = Parallel(2, engine, output="capture")(delayed(warn)(f"w{n}") for n in range(2))
        Parallel(2, engine, output="discard")(delayed(warn)("dropped") for _ in range(2))
        texts = Parallel(2, engine)(delayed(warn_into_text)("text") for _ in range(2))
    assert [f"UserWarning: w{n}" in one.stderr for n, one in enumerate(said)] == [True, True]
    assert "UserWarning: text" in texts[0]
    assert capfd.readouterr().err == ""


def _plain(message: Any) -> None:
    sys.stderr.write(
        warnings.formatwarning(
            message.message, message.category, message.filename, message.lineno, message.line
        )
    )


@anywhere
def test_a_task_records_its_own(engine: Any) -> None:
    with warnings.catch_warnings(record=True) as found:
        got = Parallel(2, engine, batch_size=2)(delayed(warn_and_record)(f"{n}") for n in range(2))
    assert got == [["0"], ["1"]] and not found


@engines("processes", "loky")
def test_a_caller_that_logs_them(engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        try:
            Parallel(2, engine)(delayed(warn)("logged") for _ in range(2))
        finally:
            logging.captureWarnings(False)
    assert [record.name for record in caplog.records] == ["py.warnings"] * 2


@pytest.mark.parametrize("backend", ["processes", "loky", "threading", "sequential"])
def test_in_a_script(backend: str, tmp_path: Any) -> None:
    """A deprecation is shown that a script itself meets, and that of a module is not."""
    text = """
        def old(n):
            warnings.warn("old", DeprecationWarning)

        if __name__ == "__main__":
            for _ in range(2):
                Parallel(2, backend=sys.argv[1])(delayed(old)(n) for n in range(4))
            with open("module.py", "w") as file:
                file.write("import warnings\\ndef f(): warnings.warn('hid', DeprecationWarning)")
            sys.path.insert(0, "")
            import module
            Parallel(2, backend=sys.argv[1])(delayed(module.f)() for n in range(4))
    """
    out, err = start(tmp_path, text, backend).communicate(timeout=50)
    assert (out, err.count("DeprecationWarning: old"), err.count("hid")) == ("", 1, 0)
