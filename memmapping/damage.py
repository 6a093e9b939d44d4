"""What is raised for bytes that are not, or no longer, what `memmapping` wrote."""

from __future__ import annotations


class DamagedFileError(ValueError):
    """A file, or memory, is truncated, damaged, or not in the format of `memmapping`.

    The message names the file, the problem and its place.
    """


class ChangedArrayError(RuntimeError):
    """A large array has changed within a call, and the kernel does not tell of changes.

    The message says what to do.
    """
