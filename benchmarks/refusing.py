"""Filters of system calls that refuse some to this process and its children, as containers do."""

from __future__ import annotations

import ctypes
import errno
import struct

from memmapping import pages

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # instructions, see bpf(4)
_NUMBER, _SECOND_ARGUMENT = 0, 24  # where they are in `struct seccomp_data`
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_IOCTL = {"x86_64": 16, "aarch64": 29, "riscv64": 29, "ppc64le": 54, "s390x": 54}
_PROCESS_VM_READV = {"x86_64": 310, "aarch64": 270, "riscv64": 270, "ppc64le": 351, "s390x": 340}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def refuse_userfaultfd() -> None:
    """Have the kernel refuse it, also through its device."""
    machine = pages.platform.machine()
    _filter(
        [
            (_LOAD, 0, 0, _NUMBER),
            (_EQUAL, 4, 0, pages._SYSCALL[machine]),
            (_EQUAL, 0, 2, _IOCTL[machine]),
            (_LOAD, 0, 0, _SECOND_ARGUMENT),
            (_EQUAL, 1, 0, pages._USERFAULTFD_NEW),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _FAIL | errno.EPERM),
        ]
    )
    assert pages.tracking_problem() is not None


def refuse_reading_memory() -> None:
    """Have the kernel refuse to read the memory of other processes."""
    _filter(
        [
            (_LOAD, 0, 0, _NUMBER),
            (_EQUAL, 1, 0, _PROCESS_VM_READV[pages.platform.machine()]),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _FAIL | errno.EPERM),
        ]
    )


def _filter(instructions: list[tuple[int, int, int, int]]) -> None:
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    program = _Program(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")
