"""What parent and worker say to each other: a class for each kind of message.

::

    to the worker                        to the parent
    SetUp          ──────────────────▶   Born, then Ready; or Unusable
    RunBatch       ──────────────────▶   Answer, as often as results are worth sending
    Expect         ──────────────────▶   Expecting: from now on, Descriptors may come before a
    Descriptors                          RunBatch that needs them
    Ask            ──────────────────▶   Reply
    Accept, Taken  ◀──────────────────   Offer, Placed: a large result, see `workers.remote_memory`
    Release, Leave                       Printed, where output takes another way
    Relocate

The worker of an engine that is not ours gets a RunBatch, too. It returns a list of messages:
Unusable; or Output, if anything was printed, and Answers.

On the wire a message is a plain tuple with the number of its kind in front. To pickle the classes
by their names would take three times as long, and make a warm call slower by a hundredth.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, get_args

from parallel_core.serialization.batch import Run
from parallel_core.serialization.definitions import SentDefinition


class AfterFailure(enum.IntEnum):
    """What becomes of a batch after a task of it that failed."""

    STOP = 0  #: the tasks after it are not run
    CARRY_ON = 1  #: they are


class FailureKind(enum.IntEnum):
    """What went wrong."""

    TASK = 0  #: the task raised
    LOADING = 1  #: its function or its arguments do not unpickle
    RESULT = 2  #: its result does not pickle
    CONTEXT = 3  #: what was to hold inside the tasks could not be brought about; no task's
    FOLDING = 4  #: the function that folds results raised; no task's


class TaskFailure(NamedTuple):
    """A failure on its way to the parent."""

    task: int  #: its index within the batch
    kind: FailureKind
    data: bytes  #: the exception, see `serialization.failure`
    text: str  #: its traceback
    call: str | None  #: the call in words, as far as the worker knows them


class SetUp(NamedTuple):
    """What a worker should be like."""

    state: Any  #: a `ProcessState`
    start_settings: Any  #: `StartSettings` for a new worker, else None


class RunBatch(NamedTuple):
    """Run some tasks."""

    number: int  #: of the batches of this worker
    call: str  #: names the definitions
    base: int  #: number of the worker's task before the first
    runs: list[Run]
    definitions: dict[int, SentDefinition] | None  #: those that the worker has not
    forget: tuple[int, ...]  #: tokens of definitions that it need not keep
    after_failure: int  #: value of an `AfterFailure`
    answers_each: bool  #: whether each task is answered before the next begins
    folding: int | None  #: token of the function that folds the results; None: they are sent
    start: int  #: position of the first task in the call
    context: bytes | None  #: pickled context, empty if there is none; None: the one told last


class Release(NamedTuple):
    """Let go of the arrays and functions of a call, if it has ended, and of shared objects."""

    of_call: bool
    closed: list[str]  #: tokens of shared objects
    of_session: bool = False  #: whether what tasks have kept in the worker is to go


class Ask(NamedTuple):
    """Call a function between two tasks. A worker whose `Phase.INIT` fails ends."""

    phase: int  #: of the board, meanwhile
    call: bytes  #: the pickle of function and arguments


class Expect(NamedTuple):
    """Expect descriptors from now on, see `workers.passing`."""


class Descriptors(NamedTuple):
    """Descriptors come beside this message, for the next batch."""

    numbers: list[Any]


class Leave(NamedTuple):
    """End."""


class Born(NamedTuple):
    """The worker reads what it is sent."""


class Ready(NamedTuple):
    """The worker is set up."""


class Unusable(NamedTuple):
    """The set-up of the worker raised."""

    data: bytes
    text: str


class Reply(NamedTuple):
    """What came of what the worker was asked for; replies have the order of the requests."""

    data: bytes  #: the pickle of what was returned, or of the exception
    text: str  #: the traceback of the exception; empty where there is none


class Expecting(NamedTuple):
    """The worker expects descriptors."""


class Offer(NamedTuple):
    """The buffers of an answer can be read where they are."""

    number: int  #: of the offers of this worker


class Accept(NamedTuple):
    """The parent reads now; or it cannot, and the answer is to be sent."""

    number: int  #: of the offer
    granted: bool


class Placed(NamedTuple):
    """An answer, whose buffers are where they were made."""

    head: bytes  #: as that of a parcel, see `workers.channel`
    pieces: list[list[tuple[int, int]]]  #: addresses and lengths of each buffer that is not empty


class Taken(NamedTuple):
    """The parent has read the buffers; or it could not, and the answer is to be sent."""

    is_read: bool


class Output(NamedTuple):
    """What was printed and logged in the worker of an engine, see `output.pieces`."""

    pieces: list[Any]


class Printed(NamedTuple):
    """How much was printed and logged before what follows."""

    number: int  #: of messages of output, since the worker was started


class Relocate(NamedTuple):
    """Where this host has files that references name as the parent has them."""

    places: list[tuple[Any, Any]]  #: the fields of an `Origin` there, and of the one here


class Answer(NamedTuple):
    """Outcomes of consecutive tasks of a batch."""

    number: int  #: of the batch
    first: int  #: index of the first task
    values: list[Any]  #: results; or what those of `folded` tasks came to
    pickled: list[int] | bool | None  #: indices of `values` that are pickles; True: all, None: none
    has_buffers: bool  #: whether a pickle may be a `serialization.results.Parcel.entry`
    seconds: float  #: how long the worker was busy with them
    finished: bool  #: whether nothing more will come for this batch
    failure: TaskFailure | None  #: of the task after the last of `values`, or of no task
    folded: int | None  #: how many tasks `values` are folded from; None: they are not
    notes: tuple[tuple[str, object], ...]  #: what context items learned, see `context.item.Part`
    #: What was measured, the first fields of `observe.events.TaskTimes`; see `recorder.Recorder`.
    times: tuple[Any, ...]


Message = (
    SetUp
    | RunBatch
    | Release
    | Expect
    | Descriptors
    | Leave
    | Ask
    | Born
    | Ready
    | Unusable
    | Reply
    | Expecting
    | Output
    | Answer
    | Offer
    | Accept
    | Placed
    | Taken
    | Printed
    | Relocate
)

_KINDS: tuple[type[Message], ...] = get_args(Message)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


def to_wire(message: Message) -> tuple[Any, ...]:
    """Return what travels for `message`."""
    return (_NUMBERS[type(message)], *message)


def from_wire(fields: Any) -> Message:
    """Return the message that `to_wire` was given."""
    message: Message = _KINDS[fields[0]]._make(fields[1:])
    return message
