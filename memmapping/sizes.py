"""Sizes as people write them."""

from __future__ import annotations

import math
import re

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([KMGT]?)(?:i?B)?\s*", re.IGNORECASE)


def parse_nbytes(size: object, name: str = "max_nbytes") -> int | None:
    """Return a size in bytes; None stays None.

    What is no size, or negative, is a ValueError or TypeError, which calls it `name`.

    >>> parse_nbytes("2.5K"), parse_nbytes(1e6), parse_nbytes(None)
    (2560, 1000000, None)
    """
    if size is None:
        return None
    if isinstance(size, str):
        found = _SIZE.fullmatch(size)
        if found is None:
            raise ValueError(f"{name} must be a size such as 1000000, '1M' or '2.5G', not {size!r}")
        return int(float(found[1]) * _UNITS[found[2].upper()])
    if isinstance(size, bool) or not hasattr(size, "__float__"):
        raise TypeError(
            f"{name} must be a number of bytes, a text such as '1M', or None, not {size!r}"
        )
    value = float(size)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must not be negative or infinite, not {size!r}")
    return int(value)


def format_nbytes(nbytes: int) -> str:
    """Return a number of bytes as people read it.

    >>> format_nbytes(1536)
    '1.5 KiB'
    """
    amount = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
