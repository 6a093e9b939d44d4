"""Each program of the gallery runs with small options, and its result is what it should be."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the fast subset has only what is installed")
datasets = pytest.importorskip("sklearn.datasets", reason="the same")

from PIL import Image  # noqa: E402 - it may not be there
from sklearn.model_selection import cross_val_score, train_test_split  # noqa: E402
from sklearn.svm import SVC  # noqa: E402

HOME = Path(__file__).parents[1]
EXAMPLES = HOME / "examples"
#: The programs that draw a picture.
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if "--output" in path.read_text("utf-8"))
GUIDE = (HOME / "doc" / "gallery.md").read_text(encoding="utf-8")
MOST_LINES = 170
MOST_BYTES = 60_000

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a program with two workers, and return what it prints; its picture must be one."""

    def run_it(name: str, *arguments: str) -> str:
        program = [str(EXAMPLES / f"{name}.py"), "--jobs", "2"]
        path = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-W", "error", *program, *arguments, "--output", str(tmp_path)],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path),
                "PYTHONIOENCODING": "utf-8",
                "http_proxy": "http://127.0.0.1:9",  # is not there, and not needed
            },
            cwd=tmp_path,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert (done.stderr, done.returncode) == ("", 0)
        assert re.search(
            r"one job.* \d+\.\d\d s\n +2 \w+.* \d+\.\d\d s .*times as fast", done.stdout
        )
        assert done.stdout.splitlines()[-1] == str(tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 5
        return done.stdout

    return run_it


def number_after(text: str, output: str) -> float:
    found = re.search(re.escape(text) + r"\s*(-?[\d.,]*\d)", output)
    assert found is not None, output
    return float(found[1].replace(",", ""))


def test_the_zoom_begins_with_the_whole_set(run: Run) -> None:
    output = run("mandelbrot_zoom", "--frames", "1", "--height", "64")
    assert "1 frames of 96 × 64 points, 8 tasks" in output
    # The first frame shows 3.9 × 2.6, around the border: a plain loop counts what stays bounded.
    centre, inside = -0.743643887037151 + 0.131825904205330j, 0
    for y in np.linspace(1.3, -1.3, 64):
        for x in np.linspace(-1.95, 1.95, 96):
            z, c = 0j, centre + complex(x, y)
            for _ in range(150):
                z = z * z + c
                if abs(z) > 16:
                    break
            inside += abs(z) <= 16
    # Points on the border are a matter of the last bit.
    assert number_after("fast\n", output) == pytest.approx(inside, abs=5)


def test_the_option_has_the_price_of_the_textbook(run: Run) -> None:
    # With one date, both options are the European one; for these figures, books have 10.4506.
    market = ("--dates", "1", "--rate", "0.05", "--volatility", "0.2")
    output = run("option_price", "--batches", "20", "--paths", "4000", *market)
    assert number_after("exactly", output) == 10.4506
    assert number_after("geometric", output) == pytest.approx(10.4506, abs=0.5)
    assert number_after("arithmetic", output) == 10.4506  # corrected by its own error


def test_the_grid_search_tells_the_score_of_its_best_fit(run: Run) -> None:
    output = run("grid_search", "--data", "wine", "--values", "3", "--folds", "2")
    assert "18 fits to 133 examples of wine" in output
    x, y = datasets.load_wine(return_X_y=True)
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    x, _, y, _ = train_test_split(x, y, random_state=0)
    scores = {
        (f"{c:.4g}", f"{gamma:.4g}"): cross_val_score(SVC(C=c, gamma=gamma), x, y, cv=2).mean()
        for c in np.logspace(-1, 3, 3)
        for gamma in np.logspace(-4, 0, 3)
    }
    assert number_after("accuracy", output) == pytest.approx(max(scores.values()), abs=1e-4)
    best = re.search(r"C=(\S+), gamma=(\S+),", output)
    assert best is not None
    assert scores[best[1], best[2]] == max(scores.values())


def test_the_clusters_are_those_that_were_put_there(run: Run) -> None:
    output = run("kmeans_shared", "--mib", "16", "--clusters", "4")
    assert "524,288 points of 8 numbers in shared memory, 16 MiB" in output
    assert number_after("met within", output) < 0.1  # of points that lie apart by 1


def test_the_words_are_those_of_their_package(run: Run, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    for package, words in (
        ("birds", ["feather", "feather", "nest", "common"]),
        ("fish", ["gill", "swim", "swim", "common"]),
    ):
        (sources / package).mkdir(parents=True)
        for number, word in enumerate(words):
            (sources / package / f"m{number}.py").write_text(f"{word}Here = 1  # {word}\n")
    (sources / "alone.py").write_text("common = here = lambda: lambda: 0\n")
    (sources / "fish" / "broken.py").write_text("'''")
    output = run("text_mining", "--folder", str(sources), "--packages", "2", "--top", "2")
    assert "10 files" in output
    assert re.search(r"^  birds +feather, nest$", output, re.MULTILINE)
    assert re.search(r"^  fish +swim, gill$", output, re.MULTILINE)


def test_the_sweep_survives_and_its_results_are_the_same(run: Run) -> None:
    output = run("surviving_sweep", "--values", "4", "--kill-every", "5")
    assert "16 simulations" in output
    assert number_after("fast\n", output) >= 1  # tasks 1, 6 and 11 kill their workers
    assert "8 results had come when the program stopped" in output
    assert number_after("stopped\n", output) >= 8
    assert "the undisturbed sweep, to the last bit" in output


def test_thumbnails_are_small_pictures_of_the_large_ones(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in (("a.png", (200, 0, 0)), ("c.jpg", (0, 0, 200)), ("d.png", (0, 200, 0))):
        pixels = np.zeros((120, 160, 3), np.uint8)
        pixels[:60] = colour  # and black below
        Image.fromarray(pixels).save(folder / name)
    (folder / "b.png").write_bytes(b"none")
    (folder / "text.txt").touch()
    output = run("thumbnails", "--folder", str(folder))
    assert re.search(r"^  b.png: cannot identify image file", output, re.MULTILINE)
    assert "3 thumbnails" in output
    with Image.open(tmp_path / "thumbnails.png") as sheet:
        assert sheet.size == (2 * 48, 2 * 36)
        points = [sheet.getpixel(place) for place in ((24, 9), (24, 45), (72, 9), (72, 27))]
    assert [np.argmax(point) for point in points[:3]] == [0, 1, 2]  # red, green, blue: by hue
    assert max(points[3]) < 40


def test_pictures_are_made_if_there_are_none(run: Run) -> None:
    output = run("thumbnails", "--pictures", "12", "--width", "64")
    assert "12 pictures, made by 2 workers" in output
    assert "12 thumbnails" in output


def test_the_scraper_reads_retries_and_gives_up(run: Run) -> None:
    output = run("local_scraper", "--start", "zipfile", "--pages", "40", "--limit", "0.5")
    assert "40 pages of a site" in output
    given_up = re.search(r"given up, as they took too long: (.*)\n", output)
    assert given_up is not None
    assert "struct" in given_up[1]  # which zipfile imports
    assert f"{40 - len(given_up[1].split(', '))} were read" in output
    assert number_after("were read,", output) >= 1  # names of five or ten letters are busy at first


@pytest.mark.parametrize("name", NAMES)
def test_the_guide_shows_it(name: str) -> None:
    assert f"(_static/gallery/{name}.png)" in GUIDE
    picture = HOME / "doc" / "_static" / "gallery" / f"{name}.png"
    assert 0 < picture.stat().st_size < MOST_BYTES
    assert f"../examples/{name}.py" in GUIDE or f"examples/{name}.py" in GUIDE
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert "__name__ ==" not in text  # no guard
