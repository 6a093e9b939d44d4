"""In a notebook: functions of cells, widgets, what tasks print, pictures, an interrupt.

One notebook is executed once, cell by cell; each test looks at what came of some cells.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import pytest
from programs import environment

from watching import wait_until

pytestmark = pytest.mark.timeout(120)

#: The cells, by names that tests use.
CELLS = {
    "define": """
        import os, pathlib, sys, time
        from parallel_core import Parallel, delayed, parallel_config

        FACTOR = 3

        class Point:
            def __init__(self, x):
                self.x = x

        def scaled(point):
            return Point(FACTOR * point.x)

        def say(x):
            print(f"printed {x}")
            print(f"complained {x}", file=sys.stderr)
            return x

        def wait(x):
            pathlib.Path(f".{x}").write_text(str(os.getpid()))
            os.rename(f".{x}", f"pid-{x}")
            time.sleep(300)

        pathlib.Path(".kernel").write_text(str(os.getpid()))
        os.rename(".kernel", "kernel")
        """,
    "functions": """
        found = Parallel(n_jobs=2)(delayed(scaled)(Point(x)) for x in range(4))
        print([point.x for point in found], all(type(point) is Point for point in found))
        """,
    "redefine": """
        def scaled(point):
            return Point(-point.x)

        found = Parallel(n_jobs=2)(delayed(scaled)(Point(x)) for x in range(4))
        print([point.x for point in found])
        """,
    "bar": """
        Parallel(n_jobs=2, progress=True)(delayed(time.sleep)(0.005) for _ in range(40))
        """,
    "bar of a block": """
        with parallel_config(progress="notebook", n_jobs=2):
            Parallel()(delayed(time.sleep)(0.005) for _ in range(30))
        """,
    "bar of an error": """
        def invert(x):
            time.sleep(0.005)
            return 1 / x

        Parallel(n_jobs=2, progress=True)(delayed(invert)(20 - x) for x in range(50))
        """,
    "prints": """
        Parallel(n_jobs=2, progress=True)(delayed(say)(x) for x in range(6))
        """,
    "interrupt": """
        Parallel(n_jobs=2, batch_size=1, progress=True)(delayed(wait)(x) for x in range(4))
        """,
    "afterwards": """
        interrupted = [path.read_text() for path in pathlib.Path().glob("pid-*")]
        while any(os.path.exists(f"/proc/{pid}") for pid in interrupted):
            time.sleep(0.01)
        print(len(interrupted), Parallel(n_jobs=2)(delayed(abs)(-x) for x in range(5)))
        """,
}
_VIEW = "application/vnd.jupyter.widget-view+json"


class Executed:
    """A notebook that was executed."""

    def __init__(self, cells: dict[str, Any], widgets: dict[str, Any]) -> None:
        self.cells = cells
        self.widgets = widgets

    def text(self, cell: str, stream: str = "stdout") -> str:
        """Return what a cell has printed."""
        return "".join(
            output["text"]
            for output in self.cells[cell]["outputs"]
            if output["output_type"] == "stream" and output["name"] == stream
        )

    def errors(self, cell: str) -> list[str]:
        return [
            output["ename"]
            for output in self.cells[cell]["outputs"]
            if output["output_type"] == "error"
        ]

    def bar(self, cell: str) -> tuple[dict[str, Any], str]:
        """Return the state of the one bar of a cell, and the texts beside it."""
        shown = [
            output["data"][_VIEW]["model_id"]
            for output in self.cells[cell]["outputs"]
            if _VIEW in output.get("data", {})
        ]
        [box] = [self._state(model) for model in shown]
        parts = [self._state(model.removeprefix("IPY_MODEL_")) for model in box["children"]]
        [bar] = [part for part in parts if part["_model_name"] == "FloatProgressModel"]
        words = " ".join(part["value"] for part in parts if part is not bar)
        return bar, words.replace("\u2007", " ")  # a space as wide as a digit

    def _state(self, model: str) -> dict[str, Any]:
        state: dict[str, Any] = self.widgets[model]["state"]
        return {**state, "_model_name": self.widgets[model]["model_name"]}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Executed:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient, of the extra 'test'")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat, which nbclient brings")
    for name in ("ipykernel", "ipywidgets", "tqdm"):
        pytest.importorskip(name, reason=f"needs {name}, of the extra 'test'")
    import textwrap

    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell)) for cell in CELLS.values()]
    )
    client = nbclient.NotebookClient(
        notebook, timeout=50, allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )

    def interrupt() -> None:
        """Interrupt the kernel, as the button does, when both workers are in a task."""
        wait_until(lambda: len(list(folder.glob("pid-*"))) == 2, "both workers are busy")
        os.kill(int((folder / "kernel").read_text()), signal.SIGINT)

    with client.setup_kernel(env={**environment(), "IPYTHONDIR": str(folder / "ipython")}):
        for index, name in enumerate(CELLS):
            button = threading.Thread(target=interrupt)
            if name == "interrupt":
                button.start()
            client.execute_cell(notebook.cells[index], index)
            if name == "interrupt":
                button.join()
        client.set_widgets_metadata()
    widgets = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    return Executed(dict(zip(CELLS, notebook.cells, strict=True)), widgets)


def test_only_the_cells_that_should_fail_do(executed: Executed) -> None:
    failed = {name: executed.errors(name) for name in CELLS if executed.errors(name)}
    assert failed == {
        "bar of an error": ["ZeroDivisionError"],
        "interrupt": ["KeyboardInterrupt"],
    }


def test_functions_and_classes_of_cells(executed: Executed) -> None:
    assert executed.text("functions") == "[0, 3, 6, 9] True\n"
    assert executed.text("redefine") == "[0, -1, -2, -3]\n"  # and not the earlier function


def test_a_bar_is_a_widget(executed: Executed) -> None:
    for cell, total in (("bar", 40), ("bar of a block", 30)):
        bar, words = executed.bar(cell)
        assert (bar["value"], bar["max"], bar["bar_style"]) == (total, total, "success")
        assert f"{total}/{total}" in words
        assert executed.text(cell, "stderr") == ""  # no bar of text besides


def test_a_bar_that_ends_early_stays(executed: Executed) -> None:
    bar, words = executed.bar("bar of an error")
    assert 0 < bar["value"] < 50 and bar["bar_style"] == "danger"
    assert "ended by ZeroDivisionError" in words


def test_what_tasks_print_is_in_the_cell(executed: Executed) -> None:
    lines = executed.text("prints").splitlines()
    assert sorted(lines) == [f"printed {x}" for x in range(6)]
    lines = executed.text("prints", "stderr").splitlines()
    assert sorted(lines) == [f"complained {x}" for x in range(6)]
    assert executed.bar("prints")[0]["value"] == 6


def test_an_interrupt_ends_the_call_and_its_tasks(executed: Executed) -> None:
    bar, words = executed.bar("interrupt")
    assert bar["bar_style"] == "danger" and "ended by KeyboardInterrupt" in words
    assert executed.text("afterwards") == "2 [0, 1, 2, 3, 4]\n"
