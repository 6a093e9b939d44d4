"""Waiting in an event loop for another thread: in asyncio's or trio's, without importing any."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from memmapping.modules import loaded

#: Waits until a future is done; cancelling the wait does not cancel the future. With
#: ``shielded=True`` it waits even while being cancelled, and raises that afterwards.
Wait = Callable[..., Awaitable[None]]


def find_loop() -> Wait:
    """Return how to wait in the event loop that this runs in; RuntimeError if none is known."""
    trio = loaded("trio")
    if trio is not None and _is_running(trio.lowlevel.current_task):
        return partial(_wait_in_trio, trio)
    asyncio = loaded("asyncio")
    if asyncio is not None and _is_running(asyncio.get_running_loop):
        return partial(_wait_in_asyncio, asyncio)
    raise RuntimeError(
        "no event loop is running here: await astream() and acall() from asyncio or trio, and call "
        "the Parallel object itself from elsewhere"
    )


def _is_running(find: Callable[[], object]) -> bool:
    try:
        find()
    except RuntimeError:
        return False
    return True


async def _wait_in_asyncio(asyncio: Any, future: Future[Any], shielded: bool = False) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_: object) -> None:
        try:
            loop.call_soon_threadsafe(done.set)
        except RuntimeError:  # the loop is closed: nobody waits
            pass

    future.add_done_callback(wake)
    cancelled: BaseException | None = None
    while not done.is_set():
        try:
            await done.wait()
        except asyncio.CancelledError as error:
            if not shielded:
                raise
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _wait_in_trio(trio: Any, future: Future[Any], shielded: bool = False) -> None:
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()

    def wake(_: object) -> None:
        try:
            token.run_sync_soon(done.set)
        except trio.RunFinishedError:  # nobody waits
            pass

    future.add_done_callback(wake)
    with trio.CancelScope(shield=shielded):
        await done.wait()
    if shielded:
        await trio.lowlevel.checkpoint_if_cancelled()
