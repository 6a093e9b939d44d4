"""``mpire.exception``: what ends tasks early, and what stands for errors that do not pickle."""

from parallel_core.errors import RemoteError as CannotPickleExceptionError
from parallel_core.workers.execute import TaskStopped as InterruptWorker
from parallel_core.workers.execute import TaskStopped as StopWorker

__all__ = ["CannotPickleExceptionError", "InterruptWorker", "StopWorker"]
