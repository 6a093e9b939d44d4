"""torch's tensors are shared as arrays are."""

from __future__ import annotations

from typing import Any

import pytest

from parallel_core import Parallel, delayed

torch: Any = pytest.importorskip("torch", reason="torch is not installed")

N = 300_000


def look(tensor: Any, i: int) -> tuple[str, float, bool]:
    """Return where the memory comes from, and what is in it."""
    maps = open_maps()
    address = tensor.data_ptr()
    shared = any(low <= address < high and name for low, high, name in maps)
    return str(tensor.dtype), float(tensor.reshape(-1)[i]), shared


def open_maps() -> list[tuple[int, int, bool]]:
    """Return what is mapped, and whether it is a file or shared memory."""
    found = []
    with open("/proc/self/maps") as lines:
        for line in lines:
            span, *_, inode, name = (*line.split(maxsplit=5), "")[:6]
            low, high = (int(end, 16) for end in span.split("-"))
            found.append((low, high, inode != "0" and not name.strip().endswith(".so")))
    return found


def write(tensor: Any) -> float:
    tensor += 1
    return float(tensor[0])


def make(i: int, kind: str) -> Any:
    whole = torch.full((N,), float(i))
    return {
        "whole": whole,
        "part": whole[::2],
        "matrix": whole.reshape(600, 500).T,
        "bfloat16": whole.to(torch.bfloat16),
        "grad": whole.requires_grad_(),
        "small": whole[:3].clone(),
        "within": {"tensors": [whole]},
    }[kind]


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "complex64"])
def test_an_argument_is_in_shared_memory(dtype: str) -> None:
    tensor = torch.ones(N * 8, dtype=getattr(torch, dtype))
    if dtype == "complex64":
        tensor = tensor.real
    found = Parallel(2)(delayed(look)(tensor, i) for i in range(4))
    expected = "torch.float32" if dtype == "complex64" else f"torch.{dtype}"
    assert found == [(expected, 1.0, True)] * 4


@pytest.mark.parametrize("backend", ["processes", "loky"])
def test_views_have_the_right_elements(backend: str) -> None:
    tensor = torch.arange(N * 8, dtype=torch.float32).reshape(N, 8)
    views = [tensor, tensor[7:], tensor.T, tensor[:, 3], tensor[::5], tensor[0].expand(N, 8)]
    found = Parallel(2, backend=backend)(delayed(torch.clone)(view) for view in views)
    assert all(torch.equal(one, view) for one, view in zip(found, views, strict=True))


def test_what_a_task_writes_stays_in_the_task() -> None:
    tensor = torch.zeros(N * 8)
    assert Parallel(2)(delayed(write)(tensor) for _ in range(4)) == [1.0] * 4
    assert float(tensor.sum()) == 0.0


def test_a_change_reaches_the_next_task() -> None:
    tensor = torch.zeros(N * 8)

    def tasks() -> Any:
        for i in range(6):
            tensor[i] = i + 1
            yield delayed(look)(tensor, i)

    with Parallel(2) as parallel:
        for _ in range(2):
            assert [value for _, value, _ in parallel(tasks())] == [1, 2, 3, 4, 5, 6]
            tensor.zero_()
    for i in range(4):  # another tensor at the same place, perhaps
        another = torch.full((N * 8,), float(i))
        assert Parallel(2)([delayed(look)(another, 0)])[0][1] == i
        del another


@pytest.mark.parametrize("kind", ["whole", "part", "matrix", "bfloat16", "grad", "small", "within"])
def test_results(kind: str) -> None:
    for i, found in enumerate(Parallel(2)(delayed(make)(i, kind) for i in range(3))):
        expected = make(i, kind)
        if kind == "within":
            found, expected = found["tensors"][0], expected["tensors"][0]
        assert torch.equal(found, expected) and found.dtype == expected.dtype
        assert found.requires_grad == expected.requires_grad
        with torch.no_grad():
            found += 1  # it is the caller's own


@pytest.mark.parametrize("kind", ["bfloat16", "grad"])
def test_what_numpy_does_not_know_goes_as_ever(kind: str) -> None:
    tensor = make(1, kind).detach().repeat(8)
    tensor.requires_grad_(kind == "grad")
    found = Parallel(2)(delayed(torch.clone)(tensor) for _ in range(2))
    assert all(torch.equal(one, tensor) and one.dtype == tensor.dtype for one in found)
    found = Parallel(2)([delayed(getattr)(tensor, "requires_grad")])
    assert found == [kind == "grad"]


def total(module: Any) -> tuple[float, bool]:
    return float(sum(p.sum() for p in module.parameters()).detach()), module.weight.requires_grad


def test_a_module_s_parameters() -> None:
    module = torch.nn.Linear(1000, 1000)
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.bias.fill_(0.0)
    assert Parallel(2)(delayed(total)(module) for _ in range(3)) == [(1e6, True)] * 3
