"""The shipped `BatchLoop` on a simulated session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from benchmarks.simulation.session import SimulatedSession
from parallel_core.dispatch.limits import Limits, ReturnAs
from parallel_core.dispatch.loop import BatchLoop
from parallel_core.dispatch.outcomes import Outcomes
from parallel_core.dispatch.policy import Policy
from parallel_core.serialization.definitions import Definitions


class Plan(NamedTuple):
    """What a simulated call is asked to do.

    Attributes
    ----------
    limits : Limits
        What bounds it.
    outcomes : dict
        Parameters of `Outcomes`.
    """

    limits: Limits
    outcomes: dict[str, Any]

    @property
    def return_as(self) -> ReturnAs:
        """What the caller gets."""
        found: ReturnAs = self.outcomes["return_as"]
        return found


def plan_for(session: SimulatedSession, **options: Any) -> Plan:
    """Return the plan of a call as `Parallel` makes it; `options` are for limits and outcomes."""
    limits = {name: options.pop(name) for name in Limits._fields if name in options}
    limits = {"pre_dispatch": 2 * session.n_workers, **limits}
    return Plan(Limits(**limits), {"return_as": ReturnAs.LIST, "policy": Policy(), **options})


def dispatch_on(
    session: SimulatedSession, tasks: Iterable[Any], plan: Plan, aim_seconds: float = 0.01
) -> BatchLoop:
    """Return the loop of a call, not started yet."""
    outcomes = Outcomes(**plan.outcomes)
    return BatchLoop(tasks, session, outcomes, plan.limits, aim_seconds, Definitions())


def results_of(dispatch: BatchLoop, plan: Plan) -> list[Any]:
    """Return the results as they come."""
    dispatch.start()
    if plan.return_as is ReturnAs.LIST:
        found: list[Any] = dispatch.run()
        return found
    return [value for chunk in dispatch.chunks() for value in chunk]
