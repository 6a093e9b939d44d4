"""Arrays in files and in shared memory, for any program; it knows nothing of `parallel_core`.

::

    array in memory ──▶ reducer ──▶ mirror ──▶ segment ◀── reference ◀── another process
      looked at before     │      (pages: what   │ file without a name
      each use             │       was written)  └─ store ◀─ folders ◀─ sizes
    array over a file ─────┘

    any object ──▶ layout.pack ──▶ segment or file ──▶ layout.unpack ──▶ object
                 pickler, arrays         │
                          sharing.share, persistence.dump and load

- `reducer`: what pickle should do with each large array; `references`: how an array that lies in
  a file is named, and opened elsewhere.
- `mirrors`: copies of memory, brought up to date before each use, and shared by all calls;
  `pages`: what was written; `checking`: how much is compared where the kernel does not tell;
  `maps`: what lies where.
- `segments`, `store`: files without a name, and how they are kept for reuse.
- `sizes`, `folders`: ``"1M"`` and the like; where files go, and how much room is there.
- `allocation`: arrays that are born in shared memory; `sharing`: any object, once, by a handle.
- `layout`, `pickler`, `arrays`: any object as one run of bytes, its arrays aligned in it.
- `persistence`, `compression`, `replacing`: such bytes in files.
- `damage`: what is raised for bytes that are not what they should be.
- `interrupts`: steps that Ctrl-C must not come between; `modules`: which are imported already;
  `forks`: what is put right in a forked child.

Everything public is in this namespace, and is imported when it is first used; numpy is not before
there is an array.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memmapping.allocation import empty as empty
    from memmapping.allocation import empty_like as empty_like
    from memmapping.allocation import zeros as zeros
    from memmapping.damage import ChangedArrayError as ChangedArrayError
    from memmapping.damage import DamagedFileError as DamagedFileError
    from memmapping.persistence import dump as dump
    from memmapping.persistence import load as load
    from memmapping.references import StaleReferenceError as StaleReferenceError
    from memmapping.sharing import Shared as Shared
    from memmapping.sharing import share as share
    from memmapping.store import NoRoom as NoRoom
    from memmapping.store import free_kept_memory as free_kept_memory

_HOMES = {
    "ChangedArrayError": "damage",
    "DamagedFileError": "damage",
    "NoRoom": "store",
    "Shared": "sharing",
    "StaleReferenceError": "references",
    "dump": "persistence",
    "empty": "allocation",
    "empty_like": "allocation",
    "free_kept_memory": "store",
    "load": "persistence",
    "share": "sharing",
    "zeros": "allocation",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - it is a list of strings


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"memmapping.{home}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
