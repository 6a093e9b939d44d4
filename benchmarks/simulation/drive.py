"""The shipped `PushDispatch` on a simulated session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.simulation.session import SimulatedSession
from parallel_core.dispatch.plan import CallPlan, ReturnAs
from parallel_core.dispatch.policy import Policy
from parallel_core.dispatch.push import PushDispatch
from parallel_core.tasks.definitions import Definitions


def plan_for(session: SimulatedSession, **options: Any) -> CallPlan:
    """Return the plan of a call as `Parallel` makes it."""
    options = {"policy": Policy(), "pre_dispatch": 2 * session.n_workers, **options}
    return CallPlan(session.n_workers, **options)


def dispatch_on(
    session: SimulatedSession, tasks: Iterable[Any], plan: CallPlan, aim_seconds: float = 0.01
) -> PushDispatch:
    """Return the dispatch of a call, not started yet."""
    return PushDispatch(tasks, session, plan, aim_seconds, Definitions())


def results_of(dispatch: PushDispatch, plan: CallPlan) -> list[Any]:
    """Return the results as they come."""
    dispatch.start()
    if plan.return_as is ReturnAs.LIST:
        return dispatch.run()
    return [value for chunk in dispatch.chunks() for value in chunk]
