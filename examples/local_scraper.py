"""Follow the links of a web site on this machine, with threads, time limits and retries.

Run it with ``python examples/local_scraper.py --jobs 16 --pages 120``::

    Site, a server ◀── requests ── threads ◀── Parallel(timeout=..., retries=...) ◀── addresses
          │                           │                                                  ▲
          └───────── pages ───────────┴──▶ links that are new ───────────────────────────┘

The site has a page for each module of Python's standard library, with links to what it imports. It
answers slowly, as sites do; some pages are busy when they are asked for first, and some never end.
"""

from __future__ import annotations

import argparse
import re
import sysconfig
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from matplotlib.figure import Figure

from parallel_core import Parallel, TaskTimeoutError, delayed

SOURCES = Path(sysconfig.get_path("stdlib"))
NEVER_ENDING = {"struct", "weakref"}  # their pages come a byte at a time
open_page = build_opener(ProxyHandler({})).open  # the server is here, whatever the environment says


class Page(NamedTuple):
    """What a thread has read, and when."""

    links: list[str]
    thread: int
    began: float
    ended: float


Answers = dict[str, Page | Exception]


class Site(BaseHTTPRequestHandler):
    """Answers requests for pages."""

    latency = 0.06

    def do_GET(self) -> None:
        """Send the page of a module."""
        server: Any = self.server
        module = self.path.strip("/")
        time.sleep(self.latency)
        if len(module) % 5 == 0 and module not in server.was_busy:
            server.was_busy.add(module)
            self.send_error(503, "busy, come again")
            return
        files = [SOURCES / f"{module}.py", SOURCES / module / "__init__.py"]
        text = "".join(file.read_text("utf-8") for file in files if file.is_file())
        names = sorted(set(re.findall(r"^ *(?:import|from) ([a-z]\w*)", text, re.MULTILINE)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write("".join(f'<a href="/{name}">{name}</a>\n' for name in names).encode())
        while module in NEVER_ENDING and not server.is_closing.wait(0.1):
            self.wfile.write(b".")

    def log_message(self, *args: Any) -> None:
        """Be silent."""


def fetch(address: str) -> Page:
    """Read a page, and find its links."""
    began = time.perf_counter()
    with open_page(address, timeout=30) as answer:  # it says something in time, so no error here
        text = answer.read().decode()
    links = re.findall(r'href="/(\w+)"', text)
    return Page(links, threading.get_ident(), began, time.perf_counter())


def crawl(start: str, most: int, limit: float, jobs: int) -> tuple[Answers, int]:
    """Return at most so many pages, from `start` on, and how often the server was busy."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.was_busy, server.is_closing = set(), threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    site = f"http://127.0.0.1:{server.server_address[1]}"
    pages: Answers = {}
    try:
        waiting = [start]
        with Parallel(
            n_jobs=jobs,
            prefer="threads",
            timeout=limit,  # a page that takes longer is given up
            retries=2,  # and one that is busy is asked for again, a little later
            retry_on=HTTPError,
            on_error="return",
        ) as parallel:
            while waiting:
                answers = parallel(delayed(fetch)(f"{site}/{module}") for module in waiting)
                pages.update(zip(waiting, answers, strict=True))
                links = [answer.links for answer in answers if isinstance(answer, Page)]
                new = sorted({link for each in links for link in each} - pages.keys())
                waiting = new[: most - len(pages)]
    finally:
        server.is_closing.set()
        server.shutdown()
        thread.join()
        server.server_close()
    return pages, len(server.was_busy)


def draw(pages: dict[str, Page], path: Path) -> None:
    """Draw which thread read what when, and which pages most others link to."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    times, links = figure.subplots(1, 2, width_ratios=(3, 2))
    first = min(page.began for page in pages.values())
    lanes: dict[int, int] = {}
    for page in sorted(pages.values(), key=lambda page: page.began):
        lane = lanes.setdefault(page.thread, len(lanes))
        times.barh(lane, page.ended - page.began, left=page.began - first, height=0.8)
    times.set(xlabel="seconds", ylabel="threads", title=f"{len(pages)} pages")
    linked = Counter(link for page in pages.values() for link in page.links)
    names, counts = zip(*reversed(linked.most_common(12)), strict=True)
    links.barh(names, counts, color="tab:purple")
    links.set_title("links to a page")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Crawl with one job and with several, compare, and draw."""
    parser = argparse.ArgumentParser(description="Follow the links of a site on this machine.")
    parser.add_argument("-j", "--jobs", type=int, default=16, help="threads; they mostly wait")
    parser.add_argument("--start", default="argparse", help="the first page, which is a module")
    parser.add_argument("--limit", type=float, default=1.5, help="seconds that a page may take")
    parser.add_argument("--pages", type=int, default=120, help="how many at most")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    found, seconds = [], []
    for jobs in (1, options.jobs):
        began = time.perf_counter()
        found.append(crawl(options.start, options.pages, options.limit, jobs))
        seconds.append(time.perf_counter() - began)
    pages, busy = found[1]
    print(f"{len(pages)} pages of a site on this machine")
    print(f"  one job    {seconds[0]:7.2f} s")
    ratio = seconds[0] / seconds[1]
    print(f"  {options.jobs:2} threads {seconds[1]:7.2f} s   {ratio:.2f} times as fast")
    read = {module: page for module, page in pages.items() if isinstance(page, Page)}
    given_up = sorted(m for m, error in pages.items() if isinstance(error, TaskTimeoutError))
    print(f"  {len(read)} were read, {busy} of all after a retry")
    print(f"  given up, as they took too long: {', '.join(given_up) or 'none'}")
    alone = {module for module, page in found[0][0].items() if isinstance(page, Page)}
    if alone != read.keys():
        raise SystemExit("the pages of one job and of several DIFFER")
    draw(read, options.output / "local_scraper.png")
    print(options.output / "local_scraper.png")


main()
