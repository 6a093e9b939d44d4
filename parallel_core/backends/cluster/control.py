"""What a caller and an agent say to each other, beside the channels of the workers.

::

    caller                                           agent
    Start                   ────────────────▶        Started; or NotStarted
    Allow, Assign           ────────────────▶        Done: what was sent after them may leave
    Rob                     ────────────────▶        Robbed: what is behind is the caller's
    Stop                    ────────────────▶        Stopping, or not: it was another task
    Look                    ────────────────▶        Seen
    Trace                   ────────────────▶        Traced
    Cancel, Kill, Leave     ────────────────▶
    Store, Piece            ────────────────▶        Stored
    Drop                    ────────────────▶
                            ◀────────────────        Said, Ended

Frames are those of `workers.channel`, with the number of a message's kind in front.
"""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

from parallel_core.output.pieces import Piece as OutputPiece


class Status(NamedTuple):
    """What a worker's board says."""

    started: int  #: number of the task that was started last
    phase: int  #: a `Phase`
    seconds: float  #: since when, before this was read
    memory: int  #: bytes that it held when it looked last
    fence: int  #: a `Fence`


class Start(NamedTuple):
    """Start workers, which connect by themselves."""

    numbers: list[int]  #: names of the workers


class Started(NamedTuple):
    """A worker was started."""

    number: int
    pid: int  #: on its host


class NotStarted(NamedTuple):
    """A worker could not be started."""

    number: int
    words: str  #: why


class Allow(NamedTuple):
    """Let a worker start tasks up to a number; when this is done, what follows may leave."""

    number: int
    up_to: int


class Assign(NamedTuple):
    """Tell a worker its slot; when this is done, what follows may leave."""

    number: int
    slot: int


class Done(NamedTuple):
    """An `Allow` or `Assign` was done."""

    number: int


class Rob(NamedTuple):
    """Take from a worker what it has not started, but for some tasks."""

    number: int
    first: int  #: number of a task that it keeps in any case, with those before
    keep: int  #: how many more


class Robbed(NamedTuple):
    """All tasks after a number are the caller's; or its answer will tell."""

    number: int
    limit: int  #: number of the last task that stays
    is_certain: bool  #: whether none after that has begun, or will
    status: Status


class Stop(NamedTuple):
    """End a task that has run for too long; or the worker, if it does not end."""

    number: int
    task: int
    limit: float  #: seconds that it was given


class Stopping(NamedTuple):
    """Whether the task was on its time; if not, this is what the worker does."""

    number: int
    task: int
    is_late: bool
    status: Status


class Look(NamedTuple):
    """Tell what all workers are at."""


class Seen(NamedTuple):
    """What all workers are at."""

    statuses: list[tuple[int, Status]]


class Trace(NamedTuple):
    """Tell where in its code a worker is."""

    number: int


class Traced(NamedTuple):
    """Where in its code a worker is."""

    number: int
    stack: str


class Cancel(NamedTuple):
    """Have a worker start no further task."""

    number: int


class Kill(NamedTuple):
    """End a worker now."""

    number: int


class Leave(NamedTuple):
    """End all workers, and leave."""


class Said(NamedTuple):
    """What tasks have printed and logged."""

    number: int
    pieces: list[OutputPiece]
    n_sent: int  #: messages of this worker so far, as it counts them in `Printed`


class Ended(NamedTuple):
    """A worker has ended; what it had sent is in its channel, up to the end of that."""

    number: int
    status: Status
    words: str  #: as those of `ExitInfo`
    exitcode: int | None
    memory: int
    stack: str


class Store(NamedTuple):
    """Keep a copy of a file; or take over the one that another agent of this host has."""

    file: int  #: number of the file, among those of this agent
    nbytes: int
    here: tuple[Any, ...] | None  #: the fields of an `Origin` on this host, if there is one


class Piece(NamedTuple):
    """Some bytes of a file that was announced by `Store`."""

    file: int
    offset: int
    data: Any


class Stored(NamedTuple):
    """A file is complete; or there is no room for it, or it is not where that was said."""

    file: int
    here: tuple[Any, ...] | None  #: the fields of its `Origin` here
    words: str  #: why there is none


class Drop(NamedTuple):
    """Let go of all files that were stored."""


Control = (
    Start
    | Started
    | NotStarted
    | Allow
    | Assign
    | Done
    | Rob
    | Robbed
    | Stop
    | Stopping
    | Look
    | Seen
    | Trace
    | Traced
    | Cancel
    | Kill
    | Leave
    | Said
    | Ended
    | Store
    | Piece
    | Stored
    | Drop
)

_KINDS: tuple[type[Control], ...] = get_args(Control)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


def to_wire(message: Control) -> tuple[Any, ...]:
    """Return what travels for `message`."""
    return (_NUMBERS[type(message)], *message)


def from_wire(fields: Any) -> Control:
    """Return the message that `to_wire` was given."""
    message: Control = _KINDS[fields[0]]._make(fields[1:])
    return message
