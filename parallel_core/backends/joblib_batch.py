"""What a backend by joblib's conventions is given to run: it looks like a batch of joblib's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallel_core.backends.engine_worker import run_batch
from parallel_core.backends.executor_results import BatchResult


class TaskRun:
    """The function in `BatchCall.items`: runs encoded tasks.

    Parameters
    ----------
    name : str
        Of the user's function, for the displays of engines.
    nested : bytes, optional
        The backend for calls within the tasks, and their number of jobs. It is unpickled in the
        thread that runs the tasks: dask's finds its client only there.
    """

    def __init__(self, name: str, nested: bytes | None) -> None:
        self.__name__ = self.__qualname__ = name
        self.nested = nested

    def __call__(self, data: bytes) -> bytes | BatchResult:
        """Run the tasks in `data`; return their answers."""
        return run_batch(data, self.nested)

    def __reduce__(self) -> Any:
        return TaskRun, (self.__name__, self.nested)

    def __repr__(self) -> str:
        return f"<run of {self.__name__}>"


class BatchCall:
    """A batch: call it without arguments where it is to run, and bring back the list it returns.

    Parameters
    ----------
    run : TaskRun
        Runs it.
    data : bytes
        All its tasks.
    size : int
        How many these are.
    split : callable, optional
        Returns the tasks in parts, encoded.
    """

    def __init__(
        self,
        run: TaskRun,
        data: bytes,
        size: int,
        split: Callable[[], list[bytes]] | None = None,
    ) -> None:
        self.__name__ = self.__qualname__ = run.__name__
        self.run = run
        self.data = data
        self.size = size
        self._split = split

    def __call__(self) -> list[bytes | BatchResult]:
        """Run the tasks."""
        return [self.run(self.data)]

    def __len__(self) -> int:
        return self.size

    @property
    def items(self) -> list[tuple[TaskRun, tuple[bytes], dict[str, Any]]]:
        """Its tasks as ``(function, args, kwargs)``, for engines that want them one by one.

        Where there are many, each is some tasks that follow each other. A list of what they return
        will do in place of the list that the batch returns.
        """
        parts = [self.data] if self._split is None or self.size == 1 else self._split()
        return [(self.run, (data,), {}) for data in parts]

    def __reduce__(self) -> Any:
        return BatchCall, (self.run, self.data, self.size)

    def __repr__(self) -> str:
        return f"<batch of {self.size} × {self.__name__}>"
