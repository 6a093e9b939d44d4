"""The examples of observers write what they say."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from watching import HOME


def run(name: str, output: Path) -> None:
    program = HOME / "examples" / name
    command = [sys.executable, "-W", "error", str(program), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_spans_of_opentelemetry(tmp_path: Path) -> None:
    run("otlp_spans.py", tmp_path / "spans.jsonl")
    spans: list[dict[str, Any]] = []
    for line in (tmp_path / "spans.jsonl").read_text().splitlines():
        [of_resource] = json.loads(line)["resourceSpans"]
        [service] = of_resource["resource"]["attributes"]
        assert service == {"key": "service.name", "value": {"stringValue": "an example"}}
        [of_scope] = of_resource["scopeSpans"]
        spans += of_scope["spans"]
    for span in spans:
        assert re.fullmatch("[0-9a-f]{32}", span["traceId"])
        assert re.fullmatch("[0-9a-f]{16}", span["spanId"])
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])
    assert len({span["spanId"] for span in spans}) == len(spans)
    [call] = [span for span in spans if "parentSpanId" not in span]
    tasks = [span for span in spans if span is not call]
    assert call["name"] == "Parallel(n_jobs=2)" and call["status"] == {"code": 1}
    assert {span["name"] for span in tasks} == {"time.sleep"}
    found = [
        {each["key"]: int(each["value"]["intValue"]) for each in span["attributes"]}
        for span in tasks
    ]
    assert sorted(each["task"] for each in found) == list(range(20))
    assert all(each["tasks"] == 1 and each["process.pid"] for each in found)
    for span in tasks:
        assert (span["traceId"], span["parentSpanId"]) == (call["traceId"], call["spanId"])
        length = int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])
        assert length >= 10_000_000  # each sleeps for 10 ms
        assert int(span["startTimeUnixNano"]) >= int(call["startTimeUnixNano"])


def test_a_table_of_tasks(tmp_path: Path) -> None:
    run("tasks_csv.py", tmp_path / "tasks.csv")
    with open(tmp_path / "tasks.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["task"]) for row in rows) == list(range(20))
    assert {(row["function"], row["tasks"]) for row in rows} == {("time.sleep", "1")}
    assert {row["worker"] for row in rows} <= {"0", "1"}
    assert all(float(row["seconds"]) >= 0.01 and float(row["began"]) > 0 for row in rows)
