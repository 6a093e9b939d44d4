"""Who is measured, and in which version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
from dataclasses import dataclass


@dataclass(frozen=True)
class Contestant:
    """One library, or one way of the standard library.

    Attributes
    ----------
    key : str
        Name of the method of a workload that measures it.
    label : str
        Its name in tables.
    module : str or None
        What must be importable; ``None`` for the standard library.
    distribution : str or None
        Where its version is looked up; ``None`` for the standard library.
    """

    key: str
    label: str
    module: str | None = None
    distribution: str | None = None

    def version(self) -> str:
        """Return the installed version, or in words why there is none."""
        if self.module is None or self.distribution is None:
            return f"Python {platform.python_version()}"
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            found = importlib.util.find_spec(self.module)
            return "not installed" if found is None else "from its folder"


OURS = Contestant("ours", "parallel-core", "parallel_core", "parallel-core")
JOBLIB = Contestant("joblib", "joblib", "joblib", "joblib")
MPIRE = Contestant("mpire", "MPIRE", "mpire", "mpire")
SCINEXUS = Contestant("scinexus", "scinexus", "scinexus", "scinexus")
SCIRIS = Contestant("sciris", "sciris", "sciris", "sciris")
FUTURES = Contestant("futures", "concurrent.futures")
POOL = Contestant("pool", "multiprocessing.Pool")
LOOP = Contestant("loop", "plain loop")

CONTESTANTS: dict[str, Contestant] = {
    contestant.key: contestant
    for contestant in (OURS, JOBLIB, MPIRE, SCINEXUS, SCIRIS, FUTURES, POOL, LOOP)
}
"""All contestants, in the order of the columns of tables."""
