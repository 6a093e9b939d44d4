"""The Trace Event Format, checked: what a viewer would drop without a word is found here."""

from __future__ import annotations

import bisect
import gzip
import json
import zlib
from collections import Counter, defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

#: What events of a phase must have besides `ph`, `pid` and `name`, and of which type.
_NEEDED: dict[str, dict[str, Any]] = {
    "M": {"args": dict},
    "X": {"tid": int, "ts": Decimal, "dur": Decimal, "cat": str, "args": dict},
    "i": {"tid": int, "ts": Decimal, "cat": str, "args": dict, "s": str},
    "C": {"ts": Decimal, "args": dict},
    "b": {"tid": int, "ts": Decimal, "cat": str, "id2": dict, "args": dict},
    "e": {"tid": int, "ts": Decimal, "cat": str, "id2": dict, "args": dict},
    "s": {"tid": int, "ts": Decimal, "cat": str, "id": int},
    "f": {"tid": int, "ts": Decimal, "cat": str, "id": int, "bp": str},
}
Row = tuple[int, int]


class Trace:
    """The events of a file; creating it checks them."""

    def __init__(self, path: Path, is_complete: bool = True) -> None:
        data = path.read_bytes()
        if path.name.endswith(".gz"):
            data = gzip.decompress(data) if is_complete else zlib.decompressobj(31).decompress(data)
        text = data.decode("utf-8", "strict" if is_complete else "ignore")
        if not is_complete and not text.endswith("\n]\n"):  # it was killed while it wrote
            text = text[: text.rindex(",\n")] + "\n]\n"
        self.events: list[dict[str, Any]] = json.loads(text, parse_float=Decimal)
        self.rows: dict[Row, str] = {}
        self._outer: dict[Row, list[tuple[int, int]]] = {}  # the slices that are within no other
        self._check_fields()
        self._check_names()
        self._check_nesting()
        self._check_arrows(is_complete)
        if is_complete:
            self._check_calls()

    def of(self, phase: str, kind: str | None = None) -> list[dict[str, Any]]:
        """Return the events of a phase, and of a category."""
        return [
            event
            for event in self.events
            if event["ph"] == phase and (kind is None or event.get("cat") == kind)
        ]

    @property
    def tasks(self) -> list[dict[str, Any]]:
        return self.of("X", "task")

    def positions(self) -> Counter[int]:
        """Return how often each task is in the trace."""
        return Counter(
            position
            for event in self.tasks
            for position in range(
                event["args"]["task"], event["args"]["task"] + event["args"]["tasks"]
            )
        )

    def row(self, event: dict[str, Any]) -> str:
        """Return the name of the row of an event."""
        return self.rows[event["pid"], event["tid"]]

    def instants(self, start: str) -> list[dict[str, Any]]:
        """Return instants whose names begin with `start`."""
        return [event for event in self.of("i") if event["name"].startswith(start)]

    def counter(self, name: str) -> list[Any]:
        """Return the values of a counter."""
        return [event["args"]["value"] for event in self.of("C") if event["name"] == name]

    def _check_fields(self) -> None:
        for event in self.events:
            needed = _NEEDED[event["ph"]]
            assert type(event["pid"]) is int and event["pid"] > 0, event
            assert isinstance(event["name"], str) and event["name"], event
            for field, kind in needed.items():
                value = event[field]
                if kind is Decimal:
                    assert type(value) in (int, Decimal) and value >= 0, event
                    assert nanoseconds(value) == value * 1000, event  # nothing below them
                else:
                    assert type(value) is kind, event
            assert event.keys() <= {"ph", "pid", "name", "tid", *needed}, event
            if event["ph"] == "C":
                assert event["args"], event
                assert all(type(value) in (int, Decimal) for value in event["args"].values())
            if event["ph"] == "i":
                assert event["s"] in ("t", "p", "g"), event

    def _check_names(self) -> None:
        processes = set()
        for event in self.of("M"):
            if event["name"] == "process_name":
                processes.add(event["pid"])
            elif event["name"] == "thread_name":
                row = event["pid"], event["tid"]
                name = event["args"]["name"]
                assert self.rows.setdefault(row, name) == name, "one row has two names"
        for event in self.events:
            assert event["pid"] in processes, event
            if event["ph"] != "M" and "tid" in event and event.get("cat") != "trace":
                assert (event["pid"], event["tid"]) in self.rows, event

    def _check_nesting(self) -> None:
        """Slices of a row either follow each other, or one is inside the other."""
        rows: dict[Row, list[tuple[int, int, str]]] = defaultdict(list)
        for event in self.of("X"):
            began = nanoseconds(event["ts"])
            length = nanoseconds(event["dur"])
            rows[event["pid"], event["tid"]].append((began, -length, event["name"]))
        for row, slices in rows.items():
            ends: list[int] = []
            outer = self._outer[row] = []
            for began, minus_length, name in sorted(slices):
                ended = began - minus_length
                while ends and ends[-1] <= began:
                    ends.pop()
                assert not ends or ended <= ends[-1], f"{name} overlaps on {self.rows[row]}"
                if not ends:
                    outer.append((began, ended))
                ends.append(ended)

    def _check_arrows(self, is_complete: bool) -> None:
        ends: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for event in [*self.of("s"), *self.of("f")]:
            ends[event["id"]].append(event)
        for pair in ends.values():
            phases = [event["ph"] for event in pair]
            assert phases == ["s", "f"] or (phases == ["s"] and not is_complete), pair
            assert pair[0]["ts"] <= pair[-1]["ts"], pair
            for event in pair:
                at = nanoseconds(event["ts"])
                outer = self._outer[event["pid"], event["tid"]]
                index = bisect.bisect(outer, (at, 1 << 62)) - 1
                assert index >= 0 and at <= outer[index][1], event

    def _check_calls(self) -> None:
        begun = [event["id2"]["local"] for event in self.of("b")]
        assert len(set(begun)) == len(begun)
        assert sorted(event["id2"]["local"] for event in self.of("e")) == sorted(begun)


def nanoseconds(microseconds: Any) -> int:
    return int(microseconds * 1000)
