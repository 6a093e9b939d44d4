"""Clusters of ray for tests."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from parallel_core import shutdown_workers


@contextlib.contextmanager
def ray_cluster(**options: Any) -> Iterator[None]:
    """Run one with two processors on this machine; leave this process as it was."""
    ray = pytest.importorskip("ray")
    variables, on_sigterm = dict(os.environ), signal.getsignal(signal.SIGTERM)
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100 << 20,
        **options,
    )
    try:
        yield
    finally:
        shutdown_workers()
        ray.shutdown()
        signal.signal(signal.SIGTERM, on_sigterm)
        os.environ.clear()
        os.environ.update(variables)
