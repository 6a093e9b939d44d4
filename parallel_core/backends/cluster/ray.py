"""``backend="ray"``: workers on a cluster of ray.

A task of ray is the agent on its node: it starts workers as children of its process, and ends when
the caller leaves. It asks for no processor, so that no task of others waits for it; what the user
says that workers need is reserved for as long as there are workers.
"""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from math import inf
from typing import Any, NamedTuple

from parallel_core.backends.cluster.agent import serve_agent
from parallel_core.backends.cluster.backend import ClusterBackend
from parallel_core.backends.cluster.engine import WAIT_SECONDS, Engine, Launch, Terms
from parallel_core.backends.cluster.listener import address_towards
from parallel_core.errors import EngineError

_SEEN_SECONDS = 1.0  # for which the nodes are known; to ask takes a millisecond
_seen: dict[Hashable, tuple[float, dict[str, int]]] = {}


class RayNeeds(NamedTuple):
    """What a user says that each worker needs."""

    num_cpus: float | None
    num_gpus: float
    resources: tuple[tuple[str, float], ...]

    def room_in(self, has: Mapping[str, float]) -> int:
        """Return for how many workers there is room in resources of ray."""
        cpus = 1.0 if self.num_cpus is None else self.num_cpus
        needs = [("CPU", cpus), ("GPU", self.num_gpus), *self.resources]
        rooms = [has.get(name, 0.0) / need for name, need in needs if need > 0]
        return int(min(rooms, default=has.get("CPU", 0.0)) + 1e-9)

    def reserved(self, n_workers: int) -> dict[str, Any]:
        """Return options of a task of ray: they reserve what was asked for, and nothing else."""
        resources = {name: need * n_workers for name, need in self.resources}
        return {
            "num_cpus": (self.num_cpus or 0.0) * n_workers,
            # Ray hides all GPUs from a task that says that it needs none.
            **({"num_gpus": self.num_gpus * n_workers} if self.num_gpus else {}),
            **({"resources": resources} if resources else {}),
        }


class RayBackend(ClusterBackend):
    """Workers on a cluster of ray.

    Parameters
    ----------
    address : str, optional
        Address of a cluster, as `ray.init` takes it. By default the cluster that this program is
        connected to; else one that runs on this machine; else one that is started, and that ends
        with the program.
    num_cpus : float, optional
        Processors to reserve for each worker. By default there is a worker for each processor, and
        none is reserved.
    num_gpus : float, default 0
        GPUs to reserve for each worker. Workers of a node see all that were reserved there.
    resources : dict, optional
        Other resources of ray to reserve for each worker.
    runtime_env : dict, optional
        Runtime environment of the workers, as ray takes it.
    placement_group : ray.util.placement_group.PlacementGroup, optional
        Where the workers are to be, and what is reserved for them.
    wait_for_workers_timeout : float, default 30
        Seconds to wait for a first worker, and for another one if all are lost.
    """

    name = "ray"

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: float | None = None,
        num_gpus: float = 0,
        resources: Mapping[str, float] | None = None,
        runtime_env: Mapping[str, Any] | None = None,
        placement_group: Any = None,
        wait_for_workers_timeout: float = WAIT_SECONDS,
    ) -> None:
        if address is not None and not isinstance(address, str):
            raise TypeError(f"backend='ray': address must be a string, not {address!r}")
        needs = {"num_cpus": num_cpus or 0, "num_gpus": num_gpus, **(resources or {})}
        for name, need in needs.items():
            if not 0 <= need < inf:
                raise ValueError(f"backend='ray': {name} must be a positive number, not {need!r}")
        self._address = address
        self._needs = RayNeeds(num_cpus, num_gpus, tuple(sorted((resources or {}).items())))
        self._runtime_env = dict(runtime_env or {})
        self._group = placement_group
        self._terms = Terms(float(wait_for_workers_timeout))
        _ray()

    def engine(self) -> Engine:
        """Return the cluster, connected."""
        _connect(self._address, self._terms.wait_seconds)
        return RayEngine(self._terms, self._needs, self._runtime_env, self._group)


