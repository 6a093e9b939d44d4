"""What the import alone costs."""

from __future__ import annotations

import statistics

from benchmarks.bars import AtMost
from benchmarks.measure import run_interpreter
from benchmarks.workload import Figure, Sample, Workload, register


@register
class ImportTime(Workload):
    """Whole processes that import the library, and bare ones in turn; what they differ by."""

    name = "import"
    place = 70
    title = "import, beyond a bare interpreter"
    figures = (Figure("time", "s", (AtMost(0.035),)),)
    tasks = 6
    quick_tasks = 3

    def measured(self, statement: str) -> Sample:
        """Return the difference of medians, the first pair being for the caches only."""
        bare, importing = [], []
        for _ in range(self.n_tasks + 1):
            bare.append(run_interpreter("pass")[0])
            importing.append(run_interpreter(statement)[0])
        bare_median = statistics.median(bare[1:])
        return {"time": statistics.median(importing[1:]) - bare_median, "bare": bare_median}

    def ours(self) -> Sample:
        return self.measured("import parallel_core")

    def joblib(self) -> Sample:
        return self.measured("import joblib")

    def mpire(self) -> Sample:
        return self.measured("import mpire")

    def futures(self) -> Sample:
        return self.measured("from concurrent.futures import ProcessPoolExecutor")

    def pool(self) -> Sample:
        return self.measured("import multiprocessing.pool")
