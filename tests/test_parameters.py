"""Which parameters there are: every list of them agrees, and what is mistyped is named."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import parallel_core
from parallel_core import (
    Parallel,
    delayed,
    get_executor,
    parallel_backend,
    parallel_config,
    register_parallel_backend,
)
from parallel_core.calls import parameters
from parallel_core.calls.spec import Failures
from parallel_core.parallel.runner import Runner

core = pytest.mark.core


def named_by(function: Callable[..., Any]) -> set[str]:
    """The names of the parameters that an editor sees."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(function).parameters.items()
    return {name for name, parameter in found if parameter.kind not in kinds}


def documented(documented_object: Any) -> set[str]:
    """The names in the section "Parameters" of a docstring."""
    lines = (inspect.getdoc(documented_object) or "").partition("Parameters\n")[2].splitlines()[1:]
    names: set[str] = set()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if following.startswith("---"):
            break
        if line and not line.startswith((" ", "*")):
            names.update(line.partition(" : ")[0].split(", "))
    return names


@core
@pytest.mark.parametrize("door", [Parallel, parallel_config, parallel_backend, get_executor])
def test_a_signature_lists_what_the_docstring_describes(door: Any) -> None:
    assert named_by(door) == documented(door)


def test_type_checkers_see_the_parameters_that_there_are() -> None:
    names = named_by(Parallel)
    typed = {
        line.target.id
        for line in ast.walk(ast.parse(inspect.getsource(parameters)))
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }
    by_overloads = {"n_jobs", "backend", "return_as", "on_error", "reduce"}
    assert typed == names - by_overloads
    in_order = list(inspect.signature(Parallel).parameters)
    for part in (Failures._fields, parameters.WORKER_PARAMS):
        assert [name for name in in_order if name in part] == list(part)
    assert set(parameters.WORKER_PARAMS) <= named_by(parallel_config)
    assert named_by(get_executor) <= names


@core
@pytest.mark.parametrize(
    ("door", "params", "words"),
    [
        (
            Parallel,
            {"retrys": 3},
            "^Parallel has no parameter 'retrys'; did you mean 'retries'\\?$",
        ),
        (Parallel, {"njobs": 3}, "'njobs'; did you mean 'n_jobs'"),
        (Parallel, {"backend": "threading", "on_eror": "skip"}, "did you mean 'on_error'"),
        (Parallel, {"endpoint": "here"}, "'endpoint' \\(only a backend that is registered"),
        (Parallel, {"endpoint": 1, "max_nbyte": 2}, "'endpoint' and no 'max_nbyte'; did you mean"),
        (parallel_config, {"vebose": 3}, "parallel_config has no .*did you mean 'verbose'"),
        (parallel_config, {"retries": 3}, "'retries'; give it to the call, Parallel\\(retries="),
        (get_executor, {"preloads": "os"}, "get_executor has no .*did you mean 'preload'"),
    ],
)
def test_an_unknown_parameter_is_named_with_what_may_be_meant(
    door: Any, params: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        door(**params)


@core
def test_unknown_parameters_of_parallel_backend() -> None:
    with pytest.raises(TypeError, match=r"parallel_backend has no .*did you mean 'preload'"):
        parallel_backend("threading", preloads="os")


def test_a_backend_that_is_registered_takes_parameters_of_its_own() -> None:
    made: list[tuple[ThreadPoolExecutor, str]] = []

    def factory(endpoint: str) -> ThreadPoolExecutor:
        made.append((ThreadPoolExecutor(2), endpoint))
        return made[-1][0]

    register_parallel_backend("of these tests", factory)
    try:
        assert Parallel(2, "of these tests", endpoint="a")([delayed(abs)(-1)]) == [1]
        with parallel_config("of these tests", n_jobs=2, endpoint="b"):
            assert Parallel()([delayed(abs)(-1)]) == [1]
        with get_executor(2, backend="of these tests", endpoint="c") as executor:
            assert executor.submit(abs, -1).result() == 1
    finally:
        parallel_core.backends.registry._factories.pop("of these tests")
        for executor, _ in made:
            executor.shutdown()
    assert [endpoint for _, endpoint in made] == ["a", "b", "c"]


class TestOutputOfAContext:
    @pytest.mark.parametrize("backend", ["processes", "threading", "sequential"])
    def test_it_holds_for_calls_that_say_nothing(self, backend: str, capfd: Any) -> None:
        with parallel_config(backend, n_jobs=2, output="discard"):
            assert Parallel()(delayed(print)(word) for word in ("one", "two")) == [None] * 2
            Parallel(output="pass")([delayed(print)("three")])
            with parallel_config(output="pass"):
                Parallel()([delayed(print)("four")])
        assert capfd.readouterr().out == "three\nfour\n"

    def test_it_holds_for_an_executor(self, capfd: Any) -> None:
        with parallel_config(output="discard"), get_executor(2) as executor:
            executor.submit(print, "one").result()
        assert capfd.readouterr().out == ""

    @core
    @pytest.mark.parametrize(
        ("output", "words"),
        [("capture", "give it to the call, Parallel\\(output='capture'\\)"), (1, "output must be")],
    )
    def test_what_it_cannot_be(self, output: Any, words: str) -> None:
        with pytest.raises(ValueError, match=words):
            parallel_config(output=output)


@core
def test_the_list_costs_a_call_nothing_when_it_is_right() -> None:
    # What was checked once is not checked again, and one spec serves all such calls.
    assert Parallel(n_jobs=2)._spec is Parallel(n_jobs=2)._spec
    assert Parallel(n_jobs=2)._spec is not Parallel(n_jobs=2.0)._spec
    assert Runner.__init__.__kwdefaults__["retry_backoff"] is Failures().retry_backoff
