"""``backend="ray"``: the promises of the local pool, on a cluster of ray."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    nested_in_ray,
    nested_threads,
    process_of,
    say,
    touch,
    wait_for,
)
from ray_clusters import ray_cluster

from parallel_core import (
    EngineError,
    Parallel,
    TaskTimeoutError,
    WorkerDiedError,
    delayed,
    effective_n_jobs,
    parallel_config,
    rng,
    shutdown_workers,
)
from parallel_core.backends.cluster import greeting

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.warm_workers


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start a node with two processors and what a test asks for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for tasks of ray's own
        with ray_cluster(resources={"widget": 2}):
            yield


@pytest.fixture
def parallel(cluster: None) -> Iterator[Parallel]:
    """Choose the engine from outside, as a user of a library does."""
    with parallel_config(backend="ray"):
        yield Parallel()


def test_workers_are_processes_of_ray(parallel: Parallel) -> None:
    found = parallel(delayed(process_of)(x) for x in range(20))
    agents = {parent for parent, _ in found}
    assert len(agents) == 1 and len({worker for _, worker in found}) == 2
    assert "ray::parallel-core-agent" in Path(f"/proc/{agents.pop()}/cmdline").read_text()
    again = parallel(delayed(process_of)(x) for x in range(20))
    assert {worker for _, worker in again} <= {worker for _, worker in found}


def test_no_slot_is_held(parallel: Parallel, tmp_path: Path) -> None:
    marker = str(tmp_path / "done")
    waiting = Parallel(n_jobs=2, return_as="generator")(delayed(wait_for)(marker) for _ in range(2))
    touching = ray.remote(touch)
    assert ray.get([touching.remote(marker), touching.remote(marker)], timeout=30) == [True] * 2
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


def test_a_worker_that_dies_is_named(parallel: Parallel) -> None:
    with pytest.raises(WorkerDiedError, match=r"was killed by SIGKILL.*task 7") as caught:
        parallel(delayed(end_process)(x, 7) for x in range(40))
    assert (caught.value.position, caught.value.exitcode) == (7, -9)
    kept = Parallel(on_error="skip")(delayed(end_process)(x, 7) for x in range(40))
    assert kept == [x for x in range(40) if x != 7]


def test_time_limits_hold_for_tasks_in_c_code(parallel: Parallel) -> None:
    with pytest.raises(TaskTimeoutError, match=r"task 2.*timeout=1 s"):
        Parallel(timeout=1)(delayed(hold_lock)(x) for x in range(5))


def test_seeds_and_context(parallel: Parallel) -> None:
    def draw() -> float:
        return float(rng().random())

    here = Parallel(n_jobs=1, backend="sequential", seed=5)(delayed(draw)() for _ in range(6))
    assert Parallel(seed=5)(delayed(draw)() for _ in range(6)) == here


def test_calls_within_tasks(parallel: Parallel) -> None:
    assert parallel(delayed(nested_threads)(x) for x in range(4)) == [
        [1, x, x * x] for x in range(4)
    ]
    nested = ray.remote(nested_in_ray)  # it has one of the two processors
    assert ray.get(nested.remote(3), timeout=60) == [1, 3, 9]


def test_a_process_of_ray_that_is_killed(parallel: Parallel, tmp_path: Path) -> None:
    tasks = (delayed(end_engine_once)(x, str(tmp_path / "killed")) for x in range(200))
    assert parallel(tasks) == [*range(200)]
    assert (tmp_path / "killed").exists()
    with pytest.raises(WorkerDiedError, match=r"was lost with its engine's process.*task 0"):
        parallel([delayed(end_engine)(0)])


def test_what_workers_need_is_reserved(cluster: None) -> None:
    shutdown_workers()
    env = {"env_vars": {"OF_THE_RUNTIME": "7"}}
    with parallel_config(backend="ray", resources={"widget": 1}, runtime_env=env):
        assert effective_n_jobs(-1) == 2
        with Parallel(n_jobs=2) as held:
            assert held(delayed(environment)("OF_THE_RUNTIME") for _ in range(4)) == ["7"] * 4
            assert ray.available_resources().get("widget", 0) == 0
    shutdown_workers()
    with parallel_config(backend="ray", num_cpus=2):
        assert effective_n_jobs(-1) == 1


def test_a_placement_group(cluster: None) -> None:
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    with parallel_config(backend="ray", placement_group=group):
        found = Parallel(n_jobs=-1)(delayed(process_of)(x) for x in range(20))
        assert len({agent for agent, _ in found}) == 2  # one in each bundle
    shutdown_workers()
    remove_placement_group(group)


class TestBadInput:
    def test_another_cluster(self, cluster: None) -> None:
        with pytest.raises(EngineError, match=r"connected to the ray cluster at .*:\d+, so it"):
            with parallel_config(backend="ray", address="127.0.0.1:9"):
                Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3))

    def test_no_room(self, cluster: None) -> None:
        with parallel_config(backend="ray", resources={"no_such": 1}, wait_for_workers_timeout=0.2):
            with pytest.raises(EngineError, match=r"has room for none.*wait_for_workers_timeout"):
                Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3))

    @pytest.mark.parametrize(
        ("params", "kind", "words"),
        [
            ({"address": 3}, TypeError, "address must be a string"),
            ({"num_gpus": -1}, ValueError, "num_gpus must be a positive number, not -1"),
            ({"resources": {"a": float("inf")}}, ValueError, "a must be a positive number"),
            ({"no_such_option": 1}, TypeError, "no_such_option"),
        ],
    )
    def test_parameters(self, params: dict[str, Any], kind: type[Exception], words: str) -> None:
        with pytest.raises(kind, match=words):
            with parallel_config(backend="ray", **params):
                Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3))

    def test_another_version(self, cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
        shutdown_workers()
        monkeypatch.setattr(greeting, "__version__", "0.0.1")
        with pytest.raises(EngineError, match=r"parallel_core \S+ there and 0\.0\.1 here"):
            Parallel(n_jobs=2, backend="ray")(delayed(abs)(x) for x in range(3))


def test_a_cluster_that_is_not_there() -> None:
    shutdown_workers()
    ray.shutdown()
    with parallel_config(backend="ray", address="127.0.0.1:9", wait_for_workers_timeout=2):
        with pytest.raises(EngineError, match=r"no ray cluster answers at 127\.0\.0\.1:9: tried f"):
            Parallel(n_jobs=2)(delayed(abs)(x) for x in range(3))


def test_a_cluster_of_the_programs_own(tmp_path: Path) -> None:
    from programs import run

    text = """
        import ray
        from parallel_core import Parallel, delayed, shutdown_workers

        if __name__ == "__main__":
            try:
                Parallel(n_jobs=2, backend="ray", wait_for_workers_timeout=20)([delayed(abs)(-1)])
            finally:
                print(ray.is_initialized(), ray.cluster_resources()["CPU"] > 0)
                shutdown_workers()
                print(ray.is_initialized())
    """
    assert run(tmp_path, text).split() == ["True", "True", "False"]
