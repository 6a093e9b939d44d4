"""What holds for a whole run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Conditions:
    """Workers, rounds and sizes of one run, handed to every fresh process.

    Attributes
    ----------
    n_jobs : int
        Number of workers of every contestant. The bars are stated for two.
    rounds : int
        How often every contestant is measured, each time in a fresh process.
    quick : bool
        Whether the works are taken in their smaller size. The bars are stated for the full one.
    """

    n_jobs: int = 2
    rounds: int = 5
    quick: bool = False

    def to_argument(self) -> str:
        """Return the conditions as one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_argument(cls, argument: str) -> Conditions:
        """Read what `to_argument` wrote."""
        return cls(**json.loads(argument))
