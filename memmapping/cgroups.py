"""The control groups that this process is in; see `cgroups(7)`."""

from __future__ import annotations

import os
from collections.abc import Iterator

_ROOT = "/sys/fs/cgroup"


def cgroup_folders(controller: str) -> Iterator[str]:
    """Yield the folders of this process's cgroup and of those around it.

    The controller is ``"memory"`` or ``"cpu"``: under version 1 each has groups of its own.
    """
    try:
        with open("/proc/self/cgroup") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root = _ROOT
        elif controller in controllers.split(","):
            root = f"{_ROOT}/{controller}"
        else:
            continue
        while path.strip("/"):
            yield root + path
            path = os.path.dirname(path)
        yield root
