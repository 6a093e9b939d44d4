"""Libraries that know joblib, on our workers: names in joblib's place, and a backend under it."""

from __future__ import annotations

import copy
import os
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import Terminal, run

import parallel_core
from parallel_core import config, register_joblib, shutdown_workers
from parallel_core.bridge import joblib_patch
from parallel_core.bridge.slimming import _batch_without_callbacks, _without_callbacks
from parallel_core.compat.joblib import install, uninstall
from parallel_core.observe.observers import observer_factories
from parallel_core.serialization.definitions import Definitions, forms
from parallel_core.serialization.encoding import slimmers

pytestmark = pytest.mark.warm_workers

joblib = pytest.importorskip("joblib")
Parallel, delayed = joblib.Parallel, joblib.delayed  # joblib's own, as a library has them

# --- under joblib ---


@pytest.fixture
def registered() -> Iterator[None]:
    register_joblib()
    register_joblib()
    with joblib.parallel_config(backend="parallel_core", n_jobs=2):
        yield
    del joblib.parallel.BACKENDS["parallel_core"]
    observer_factories.clear()


def square(x: int) -> tuple[int, int]:
    return x * x, os.getpid()


def fail_at_13(x: int) -> int:
    if x == 13:
        raise ValueError("thirteen")
    return x


def hold(folder: Path, x: int) -> None:
    """Say that it runs, and stay; the third fails when two do."""
    if x < 2:
        (folder / f"runs-{x}").write_text(str(os.getpid()))
        time.sleep(1000)
    raise ValueError("now")


@pytest.mark.usefixtures("registered")
class TestUnderJoblib:
    @pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
    def test_results(self, return_as: str) -> None:
        found = list(Parallel(return_as=return_as)(delayed(square)(i) for i in range(40)))
        pids = {pid for _, pid in found}
        assert len(pids) <= 2 and os.getpid() not in pids
        values = [value for value, _ in found]
        assert (sorted(values) if "un" in return_as else values) == [i * i for i in range(40)]

    @pytest.mark.parametrize("return_as", ["list", "generator", "generator_unordered"])
    def test_failure_ends_a_call_and_not_the_next(self, return_as: str) -> None:
        with Parallel(return_as=return_as, batch_size=3) as parallel:
            for _ in range(3):
                assert sum(parallel(delayed(fail_at_13)(i) for i in range(10))) == 45
                with pytest.raises(ValueError, match="thirteen"):
                    list(parallel(delayed(fail_at_13)(i) for i in range(50)))

    def test_nothing_goes_on_after_a_failure(self, tmp_path: Path) -> None:
        def tasks() -> Iterator[Any]:
            yield delayed(hold)(tmp_path, 0)
            yield delayed(fail_when)(tmp_path / "runs-0")

        with pytest.raises(ValueError, match="now"):
            Parallel(pre_dispatch="all", batch_size=1)(tasks())
        pid = int((tmp_path / "runs-0").read_text())
        assert not Path(f"/proc/{pid}").exists()
        assert Parallel()(delayed(abs)(x) for x in (-1, -2)) == [1, 2]

    def test_timeout(self) -> None:
        from multiprocessing import TimeoutError

        with pytest.raises(TimeoutError, match=r"timeout=0\.2 s"):
            Parallel(timeout=0.2)(delayed(time.sleep)(x) for x in (0, 1000, 1000))

    def test_one_job_is_a_loop_here(self) -> None:
        (found,) = Parallel(n_jobs=1)([delayed(os.getpid)()])
        assert found == os.getpid()

    def test_number_of_jobs(self) -> None:
        assert joblib.effective_n_jobs(5) == 5
        assert joblib.effective_n_jobs(-1) == parallel_core.cpu_count()

    def test_calls_that_overlap(self) -> None:
        slow = Parallel(return_as="generator")(delayed(square)(i) for i in range(20))
        first = next(slow)
        assert Parallel()(delayed(abs)(-i) for i in range(20)) == list(range(20))
        assert [first[0], *(value for value, _ in slow)] == [i * i for i in range(20)]

    def test_large_arrays_are_shared_and_results_are_ordinary(self) -> None:
        array = np.arange(200_000.0)

        def look(part: Any) -> tuple[str, Any]:
            return type(part["inside"][0]).__name__, part["inside"][0] + 1

        for kind, result in Parallel()(delayed(look)({"inside": [array]}) for _ in range(3)):
            assert kind == "memmap"
            assert type(result) is np.ndarray and result.flags.writeable
            assert result.tolist() == (array + 1).tolist()
        (kind, _), *_ = Parallel(max_nbytes=None)(delayed(look)({"inside": [array]}) for _ in "ab")
        assert kind == "ndarray"

    def test_a_worker_that_dies_is_named(self) -> None:
        with pytest.raises(parallel_core.WorkerDiedError, match="SIGKILL"):
            Parallel()(delayed(os.kill)(0, 0) if i else delayed(kill_self)() for i in range(3))
        assert Parallel()(delayed(abs)(x) for x in (-1, -2)) == [1, 2]

    def test_threads_of_numeric_libraries(self) -> None:
        with joblib.parallel_config(backend="parallel_core", n_jobs=2, inner_max_num_threads=3):
            found = Parallel()(delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(2))
        assert found == ["3", "3"]

    def test_parameters_of_workers(self) -> None:
        with joblib.parallel_config(backend="parallel_core", n_jobs=2, preload="fractions"):
            found = Parallel()(delayed(has_module)("fractions") for _ in range(2))
        assert found == [True, True]

    def test_parameters_that_nobody_knows(self) -> None:
        with pytest.raises(TypeError, match=r"no parameters endpoint; it has .*preload"):
            joblib.parallel_config(backend="parallel_core", n_jobs=2, endpoint="here")
        with pytest.raises(TypeError, match=r"no parameters endpoint; it has .*preload"):
            Parallel(backend="parallel_core", n_jobs=2, endpoint="here")([delayed(abs)(1)])
        with pytest.raises(ValueError, match="idle_worker_timeout"):
            joblib.parallel_config(backend="parallel_core", idle_worker_timeout=-1)


