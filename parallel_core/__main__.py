"""``python -m parallel_core`` is the command ``parallel-core``."""

from __future__ import annotations

from parallel_core.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
