"""What tests have tasks print and log; nothing here takes long to import."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any


def say(n: int) -> int:
    print("out", n)
    print("err", n, file=sys.stderr)
    return n


def say_in_parts(n: int) -> int:
    print("out", n, end=".")
    sys.stderr.writelines(["err ", str(n)])
    sys.stdout.buffer.write(b"bytes")
    sys.stdout.flush()
    if n == 5:
        raise subprocess.CalledProcessError(1, "program", output="of the program")
    return n


class Unsendable:
    def __reduce__(self) -> Any:
        raise TypeError("not to be sent")

    def __repr__(self) -> str:
        return "<stays here>"


def log(n: int) -> int:
    logger = logging.getLogger("of.tests.tasks")
    logger.setLevel(logging.INFO)
    try:
        raise KeyError(n)
    except KeyError:
        extra = {"number": n, "pair": (n, n), "thing": Unsendable()}
        logger.exception("failed with %d of %s", n, Unsendable(), extra=extra)
    for k in range(20):
        logger.info("%d %d", n, k)
    logger.info("x" * 100_000)
    logger.info("%d too %d", *["few"])
    return os.getpid()
