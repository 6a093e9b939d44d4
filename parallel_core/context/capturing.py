"""What holds inside the tasks of a call that begins here and now."""

from __future__ import annotations

from parallel_core import config
from parallel_core.context import process, registered, variables
from parallel_core.context.item import ContextItem, Place
from parallel_core.context.seeds import Seeded


def context_items_of_call(
    place: Place,
    seeded: Seeded | None = None,
    settings: config.Settings | None = None,
    is_here: bool = True,
) -> tuple[ContextItem, ...]:
    """Return what the caller has set up, and the seed of the call, as far as `place` needs it.

    `settings` are what of the configuration holds inside the tasks, for processes; `is_here` says
    whether those are on this machine.
    """
    items: list[ContextItem] = []
    if place in (Place.WORKER, Place.FOREIGN_PROCESS):
        if place is Place.FOREIGN_PROCESS and is_here:
            items.append(process.working_directory())
        if settings is not None:
            items += process.configuration(settings, tells_all=place is Place.FOREIGN_PROCESS)
        items += process.captured()
    if place is not Place.CALLER:
        items += variables.captured(place)
        items += registered.captured()
    if seeded is not None:
        items.append(seeded)
    return tuple(items)
