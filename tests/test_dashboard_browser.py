"""What a person sees: the page of the dashboard in a real browser, during real calls."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard_tasks import fail_at, sleep_soundly, wait_for
from dashboards import Client, commanded, started
from parallel_core import CallCancelledError, Parallel, delayed
from watching import descendants, wait_until

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no browser: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for name in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{name}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    before = set(descendants())
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_window_size(1200, 1000)
    try:
        yield driver
    finally:
        driver.quit()
        wait_until(lambda: set(descendants()) <= before, "the browser has ended")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with started() as client:
        yield client


@pytest.fixture
def page(browser: Any, client: Client) -> Iterator[Any]:
    browser.get_log("browser")
    browser.get(client.url)
    wait_until(lambda: text(browser, "connection") == "live", "the page is live")
    yield browser
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe
    browser.get("about:blank")


def text(browser: Any, name: str) -> str:
    found: str = browser.execute_script(
        "return document.getElementById(arguments[0]).textContent", name
    )
    return found


def is_shown(browser: Any, selector: str) -> bool:
    found: bool = browser.execute_script(
        "const e = document.querySelector(arguments[0]);return !!e && e.checkVisibility()",
        selector,
    )
    return found


def click(browser: Any, selector: str) -> None:
    browser.find_element("css selector", selector).click()


@contextlib.contextmanager
def running_call(make: Callable[[], Any]) -> Iterator[list[Any]]:
    """Make a call in a thread; yields what becomes of it."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(make())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join()


def colored(browser: Any) -> int:
    """Return how many points of the task stream have the color of the first function."""
    found: int = browser.execute_script(
        """
        const canvas = document.getElementById("stream"), context = canvas.getContext("2d");
        const points = context.getImageData(0, 0, canvas.width, canvas.height).data;
        let found = 0;
        for (let i = 0; i < points.length; i += 4)
            if (points[i] === 0x4c && points[i + 1] === 0x78 && points[i + 2] === 0xa8) found++;
        return found;
        """
    )
    return found


