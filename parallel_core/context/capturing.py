"""What holds inside the tasks of a call that begins here and now."""

from __future__ import annotations

from parallel_core import config
from parallel_core.context import process, registered, variables
from parallel_core.context.aspect import Aspect, Place
from parallel_core.context.seeds import Seeded


def aspects_of_call(
    place: Place,
    seeded: Seeded | None = None,
    settings: config.Settings | None = None,
    is_here: bool = True,
) -> tuple[Aspect, ...]:
    """Return what the caller has set up, and the seed of the call, as far as it is needed.

    Parameters
    ----------
    place : Place
        Where the tasks will run.
    seeded : Seeded, optional
        The latter.
    settings : Settings, optional
        What of the configuration holds inside the tasks, for processes.
    is_here : bool
        Whether that is this machine.

    Raises
    ------
    ContextError
        When something that is registered cannot be captured.
    """
    aspects: list[Aspect] = []
    if place in (Place.WORKER, Place.ENGINE):
        if place is Place.ENGINE and is_here:
            aspects.append(process.surroundings())
        if settings is not None:
            aspects += process.configuration(settings, tells_all=place is Place.ENGINE)
        aspects += process.captured()
    if place is not Place.CALLER:
        aspects += variables.captured(place)
        aspects += registered.captured()
    if seeded is not None:
        aspects.append(seeded)
    return tuple(aspects)
