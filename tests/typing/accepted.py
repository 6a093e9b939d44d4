"""What type checkers have to accept, and which types they have to see; never run."""

import functools
import math
import operator
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal, assert_type

from subjects import Model, add, by_list, half, twice

from parallel_core import Parallel, TaskFailure, delayed, get_executor, parallel_config
from parallel_core.compat import joblib

# What is called.
plain = Parallel()
assert_type(plain(delayed(half)(i, name="i") for i in range(3)), list[float])
assert_type(plain([delayed(math.sqrt)(2)]), list[float])
assert_type(plain([delayed(len)("abc")]), list[int])
assert_type(plain([delayed(Model)(1), delayed(Model)(seed=2)]), list[Model])
assert_type(plain([delayed(Model(1).fit)([1, 2])]), list[str])
assert_type(plain([delayed(Model.load)("here")]), list[Model])
assert_type(plain([delayed(Model.score)(b"x")]), list[bool])
assert_type(plain([delayed(Model(1))(2)]), list[complex])
assert_type(plain([delayed(functools.partial(half, name="x"))(2)]), list[float])
assert_type(plain([delayed(twice)(2)]), list[int])
assert_type(plain([delayed(twice)("2")]), list[str])
assert_type(plain([delayed(lambda: 3)()]), list[int])
plain(delayed(lambda x, y: x + y)(*pair) for pair in [(1, 2), (3, 4)])
untyped: Any = half
assert_type(plain([delayed(untyped)(1, any="thing")]), list[Any])
assert_type(plain(iter([delayed(half)(1)])), list[float])
assert_type(plain([(half, (1,), {}), (half, [2], {"name": "two"})]), list[float])
plain([delayed(half)(1), delayed(Model.load)("there")])


# What comes back.
def tasks() -> Iterator[tuple[Callable[..., float], tuple[Any, ...], dict[str, Any]]]:
    yield delayed(half)(1)


Results = Generator[float, None, None]
assert_type(Parallel(2, "threading", verbose=10, timeout=3, preload="numpy")(tasks()), list[float])
assert_type(Parallel(return_as="list")(tasks()), list[float])
assert_type(Parallel(return_as="generator")(tasks()), Results)
assert_type(Parallel(n_jobs=2, return_as="generator_unordered", batch_size=3)(tasks()), Results)
assert_type(Parallel(on_error="raise")(tasks()), list[float])
assert_type(Parallel(on_error="skip", retries=2)(tasks()), list[float])
assert_type(Parallel(on_error="return")(tasks()), list[float | Exception])
assert_type(
    Parallel(on_error="return", return_as="generator")(tasks()),
    Generator[float | Exception, None, None],
)
assert_type(Parallel(reduce=add)(tasks()), float)
assert_type(Parallel(2, reduce=add, reduce_initial=0.0, on_error="skip")(tasks()), float)
Parallel(reduce=operator.add)(tasks())


def on_error(failure: TaskFailure) -> str:
    return "retry"


assert_type(Parallel(on_error=on_error)(tasks()), Any)

with Parallel(n_jobs=2) as kept:
    assert_type(kept(tasks()), list[float])
with Parallel(return_as="generator") as kept_generator:
    assert_type(kept_generator(tasks()), Results)
    assert_type(next(kept_generator(tasks())), float)
with parallel_config(n_jobs=2), joblib.parallel_config("threading"):
    assert_type(joblib.Parallel()(joblib.delayed(half)(i) for i in range(3)), list[float])


# What is not known is anything.
def from_outside(return_as: str, options: dict[str, Any], limit: Any) -> None:
    assert_type(Parallel(return_as=return_as)(tasks()), Any)
    Parallel(**options)(tasks())
    Parallel(2, "backend", "list", **options)
    assert_type(Parallel(limit, timeout=limit, pre_dispatch=limit)(tasks()), list[float])
    assert_type(Parallel(2, prefer="threads", retries=limit)(tasks()), list[float])
    assert_type(Parallel(2, "threading", "list", 5)(tasks()), list[float])
    assert_type(Parallel(limit, backend=limit)(tasks()), list[float])


# Backends of one's own have parameters of their own.
Parallel(2, backend="mine", endpoint="http://compute")(tasks())
parallel_config("mine", n_jobs=2, endpoint="http://compute", output="discard")


# As an annotation, with and without the kind.
def by_any(parallel: Parallel) -> list[float]:
    results: list[float] = parallel(tasks())
    next(parallel(tasks()))
    return results


by_any(Parallel())
by_any(Parallel(return_as="generator"))
by_any(Parallel(on_error="return"))
by_list(Parallel())
by_list(Parallel(n_jobs=2, on_error="raise"))


class Told(Parallel):
    def __init__(self, jobs: int, **params: Any) -> None:
        super().__init__(n_jobs=jobs, **params)

    def print_progress(self) -> None:
        print(self.n_completed_tasks)


class Renamed(Parallel):
    def __call__(self, iterable: Any) -> Any:
        return super().__call__(iterable)


class Listing(Parallel[Literal["list"]]):
    pass


with Told(3) as told:
    assert_type(told, Told)
assert_type(told(tasks()), Any)
by_any(told)
by_any(Renamed(return_as="generator"))
by_list(Listing(2))


# What is awaited, and futures.
async def awaited() -> None:
    assert_type(await plain.acall(tasks()), list[float])
    assert_type(await Parallel(return_as="generator").acall(tasks()), list[float])
    assert_type(await Parallel(reduce=add).acall(tasks()), float)
    assert_type(await by_any_kind().acall(tasks()), Any)
    async for result in plain.astream(tasks()):
        assert_type(result, float)
    async with Parallel(on_error="return").astream(tasks()) as stream:
        assert_type([result async for result in stream], list[float | Exception])
    await stream.aclose()


def by_any_kind() -> Parallel:
    return Parallel()


with get_executor(2, timeout=1) as executor:
    assert_type(executor.submit(half, 1).result(), float)
    assert_type(list(executor.map(half, [1, 2], chunksize=2)), list[float])
