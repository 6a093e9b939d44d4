"""What a call returns, in words for type checkers, which `Parallel` is generic in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    # KnownResult to every type checker without being installed, and never imported by a program.
    from typing_extensions import TypeVar

    #: What a call returns: one of the words below.
    Returns = TypeVar("Returns", default=Any)
    #: What may stand in the place of a result, besides results.
    Instead = TypeVar("Instead", default=Any)
    Listed: TypeAlias = Literal["list"]
    Generated: TypeAlias = Literal["generator", "generator_unordered"]
    Value: TypeAlias = Literal["value"]
    Unknown: TypeAlias = Literal["unknown"]
    NoErrors: TypeAlias = Literal["raise", "skip"]
else:
    from typing import TypeVar

    Returns = TypeVar("Returns")
    Instead = TypeVar("Instead")
