"""``backend="dask"``: workers on a cluster of dask.

A task of dask starts an agent in the process of each of its workers, and is over. So nothing of a
call is in the hands of the scheduler while it runs, no slot is held that other tasks wait for, and
dask never looks into what is sent. The agent's workers end with the process of dask's worker.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from memmapping.modules import loaded
from parallel_core.backends.cluster.agent import begin_agent
from parallel_core.backends.cluster.backend import ClusterBackend
from parallel_core.backends.cluster.engine import WAIT_SECONDS, Engine, Launch, Terms
from parallel_core.backends.cluster.listener import address_towards
from parallel_core.backends.cores import cpu_count
from parallel_core.errors import EngineError

_KNOWN_SECONDS = 1.0  # for which the workers of a cluster are known; to ask takes some milliseconds
_numbers = itertools.count(1)


class DaskTerms(NamedTuple):
    """What a user has said about the use of a cluster."""

    workers: tuple[str, ...] | None
    resources: tuple[tuple[str, float], ...]
    priority: int


class DaskBackend(ClusterBackend):
    """Workers on a cluster of dask.

    Parameters
    ----------
    client : distributed.Client, cluster or str, optional
        Client, cluster object, or address of a scheduler. By default the active client; if there
        is none, the scheduler that dask is configured for; else a local cluster, which ends with
        the program.
    scheduler_host : str, optional
        Address of a scheduler, as joblib's backend calls it.
    wait_for_workers_timeout : float, default 30
        Seconds to wait for a first worker, and for another one if all are lost.
    workers : sequence of str, optional
        Addresses of the workers of dask to use.
    resources : dict, optional
        Resources of dask that each worker needs, such as ``{"GPU": 1}``.
    priority : int, default 0
        Priority of the start of workers among the tasks of the cluster.
    """

    name = "dask"

    def __init__(
        self,
        client: Any = None,
        *,
        scheduler_host: str | None = None,
        wait_for_workers_timeout: float = WAIT_SECONDS,
        workers: Sequence[str] | None = None,
        resources: Mapping[str, float] | None = None,
        priority: int = 0,
    ) -> None:
        if client is not None and scheduler_host is not None:
            raise TypeError("backend='dask': client and scheduler_host are two names for one thing")
        self._given = scheduler_host if client is None else client
        self._terms = Terms(float(wait_for_workers_timeout))
        self._of_dask = DaskTerms(
            None if workers is None else tuple(workers),
            tuple(sorted((resources or {}).items())),
            priority,
        )
        _distributed()

    def engine(self) -> Engine:
        """Return the cluster, connected."""
        client = _client_for(self._given, self._terms.wait_seconds)
        return DaskEngine(client, self._terms, self._of_dask)


class DaskEngine(Engine):
    """The cluster of a client."""

    name = "dask"

    def __init__(self, client: Any, terms: Terms, of_dask: DaskTerms) -> None:
        self._client = client
        self.terms = terms
        self._of_dask = of_dask
        self._address: str = client.scheduler.address
        self.identity: Hashable = (self.name, self._address, of_dask)

    def words(self) -> str:
        """Return what it is, for messages."""
        return f"the dask cluster at {self._address}"

    def places(self) -> Mapping[str, int]:
        """Return the workers of dask, and how many threads each has."""
        known = _known_places.get(self._client)
        now = time.monotonic()
        if known is None or now - known[0] > _KNOWN_SECONDS or known[1] != self._of_dask:
            known = now, self._of_dask, self._places()
            _known_places[self._client] = known
        return known[2]

    def _places(self) -> dict[str, int]:
        try:
            found: dict[str, int] = dict(self._client.nthreads())
            if self._of_dask.workers is not None:
                found = {name: n for name, n in found.items() if name in self._of_dask.workers}
            if self._of_dask.resources:
                told = self._client.run_on_scheduler(_resources)
                found = {name: _room(n, told[name], self._of_dask) for name, n in found.items()}
        except Exception as error:
            raise EngineError(f"{self.words()} does not answer: {error}") from error
        return found

    def listen_at(self) -> str:
        """Return the address of this host from which the scheduler can be reached."""
        from distributed.comm.addressing import get_address_host

        if self._address.startswith("inproc://"):
            return "127.0.0.1"
        return address_towards(get_address_host(self._address))

    def launch(self, place: str, order: bytes, bell: Callable[[], None]) -> Launch:
        """Have dask run `begin_agent` on its worker `place`."""
        _leave_slot()
        future = self._client.submit(
            begin_agent,
            order,
            key=f"parallel-core-agent-{os.getpid()}-{next(_numbers)}",
            workers=[place],
            allow_other_workers=False,
            pure=False,
            priority=self._of_dask.priority,
            resources=dict(self._of_dask.resources) or None,
        )
        future.add_done_callback(lambda _: bell())
        return DaskLaunch(future)

    def explain(self, error: BaseException) -> BaseException:
        """Return what to say of a task of dask that could not start an agent."""
        words = f"{type(error).__name__}: {error}"
        cause = error.__cause__
        if cause is not None:
            words += f" ({type(cause).__name__}: {cause})"
        if "parallel_core" in words and "ModuleNotFoundError" in words:
            words += ": install parallel_core where the workers of dask run, in the same version"
        found = EngineError(words)
        found.__cause__ = error
        return found


class DaskLaunch(Launch):
    """A task of dask that starts an agent."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def error(self) -> BaseException | None:
        """Return why it failed, if it did."""
        future = self._future
        if future is None:
            return None
        if future.status == "error":
            found: BaseException = future.exception()
            return found
        if future.status in ("cancelled", "lost"):
            return EngineError(f"dask has {future.status} the task that starts workers")
        return None

    def release(self) -> None:
        """Have the scheduler forget the task."""
        future, self._future = self._future, None
        if future is not None:
            future.release()