def test_bars_move_and_the_stream_fills(page: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"

    def make() -> list[int]:
        tasks = [delayed(wait_for)(str(first if x < 10 else second), x) for x in range(20)]
        return list(Parallel(2)(tasks))

    def bar() -> list[float]:
        found: list[float] = page.execute_script(
            "const bar = document.querySelector('#running progress');"
            "return bar ? [bar.value, bar.max] : []"
        )
        return found

    with running_call(make) as outcome:
        wait_until(lambda: bar() == [0, 20], "a bar stands at its beginning")
        wait_until(lambda: "2/2 busy" in text(page, "running"), "both workers are busy")
        assert "wait_for" in text(page, "running")
        first.touch()
        wait_until(lambda: bar() == [10, 20], "the bar stands in its middle")
        wait_until(lambda: colored(page) > 0, "the stream has rectangles")
        wait_until(lambda: text(page, "workers").count("running") == 2, "workers are shown")
        wait_until(lambda: text(page, "workers").count(" %") == 2, "their CPU time is shown")
        assert Path(__file__).name in text(page, "place")
        assert "Parallel(2)" in text(page, "source")
        second.touch()
    assert outcome == [list(range(20))]
    wait_until(lambda: "0 running" in text(page, "counts"), "it is over")
    wait_until(lambda: "finished" in text(page, "past"), "a finished call stays")
    wait_until(lambda: text(page, "numbers").startswith("Statefinished"), "its details stay")
    assert colored(page) > 0
    assert "wait_for finished" in text(page, "announcements")


def test_an_error_shows_its_traceback_as_text(page: Any) -> None:
    with pytest.raises(ValueError, match="bad"):
        Parallel(2)(delayed(fail_at)(3, x) for x in range(10))
    wait_until(lambda: "task 3 is <b>bad</b>" in text(page, "error"), "the error is shown")
    wait_until(lambda: "task 3 is <b>bad</b>" in text(page, "failures"), "the failure is shown")
    assert not page.find_elements("css selector", "main b")
    assert not is_shown(page, "#failures pre")
    click(page, "#failures summary")
    assert is_shown(page, "#failures pre")
    assert "in fail_at" in page.find_element("css selector", "#failures pre").text
    wait_until(lambda: "failed, ValueError: task 3" in text(page, "past"), "it is listed")


def test_a_call_can_be_cancelled_and_its_workers_looked_at(page: Any) -> None:
    def make() -> Any:
        return Parallel(2)(delayed(sleep_soundly)(x) for x in range(20))

    with running_call(make) as outcome:
        wait_until(lambda: is_shown(page, "#workers .stack"), "workers are shown")
        wait_until(lambda: text(page, "workers").count("running") == 2, "they are on tasks")
        click(page, "#workers .stack")
        wait_until(lambda: "sleep_soundly" in text(page, "dialog-code"), "the stack is shown")
        click(page, "#dialog-close")
        assert not is_shown(page, "#dialog")
        click(page, "#cancel")
        assert "CallCancelledError" in text(page, "dialog-text")
        click(page, "#dialog-do")
    assert [type(each) for each in outcome] == [CallCancelledError]
    wait_until(lambda: "cancelled" in text(page, "past"), "that is shown")
    wait_until(lambda: not is_shown(page, "#cancel"), "nothing is left to cancel")


def test_a_past_call_can_be_chosen(page: Any) -> None:
    Parallel(2, "threading")(delayed(abs)(x) for x in range(5))
    Parallel(2, "threading")(delayed(pow)(x, 2) for x in range(5))
    wait_until(lambda: text(page, "past").count("finished") >= 2, "both are listed")
    [button] = page.find_elements("xpath", "//table[@id='past']//button[.='abs']")[:1]
    button.click()
    wait_until(lambda: text(page, "details-title") == "abs", "it is chosen")
    wait_until(lambda: "5 of 5" in text(page, "numbers"), "its numbers are there")
    Parallel(2, "threading")(delayed(divmod)(x, 2) for x in range(5))
    wait_until(lambda: "divmod" in text(page, "past"), "another call came")
    assert text(page, "details-title") == "abs"


def test_the_stream_by_keyboard(page: Any) -> None:
    Parallel(2, "threading")(delayed(abs)(x) for x in range(50))
    wait_until(lambda: text(page, "details-title") == "abs", "it is chosen")
    wait_until(lambda: "50 of 50" in text(page, "numbers"), "it is all there")
    canvas = page.find_element("id", "stream")
    canvas.send_keys(keys.SHIFT + keys.ARROW_RIGHT)
    wait_until(lambda: "Worker" in text(page, "stream-text"), "a task is told of")
    assert "abs" in text(page, "stream-text") and is_shown(page, "#tooltip")
    assert page.find_element("id", "live").get_attribute("aria-pressed") == "false"
    for key in ("+", "-", keys.ARROW_LEFT, keys.ARROW_RIGHT, keys.HOME, keys.ESCAPE):
        canvas.send_keys(key)
    assert not is_shown(page, "#tooltip")
    canvas.send_keys(keys.END)
    assert page.find_element("id", "live").get_attribute("aria-pressed") == "true"


def test_the_mouse_shows_tasks(page: Any) -> None:
    Parallel(2)(delayed(wait_for)(__file__, x) for x in range(2))
    wait_until(lambda: "wait_for" in text(page, "details-title"), "it is chosen")
    wait_until(lambda: "2 of 2" in text(page, "numbers"), "it is all there")
    wait_until(lambda: colored(page) > 0, "there is something to point at")
    x, y = page.execute_script(
        """
        const canvas = document.getElementById("stream"), context = canvas.getContext("2d");
        const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
        for (let i = 0; i < data.length; i += 4)
            if (data[i] === 0x4c && data[i + 1] === 0x78 && data[i + 2] === 0xa8) {
                const ratio = canvas.width / canvas.clientWidth, at = i / 4;
                return [(at % canvas.width) / ratio, Math.floor(at / canvas.width) / ratio];
            }
        """
    )
    page.execute_script(
        """
        const canvas = document.getElementById("stream"), box = canvas.getBoundingClientRect();
        canvas.dispatchEvent(new PointerEvent("pointermove",
            {clientX: box.left + arguments[0] + 1, clientY: box.top + arguments[1] + 1}));
        """,
        x,
        y,
    )
    assert "wait_for" in text(page, "tooltip") and is_shown(page, "#tooltip")


def test_a_wrong_token_sees_nothing(browser: Any, client: Client) -> None:
    browser.get(client.url[:-4] + "xxxx")
    shown = browser.find_element("tag name", "body").text
    assert "parallel-core dashboard" in shown and "Running" not in shown
    browser.execute_cdp_cmd("Network.clearBrowserCookies", {})
    browser.get(f"http://127.0.0.1:{client.port}{client.base}")
    assert "token" in browser.find_element("tag name", "body").text
    browser.get("about:blank")


def test_the_token_leaves_the_address_and_nobody_else_is_asked(page: Any, client: Client) -> None:
    assert page.current_url == f"http://127.0.0.1:{client.port}{client.base}"
    asked = page.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).host)"
    )
    assert set(asked) <= {f"127.0.0.1:{client.port}"}
    page.refresh()
    wait_until(lambda: text(page, "connection") == "live", "the cookie opens it again")


def test_it_fits_on_a_phone_in_the_dark(page: Any) -> None:
    Parallel(2, "threading")(delayed(abs)(x) for x in range(5))
    wait_until(lambda: text(page, "details-title") == "abs", "it is chosen")
    page.set_window_size(400, 800)
    try:
        wide = page.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0
        before = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        click(page, "#theme")
        after = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert {before, after} == {"rgb(255, 255, 255)", "rgb(20, 23, 26)"}
    finally:
        page.set_window_size(1200, 1000)


def test_everything_has_a_name(page: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with running_call(lambda: Parallel(2)(delayed(wait_for)(str(go), x) for x in range(2))):
        try:
            wait_until(lambda: is_shown(page, "#workers .stack"), "workers are shown")
            nameless = page.execute_script(
                """
                const labelled = (e) => (e.getAttribute("aria-labelledby") || "").split(" ")
                    .some((id) => document.getElementById(id));
                const named = (e) => labelled(e)
                    || (e.getAttribute("aria-label") || e.textContent).trim();
                const kinds = "button, progress, [role=img], section, dialog, a";
                return Array.from(document.querySelectorAll(kinds))
                    .filter((e) => e.getClientRects().length && !named(e))
                    .map((e) => e.outerHTML);
                """
            )
            assert not nameless
        finally:
            go.touch()


def test_the_end_of_the_dashboard_is_said(browser: Any) -> None:
    with commanded() as (other, process):
        browser.get(other.url)
        wait_until(lambda: text(browser, "connection") == "live", "the page is live")
        process.terminate()
    wait_until(lambda: text(browser, "connection") != "live", "it has noticed")
    browser.get("about:blank")
