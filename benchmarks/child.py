"""A fresh process that measures one contestant on one work and prints one line of JSON.

It is started by the runner as ``python -m benchmarks.child MODULE:CLASS CONTESTANT CONDITIONS``. A
work whose functions must live in ``__main__`` names its own module as entry instead and calls
`main` with its classes.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback

from benchmarks.conditions import Conditions
from benchmarks.contestants import CONTESTANTS, Contestant
from benchmarks.workload import Workload


def main(arguments: list[str], *workloads: type[Workload]) -> int:
    """Measure, print what was found, and return the exit status.

    Parameters
    ----------
    arguments : list of str
        Where the class of the work is, the key of the contestant, and the conditions.
    *workloads : type
        The classes of the module that is ``__main__``.
    """
    target, key, conditions = arguments
    contestant = CONTESTANTS[key]
    try:
        workload = _load(target, workloads)
        answer = _measure(workload, contestant, Conditions.from_argument(conditions))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != contestant.module:
            return _report_failure(error)
        answer = {"missing": f"{contestant.label} is not installed"}
    except Exception as error:
        return _report_failure(error)
    print("\n" + json.dumps(answer), flush=True)
    return 0


def _load(target: str, at_hand: tuple[type[Workload], ...]) -> type[Workload]:
    module, _, name = target.partition(":")
    for workload in at_hand:
        if workload.__qualname__ == name:
            return workload
    found: type[Workload] = getattr(importlib.import_module(module), name)
    return found


def _measure(
    workload: type[Workload], contestant: Contestant, conditions: Conditions
) -> dict[str, object]:
    return {"sample": workload(conditions).measure(contestant)}


def _report_failure(error: Exception) -> int:
    traceback.print_exc()
    first_line = str(error).partition("\n")[0]
    print("\n" + json.dumps({"error": f"{type(error).__name__}: {first_line}"}), flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
