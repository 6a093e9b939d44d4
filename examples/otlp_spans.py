"""Write OpenTelemetry spans, by an observer: one for each call, and within it one for its tasks.

Run it with ``python examples/otlp_spans.py spans.jsonl``. Each line is a request in the JSON form
of OTLP, which the OpenTelemetry Collector reads from files with its receiver ``otlpjsonfile``.
"""

from __future__ import annotations

import json
import sys
import time
from secrets import token_hex
from typing import IO, Any

from parallel_core import BatchAnswered, CallEnded, CallStarted, Parallel, delayed


class SpanWriter:
    """Writes the spans of all calls that it observes, in one thread, to a file."""

    def __init__(self, file: IO[str], service: str) -> None:
        self._file = file
        self._resource = {"attributes": attributes({"service.name": service})}
        self._clock = time.time_ns() - time.monotonic_ns()  # from a clock without jumps to dates
        self._calls: dict[int, dict[str, Any]] = {}

    def notify(self, event: object) -> None:
        """Write what has ended."""
        if isinstance(event, CallStarted):
            ids = {"traceId": token_hex(16), "spanId": token_hex(8), "name": event.label, "kind": 1}
            self._calls[event.call] = {**ids, "startTimeUnixNano": str(time.time_ns())}
        elif isinstance(event, BatchAnswered) and event.times is not None:
            call = self._calls[event.call]
            ids = {"traceId": call["traceId"], "parentSpanId": call["spanId"], "kind": 1}
            self._write(
                {
                    **ids,
                    "spanId": token_hex(8),
                    "name": event.function or "task",
                    "startTimeUnixNano": str(self._clock + round(span.began * 1e9)),
                    "endTimeUnixNano": str(self._clock + round(span.ended * 1e9)),
                    "attributes": attributes(
                        {"task": span.first, "tasks": span.tasks, "process.pid": event.times.pid}
                    ),
                }
                for span in event.times.spans(event.first, event.tasks, event.seconds)
            )
        elif isinstance(event, CallEnded):
            status = (
                {"code": 1} if event.error is None else {"code": 2, "message": str(event.error)}
            )
            ended = {"endTimeUnixNano": str(time.time_ns()), "status": status}
            self._write([{**self._calls.pop(event.call), **ended}])

    def _write(self, spans: Any) -> None:
        scope = {"scope": {"name": "parallel_core"}, "spans": list(spans)}
        request = {"resourceSpans": [{"resource": self._resource, "scopeSpans": [scope]}]}
        self._file.write(json.dumps(request) + "\n")


def attributes(named: dict[str, str | int]) -> list[dict[str, Any]]:
    """Return attributes in the form of OTLP, where whole numbers are strings."""
    return [
        {"key": key, "value": {"intValue" if type(value) is int else "stringValue": str(value)}}
        for key, value in named.items()
    ]


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        writer = SpanWriter(file, service="an example")
        Parallel(n_jobs=2, observers=[writer])(delayed(time.sleep)(0.01) for _ in range(20))
