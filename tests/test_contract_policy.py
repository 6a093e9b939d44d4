"""What every backend owes for `on_error`, retries and `stop_when`, and what its errors carry."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from contract import AWAY, DROPS, PARALLEL, SURVIVES, every
from contract_tasks import Refusing, counted, fails_before, kind_of, odd_only, refusing_result

from parallel_core import Parallel, TaskFailure, delayed
from parallel_core.errors import InvalidTaskError, SerializationError, TaskExitError

pytestmark = pytest.mark.warm_workers

RETURNS = ["list", "generator", "generator_unordered"]


@every()
def test_exceptions_in_the_place_of_results(backend: Any) -> None:
    for return_as in RETURNS:
        parallel = Parallel(2, backend=backend, return_as=return_as, on_error="return")
        got = list(parallel(delayed(odd_only)(x) for x in range(100)))
        if return_as == "generator_unordered":
            assert sorted(x for x in got if isinstance(x, int)) == list(range(1, 100, 2))
            assert sorted(int(str(x).split()[0]) for x in got if isinstance(x, ValueError)) == list(
                range(0, 100, 2)
            )
            continue
        assert got[1::2] == list(range(1, 100, 2))
        assert [str(error) for error in got[::2]] == [f"{x} is even" for x in range(0, 100, 2)]
        assert {type(error) for error in got[::2]} == {ValueError}
        assert f"task 42 of the call: {odd_only.__module__}.odd_only(42)" in got[42].__notes__


@every()
def test_failures_that_are_left_out(backend: Any) -> None:
    for return_as in RETURNS:
        parallel = Parallel(2, backend=backend, return_as=return_as, on_error="skip")
        got = list(parallel(delayed(odd_only)(x) for x in range(101)))
        assert sorted(got) == list(range(1, 101, 2))
        if return_as != "generator_unordered":
            assert got == sorted(got)
        assert parallel.n_completed_tasks == 101


@every()
def test_when_every_task_fails(backend: Any) -> None:
    def fail(x: int) -> None:
        raise KeyError(x)

    got = Parallel(2, backend=backend, on_error="return")(delayed(fail)(x) for x in range(300))
    assert [error.args for error in got] == [(x,) for x in range(300)]
    assert Parallel(2, backend=backend, on_error="skip")(delayed(fail)(x) for x in range(9)) == []


@every()
def test_a_function_decides(backend: Any) -> None:
    asked: list[TaskFailure] = []

    def decide(failure: TaskFailure) -> Any:
        asked.append(failure)
        return [failure.replace(-failure.position), "skip", "return"][failure.position // 2 % 3]

    got = Parallel(2, backend=backend, on_error=decide)(delayed(odd_only)(x) for x in range(6))
    assert got[:4] == [0, 1, 3, got[3]] and isinstance(got[3], ValueError) and got[4] == 5
    assert sorted(failure.position for failure in asked) == [0, 2, 4]
    assert {failure.attempts for failure in asked} == {1}
    assert {str(failure.error) for failure in asked} == {"0 is even", "2 is even", "4 is even"}


@every()
def test_a_function_that_decides_to_raise(backend: Any) -> None:
    with pytest.raises(ValueError, match=r"[024] is even") as caught:
        Parallel(2, backend=backend, on_error=lambda failure: "raise")(
            delayed(odd_only)(x) for x in range(6)
        )
    position = str(caught.value).split()[0]  # whichever failed first
    assert f"task {position} of the call" in caught.value.__notes__[0]


@every()
def test_a_function_that_tries_again(backend: Any, tmp_path: Path) -> None:
    def decide(failure: TaskFailure) -> str:
        return "retry" if failure.attempts < 4 else "raise"

    call = Parallel(2, backend=backend, on_error=decide, retry_backoff=0.001)
    got = call(delayed(fails_before)(str(tmp_path), x, x % 4, "raise") for x in range(12))
    assert got == [(x, x % 4 + 1) for x in range(12)]


@every()
def test_a_function_that_decides_nothing(backend: Any) -> None:
    for answer in (None, "ignore", 3):
        with pytest.raises(TypeError, match=f"on_error must return 'raise'.*not {answer!r}"):
            Parallel(2, backend=backend, on_error=lambda failure, answer=answer: answer)(
                delayed(odd_only)(x) for x in range(6)
            )


@every()
def test_a_function_that_raises_instead_of_deciding(backend: Any) -> None:
    def decide(failure: TaskFailure) -> str:
        raise LookupError("what now?")

    with pytest.raises(LookupError, match="what now"):
        Parallel(2, backend=backend, on_error=decide)(delayed(odd_only)(x) for x in range(6))


@every(AWAY)
@pytest.mark.parametrize("leg", ["out", "in"])
def test_arguments_that_fail_on_their_way(backend: Any, leg: str) -> None:
    for batch_size in ("auto", 10):
        bad = (0, 13, 14, 39)
        parallel = Parallel(2, backend=backend, batch_size=batch_size, on_error="return")
        got = parallel(delayed(kind_of)(Refusing(leg) if x in bad else [x]) for x in range(40))
        for x in range(40):
            if x in bad:
                assert isinstance(got[x], SerializationError), got[x]
                assert f"task {x} of the call" in str(got[x]) and "nowhere" in str(got[x])
            else:
                assert got[x] == "list"


@every(AWAY)
@pytest.mark.parametrize("leg", ["out", "in"])
def test_results_that_fail_on_their_way(backend: Any, leg: str) -> None:
    for batch_size in ("auto", 10):
        bad = (0, 13, 14, 39)
        parallel = Parallel(2, backend=backend, batch_size=batch_size, on_error="return")
        got = parallel(delayed(refusing_result)(x, bad, leg) for x in range(40))
        for x in range(40):
            if x in bad:
                assert isinstance(got[x], SerializationError), got[x]
                assert "nowhere" in str(got[x])
            else:
                assert got[x] == x


@every()
def test_sys_exit_is_a_failure_like_others(backend: Any) -> None:
    def leave(x: int) -> int:
        if x == 3:
            raise SystemExit(4)
        return x

    got = Parallel(2, backend=backend, on_error="return")(delayed(leave)(x) for x in range(6))
    assert isinstance(got[3], TaskExitError) and got[3].code == 4
    assert [*got[:3], *got[4:]] == [0, 1, 2, 4, 5]


@every()
def test_an_interrupt_is_no_failure(backend: Any) -> None:
    def interrupt(x: int) -> int:
        if x == 3:
            raise KeyboardInterrupt
        return x

    for on_error in ("return", "skip", lambda failure: "skip"):
        with pytest.raises(KeyboardInterrupt):
            Parallel(2, backend=backend, on_error=on_error)(delayed(interrupt)(x) for x in range(6))


@every()
def test_what_is_no_task_ends_the_call_all_the_same(backend: Any) -> None:
    with pytest.raises(InvalidTaskError):
        Parallel(2, backend=backend, on_error="skip")([delayed(abs)(1), 17, delayed(abs)(2)])


@every()
def test_what_the_iterable_raises_ends_the_call_all_the_same(backend: Any) -> None:
    def tasks() -> Iterator[Any]:
        yield delayed(abs)(-1)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        Parallel(2, backend=backend, on_error="skip")(tasks())


@every()
@pytest.mark.parametrize("return_as", RETURNS[1:])
def test_pulling_ahead_stays_bounded_over_failures(backend: Any, return_as: str) -> None:
    pulled = 0

    def tasks() -> Iterator[Any]:
        nonlocal pulled
        for x in itertools.count():
            pulled += 1
            yield delayed(odd_only)(x if x % 5 else 2 * x)

    parallel = Parallel(
        2, backend, return_as, batch_size=1, pre_dispatch=4, on_error="skip", retries=1
    )
    with parallel:
        results = parallel(tasks())
        for _ in range(50):
            next(results)
        time.sleep(0.1)
        now = pulled
        time.sleep(0.1)
        assert pulled == now
        assert pulled <= 2 * 50 + 60
        results.close()


@every()
def test_listed_exceptions_are_tried_again(backend: Any, tmp_path: Path) -> None:
    for return_as in RETURNS:
        (folder := tmp_path / return_as).mkdir()
        parallel = Parallel(
            2, backend, return_as, retries=2, retry_on=ConnectionError, retry_backoff=0.001
        )
        tasks = (delayed(fails_before)(str(folder), x, x % 3, "raise") for x in range(30))
        assert sorted(parallel(tasks)) == [(x, x % 3 + 1) for x in range(30)]


@every()
def test_too_few_retries(backend: Any, tmp_path: Path) -> None:
    parallel = Parallel(2, backend, retries=2, retry_on=(OSError, LookupError), retry_backoff=0.001)
    with pytest.raises(ConnectionError, match="try 3"):
        parallel(delayed(fails_before)(str(tmp_path), x, 10 * (x == 4), "raise") for x in range(9))
    assert counted(str(tmp_path), 4) == 4  # three tries, and this look


@every()
def test_other_exceptions_are_not_tried_again(backend: Any, tmp_path: Path) -> None:
    parallel = Parallel(2, backend, retries=5, retry_on=LookupError)
    with pytest.raises(ConnectionError, match="try 1"):
        parallel(delayed(fails_before)(str(tmp_path), x, 10 * (x == 4), "raise") for x in range(9))


@every(SURVIVES)
@pytest.mark.parametrize("how", ["SIGKILL", "exit"])
def test_tasks_whose_worker_died_are_tried_again(backend: Any, how: str, tmp_path: Path) -> None:
    times = 1 if backend == "loky" else 2  # it takes long to start others
    parallel = Parallel(2, backend, retries=4, retry_backoff=0.001)
    tasks = (delayed(fails_before)(str(tmp_path), x, times * (x == 17), how) for x in range(40))
    got = parallel(tasks)
    assert [x for x, _ in got] == list(range(40))
    assert got[17] == (17, times + 1)


@every()
def test_the_results_that_were_there(backend: Any) -> None:
    def late_failure(x: int) -> int:
        if x == 25:
            time.sleep(0.1)
            raise ValueError("late")
        return x * x

    with pytest.raises(ValueError, match="late") as caught:
        Parallel(2, backend=backend, batch_size=1)(delayed(late_failure)(x) for x in range(50))
    results = caught.value.results  # type: ignore[attr-defined]  # born with the call's end
    # As many as may be in flight can be missing: a worker may have stood still all the while.
    assert len(set(range(25)) - set(results)) <= 4
    assert 25 not in results and len(results) == len(list(results)) == len(dict(results))
    assert all(results[x] == x * x for x in results)
    assert results.get(25, "none") == "none"
    with pytest.raises(KeyError):
        results[1000]
    assert "results that had arrived" in repr(results)


@every()
def test_what_the_generator_raises_carries_results_too(backend: Any, can: frozenset[str]) -> None:
    done = threading.Event()

    def tasks() -> Iterator[Any]:
        for x in range(4):
            yield delayed(abs)(-x)
        limit = time.monotonic() + (10 if PARALLEL in can else 0.1)
        while parallel.n_completed_tasks < 2 and time.monotonic() < limit:
            yield delayed(abs)(-1)
            done.wait(0.001)
        raise OSError("broken")

    parallel = Parallel(2, backend=backend, batch_size=1)
    with pytest.raises(OSError, match="broken") as caught:
        parallel(tasks())
    assert len(caught.value.results) >= 2  # type: ignore[attr-defined]  # as above
    assert caught.value.replay is None  # type: ignore[attr-defined]  # as above


@every()
@pytest.mark.parametrize("return_as", RETURNS)
def test_stop_at_the_first_hit(
    backend: Any, return_as: str, tmp_path: Path, can: frozenset[str]
) -> None:
    def square(x: int) -> int:
        Path(tmp_path, str(x)).touch()
        time.sleep(0.001)
        return x * x

    closed = []

    def tasks() -> Iterator[Any]:
        try:
            for x in itertools.count():
                yield delayed(square)(x)
        finally:
            closed.append(True)

    parallel = Parallel(2, backend, return_as, stop_when=lambda value: value == 49)
    got = list(parallel(tasks()))
    assert 49 in got and closed == [True]
    if return_as != "generator_unordered":
        assert got == sorted(got)
    if DROPS in can:
        time.sleep(0.05)  # until threads have ended what they were on
        begun = len(list(tmp_path.iterdir()))
        time.sleep(0.05)
        assert len(list(tmp_path.iterdir())) == begun, "nothing goes on"


@every()
def test_no_hit(backend: Any) -> None:
    parallel = Parallel(2, backend, stop_when=lambda value: value < 0)
    assert parallel(delayed(abs)(-x) for x in range(100)) == list(range(100))


@every()
def test_a_predicate_sees_results_only(backend: Any) -> None:
    seen = []

    def look(value: Any) -> bool:
        seen.append(value)
        return False

    parallel = Parallel(2, backend, stop_when=look, on_error="return")
    parallel(delayed(odd_only)(x) for x in range(40))
    assert sorted(seen) == list(range(1, 40, 2))


@every()
def test_a_predicate_that_raises(backend: Any) -> None:
    for return_as in RETURNS:

        def look(value: Any) -> bool:
            raise LookupError("cannot tell")

        parallel = Parallel(2, backend, return_as, stop_when=look)
        with pytest.raises(LookupError, match="cannot tell"):
            list(parallel(delayed(abs)(x) for x in range(10)))
        assert Parallel(2, backend)(delayed(abs)(x) for x in range(3)) == [0, 1, 2]