def fail_when(path: Path) -> None:
    while not path.exists():
        time.sleep(0.001)
    raise ValueError("now")


def has_module(name: str) -> bool:
    return name in sys.modules


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_ctrl_c_under_joblib(tmp_path: Path) -> None:
    program = """
        import joblib
        from parallel_core import register_joblib

        def stay(name):
            tell(name)
            time.sleep(1000)

        register_joblib()
        with joblib.parallel_config(backend="parallel_core", n_jobs=2):
            try:
                joblib.Parallel()(joblib.delayed(stay)(name) for name in "ab")
            except KeyboardInterrupt:
                print(joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, -2)))
        print("over")
    """
    terminal = Terminal(tmp_path, program)
    try:
        while not all((tmp_path / f"pid-{name}").exists() for name in "ab"):
            time.sleep(0.005)
        terminal.press(b"\x03")
        terminal.read_until("over")
        terminal.wait()
        assert terminal.status == 0
        assert "[1, 2]" in terminal.out and "Traceback" not in terminal.out
        for name in "ab":
            assert not Path(f"/proc/{(tmp_path / f'pid-{name}').read_text()}").exists()
    finally:
        terminal.close()


# --- in joblib's place ---


@pytest.fixture
def installed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this very module has taken joblib's
        install()
    yield
    uninstall()


