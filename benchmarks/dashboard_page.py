"""How smoothly the page of the dashboard draws many calls: ``python -m benchmarks.dashboard_page``.

Ten calls with 64 workers each are simulated: each tells a real server ten times a second what a
`Reporter` would. A headless Chromium shows the page, and its frames are counted, while the selected
call gets some 1 200 rectangles a second. ``--picture FILE`` writes a picture of the page as well.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import socket
import sys
import threading
import time
from typing import Any

import psutil

CALLS = 10
WORKERS = 64
TOTAL = 1_000_000
_RATE = 10
_FUNCTIONS = ("load", "resize", "classify", "store")
_KINDS = (0.001, 0.02, 0.08, 0.4)  # seconds that tasks of a worker take


class SimulatedCall:
    """Tells the dashboard of a call that does not exist."""

    def __init__(self, number: int, address: bytes, began: float) -> None:
        self._random = random.Random(number)
        self._began = began
        self._free = [0.0] * WORKERS
        self._lengths = [0.1] * WORKERS
        self._done = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(address)
        self.left_out = 0
        name = f"simulation-{number}"
        self._tell(
            {
                "hello": 1,
                "pid": os.getpid(),
                "program": name,
                "label": f"Parallel(n_jobs={WORKERS})",
                "backend": "processes",
                "n_jobs": WORKERS,
                "place": ["thumbnails.py", 40 + number, "main", "Parallel(n_jobs=64)(tasks)"],
                "began": time.time(),
                "clock": began,
            }
        )
        self._functions: list[str] = list(_FUNCTIONS)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._socket.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
        except BlockingIOError:
            self.left_out += 1

    def step(self) -> None:
        """Tell what has happened since the last time."""
        at, spans = time.monotonic() - self._began, []
        for worker in range(WORKERS):
            kind = worker % len(_KINDS)
            if kind == 0:
                while at - self._free[worker] >= 0.025:
                    spans.append([worker, self._free[worker], 0.025, 0, 25, 0.9, self._done])
                    self._free[worker] += 0.025
                    self._done += 25
            while kind and self._free[worker] + self._lengths[worker] < at:
                length = self._lengths[worker]
                spans.append([worker, round(self._free[worker], 4), length, kind, 1, 1, self._done])
                self._free[worker] += length + 0.001
                self._lengths[worker] = round(self._random.expovariate(1 / _KINDS[kind]), 4)
                self._done += 1
        failures = []
        if self._random.random() < 0.01:
            failures.append(
                {
                    "position": self._done,
                    "worker": self._random.randrange(WORKERS),
                    "at": at,
                    "type": "OSError",
                    "message": f"image {self._done} is truncated",
                    "traceback": "Traceback (most recent call last): ...",
                }
            )
        rate = self._done / at if at else 0.0
        self._tell(
            {
                "at": at,
                "completed": self._done,
                "total": TOTAL,
                "rate": rate,
                "remaining": (TOTAL - self._done) / rate if rate else None,
                "failed": len(failures),
                "retried": 0,
                "resumed": 0,
                "queue": self._random.randrange(200, 400),
                "functions": self._functions,
                "spans": spans,
                "left_out": 0,
                "batches": [[at, self._random.randrange(1, 60)]],
                "failures": failures,
                "news": [],
                "workers": [
                    [worker, os.getpid(), 1, 30 << 20, "RUNNING", self._done, at - since, 0]
                    for worker, since in enumerate(self._free)
                ],
                "answers": [],
            }
        )
        self._functions = []

    def close(self) -> None:
        """End without a word."""
        self._socket.close()


def simulate(calls: list[SimulatedCall], over: threading.Event) -> None:
    """Have all calls tell, until it is over."""
    due = time.monotonic()
    while not over.is_set():
        for call in calls:
            call.step()
        due += 1 / _RATE
        time.sleep(max(0.0, due - time.monotonic()))


def open_browser() -> Any:
    """Return a headless Chromium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for name in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{name}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


_COUNT = """
window.counted = {frames: 0, longest: 0, last: performance.now(), began: performance.now()};
const count = (now) => {
  const seen = window.counted;
  seen.frames++;
  seen.longest = Math.max(seen.longest, now - seen.last);
  seen.last = now;
  requestAnimationFrame(count);
};
requestAnimationFrame(count);
"""
_COUNTED = """
const seen = window.counted, seconds = (performance.now() - seen.began) / 1000;
return {rate: seen.frames / seconds, longest: seen.longest,
        heap: performance.memory.usedJSHeapSize / 1e6, spans: stream.total};
"""


def measure(seconds: float, picture: str | None) -> list[str]:
    """Return in words what was measured."""
    from parallel_core import shutdown_dashboard, start_dashboard
    from parallel_core.dashboard import control
    from parallel_core.observe import listener

    os.environ[listener.VARIABLE] = f"page-{os.getpid()}"
    details = start_dashboard(range(8500, 8600))
    address = listener.address_of_user()
    server = control._process
    assert address is not None and server is not None
    began = time.monotonic()
    calls = [SimulatedCall(number, address, began) for number in range(CALLS)]
    over = threading.Event()
    simulation = threading.Thread(target=simulate, args=(calls, over))
    simulation.start()
    browser = open_browser()
    try:
        browser.set_window_size(1300, 1500)
        browser.get(details["url"])
        time.sleep(5)  # it fills
        process = psutil.Process(server.pid)
        before = process.cpu_times()
        browser.execute_script(_COUNT)
        time.sleep(seconds)
        found = browser.execute_script(_COUNTED)
        after = process.cpu_times()
        if picture:
            browser.save_screenshot(picture)
        used = (after.user + after.system - before.user - before.system) / seconds
        return [
            f"{CALLS} calls, {WORKERS} workers each, {seconds:g} s, load {os.getloadavg()[0]:.1f}",
            f"frames a second     {found['rate']:.1f}",
            f"longest gap         {found['longest']:.0f} ms",
            f"memory of scripts   {found['heap']:.1f} MB, {found['spans']} spans",
            f"server              {used * 100:.1f} % of a core, "
            f"{process.memory_info().rss / 1e6:.0f} MB",
            f"updates left out    {sum(call.left_out for call in calls)}",
        ]
    finally:
        browser.quit()
        over.set()
        simulation.join()
        for call in calls:
            call.close()
        shutdown_dashboard()


def main() -> int:
    """Measure, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--picture", metavar="FILE")
    options = parser.parse_args()
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        parser.error("no browser: apt-get install chromium chromium-driver")
    print("\n".join(measure(options.seconds, options.picture)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
