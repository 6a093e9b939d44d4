"""The backend "mpi": real programs of three ranks, each started once for many checks."""

from __future__ import annotations

import functools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import mpi_program
import pytest

from parallel_core import Parallel, WorkerDiedError, WorkerPool, delayed
from parallel_core.backends.cluster.mpi_links import Meeting
from parallel_core.backends.cluster.mpi_meeting import end_ranks
from parallel_core.backends.cluster.mpi_ranks import (
    Rank,
    Ranks,
    SocketRankLink,
    known_ranks,
    note_ranks,
)
from watching import HOME

PATIENCE = 240  # seconds: a slow machine is not a reason to fail
pytestmark = pytest.mark.timeout(PATIENCE + 30)

pytest.importorskip("mpi4py", reason="mpi4py is not installed")
MPIEXEC = shutil.which("mpiexec", path=os.path.dirname(sys.executable)) or shutil.which("mpiexec")
if MPIEXEC is None:
    pytest.skip("there is no mpiexec", allow_module_level=True)

DOORS = {
    "ours": ("parallel_core.mpi", {}),
    "messages": ("parallel_core.mpi", {"PARALLEL_CORE_MPI_LINK": "messages"}),
    "futures": ("mpi4py.futures", {}),
}
PLAIN = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(HOME), str(HOME / "tests")]),
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def mpiexec(
    folder: Path, *arguments: str, ranks: int = 3, options: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python`` with these arguments in so many ranks, to its end."""
    assert MPIEXEC is not None
    return subprocess.run(
        [MPIEXEC, *options, "-n", str(ranks), sys.executable, *arguments],
        cwd=folder,
        env={**PLAIN, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def program(folder: Path, text: str) -> str:
    """Write a program, and return its name."""
    (folder / "script.py").write_text(textwrap.dedent(text))
    return "script.py"


@functools.cache
def outcomes(folder: Path, door: str) -> tuple[dict[str, str], subprocess.CompletedProcess[str]]:
    """Return what each check has said, of a program that is run once, and how it ended."""
    module, variables = DOORS[door]
    done = mpiexec(folder, "-m", module, str(HOME / "tests" / "mpi_program.py"), **variables)
    found = {}
    for line in done.stdout.splitlines():
        if line.startswith('{"check"'):
            outcome = json.loads(line)
            found[outcome["check"]] = outcome["wrong"]
    return found, done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mpi")


@pytest.mark.parametrize("name", list(mpi_program.CHECKS))
@pytest.mark.parametrize("door", list(DOORS))
def test_check(folder: Path, door: str, name: str) -> None:
    found, done = outcomes(folder, door)
    assert name in found, f"it was not reached: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert not found[name], found[name]


@pytest.mark.parametrize("door", list(DOORS))
def test_a_program_ends_in_peace_and_has_shown_what_was_printed(folder: Path, door: str) -> None:
    _, done = outcomes(folder, door)
    assert done.returncode == 0, done.stderr[-4000:]
    assert all(f"printed {x}" in done.stdout for x in range(3))


WORKS = """
    from parallel_core import Parallel, delayed
    assert Parallel(backend="mpi")(delayed(abs)(-x) for x in range(6)) == list(range(6))
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [("sys.exit(3)", 3), ("sys.exit('in words')", 1), ("raise LookupError('at the end')", 1)],
)
def test_the_status_is_that_of_rank_zero(tmp_path: Path, ending: str, code: int) -> None:
    script = program(tmp_path, WORKS + f"    import sys\n    {ending}\n")
    done = mpiexec(tmp_path, "-m", "parallel_core.mpi", script)
    assert done.returncode == code, done.stderr
    assert "sys" in ending or "at the end" in done.stderr


def test_a_task_that_cannot_be_stopped_does_not_keep_the_program(tmp_path: Path) -> None:
    text = """
        import sys
        from parallel_core import Parallel, TaskTimeoutError, delayed

        def compute():
            return len(str(7 ** 10 ** 8))  # for minutes, and no signal is heard meanwhile

        tasks = [delayed(compute)(), delayed(abs)(-1)]
        got = Parallel(backend="mpi", timeout=0.2, on_error="return")(tasks)
        print(type(got[0]).__name__, got[1], flush=True)
        print(Parallel(1, "mpi")(delayed(abs)(-x) for x in range(3)), flush=True)
        sys.exit(7)
    """
    done = mpiexec(tmp_path, "-m", "parallel_core.mpi", program(tmp_path, text))
    assert "TaskTimeoutError 1" in done.stdout, done.stdout + done.stderr
    assert "[0, 1, 2]" in done.stdout, done.stderr
    assert done.returncode == 7, done.stderr


