"""Functions and classes that the samples for type checkers call."""

from typing import Any, Literal, overload

from parallel_core import Parallel, delayed


def half(number: int, *, name: str = "") -> float:
    return number / len(name)


def add(left: float, right: float) -> float:
    return left + right


@overload
def twice(value: int) -> int: ...
@overload
def twice(value: str) -> str: ...
def twice(value: Any) -> Any:
    return value * 2


class Model:
    def __init__(self, seed: int) -> None: ...
    def fit(self, rows: list[int]) -> str:
        return ""

    @classmethod
    def load(cls, path: str) -> "Model":
        return cls(len(path))

    @staticmethod
    def score(x: bytes) -> bool:
        return bool(x)

    def __call__(self, x: int) -> complex:
        return complex(x)


def by_list(parallel: Parallel[Literal["list"]]) -> list[float]:
    return parallel([delayed(half)(1)])
