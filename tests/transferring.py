"""Objects on their way from one process to another, without the processes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from memmapping import pages, references, store
from memmapping.reducer import ArrayReducer

#: How changes may be noticed.
BOTH_WAYS = ["tracked", "compared"]


def transfer(way: str, **parameters: Any) -> Iterator[Transfer]:
    if way == "tracked" and not tracks_pages():
        pytest.skip("the kernel does not track written pages here")
    found = Transfer(ArrayReducer(**{"max_nbytes": 1, "check": "always", **parameters}))
    if way == "compared":
        found.reducer._watches = False
    yield found
    found.reducer.close()
    store.free_kept_memory()


def tracks_pages() -> bool:
    try:
        pages.PageWatch().close()
    except pages.Unwatchable:
        return False
    return True


class Transfer:
    """Pickles and unpickles, as if from one process to another."""

    def __init__(self, array_reducer: ArrayReducer) -> None:
        self.reducer = array_reducer

    def pickle(self, obj: Any) -> tuple[bytes, list[Any], list[Any]]:
        outer = self

        class Pickler(pickle.Pickler):
            def reducer_override(self, part: Any) -> Any:
                return outer.reducer.reduce(part)

        file = io.BytesIO()
        Pickler(file, 5, buffer_callback=self.reducer.hand_over).dump(obj)
        uses, self.reducer.uses = self.reducer.uses, []
        buffers, self.reducer.buffers = self.reducer.buffers, []
        return file.getvalue(), buffers, uses

    def unpickle(self, sent: tuple[bytes, list[Any], list[Any]]) -> Any:
        data, buffers, _ = sent
        return pickle.loads(data, buffers=[references.open_buffer(*one) for one in buffers])

    def __call__(self, obj: Any) -> Any:
        return self.unpickle(self.pickle(obj))
