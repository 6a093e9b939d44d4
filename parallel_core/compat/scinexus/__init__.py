"""``from parallel_core.compat import scinexus`` replaces ``import scinexus`` for parallelism."""

from __future__ import annotations

from typing import Any

from parallel_core.mapping import get_parallel_backend, set_parallel_backend

from . import parallel

__all__ = ["get_parallel_backend", "parallel", "set_parallel_backend"]


def __getattr__(name: str) -> Any:
    """Raise AttributeError, which says where to have what scinexus has by that `name`."""
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}: only scinexus.parallel is here; import "
        "everything else from scinexus itself"
    )