def test_modules_and_code_are_run_as_python_runs_them(tmp_path: Path) -> None:
    program(tmp_path, WORKS + "    import sys\n    print(__name__, sys.argv[1:])\n")
    done = mpiexec(tmp_path, "-m", "parallel_core.mpi", "-m", "script", "a", "b")
    assert (done.returncode, done.stdout) == (0, "__main__ ['a', 'b']\n"), done.stderr
    code = "import sys; print(__name__, sys.argv)"
    done = mpiexec(tmp_path, "-m", "parallel_core.mpi", "-c", code, "a")
    assert (done.returncode, done.stdout) == (0, "__main__ ['-c', 'a']\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no script is given"),
        (("missing.py",), "no file 'missing.py'"),
        (("-m",), "needs an argument"),
        (("--wrong",), "unknown option --wrong"),
    ],
)
def test_a_wrong_command_line_is_told_once(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = mpiexec(tmp_path, "-m", "parallel_core.mpi", *arguments)
    assert done.returncode == 2 and done.stderr.count(said) == 1, done.stderr


LONELY = """
    from parallel_core import Parallel, delayed
    try:
        Parallel(backend="mpi")(delayed(print)("run") for _ in range(2))
    except RuntimeError as error:
        print(f"RuntimeError: {error}", flush=True)
"""


def test_one_rank_is_told_what_to_do(tmp_path: Path) -> None:
    script = program(tmp_path, LONELY)
    for arguments in (
        (script,),
        ("-m", "parallel_core.mpi", script),
        ("-m", "mpi4py.futures", script),
    ):
        done = mpiexec(tmp_path, *arguments, ranks=1)
        assert done.returncode == 0, done.stderr
        assert "rank 0 is the only one" in done.stdout and "mpiexec -n 4" in done.stdout
        assert "run" not in done.stdout.split("start the program")[0].replace("RuntimeError", "")


def test_a_script_that_runs_in_all_ranks_is_told_what_to_do(tmp_path: Path) -> None:
    done = mpiexec(tmp_path, program(tmp_path, LONELY))
    assert done.returncode == 0, done.stderr
    assert "all 3 ranks of MPI run this script" in done.stdout, done.stdout


RANK = """
import os, pickle, sys
from parallel_core.backends.cluster.mpi_links import Address, Hello, SocketLink
from parallel_core.backends.cluster.mpi_serving import serve
address = Address(*pickle.loads(bytes.fromhex(sys.argv[1])))
link = SocketLink(address, None)
link.send(Hello(int(sys.argv[2]), os.getpid(), "here", True, ""))
serve(link, address.environment)
"""


@pytest.fixture
def ranks() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that serve this one as ranks of MPI do, and that a launcher would let die alone."""
    meeting = Meeting()
    given = pickle.dumps(tuple(meeting.address)).hex()
    started = [
        subprocess.Popen([sys.executable, "-c", RANK, given, str(rank)], env=PLAIN)
        for rank in (1, 2)
    ]
    found = []
    for _ in started:
        came = meeting.accept(60)
        assert came is not None
        hello, channel = came
        link = SocketRankLink(channel, hello.pid)
        found.append(Rank(hello.rank, hello.pid, hello.host, link))
    meeting.close()
    note_ranks(Ranks(found))
    try:
        yield started
    finally:
        end_ranks()
        for process in started:
            process.wait(60)


def die(x: int, of: int) -> int:
    if x == of:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_a_rank_that_dies_costs_its_task(ranks: list[subprocess.Popen[bytes]]) -> None:
    parallel = Parallel(backend="mpi", on_error="return", batch_size=1)
    got = parallel(delayed(die)(x, 5) for x in range(12))
    assert got[:5] + got[6:] == [x for x in range(12) if x != 5]
    assert isinstance(got[5], WorkerDiedError)
    assert "a worker process (rank " in str(got[5]) and "has ended at task 5" in str(got[5])
    assert Parallel(backend="mpi")(delayed(abs)(-x) for x in range(6)) == list(range(6))
    (dead,) = [process for process in ranks if process.poll() is not None]
    assert dead.wait() == -signal.SIGKILL


def test_where_all_ranks_have_died_the_error_says_so(
    ranks: list[subprocess.Popen[bytes]],
) -> None:
    with pytest.raises(WorkerDiedError, match="rank"):
        Parallel(backend="mpi", batch_size=1)(delayed(die)(x, x) for x in range(4))
    for process in ranks:
        process.kill()
        process.wait()
    with pytest.raises(RuntimeError, match="all 2 ranks that worked have ended"):
        Parallel(backend="mpi")(delayed(abs)(x) for x in range(4))


def test_ranks_end_with_a_rank_zero_that_says_nothing(
    ranks: list[subprocess.Popen[bytes]],
) -> None:
    found = known_ranks()
    assert found is not None
    for rank in found.all:
        rank.close()
    assert [process.wait(60) for process in ranks] == [1, 1]


def test_without_a_library_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    package = tmp_path / "mpi4py"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "MPI.py").write_text("raise RuntimeError('cannot load MPI library')")
    script = program(tmp_path, LONELY)
    env = {**PLAIN, "PYTHONPATH": os.pathsep.join([str(tmp_path), PLAIN["PYTHONPATH"]])}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert "finds no MPI library" in done.stdout and "cannot load MPI library" in done.stdout
    assert "pip install mpich" in done.stdout


def test_without_mpi4py_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r"parallel-core\[mpi\]"):
        Parallel(backend="mpi")(delayed(abs)(x) for x in range(2))
    with pytest.raises(ImportError, match=r"parallel-core\[mpi\]"):
        WorkerPool(start_method="mpi")


def test_an_executor_of_mpi4py(folder: Path) -> None:
    name = program(
        folder,
        """
        from mpi4py.futures import MPIPoolExecutor
        from parallel_core import Parallel, delayed, effective_n_jobs, parallel_config

        def area(radius):
            return 3 * radius * radius

        if __name__ == "__main__":
            with MPIPoolExecutor() as executor:
                with parallel_config(backend=executor):
                    print(effective_n_jobs(-1))
                parallel = Parallel(n_jobs=-1, backend=executor, on_error="return")
                print(parallel(delayed(area)(radius) for radius in [1, 2, None, 4])[::3])
                print(type(parallel(delayed(area)(radius) for radius in [None])[0]).__name__)
        """,
    )
    done = mpiexec(folder, "-m", "mpi4py.futures", name)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split("\n")[:3] == ["2", "[3, 48]", "TypeError"]
