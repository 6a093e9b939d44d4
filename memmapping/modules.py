"""Modules that are here already, and so matter."""

from __future__ import annotations

import sys
from typing import Any


def loaded(name: str) -> Any:
    """Return the module `name`, or None; also while another thread is importing it."""
    module = sys.modules.get(name)
    if module is not None and getattr(getattr(module, "__spec__", None), "_initializing", False):
        return None  # half of its names are missing
    return module
