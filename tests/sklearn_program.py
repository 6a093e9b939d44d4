"""A user's script over scikit-learn; run as a program, it prints what came out, as JSON.

``sklearn_program.py registered`` runs everything twice: plain, one fit after the other, and under
joblib on our workers; ``sklearn_program.py installed`` once, with our `Parallel` in joblib's place.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

MODE = sys.argv[1]
if MODE == "installed":
    from parallel_core.compat.joblib import install

    install()

import joblib
import numpy as np
import sklearn
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

X, y = make_classification(60, 6, random_state=0)


class Threshold(ClassifierMixin, BaseEstimator):
    """Says yes above a threshold; may warn, or raise, when it is fitted."""

    def __init__(self, threshold: float = 0.0, mood: str = "calm") -> None:
        self.threshold = threshold
        self.mood = mood

    def fit(self, X: Any, y: Any) -> Threshold:
        if self.mood == "warns":
            warnings.warn("a warning of a fit", UserWarning, stacklevel=2)
        if self.mood == "raises":
            raise ValueError(f"no fit at {self.threshold}")
        self.classes_ = np.unique(y)
        self.mean_ = float(np.mean(X[:, 0])) + self.threshold
        self.assumed_finite_ = sklearn.get_config()["assume_finite"]
        return self

    def predict(self, X: Any) -> Any:
        return (X[:, 0] > self.mean_).astype(int)


def margin(estimator: Any, X: Any, y: Any) -> float:
    """Score as no scorer of scikit-learn's does."""
    return float(np.mean(np.abs(X[:, 0] - estimator.mean_) * (estimator.predict(X) == y)))


def plain(results: Any) -> Any:
    """Return `results` without times, as JSON can hold them, to the last bit."""
    if isinstance(results, dict):
        return {str(key): plain(results[key]) for key in results if "time" not in str(key)}
    if isinstance(results, np.ma.MaskedArray):
        return plain(results.filled(-1.0) if results.dtype.kind == "f" else results.tolist())
    if isinstance(results, np.ndarray):
        return plain(results.tolist())
    if isinstance(results, (list, tuple)):
        return [plain(result) for result in results]
    return repr(results)


def grid_search(n_jobs: int | None) -> Any:
    grid = {"threshold": np.linspace(-1, 1, 5)}
    search = GridSearchCV(Threshold(), grid, cv=3, scoring=margin, n_jobs=n_jobs).fit(X, y)
    assert type(search.best_estimator_) is Threshold
    return plain([search.best_params_, search.best_score_, search.cv_results_])


def validation(n_jobs: int | None) -> Any:
    found = cross_validate(
        DecisionTreeClassifier(random_state=0),
        X,
        y,
        cv=4,
        scoring=["accuracy", "f1"],
        n_jobs=n_jobs,
        return_train_score=True,
        return_estimator=True,
    )
    trees = [tree.tree_.threshold.tolist() for tree in found.pop("estimator")]
    mine = cross_validate(Threshold(), X, y, n_jobs=n_jobs, return_estimator=True)
    assert {type(estimator) for estimator in mine["estimator"]} == {Threshold}
    return plain([found, trees])


def forest(n_jobs: int | None) -> Any:
    found = RandomForestClassifier(6, random_state=0, oob_score=True, n_jobs=n_jobs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few trees leave samples in every bag
        found.fit(X, y)
    return plain([found.predict_proba(X), found.oob_score_])


def voting(n_jobs: int | None) -> Any:
    members = [("a", GaussianNB()), ("b", RidgeClassifier()), ("c", Threshold(0.2))]
    found = VotingClassifier(members, n_jobs=n_jobs).fit(X, y)
    return plain([found.predict(X), found.transform(X)])


def search_in_search(n_jobs: int | None) -> Any:
    inner = GridSearchCV(Threshold(), {"threshold": [-0.5, 0.0, 0.5]}, cv=2, n_jobs=n_jobs)
    return plain(cross_val_score(inner, X, y, cv=3, n_jobs=n_jobs))


def filters(n_jobs: int | None) -> Any:
    """Return what becomes of a warning in a fit, under two filters of the caller."""
    found = []
    for action in ("ignore", "error"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.filterwarnings(action, "a warning of a fit")  # type: ignore[arg-type]
            scores = (
                cross_val_score(Threshold(mood="warns"), X, y, cv=2, n_jobs=n_jobs)
                if action == "ignore"
                else _refused(n_jobs)
            )
        found.append([plain(scores), [str(one.message) for one in caught]])
    return found


def _refused(n_jobs: int | None) -> str:
    try:
        cross_val_score(Threshold(mood="warns"), X, y, error_score="raise", n_jobs=n_jobs)
    except UserWarning as error:
        return f"{type(error).__name__}: {error}"
    return "fitted"


def failures_counted(n_jobs: int | None) -> Any:
    grid = {"mood": ["calm", "raises"], "threshold": [0.0, 0.1]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search = GridSearchCV(Threshold(), grid, cv=3, n_jobs=n_jobs, error_score=np.nan).fit(X, y)
    said = [str(one.message) for one in caught if one.category is FitFailedWarning]
    lines = [line for line in said[0].splitlines() if line and "File" not in line]
    return [plain(search.cv_results_["mean_test_score"]), len(said), lines[:3], lines[-1]]


def failure_raised(n_jobs: int | None) -> Any:
    grid = {"mood": ["calm", "raises"], "threshold": [0.25]}
    try:
        GridSearchCV(Threshold(), grid, cv=3, n_jobs=n_jobs, error_score="raise").fit(X, y)
    except ValueError as error:
        said = f"{type(error).__name__}: {error}"
    return [said, voting(n_jobs)]


def configuration(n_jobs: int | None) -> Any:
    with sklearn.config_context(assume_finite=True):
        found = cross_validate(Threshold(), X, y, cv=3, n_jobs=n_jobs, return_estimator=True)
    return [estimator.assumed_finite_ for estimator in found["estimator"]]


CHECKS = (
    grid_search,
    validation,
    forest,
    voting,
    search_in_search,
    filters,
    failures_counted,
    failure_raised,
    configuration,
)


def below(depth: int) -> list[str]:
    """Return what `Parallel` of joblib would run on here, and in tasks of tasks."""
    parallel = joblib.Parallel(n_jobs=2)
    backend = f"{type(parallel).__module__.partition('.')[0]} {type(parallel._backend).__name__}"
    if depth == 0:
        return [backend]
    return [backend, *parallel(joblib.delayed(below)(depth - 1) for _ in range(2))[0]]


def main() -> None:
    told = {}
    if MODE == "registered":
        from parallel_core import register_joblib

        told["plain"] = {check.__name__: check(None) for check in CHECKS}
        register_joblib()
    with joblib.parallel_config(backend="parallel_core"):
        told["ours"] = {check.__name__: check(2) for check in CHECKS}
        told["below"] = below(2)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
