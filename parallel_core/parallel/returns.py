"""Types for the return value of a call, in which `Parallel` is generic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    # Known to every type checker without being installed, and never imported by a program.
    from typing_extensions import TypeVar

    #: The kind of return value: one of the words below.
    Returns = TypeVar("Returns", default=Any)
    #: The type of values that may stand in the place of a result.
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
