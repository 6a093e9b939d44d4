"""The standard library's own tests of executors, against ours, where this Python has them."""

from __future__ import annotations

import importlib
import unittest
from concurrent.futures import Executor
from typing import Any

import pytest

from parallel_core import get_executor

#: Tests that do not apply.
LEFT_OUT = {
    "test_interpreter_shutdown": "its script imports an executor of the standard library by name",
    "test_submit_after_interpreter_shutdown": "likewise; both are in test_executor.py",
    "test_hang_gh83386": "likewise",
    "test_cancel_futures": "takes for granted that a task has begun; in test_executor.py",
    "test_hang_issue12364": "takes 3 s; what is submitted is finished in test_executor.py, too",
    "test_max_workers_negative": "-1 stands for all cores here",
    "test_map_timeout": "takes 6 s; in test_executor.py",
    "test_first_exception": "takes 3 s; the same as test_first_exception_some_already_complete",
    "test_timeout": "takes 6 s before 3.13, and asks nothing of the executor",
    "test_20369": "asks nothing of the executor",
    "test_first_exception_one_already_failed": "asks nothing of the executor",
    "test_first_completed_some_already_completed": "asks nothing of the executor",
    "test_correct_timeout_exception_msg": "asks nothing of the executor",
    "test_free_reference_yielded_future": "asks nothing of the executor",
}

#: In a package from Python 3.13 on (and late in 3.12), and in one module before.
MODULES = {
    "ExecutorTest": "executor",
    "ExecutorShutdownTest": "test_shutdown",
    "WaitTests": "test_wait",
    "AsCompletedTests": "test_as_completed",
}


def find(name: str) -> Any:
    """Return the class of that name, if this Python has it."""
    for module in (f"test.test_concurrent_futures.{MODULES[name]}", "test.test_concurrent_futures"):
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    return None


class Base(unittest.TestCase):
    """What the tests expect to find."""

    __test__ = True

    worker_count = 2
    executor_type = staticmethod(lambda max_workers: get_executor(max_workers))
    executor: Executor

    def setUp(self) -> None:
        self.executor = get_executor(self.worker_count)

    def tearDown(self) -> None:
        self.executor.shutdown()
        del self.executor


def case(name: str) -> Any:
    """Return the tests of one class of the standard library, for our executor."""
    found = find(name)
    if found is None:
        reason = f"this Python comes without its own tests: {name}"
        return pytest.mark.skip(reason=reason)(type(name, (Base,), {"test": lambda self: None}))
    left_out = {test: None for test in LEFT_OUT if hasattr(found, test)}
    return pytest.mark.core(type(name, (Base,), {**_tests_of(found), **left_out}))


def _tests_of(found: type) -> dict[str, Any]:
    return {name: value for name, value in vars(found).items() if not name.startswith("__")}


TestExecutor = case("ExecutorTest")
TestShutdown = case("ExecutorShutdownTest")
TestWait = case("WaitTests")
TestAsCompleted = case("AsCompletedTests")
