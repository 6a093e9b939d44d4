"""Workers that are leased together, and the one `poll` object that waits for all of them."""

from __future__ import annotations

import select
from weakref import ref

from parallel_core.workers.sent import Source
from parallel_core.workers.setup import ProcessState
from parallel_core.workers.worker import Worker


class WorkerGroup:
    """Some workers."""

    __slots__ = (
        "__weakref__",
        "by_descriptor",
        "itself",
        "poller",
        "reloads",
        "told",
        "workers",
    )

    def __init__(self, reloads: int) -> None:
        self.workers: list[Worker] = []
        self.poller = select.poll()  #: waits for their channels, output and ends
        self.by_descriptor: dict[int, tuple[Worker, Source]] = {}
        self.reloads = reloads  #: state of the caller's modules for which all members are good
        self.told: ProcessState | None = None  #: what all members know of the caller's process
        self.itself: ref[WorkerGroup] | None = None  #: by which the pool knows if anybody has it

    def __len__(self) -> int:
        return len(self.workers)

    def add(self, worker: Worker) -> None:
        """Take `worker` in."""
        self.told = None
        worker.owner = self.itself
        self.workers.append(worker)
        for descriptor, source in worker.descriptors().items():
            sends = source is Source.CHANNEL and worker.pending
            self.poller.register(descriptor, select.POLLIN | (select.POLLOUT if sends else 0))
            self.by_descriptor[descriptor] = worker, source

    def remove(self, worker: Worker) -> None:
        """Let `worker` go."""
        self.workers.remove(worker)
        for descriptor in worker.descriptors():
            self.unwatch(descriptor)
            self.by_descriptor.pop(descriptor, None)

    def unwatch(self, descriptor: int) -> None:
        """Wait for `descriptor` no longer; it has nothing more to say."""
        try:
            self.poller.unregister(descriptor)
        except KeyError:
            pass

    def want_to_send(self, worker: Worker, wanted: bool) -> None:
        """Wait for room in the channel of `worker`, or no longer."""
        events = select.POLLIN | (select.POLLOUT if wanted else 0)
        self.poller.modify(worker.channel, events)