_known_places: WeakKeyDictionary[Any, tuple[float, DaskTerms, dict[str, int]]] = WeakKeyDictionary()


def _resources(dask_scheduler: Any) -> dict[str, dict[str, float]]:
    """Return, on the scheduler, which resources each of its workers has."""
    return {name: dict(state.resources) for name, state in dask_scheduler.workers.items()}


def _room(n_threads: int, has: Mapping[str, float], of_dask: DaskTerms) -> int:
    """Return for how many workers there is room, by threads and resources."""
    by_resources = [int(has.get(name, 0) // need) for name, need in of_dask.resources if need > 0]
    return min([n_threads, *by_resources])


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise ImportError(
            "backend='dask' needs dask.distributed: pip install 'parallel-core[dask]'"
        ) from error
    return distributed


def _leave_slot() -> None:
    """In a task of dask, leave its slot to others: what is asked for may need it.

    The task only waits from here on; it does not come back into the slot.
    """
    worker: Any = loaded("distributed.worker")
    if worker is None or not hasattr(worker.thread_state, "key"):
        return
    from distributed.threadpoolexecutor import thread_state

    if thread_state.proceed:  # else it has left it before
        worker.secede()


class _Own:
    """Clients and clusters that were made here."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.clients: dict[str, Any] = {}  # by address
        self.cluster: Any = None


_own = _Own()


def _client_for(given: Any, seconds: float) -> Any:
    """Return a client for what the user gave: a client, a cluster, an address, or nothing."""
    distributed = _distributed()
    if given is not None and not isinstance(given, str):
        if isinstance(given, distributed.Client):
            return given
        address = getattr(given, "scheduler_address", None)
        if not isinstance(address, str):
            raise TypeError(
                "backend='dask': client must be a distributed.Client, a cluster, or the address "
                f"of a scheduler, not {given!r}"
            )
        return _connect(address, given, seconds)
    if given is None:
        try:
            return distributed.get_client()
        except ValueError:
            pass
        import dask

        given = dask.config.get("scheduler-address", None)
    if given is not None:
        return _connect(given, given, seconds)
    with _own.lock:
        if _own.cluster is None:
            _own.cluster = distributed.LocalCluster(
                n_workers=cpu_count(), threads_per_worker=1, dashboard_address="127.0.0.1:0"
            )
    return _connect(_own.cluster.scheduler_address, _own.cluster, seconds)


def _connect(address: str, to: Any, seconds: float) -> Any:
    distributed = _distributed()
    with _own.lock:
        client = _own.clients.get(address)
        if client is not None and client.status == "running":
            return client
        try:
            client = distributed.Client(to, timeout=seconds, set_as_default=False)
        except (OSError, ValueError) as error:
            raise EngineError(
                f"no dask scheduler answers at {address}: tried for {seconds:g} s ({error})"
            ) from error
        _own.clients[address] = client
    return client


def close_dask() -> None:
    """Close the clients and the cluster that were made here."""
    with _own.lock:
        clients, _own.clients = _own.clients, {}
        cluster, _own.cluster = _own.cluster, None
    for client in clients.values():
        client.close()
    if cluster is not None:
        cluster.close()
