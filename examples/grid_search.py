"""Search the parameters of a classifier of handwritten digits, on workers of this library.

Run it with ``python examples/grid_search.py --jobs 2 --values 5``::

    parameters × folds ──▶ scikit-learn ──▶ joblib ──▶ our workers ──▶ scores ──▶ grid_search.png

scikit-learn asks joblib for workers, and `install` puts this library in joblib's place. It has to
be called before scikit-learn is imported; nothing else of the program knows of it.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from parallel_core import effective_n_jobs
from parallel_core.compat.joblib import install

install()

from sklearn import datasets  # noqa: E402 - what it imports is what `install` has put there
from sklearn.model_selection import GridSearchCV, train_test_split  # noqa: E402
from sklearn.svm import SVC  # noqa: E402

DATA = {
    "digits": datasets.load_digits,
    "wine": datasets.load_wine,
    "cancer": datasets.load_breast_cancer,
}


def search(grid: dict[str, np.ndarray], folds: int, jobs: int) -> GridSearchCV:
    """Return a search over `grid` that has not begun."""
    return GridSearchCV(SVC(), grid, cv=folds, n_jobs=jobs)


def draw(results: dict[str, Any], grid: dict[str, np.ndarray], path: Path) -> None:
    """Draw the accuracy and the time of each pair of parameters."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    shape = len(grid["C"]), len(grid["gamma"])
    panels = (
        ("mean_test_score", "accuracy on parts left out", "viridis"),
        ("mean_fit_time", "seconds of a fit", "magma"),
    )
    for axis, (key, title, colours) in zip(figure.subplots(1, 2), panels, strict=True):
        values = np.reshape(results[key], shape)
        image = axis.imshow(values, cmap=colours, origin="lower")
        axis.set_xticks(range(shape[1]), [f"{value:.1e}" for value in grid["gamma"]], size=7)
        axis.set_yticks(range(shape[0]), [f"{value:.1e}" for value in grid["C"]], size=7)
        axis.set(title=title, xlabel="gamma", ylabel="C")
        figure.colorbar(image, ax=axis, shrink=0.8)
    best = np.unravel_index(np.argmax(results["mean_test_score"]), shape)
    figure.axes[0].plot(best[1], best[0], "o", color="red", fillstyle="none", markersize=14)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Search with one job and with several, compare, and draw."""
    parser = argparse.ArgumentParser(description="Search the parameters of a classifier.")
    parser.add_argument("-j", "--jobs", type=int, default=-1, help="workers (default: all cores)")
    parser.add_argument("--data", choices=sorted(DATA), default="digits", help="of scikit-learn")
    parser.add_argument("--values", type=int, default=5, help="values of each parameter")
    parser.add_argument("--folds", type=int, default=3, help="of the cross-validation")
    parser.add_argument("--output", type=Path, default=Path("gallery"), help="folder")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    pixels, digits = DATA[options.data](return_X_y=True)
    pixels = (pixels - pixels.mean(axis=0)) / (pixels.std(axis=0) + 1e-9)
    train_x, test_x, train_y, test_y = train_test_split(pixels, digits, random_state=0)
    grid = {
        "C": np.logspace(-1, 3, options.values),
        "gamma": np.logspace(-4, 0, options.values),
    }
    fits = options.values**2 * options.folds
    print(f"{fits} fits to {len(train_x)} examples of {options.data}")

    searches, seconds = [], []
    for jobs in (1, options.jobs):
        began = time.perf_counter()
        searches.append(search(grid, options.folds, jobs).fit(train_x, train_y))
        seconds.append(time.perf_counter() - began)
    workers, ratio = effective_n_jobs(options.jobs), seconds[0] / seconds[1]
    print(f"  one job    {seconds[0]:7.2f} s")
    print(f"  {workers:2} workers {seconds[1]:7.2f} s   {ratio:.2f} times as fast")
    scores = [each.cv_results_["mean_test_score"] for each in searches]
    if not np.array_equal(*scores):
        raise SystemExit("the scores of one job and of several DIFFER")
    best = searches[1]
    named = ", ".join(f"{name}={value:.4g}" for name, value in best.best_params_.items())
    print(f"  best: {named}, accuracy {best.best_score_:.4f}")
    print(f"  on {len(test_x)} examples kept apart: {best.score(test_x, test_y):.4f}")
    draw(best.cv_results_, grid, options.output / "grid_search.png")
    print(options.output / "grid_search.png")


main()
