"""What a session needs of its workers: processes of ours, or, one day, ranks on other hosts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from parallel_core.reduction.tree import Folding
from parallel_core.serialization.batch import Batch
from parallel_core.workers.messages import AfterFailure, Answer, Message, Offer, Placed
from parallel_core.workers.requests import Request
from parallel_core.workers.sent import ExitInfo, SentBatch, Source, TimedOutTask
from parallel_core.workers.setup import ProcessState


class WorkerHandle(Protocol):
    """One worker, as its session sees it.

    Tasks, questions and their answers go by messages; what the worker is at, by a view of its board
    that is good at any moment. Methods that send return whether something still waits to be sent,
    and raise `ChannelClosed` when the worker takes nothing any more.
    """

    slot: int
    pid: int
    sent: deque[SentBatch]  #: batches that it has not answered to the end, in their order
    requests: deque[Request]  #: the same for requests
    timed_out: TimedOutTask | None
    ready: bool  #: whether it has come to life
    has_answered: bool  #: in this call
    leaving: bool  #: whether it gets no further batch, and is replaced when it has none
    is_limited: bool  #: whether it gets none before it has answered what it has
    is_set_up: bool  #: whether it was prepared for the tasks of this session
    taken_back: int  #: tasks that it was sent and never had to start

    # --- what it is told ---

    def submit(
        self,
        batch: Batch,
        call: str,
        after_failure: AfterFailure = ...,
        answers_each: bool = ...,
        folding: Folding | None = ...,
        context: bytes = ...,
    ) -> bool:
        """Send a batch."""

    def ask(self, request: Request) -> bool:
        """Send a request."""

    def tell(self, now: ProcessState) -> None:
        """Send what has changed in this process."""

    def tell_authkey(self) -> None:
        """Send what this process proves itself by to others of multiprocessing."""

    def release_memory(self, of_session: bool = False) -> None:
        """Have it let go of what belongs to a call, or a session, that has ended."""

    @property
    def pending(self) -> bool:
        """Whether something waits to be sent."""

    def flush(self) -> bool:
        """Send what waits, as far as there is room."""

    def pass_descriptors(self) -> bool:
        """Send what had to wait until it expects descriptors."""

    def allow(self, lifespan: int | None) -> None:
        """Let it start tasks to the end of its life; only when everything was answered."""

    def cancel(self) -> None:
        """Have it start no further task."""

    def steal(self, keep: int) -> list[Batch]:
        """Take back all tasks but the next `keep` that it has not started, or ask for that."""

    def taken(self) -> list[Batch]:
        """Return what it has given back since `steal` has asked for it."""

    def stop_task(self, sent: SentBatch, index: int, limit: float) -> float:
        """Ask a task to end that has run for over `limit` seconds; return when to `escalate`."""

    def escalate(self, now: float) -> float:
        """Do more about that task, when it is time; return when to do so again."""

    def kill(self) -> None:
        """End it now."""

    # --- what is known of it ---

    def receive(self) -> list[Message] | None:
        """Return what it has said; None when there was nothing to read."""

    def has_input(self, seconds: float) -> bool:
        """Wait for at most so many seconds; return whether there is something to receive."""

    def read_memory(self, message: Offer | Placed) -> tuple[Answer | None, bool]:
        """Accept what it offers, or read what it has placed; return an answer, if it is there."""

    def read_output(self) -> None:
        """Show what its tasks have printed and logged."""

    @property
    def has_output(self) -> bool:
        """Whether there is something to show."""

    @property
    def is_busy(self) -> bool:
        """Whether there is something that it has not answered."""

    @property
    def is_on_request(self) -> bool:
        """Whether it is on what it was asked for."""

    @property
    def since(self) -> float:
        """When what it is on began, `time.monotonic`."""

    @property
    def tasks(self) -> int:
        """How many tasks it was sent for good, in its whole life."""

    @property
    def memory(self) -> int:
        """How many bytes it held when it looked last."""

    def running(self) -> tuple[SentBatch, int, float, int] | None:
        """Return batch and index of the task started last, since when, and the phase."""

    def waiting(self, now: float) -> tuple[int, float]:
        """Return how many tasks wait here, and for how long the one before them has run."""

    @property
    def is_fenced(self) -> bool:
        """Whether what it has not started can be known without its answer."""

    @property
    def can_be_robbed(self) -> bool:
        """Whether tasks that it has not started can be taken back at once."""

    # --- its end ---

    @property
    def ends_by_itself(self) -> bool:
        """Whether its end is told by itself, and not only by its channel."""

    @property
    def gone(self) -> bool:
        """Whether it was let go of."""

    def alive(self) -> bool:
        """Whether it still runs."""

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until it has ended; return whether it has."""

    def exit_info(self) -> ExitInfo:
        """Return what is known of its end, before it is let go of."""


W = TypeVar("W", bound=WorkerHandle)


class Workers(Protocol[W]):
    """The workers of one session; see `LeasedWorkers`, which are those of the local pool."""

    all: list[W]
    n_wanted: int
    spins: bool

    @property
    def is_short(self) -> bool:
        """Whether there is to be another worker."""

    @property
    def max_memory(self) -> int | None:
        """Over how many bytes a worker is to be replaced."""

    def of(self, slot: int) -> W | None:
        """Return the worker of `slot`, if it has one."""

    def start(self, slot: int | None = None) -> W:
        """Start a worker for `slot`, or for any that has none; raise OSError if that fails."""

    def poll(self, seconds: float | None) -> Iterator[tuple[W, Source, int]]:
        """Wait for news of workers, or for the bell; those let go of meanwhile have none."""

    def ring(self) -> Callable[[], None]:
        """Return what has `poll` return."""

    def want_to_send(self, worker: W, wanted: bool) -> None:
        """Wait for room in the channel of `worker`, or no longer."""

    def ignore(self, worker: W, wanted: Source) -> None:
        """Wait no longer for what a `Source` of `worker` tells."""

    def listen(self) -> None:
        """Have workers told of shared objects that are closed."""

    def discard(self, workers: Sequence[W]) -> None:
        """Kill `workers` and let go of them."""

    def retire(self, worker: W) -> None:
        """Let `worker`, which has nothing to do, leave in peace."""

    def forget_gone(self) -> None:
        """Forget workers that somebody has let go of."""

    def is_current(self) -> bool:
        """Whether they are as new ones would be."""

    def release_memory(self) -> None:
        """Have them let go of the arrays of a call that has ended."""

    def give_back(self, clean: bool) -> None:
        """Give them back; or end them, unless all is `clean`."""
