"""Workers that are leased together, and the one `poll` object that waits for all of them."""

from __future__ import annotations

import select
from weakref import ref

from parallel_core.workers.setup import ProcessState
from parallel_core.workers.worker import Worker


class WorkerGroup:
    """Some workers.

    Attributes
    ----------
    workers : list of Worker
        Its members.
    poller : select.poll
        Waits for their channels, output and pidfds.
    by_descriptor : dict of int to Worker
        Whose each descriptor is.
    reloads : int
        State of the caller's modules for which all members are good; see `workers.reloads`.
    told : ProcessState or None
        What all members know of the caller's process.
    itself : weakref or None
        By which the pool knows whether anybody has this group.
    """

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
        self.poller = select.poll()
        self.by_descriptor: dict[int, Worker] = {}
        self.reloads = reloads
        self.told: ProcessState | None = None
        self.itself: ref[WorkerGroup] | None = None

    def __len__(self) -> int:
        return len(self.workers)

    def add(self, worker: Worker) -> None:
        """Take `worker` in."""
        self.told = None
        worker.owner = self.itself
        self.workers.append(worker)
        events = select.POLLIN | (select.POLLOUT if worker.channel.pending else 0)
        self.poller.register(worker.channel, events)
        self.by_descriptor[worker.channel.fileno()] = worker
        for descriptor in (worker.output.fileno(), worker.pidfd):
            if descriptor is not None:
                self.poller.register(descriptor, select.POLLIN)
                self.by_descriptor[descriptor] = worker

    def remove(self, worker: Worker) -> None:
        """Let `worker` go."""
        self.workers.remove(worker)
        for descriptor in (worker.channel.fileno(), worker.output.fileno(), worker.pidfd):
            if descriptor is not None:
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
