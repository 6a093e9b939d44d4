"""``backend="dask"``: the promises of the local pool, on a cluster of dask."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_promises import (  # noqa: F401 - pytest finds them here
    test_a_long_batch_is_shared,
    test_a_task_that_raises,
    test_arrays_are_not_copied_on_this_host,
    test_large_results,
    test_results_in_order,
)
from engine_tasks import (
    end_engine,
    end_engine_once,
    end_process,
    environment,
    hold_lock,
    make_array,
    memory_file_of,
    nested_in_dask,
    nested_threads,
    process_of,
    say,
    say_much,
    touch,
    wait_for,
)
from simple_tasks import wait_until

from parallel_core import (
    EngineError,
    Observer,
    Parallel,
    TaskTimeoutError,
    WorkerDiedError,
    delayed,
    parallel_config,
    rng,
    shutdown_workers,
)
from parallel_core.backends.cluster import agents, greeting, sent_files
from parallel_core.backends.cluster.greeting import Refused, connect
from parallel_core.backends.cluster.listener import Listener

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.warm_workers


def start_cluster(n_workers: int = 2) -> Any:
    return distributed.LocalCluster(
        n_workers=n_workers, threads_per_worker=1, dashboard_address="127.0.0.1:0"
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start a cluster of two processes, and end our workers there before it ends."""
    here = str(Path(__file__).parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", here)  # for tasks of dask's own
        with start_cluster() as cluster, distributed.Client(cluster) as client:
            yield client
            shutdown_workers()


@pytest.fixture
def parallel(cluster: Any) -> Iterator[Parallel]:
    """Choose the engine from outside, as a user of a library does."""
    with parallel_config(backend="dask"):
        yield Parallel()


def on_scheduler(dask_scheduler: Any) -> list[str]:
    return [str(name) for name in dask_scheduler.tasks]


def test_the_scheduler_has_nothing_of_a_call(parallel: Parallel, cluster: Any) -> None:
    parallel(delayed(pow)(x, 2) for x in range(100))
    assert wait_until(lambda: cluster.run_on_scheduler(on_scheduler) == [])


def test_workers_are_processes_of_both_workers_of_dask(parallel: Parallel, cluster: Any) -> None:
    found = parallel(delayed(process_of)(x) for x in range(20))
    of_dask = set(cluster.run(os.getpid).values())
    assert {parent for parent, _ in found} == of_dask
    again = parallel(delayed(process_of)(x) for x in range(20))
    assert {worker for _, worker in again} <= {worker for _, worker in found}


def test_no_slot_is_held(parallel: Parallel, cluster: Any, tmp_path: Path) -> None:
    marker = str(tmp_path / "done")
    waiting = parallel.__class__(n_jobs=2, return_as="generator")(
        delayed(wait_for)(marker) for _ in range(2)
    )
    assert cluster.submit(touch, marker, pure=False).result(20)
    assert list(waiting) == [True, True]


def test_output_comes_before_results(
    parallel: Parallel, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.warns(UserWarning, match="warned"):
        assert parallel(delayed(say)(x) for x in range(6)) == [*range(6)]
    said = capsys.readouterr()
    assert sorted(said.out.split("\n")[:-1]) == [f"task {x}" for x in range(6)]
    assert sorted(said.err.split("\n")[:-1]) == [f"trouble {x}" for x in range(6)]
    assert sorted(caplog.messages) == [f"logged {x}" for x in range(6)]
    shown = ""
    for x in Parallel(return_as="generator")(delayed(say_much)(x) for x in range(4)):
        shown += capsys.readouterr().out
        assert f"task {x} line 199 " in shown


def test_a_worker_that_dies_is_named(parallel: Parallel) -> None:
    with pytest.raises(WorkerDiedError, match=r"was killed by SIGKILL.*task 7") as caught:
        parallel(delayed(end_process)(x, 7) for x in range(40))
    assert caught.value.position == 7
    assert caught.value.exitcode == -9
    kept = Parallel(on_error="skip")(delayed(end_process)(x, 7) for x in range(40))
    assert kept == [x for x in range(40) if x != 7]


def test_time_limits_hold_for_tasks_in_c_code(parallel: Parallel) -> None:
    with pytest.raises(TaskTimeoutError, match=r"task 2.*timeout=1 s"):
        Parallel(timeout=1)(delayed(hold_lock)(x) for x in range(5))
    assert Parallel(timeout=30)(delayed(pow)(x, 2) for x in range(2000)) == [
        x * x for x in range(2000)
    ]


class Seen(Observer):
    """Keeps the names of events."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.tasks = 0

    def on_event(self, event: Any) -> None:
        self.names.append(type(event).__name__)


def test_seeds_and_context(parallel: Parallel, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw() -> float:
        return float(rng().random())

    monkeypatch.setenv("OF_THE_CALLER", "1")
    here = Parallel(n_jobs=1, backend="sequential", seed=5)(delayed(draw)() for _ in range(6))
    assert Parallel(seed=5)(delayed(draw)() for _ in range(6)) == here
    assert parallel([delayed(environment)("OF_THE_CALLER")]) == [None]


def test_arrays_go_once_to_each_other_host(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shutdown_workers()
    monkeypatch.setattr(agents, "host_identity", lambda: "another host than that of the workers")
    sent: list[int] = []
    send_bytes = sent_files.SentFiles._send_bytes

    def counted(self: Any, file: Any) -> None:
        sent.append(len(file.mapping))
        send_bytes(self, file)

    monkeypatch.setattr(sent_files.SentFiles, "_send_bytes", counted)
    array = np.arange(2_000_000.0)
    with Parallel(backend="dask") as parallel:
        for _ in range(2):
            found = parallel(delayed(memory_file_of)(array) for _ in range(8))
            assert {total for total, _, _ in found} == {float(array.sum())}
            assert all(is_mapped for _, is_mapped, _ in found)
            assert len({parent for _, _, parent in found}) == 2
        array[0] = 1e9
        assert parallel([delayed(memory_file_of)(array)])[0][0] == float(array.sum())
        results = parallel(delayed(make_array)(700_000, i) for i in range(4))
        assert [(one.shape, one[-1]) for one in results] == [((700_000,), i) for i in range(4)]
    assert len(sent) == 3  # once a call
    shutdown_workers()


def test_calls_within_tasks(parallel: Parallel, cluster: Any) -> None:
    assert parallel(delayed(nested_threads)(x) for x in range(4)) == [
        [1, x, x * x] for x in range(4)
    ]
    futures = cluster.map(nested_in_dask, range(3), pure=False)  # more than there are slots
    assert cluster.gather(futures) == [[1, x, x * x] for x in range(3)]


@pytest.fixture
def fragile() -> Iterator[Any]:
    """Start a cluster whose processes may be killed."""
    with start_cluster() as cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client
        shutdown_workers()


def test_a_worker_of_dask_that_is_killed(fragile: Any, tmp_path: Path) -> None:
    with parallel_config(backend="dask", client=fragile):
        tasks = (delayed(end_engine_once)(x, str(tmp_path / "killed")) for x in range(200))
        assert Parallel(n_jobs=2)(tasks) == [*range(200)]
        assert (tmp_path / "killed").exists()
        with pytest.raises(WorkerDiedError, match=r"was lost with its engine's process.*task 0"):
            Parallel(n_jobs=2)([delayed(end_engine)(0)])


class TestBadInput:
    def test_no_scheduler(self) -> None:
        with parallel_config(
            backend="dask", scheduler_host="tcp://127.0.0.1:9", wait_for_workers_timeout=0.2
        ):
            with pytest.raises(EngineError, match=r"127\.0\.0\.1:9: tried for 0\.2 s"):
                Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3))

    def test_no_client(self) -> None:
        with parallel_config(backend="dask", client=3):
            with pytest.raises(TypeError, match=r"client must be a distributed\.Client"):
                Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3))
        with pytest.raises(TypeError, match="no_such_option"):
            with parallel_config(backend="dask", no_such_option=1):
                Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3))

    def test_no_room(self, cluster: Any) -> None:
        shutdown_workers()
        with parallel_config(backend="dask", resources={"GPU": 1}, wait_for_workers_timeout=0.2):
            with pytest.raises(EngineError, match=r"has room for none.*wait_for_workers_timeout"):
                Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3))

    def test_another_version(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        shutdown_workers()
        monkeypatch.setattr(greeting, "__version__", "0.0.1")
        with pytest.raises(EngineError, match=r"parallel_core \S+ there and 0\.0\.1 here"):
            Parallel(n_jobs=2, backend="dask")(delayed(abs)(x) for x in range(3))

    def test_a_module_that_workers_lack(self, parallel: Parallel) -> None:
        def needs() -> Any:
            import no_such_module

            return no_such_module

        with pytest.raises(ModuleNotFoundError, match="no_such_module"):
            parallel([delayed(needs)()])


def test_a_stranger_is_turned_away() -> None:
    listener = Listener("127.0.0.1")
    raised: list[BaseException] = []

    def come() -> None:
        try:
            connect(*listener.address, b"not the token", {"agent": "1"}).close()
        except OSError as error:
            raised.append(error)

    stranger = threading.Thread(target=come)
    stranger.start()
    found: list[int] = []
    assert wait_until(lambda: bool(found.extend(listener.accept()) or found))
    (descriptor,) = found
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    assert poller.poll(10_000)
    with pytest.raises(Refused, match="does not know the token"):
        listener.read(descriptor)
    listener.drop(descriptor)
    stranger.join()
    listener.close()
    assert raised
