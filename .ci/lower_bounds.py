"""Print the oldest release of each required dependency that a wheel accepts, as pins for pip.

    $ .venv/bin/python .ci/lower_bounds.py dist/parallel_core-0.1.0-py3-none-any.whl 3.11
    loky==3.5
    cloudpickle==3.1
    ...

Only requirements that apply to this version of Python are printed. It exits with 1 if one has no
lower bound.
"""

import sys
import zipfile
from email import message_from_bytes

from packaging.requirements import Requirement


def requirements(wheel):
    """Return the requirements that stand in a wheel, those of extras included."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    return [Requirement(text) for text in metadata.get_all("Requires-Dist", [])]


def pins(required, version):
    """Return the lower bounds of what is required without extras, with ``==`` for ``>=``."""
    found = []
    for each in required:
        environment = {
            "python_version": version,
            "python_full_version": f"{version}.0",
            "extra": "",
        }
        if each.marker is not None and not each.marker.evaluate(environment):
            continue
        bounds = [bound.version for bound in each.specifier if bound.operator in (">=", "==", "~=")]
        if len(bounds) != 1:
            sys.exit(f"{each} has no lower bound: write one into pyproject.toml")
        found.append(f"{each.name}=={bounds[0]}")
    return found


if __name__ == "__main__":
    print("\n".join(pins(requirements(sys.argv[1]), sys.argv[2])))
