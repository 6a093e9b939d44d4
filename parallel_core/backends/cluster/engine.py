"""What an engine has to do for us: say where there is room, and start an agent there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from typing import NamedTuple

#: Seconds that calls wait for a first worker, unless the user says otherwise.
WAIT_SECONDS = 30.0


class Launch(ABC):
    """An agent that was ordered, until it has called back."""

    @abstractmethod
    def error(self) -> BaseException | None:
        """Return why it could not be started; None while nothing is known, or if it was."""

    @abstractmethod
    def release(self) -> None:
        """Forget the order, so that nothing of it is left at the engine; safe to repeat."""


class Terms(NamedTuple):
    """What a user has said about workers of an engine."""

    wait_seconds: float = WAIT_SECONDS  #: for a first worker, and for another when all are lost


class Engine(ABC):
    """An engine, such as a cluster of dask.

    Attributes
    ----------
    name : str
        Name for messages.
    terms : Terms
        What the user has said.
    identity : hashable
        The same for engines whose workers are interchangeable.
    """

    name: str
    terms: Terms
    identity: Hashable

    @abstractmethod
    def places(self) -> Mapping[str, int]:
        """Return where agents can be started, and for how many workers there is room."""

    @abstractmethod
    def listen_at(self) -> str:
        """Return the address of this host that the engine's hosts can connect to."""

    @abstractmethod
    def launch(self, place: str, order: bytes, bell: Callable[[], None]) -> Launch:
        """Have an agent started at `place`, by `begin_agent`; ring when it is known that it failed.

        This does not wait.
        """

    @abstractmethod
    def words(self) -> str:
        """Return what it is, for messages: ``"the dask cluster at tcp://10.0.0.1:8786"``."""

    def expect(self, number: int) -> None:  # noqa: B027 - most have none
        """Prepare for so many workers, as engines do that grow with what they are asked for."""

    def explain(self, error: BaseException) -> BaseException:
        """Return what to raise in the place of an `error` of `launch`."""
        return error


def total(places: Mapping[str, int]) -> int:
    """Return for how many workers there is room."""
    return sum(places.values())


def emptiest(places: Mapping[str, int], taken: Mapping[str, int]) -> str | None:
    """Return the place that has the fewest workers for its room; None if there is no place.

    Examples
    --------
    >>> emptiest({"a": 4, "b": 2}, {"a": 2})
    'b'
    """
    with_room = {place: room for place, room in places.items() if room > 0}
    if not with_room:
        return None
    return min(with_room, key=lambda place: (taken.get(place, 0) + 1) / with_room[place])
