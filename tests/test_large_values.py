"""Large globals and objects: each worker loads them once a call, and tasks share them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import environment

from watching import LIMIT

pytestmark = pytest.mark.warm_workers

Run = Callable[[str], subprocess.CompletedProcess[str]]

BEGIN = """
import os, sys
from parallel_core import Parallel, delayed

N = 100_000

class Table:
    "Holds something large; its own attributes are small."
    def __init__(self):
        self.words = {i: f"word {i}" for i in range(N)}
        self.calls = 0

    def where(self, i):
        self.calls += 1
        return os.getpid(), id(self.words), self.words[i], self.calls

    def __call__(self, i):
        return self.where(i)

D = {i: f"word {i}" for i in range(N)}
table = Table()
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run what is given as a script, after the beginning above."""

    def run(text: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "script.py"
        path.write_text(BEGIN + textwrap.dedent(text))
        return subprocess.run(
            [sys.executable, str(path)],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    return run


def prints(done: subprocess.CompletedProcess[str], *lines: str) -> None:
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines() == list(lines)


@pytest.mark.core
@pytest.mark.parametrize("function", ["of_global", "of_object", "table.where", "table"])
def test_each_worker_loads_it_once(run: Run, function: str) -> None:
    done = run(f"""
        def of_global(i, seen=[]):
            seen.append(i)
            return os.getpid(), id(D), D[i], len(seen)

        def of_object(i):
            return table.where(i)

        found = Parallel(2, batch_size=3)(delayed({function})(i) for i in range(30))
        print([words for _, _, words, _ in found] == [f"word {{i}}" for i in range(30)])
        print(len({{pid for pid, *_ in found}}) == len({{(pid, obj) for pid, obj, *_ in found}}))
        print({{calls for *_, calls in found}})
    """)
    prints(done, "True", "True", "{1}")  # what is small is put back


@pytest.mark.parametrize("backend", ["loky", "executor"])
def test_with_other_engines(run: Run, backend: str) -> None:
    done = run(f"""
        from concurrent.futures import ProcessPoolExecutor
        import multiprocessing

        def read(i):
            return D[i], table.words[i]

        if __name__ == "__main__":
            backend = "{backend}"
            if backend == "executor":
                context = multiprocessing.get_context("fork")
                backend = ProcessPoolExecutor(2, mp_context=context)
            parallel = Parallel(2, backend=backend)
            print(parallel(delayed(read)(i) for i in range(3)))
            print([w for _, _, w, _ in parallel(delayed(table.where)(i) for i in range(3))])
            backend == "loky" or backend.shutdown()
    """)
    words = ["word 0", "word 1", "word 2"]
    prints(done, str([(word, word) for word in words]), str(words))


@pytest.mark.core
@pytest.mark.parametrize(
    "change", ["D[N] = 'new'", "D = {**D, N: 'new'}", "D.pop(0); D[N] = 'new'"]
)
def test_a_change_by_the_caller_reaches_the_next_task(run: Run, change: str) -> None:
    done = run(f"""
        def last(i):
            return D.get(N, "old")

        def tasks():
            global D
            for i in range(4):
                if i == 2:
                    {change}
                yield delayed(last)(i)

        print(Parallel(2, batch_size=4)(tasks()))
        D.pop(N)
        print(Parallel(2)(delayed(last)(i) for i in range(2)))
    """)
    prints(done, "['old', 'old', 'new', 'new']", "['old', 'old']")


def test_a_change_of_an_object_reaches_the_next_task(run: Run) -> None:
    done = run("""
        def read(i):
            return table.words[0], table.calls

        def tasks(function):
            yield delayed(function)(0)
            table.words[0], table.calls = "changed", 7
            yield delayed(function)(0)
            table.words = {0: "another", **dict.fromkeys(range(1, N), "other words")}
            yield delayed(function)(0)

        print(Parallel(2)(tasks(read)))
        table = Table()
        print([found[2:] for found in Parallel(2)(tasks(table.where))])
    """)
    prints(
        done,
        "[('word 0', 0), ('changed', 7), ('another', 7)]",
        "[('word 0', 1), ('changed', 8), ('another', 8)]",
    )


@pytest.mark.core
@pytest.mark.parametrize("return_as", ["list", "generator"])
def test_a_change_that_was_missed_is_an_error(run: Run, return_as: str) -> None:
    done = run(f"""
        from parallel_core.errors import ChangedValueError
        from parallel_core.serialization import large
        large._CALLER_SHARE = 0.0

        def read(i):
            return D[0]

        def tasks():
            for i in range(50):
                if i == 40:
                    D[0] = "changed"
                yield delayed(read)(i)

        try:
            list(Parallel(2, return_as="{return_as}", pre_dispatch="all")(tasks()))
        except ChangedValueError as error:
            print(error)
    """)
    assert "the global 'D' changed in place" in done.stdout, done.stderr


def test_who_consumes_a_generator_may_change_it(run: Run) -> None:
    done = run("""
        from parallel_core.serialization import large
        large._CALLER_SHARE = 0.0

        def read(i):
            return D[i]

        found = Parallel(2, return_as="generator", batch_size=4, pre_dispatch=2)(
            delayed(read)(i) for i in range(40)
        )
        for i, word in enumerate(found):
            if i == 19:
                D[39] = "changed"
        print(word)
    """)
    prints(done, "changed")


@pytest.mark.core
def test_a_task_that_changes_it_is_warned_of(run: Run) -> None:
    done = run("""
        def change(i):
            D[i] = "changed"

        Parallel(2, batch_size=1)(delayed(change)(i) for i in range(2))
        Parallel(2, batch_size=1)(delayed(table.words.update)({0: "changed"}) for i in range(2))
    """)
    assert done.returncode == 0, done.stderr
    assert "RuntimeWarning: a task has changed the global 'D' in place" in done.stderr
    assert "changed the dict that is called" in done.stderr or "update" not in done.stderr


@pytest.mark.core
def test_what_was_one_object_stays_one(run: Run) -> None:
    done = run("""
        class Node:
            def __init__(self, name):
                self.name = name

        nodes = [Node(str(i) * 2000) for i in range(1000)]
        places = {node: i for i, node in enumerate(nodes)}
        root = nodes[7]

        class Tree:
            def __init__(self):
                self.nodes = nodes
                self.root = root
                self.owned = Node("owned")

            def find(self, node=None):
                return self.nodes.index(self.root if node is None else node)

        def find(i):
            return nodes.index(root), places[root], places[nodes[i]]

        tree = Tree()
        parallel = Parallel(2)
        print(parallel(delayed(find)(i) for i in range(2)))
        print(parallel(delayed(tree.find)() for i in range(2)))
        print(parallel(delayed(tree.find)(nodes[i]) for i in range(2)))

        def tasks():
            for i in range(2):
                tree.root = nodes[i]
                yield delayed(tree.find)()

        print(parallel(tasks()))
        nodes[3].owner = tree
        print(parallel(delayed(tree.find)(nodes[i]) for i in range(2)))
    """)
    prints(done, "[(7, 7, 0), (7, 7, 1)]", "[7, 7]", "[0, 1]", "[0, 1]", "[0, 1]")


def test_an_open_file_beside_it(run: Run) -> None:
    done = run("""
        file = open(__file__)
        held = [file, list(range(10**6))]

        def read(i):
            return held[0].readline(), held[1][i]

        print(Parallel(2)(delayed(read)(i) for i in range(3)))
        file.close()
    """)
    prints(done, "[('\\n', 0), ('\\n', 1), ('\\n', 2)]")


def test_a_task_that_fails_is_replayed(run: Run) -> None:
    done = run("""
        def fail(i):
            return D[-1]

        class Failing(Table):
            def fail(self):
                return self.words[-1]

        for function, args in ((fail, (0,)), (Failing().fail, ())):
            try:
                Parallel(2)(delayed(function)(*args) for _ in range(2))
            except KeyError as error:
                try:
                    error.replay()
                except KeyError as again:
                    print(again)
    """)
    prints(done, "-1", "-1")


def test_several_large_values_of_one_class(run: Run) -> None:
    done = run("""
        class Words:
            first = {i: f"first {i}" for i in range(N)}
            second = {i: f"second {i}" for i in range(N)}

            def get(self, i):
                return self.first[i], Words.second[i], D[i]

        def get(i, words=Words):
            return words().get(i)

        print(Parallel(2)(delayed(get)(i) for i in range(2)))
        print(Parallel(2)(delayed(Words().get)(i) for i in range(2)))
    """)
    line = "[('first 0', 'second 0', 'word 0'), ('first 1', 'second 1', 'word 1')]"
    prints(done, line, line)
