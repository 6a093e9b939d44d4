"""What is raised for bytes that are not, or no longer, what `memmapping` wrote."""

from __future__ import annotations


class DamagedFileError(ValueError):
    """A file, or memory, does not hold what it should: it is cut short, changed, or another's.

    The message names the file, and says what is wrong and where.
    """


class ChangedArrayError(RuntimeError):
    """An array that tasks share has changed within a call that does not follow changes.

    That is so where the kernel does not tell which memory was written, so that looking costs time.
    The message says what to do.
    """