@pytest.mark.usefixtures("installed")
class TestInItsPlace:
    def test_names(self) -> None:
        assert joblib.Parallel is joblib.parallel.Parallel is parallel_core.Parallel
        for name in ("delayed", "parallel_config", "parallel_backend", "effective_n_jobs"):
            assert getattr(joblib, name) is getattr(joblib.parallel, name)
            assert getattr(joblib, name) is getattr(parallel_core, name)
        assert joblib.parallel.get_active_backend is parallel_core.get_active_backend
        assert joblib.hash(1) and joblib.Memory.__module__.startswith("joblib")

    @pytest.mark.parametrize(
        "backend", ["loky", "threading", "multiprocessing", "sequential", "parallel_core"]
    )
    def test_names_of_backends(self, backend: str) -> None:
        with joblib.parallel_backend(backend, n_jobs=2) as (found, n_jobs):
            assert isinstance(found, parallel_core.Backend) and n_jobs == 2
            assert joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, -2)) == [1, 2]

    @pytest.mark.parametrize(
        ("backend", "preload"), [("processes", None), ("processes", ["fractions"]), ("loky", None)]
    )
    def test_workers_have_them_too(self, backend: str, preload: Any) -> None:
        def names(_: int) -> str:
            import joblib

            return str(joblib.Parallel.__module__)

        with joblib.parallel_config(backend=backend, n_jobs=2, preload=preload):
            found = joblib.Parallel()(joblib.delayed(names)(i) for i in range(4))
        assert found == ["parallel_core.parallel.call"] * 4
        uninstall()
        shutdown_workers() if backend == "loky" else None
        with parallel_core.parallel_config(backend=backend, n_jobs=2):
            found = parallel_core.Parallel()(delayed(names)(i) for i in range(4))
        assert found == ["joblib.parallel"] * 4

    def test_what_subclasses_and_callers_use(self) -> None:
        seen = []

        class Bar(joblib.Parallel):  # type: ignore[misc, name-defined]
            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                return joblib.Parallel.__call__(self, *args, **kwargs)

            def print_progress(self) -> None:
                seen.append((self.n_completed_tasks, self.n_dispatched_tasks))

        bar = Bar(n_jobs=2, verbose=0, backend="loky", pre_dispatch="all", batch_size=1)
        assert bar._effective_n_jobs() == bar.n_jobs == 2
        assert bar(joblib.delayed(abs)(-i) for i in range(9)) == list(range(9))
        assert seen[-1] == (9, 9)

    def test_messages_of_a_subclass_that_takes_them(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        taken = []

        class Logged(joblib.Parallel):  # type: ignore[misc, name-defined]
            def _print(self, msg: str) -> None:
                taken.append(msg)
                if "out of" not in msg:
                    super()._print(msg)

        Logged(n_jobs=2, verbose=100)(joblib.delayed(abs)(-i) for i in range(9))
        out, err = capfd.readouterr()
        assert taken[-1].startswith("Done   9 out of   9 | elapsed")
        assert "Using backend" in out and "out of" not in out and not err

    @pytest.mark.parametrize("way", ["replaced", "patched", "print_progress"])
    @pytest.mark.parametrize("n_jobs", [1, 2])
    def test_bars_hung_into_joblib(
        self, way: str, n_jobs: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moved = []
        kind = joblib.parallel.BatchCompletionCallBack
        own = kind.__call__

        class Moving(kind):  # type: ignore[misc, valid-type]
            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                moved.append(self.batch_size)
                return super().__call__(*args, **kwargs)

        def moving(self: Any, *args: Any, **kwargs: Any) -> Any:
            moved.append(self.batch_size)
            assert self.parallel.n_completed_tasks
            return own(self, *args, **kwargs)

        def print_progress(self: Any) -> None:
            moved.append(self.n_completed_tasks - sum(moved))

        if way == "replaced":
            monkeypatch.setattr(joblib.parallel, "BatchCompletionCallBack", Moving)
        elif way == "patched":
            monkeypatch.setattr(kind, "__call__", moving)
        else:
            monkeypatch.setattr(joblib.parallel.Parallel, "print_progress", print_progress)
        assert joblib.Parallel(n_jobs)(joblib.delayed(abs)(-i) for i in range(9)) == list(range(9))
        assert sum(moved) == 9
        monkeypatch.undo()
        joblib.Parallel(n_jobs)(joblib.delayed(abs)(-i) for i in range(9))
        assert sum(moved) == 9

    @pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing", "sequential"])
    def test_backends_are_instances_of_joblibs_classes(self, backend: str) -> None:
        with joblib.parallel_config(backend=backend):
            found, _ = joblib.parallel.get_active_backend()
        classes = {
            name: getattr(joblib.parallel, f"{name.capitalize()}Backend")
            for name in ("loky", "threading", "multiprocessing", "sequential")
        }
        assert [name for name, kind in classes.items() if isinstance(found, kind)] == [backend]
        assert isinstance(found, joblib.parallel.ParallelBackendBase)
        assert (
            found.uses_threads
            == found.supports_sharedmem
            == (backend in ("threading", "sequential"))
        )
        default, _ = joblib.parallel.get_active_backend()
        assert isinstance(default, joblib.parallel.LokyBackend) and not default.uses_threads

    def test_nesting_level(self) -> None:
        def level() -> int:
            return int(joblib.parallel.get_active_backend()[0].nesting_level)

        assert level() == 0
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(level)() for _ in range(2)) == [1, 1]

    @pytest.mark.parametrize("name", ["mine", "threading"])
    def test_what_is_registered_with_joblib(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Mine(joblib.parallel.ThreadingBackend):  # type: ignore[misc, name-defined]
            calls = 0

            def start_call(self) -> None:
                Mine.calls += 1

        for register in ("BACKENDS", "DEFAULT_BACKEND"):
            monkeypatch.setattr(
                joblib.parallel, register, copy.copy(getattr(joblib.parallel, register))
            )
        joblib.register_parallel_backend(name, Mine)
        assert joblib.parallel.BACKENDS[name] is Mine
        with joblib.parallel_backend(name, n_jobs=2) as (found, n_jobs):
            assert type(found) is Mine and n_jobs == 2
            assert type(joblib.parallel.get_active_backend()[0]) is Mine
            joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, -2))
        assert Mine.calls == 1
        joblib.register_parallel_backend(name, Mine, make_default=True)
        assert type(joblib.parallel.get_active_backend()[0]) is Mine
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(x) for x in (-1, -2)) == [1, 2]
        assert Mine.calls == 2
        uninstall()
        assert parallel_core.get_active_backend()[0].name == "processes"

    def test_a_class_derived_from_that_of_the_default(self) -> None:
        kind = type(joblib.parallel.get_active_backend()[0])

        class Counting(kind):  # type: ignore[misc, valid-type]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                self.count = 0
                super().__init__(*args, **kwargs)

            def start_call(self) -> None:
                self.count += 1
                return super().start_call()  # type: ignore[no-any-return]

        with joblib.parallel_backend(Counting(), n_jobs=2) as (found, _):
            joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, -2))
            assert found.count == 1
            joblib.Parallel(require="sharedmem")(joblib.delayed(abs)(x) for x in (-1, -2))
            assert found.count == 1

    def test_what_a_context_says(self) -> None:
        backend = joblib.parallel.ThreadingBackend()
        with joblib.parallel_config(backend, n_jobs="2", max_nbytes=None) as context:
            assert dict(context) | {"backend": None} == {
                **parallel_core.config.DEFAULTS,
                "n_jobs": 2,
                "max_nbytes": None,
            }
            assert context["backend"].name == "threading"
        assert joblib.Parallel().n_jobs == 1 and joblib.Parallel(n_jobs="2").n_jobs == 2

    def test_a_second_call_while_the_first_runs(self) -> None:
        parallel = joblib.Parallel(n_jobs=2, return_as="generator")
        first = parallel(joblib.delayed(abs)(x) for x in (-1, -2))
        with pytest.raises(RuntimeError, match="This Parallel instance is already running"):
            parallel([])
        assert list(first) == [1, 2]

    def test_dask_is_ours(self) -> None:
        pytest.importorskip("distributed")
        with joblib.parallel_config(backend="dask"):
            assert type(parallel_core.get_active_backend()[0]).__name__ == "DaskBackend"

    def test_twice(self) -> None:
        install()
        uninstall()
        assert joblib.Parallel is joblib.parallel.Parallel is Parallel

    def test_others_names_stay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(joblib, "delayed", abs)
        with pytest.warns(RuntimeWarning, match=r"^joblib\.delayed: replaced by somebody else"):
            uninstall()
        assert joblib.delayed is abs and joblib.Parallel is Parallel


