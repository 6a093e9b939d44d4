"""``parallel-core info``: what this machine, this Python and this process offer."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from memmapping.folders import Folder, candidate_folders
from memmapping.sizes import format_nbytes
from parallel_core.cli.arguments import JSON, ExitCode, InfoOptions

_COMPANIONS = ("loky", "cloudpickle", "numpy", "threadpoolctl")


class Facts(NamedTuple):
    """All that the command tells."""

    versions: dict[str, str | None]
    usable_cores: int
    physical_cores: int
    machine_cores: int | None
    start_method: str
    folders: list[Folder]  #: that arrays could go to
    tracking_problem: str | None

    @property
    def chosen(self) -> Folder | None:
        """The first folder that arrays can go to."""
        return next((folder for folder in self.folders if folder.problem is None), None)


def run(options: InfoOptions) -> int:
    """Run ``parallel-core info`` and return its exit code."""
    facts = gather()
    print(_as_json(facts) if options.form == JSON else _as_text(facts))
    return ExitCode.DONE


def gather() -> Facts:
    """Ask for everything; imports none of the companions."""
    from memmapping.pages import tracking_problem
    from parallel_core import cpu_count
    from parallel_core.workers import default_start_method

    return Facts(
        versions=_versions(),
        usable_cores=cpu_count(),
        physical_cores=cpu_count(only_physical_cores=True),
        machine_cores=os.cpu_count(),
        start_method=default_start_method(),
        folders=candidate_folders(),
        tracking_problem=tracking_problem(),
    )


def _versions() -> dict[str, str | None]:
    import platform
    from importlib import metadata

    from parallel_core._version import __version__

    versions: dict[str, str | None] = {
        "parallel-core": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "executable": sys.executable,
        "platform": platform.platform(),
    }
    for name in _COMPANIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _as_json(facts: Facts) -> str:
    import json

    chosen = facts.chosen
    shown = {
        "versions": facts.versions,
        "cores": {
            "usable": facts.usable_cores,
            "physical": facts.physical_cores,
            "machine": facts.machine_cores,
        },
        "start_method": facts.start_method,
        "arrays": {
            "folder": chosen.path if chosen else None,
            "free": chosen.free if chosen else None,
            "candidates": [folder._asdict() for folder in facts.folders],
            "changes": "compared" if facts.tracking_problem else "tracked",
            "why_not_tracked": facts.tracking_problem,
        },
    }
    return json.dumps(shown, indent=2)


def _as_text(facts: Facts) -> str:
    rows = [(name, version or "not installed") for name, version in facts.versions.items()]
    cores = f"{facts.usable_cores} usable by this process, of {facts.physical_cores} physical; "
    rows.append(("cores", f"{cores}os.cpu_count() says {facts.machine_cores}"))
    rows.append(("start method", facts.start_method))
    label = "arrays go to"
    for path, reason, free, problem in facts.folders:
        if problem is None:
            room = "room unknown" if free is None else f"{format_nbytes(free)} free"
            rows.append((label, f"{path}, {room} ({reason})"))
            label = "or else to"
        else:
            rows.append(("not to", f"{path}: {problem}"))
    if facts.chosen is None:
        rows.append(("arrays", "find no folder: they would go through the sockets"))
    how = "are known by the pages that were written"
    if facts.tracking_problem is not None:
        how = f"are found by comparing bits, see check_arrays: {facts.tracking_problem}"
    rows.append(("changed arrays", how))
    return "\n".join(f"{name:<14} {value}" for name, value in rows)
