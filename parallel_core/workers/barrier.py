"""A memory barrier in every process that takes part, for the price of a system call in one.

See membarrier(2): after `join`, each process that runs at the moment when another one calls
`for_all` passes a full barrier; those that do not run passed one when they were switched away.
"""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Callable

_NUMBERS = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_GLOBAL_EXPEDITED, _REGISTER_GLOBAL_EXPEDITED = 2, 4


@functools.cache
def _membarrier() -> Callable[[int], bool]:
    system: str = sys.platform  # not narrowed: what follows is checked on every system
    number = _NUMBERS.get(platform.machine())
    if system != "linux" or number is None or sys.maxsize < 1 << 32:
        return lambda command: False
    import ctypes

    syscall = ctypes.CDLL(None).syscall
    syscall.restype = ctypes.c_long
    syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_uint, ctypes.c_int]
    return lambda command: syscall(number, command, 0, 0) == 0


def join() -> bool:
    """Take part from now on; return whether that can be had."""
    return _membarrier()(_REGISTER_GLOBAL_EXPEDITED)


@functools.cache
def is_available() -> bool:
    """Whether there are barriers here."""
    return for_all()


def for_all() -> bool:
    """Have a barrier in this process and in all that take part; return whether there was one."""
    return _membarrier()(_GLOBAL_EXPEDITED)