class RayEngine(Engine):
    """The cluster that this process is connected to."""

    name = "ray"

    def __init__(
        self, terms: Terms, needs: RayNeeds, runtime_env: dict[str, Any], group: Any
    ) -> None:
        self.terms = terms
        self._needs = needs
        self._runtime_env = runtime_env
        self._group = group
        self._expected = 1
        self._address = _address_of(_ray().get_runtime_context())
        group_id = None if group is None else group.id.hex()
        self.identity: Hashable = (self.name, self._address, needs, repr(runtime_env), group_id)

    def words(self) -> str:
        """Return what it is, for messages."""
        return f"the ray cluster at {self._address}"

    def places(self) -> Mapping[str, int]:
        """Return nodes, or bundles of the placement group, with their room for workers."""
        now = time.monotonic()
        seen = _seen.get(self.identity)
        if seen is None or now - seen[0] > _SEEN_SECONDS:
            _seen.clear()
            seen = _seen[self.identity] = now, self._places()
        return seen[1]

    def _places(self) -> dict[str, int]:
        try:
            found: dict[str, Mapping[str, float]]
            if self._group is None:
                found = {node["NodeID"]: node["Resources"] for node in _nodes()}
            else:
                _ray().get(self._group.ready(), timeout=self.terms.wait_seconds)
                found = {str(index): has for index, has in enumerate(self._group.bundle_specs)}
        except Exception as error:
            raise EngineError(f"{self.words()} does not answer: {error}") from error
        return {place: self._needs.room_in(has) for place, has in found.items()}

    def expect(self, number: int) -> None:
        """Reserve for no more workers than that on any node."""
        self._expected = number

    def listen_at(self) -> str:
        """Return the address of this host from which the nodes can be reached."""
        nodes = _nodes()
        return address_towards(nodes[0]["NodeManagerAddress"]) if nodes else "127.0.0.1"

    def launch(self, place: str, order: bytes, bell: Callable[[], None]) -> Launch:
        """Have ray run `serve_agent` on the node `place`, or in that bundle."""
        from ray.util.scheduling_strategies import (
            NodeAffinitySchedulingStrategy,
            PlacementGroupSchedulingStrategy,
        )

        strategy: Any
        if self._group is None:
            strategy = NodeAffinitySchedulingStrategy(place, soft=False)
        else:
            strategy = PlacementGroupSchedulingStrategy(self._group, int(place))
        n_workers = min(max(1, self.places().get(place, 1)), self._expected)
        options = self._needs.reserved(n_workers)
        if self._runtime_env:
            options["runtime_env"] = self._runtime_env
        task = _agent_task().options(scheduling_strategy=strategy, **options)
        future: Future[None] = task.remote(order).future()
        future.add_done_callback(lambda _: bell())
        return RayLaunch(future)

    def explain(self, error: BaseException) -> BaseException:
        """Return what to say of a task of ray that could not be an agent."""
        words = f"{type(error).__name__}: {error}".strip()
        if "parallel_core" in words and "ModuleNotFoundError" in words:
            words += "\ninstall parallel_core on the nodes of ray, in the same version"
        found = EngineError(words)
        found.__cause__ = error
        return found


class RayLaunch(Launch):
    """A task of ray that is an agent."""

    def __init__(self, future: Future[None]) -> None:
        self._future: Future[None] | None = future

    def error(self) -> BaseException | None:
        """Return why it failed, if it did."""
        future = self._future
        if future is None or not future.done():
            return None
        return future.exception()

    def release(self) -> None:
        """Forget the order; the agent goes on."""
        self._future = None


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ImportError("backend='ray' needs ray: pip install 'parallel-core[ray]'") from error
    return ray


def _nodes() -> list[Any]:
    """Return what ray knows of its nodes."""
    return [node for node in _ray().nodes() if node["Alive"]]


@functools.cache
def _agent_task() -> Any:
    """Return the task of ray; ray sends its function once to each cluster."""
    options = {"num_cpus": 0, "max_retries": 0, "name": "parallel-core-agent"}
    return _ray().remote(**options)(serve_agent)


_own_address: str | None = None  # of the cluster that was started or connected to here


def _connect(address: str | None, seconds: float) -> None:
    """Connect this process to a cluster, unless it is connected."""
    global _own_address
    ray = _ray()
    if ray.is_initialized():
        at = _address_of(ray.get_runtime_context())
        if address not in (None, "auto", "local", at, _own_address):
            raise EngineError(
                f"this program is connected to the ray cluster at {at}, so it cannot use the one "
                f"at {address}: call ray.shutdown() first"
            )
        return
    if address is not None:
        _knock(address, seconds)
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        to = "a ray cluster" if address is None else f"the ray cluster at {address}"
        raise EngineError(f"cannot connect to {to}: {type(error).__name__}: {error}") from error
    _own_address = address or ""


def _knock(address: str, seconds: float) -> None:
    """Raise EngineError where nobody listens: ray itself would try for longer than a minute."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), seconds).close()
        except OSError as error:
            words = f"no ray cluster answers at {address}: tried for {seconds:g} s ({error})"
            raise EngineError(words) from error


def _address_of(context: Any) -> str:
    """Return the address of the cluster, or the number of the job: clients do not know more."""
    return str(getattr(context, "gcs_address", "") or context.get_job_id())


def close_ray() -> None:
    """Leave the cluster that was started or connected to here."""
    global _own_address
    if _own_address is not None:
        _own_address = None
        _ray().shutdown()