def test_all_is_put_back() -> None:
    before = [dict(vars(module)) for module in (joblib, joblib.parallel)]
    uninstall()  # nothing to be done
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        install()
    assert config.worker_hooks
    uninstall()
    uninstall()
    assert [dict(vars(module)) for module in (joblib, joblib.parallel)] == before
    assert config.worker_hooks == ()
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert type(joblib.Parallel()._backend).__module__.startswith("joblib")


def test_who_was_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joblib_patch, "_SHOWN", 1000)  # scikit-learn may have been imported, too
    early = types.ModuleType("early_bird")
    vars(early)["Own"] = type("Own", (joblib.Parallel,), {})
    monkeypatch.setitem(sys.modules, "early_bird", early)
    harmless = types.ModuleType("harmless_bird")
    vars(harmless)["delayed"] = delayed
    monkeypatch.setitem(sys.modules, "harmless_bird", harmless)
    with pytest.warns(RuntimeWarning, match="taken already by early_bird.* imported$") as caught:
        install()
    uninstall()
    assert __name__ in str(caught[0].message) and "harmless" not in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"backend": "loky", "env": {}}, "has no parameter 'env'; write worker_env"),
        ({"backend": "loky", "kill_workers": True}, "shutdown_workers"),
        ({"backend": "multiprocessing", "maxtasksperchild": 3}, "write worker_lifespan"),
        ({"backend": "multiprocessing", "context": None}, "pass the context as backend="),
        ({"backend": "multiprocessing", "forward_reducers": {}}, "copyreg"),
        (
            {"backend": "spark"},
            "'spark'.* registered first, with register_parallel_backend or with",
        ),
        ({"pre_dispatch": "n_jobs**2"}, r"'n_jobs \*\* 2' is not understood; use numbers, n_jobs"),
    ],
)
def test_what_joblib_takes_and_what_to_write_instead(params: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        parallel_core.Parallel(n_jobs=2, **params)
    if "backend" in params:
        with pytest.raises((TypeError, ValueError), match=words):
            parallel_core.parallel_config(**params)


@pytest.mark.parametrize(
    ("name", "words"),
    [("Memory", "from joblib itself"), ("load", r"memmapping\.load has its place")],
)
def test_names_that_are_joblibs(name: str, words: str) -> None:
    from parallel_core.compat import joblib as ours

    with pytest.raises(AttributeError, match=rf"no attribute '{name}': .*{words}"):
        getattr(ours, name)


@pytest.mark.parametrize("ask", [install, register_joblib])
def test_without_joblib(ask: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "joblib", None)
    monkeypatch.setitem(sys.modules, "joblib.parallel", None)
    with pytest.raises(ImportError, match=r"joblib is not installed.*pip install joblib"):
        ask()
    assert config.worker_hooks == ()


def test_joblib_is_not_imported_before(tmp_path: Path) -> None:
    program = """
        import parallel_core.compat.joblib
        assert "joblib" not in sys.modules
        parallel_core.compat.joblib.install()
        import joblib
        assert joblib.Parallel is Parallel
        def inner():
            import joblib
            return joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(x) for x in (-1, -2))
        print(joblib.Parallel(n_jobs=2)(joblib.delayed(inner)() for _ in range(2)))
    """
    assert run(tmp_path, program) == "[[1, 2], [1, 2]]\n"


# --- what scikit-learn puts into every task ---


class Wrapped:
    """As scikit-learn wraps the function of a task."""

    def __init__(self, name: str) -> None:
        self.function = types.SimpleNamespace(__name__=name)

    def __call__(self, estimator: Any, caller: Any, callback_ctx: Any) -> Any:
        return caller, callback_ctx is not None


class Node:
    def __init__(self, callbacks: list[Any]) -> None:
        self._callbacks = callbacks


class Estimator:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("name", "callbacks", "attributes", "stays"),
    [
        ("_fit_and_score", [], {}, True),
        ("_fit_and_score", [1], {}, False),  # of the search
        ("_fit_and_score", [], {"inner": Estimator(_skl_callbacks=[1])}, False),
        ("another", [], {}, False),
    ],
)
def test_the_search_stays_here_where_no_callback_looks_at_it(
    name: str,
    callbacks: list[Any],
    attributes: dict[str, Any],
    stays: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import numpy  # noqa: F401 - without it nothing is pickled in this way

    monkeypatch.setitem(slimmers, Wrapped, _without_callbacks)
    kwargs = {"caller": "the search", "callback_ctx": Node(callbacks)}
    tasks = [(Wrapped(name), (Estimator(**attributes),), kwargs) for _ in range(3)]
    found = parallel_core.Parallel(n_jobs=2)(tasks)
    expected = [(None, False) if stays else ("the search", True)] * 3
    assert found == expected
    monkeypatch.setitem(slimmers, joblib.parallel.BatchedCalls, _batch_without_callbacks)
    nested = (joblib.parallel.SequentialBackend(nesting_level=1), 1)
    batch = joblib.parallel.BatchedCalls(tasks, nested)
    assert parallel_core.Parallel(n_jobs=2)([(batch, (), {})] * 2) == [expected] * 2
    assert batch.items == tasks, "what the caller has stays as it is"


def test_a_batch_with_other_tasks_goes_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(slimmers, Wrapped, _without_callbacks)
    kwargs = {"caller": "the search", "callback_ctx": Node([])}
    task = (Wrapped("_fit_and_score"), (Estimator(),), kwargs)
    assert (
        _batch_without_callbacks(joblib.parallel.BatchedCalls([task], (None, None)), {}) is not None
    )
    for tasks in ([task, (abs, (-1,), {})], []):
        assert (
            _batch_without_callbacks(joblib.parallel.BatchedCalls(tasks, (None, None)), {}) is None
        )


def test_one_key_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []

    def form(definitions: Definitions, estimator: Any) -> Any:
        keys.append(estimator.key)
        return definitions.send_once(estimator, estimator.key)

    monkeypatch.setitem(forms, Estimator, form)
    estimators = [Estimator(key=n % 2, number=n) for n in range(6)]
    found = parallel_core.Parallel(n_jobs=2)(delayed(vars)(one) for one in estimators)
    assert [one["number"] for one in found] == [0, 1, 0, 1, 0, 1]
    assert keys == [0, 1] * 3
