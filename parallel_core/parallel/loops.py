"""Waking who waits in an event loop: asyncio's or trio's, found without importing any."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from memmapping.modules import loaded


class Signal(ABC):
    """Set once, in any thread; awaited in the event loop that it was made in."""

    @abstractmethod
    def set(self) -> None:
        """Let those go on who wait."""

    @abstractmethod
    def is_here(self) -> bool:
        """Whether it was made in the event loop that this runs in."""

    @abstractmethod
    async def wait(self) -> None:
        """Wait until it is set."""

    @abstractmethod
    async def wait_shielded(self) -> None:
        """Wait until it is set, even while being cancelled: for who has that to raise already."""

    @abstractmethod
    async def wait_shielded_or_raise(self) -> None:
        """Wait until it is set, even while being cancelled; then raise what came meanwhile."""


class AsyncioSignal(Signal):
    """For asyncio, and loops like it."""

    def __init__(self, asyncio: Any) -> None:
        self._asyncio = asyncio
        self._loop = asyncio.get_running_loop()
        self._future = self._loop.create_future()

    def set(self) -> None:
        """Let those go on who wait."""
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            pass  # the loop is closed: nobody waits

    def is_here(self) -> bool:
        """Whether it was made in the event loop that this runs in."""
        return self._asyncio.get_running_loop() is self._loop

    def _resolve(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._asyncio.shield(self._future)  # it is for others, too

    async def wait_shielded(self) -> None:
        """Wait until it is set; further cancellations add nothing to the first."""
        await self._wait_shielded()

    async def wait_shielded_or_raise(self) -> None:
        """Wait until it is set; then raise the cancellation that came meanwhile."""
        cancelled = await self._wait_shielded()
        if cancelled is not None:
            raise cancelled

    async def _wait_shielded(self) -> BaseException | None:
        cancelled = None
        while not self._future.done():
            try:
                await self._asyncio.shield(self._future)
            except self._asyncio.CancelledError as error:
                cancelled = error
        return cancelled


class TrioSignal(Signal):
    """For trio."""

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def set(self) -> None:
        """Let those go on who wait."""
        try:
            self._token.run_sync_soon(self._event.set)
        except self._trio.RunFinishedError:
            pass  # nobody waits

    def is_here(self) -> bool:
        """Whether it was made in the event loop that this runs in."""
        return self._trio.lowlevel.current_trio_token() is self._token

    async def wait(self) -> None:
        """Wait until it is set."""
        await self._event.wait()

    async def wait_shielded(self) -> None:
        """Wait until it is set."""
        with self._trio.CancelScope(shield=True):
            await self._event.wait()

    async def wait_shielded_or_raise(self) -> None:
        """Wait until it is set; the cancellation that came meanwhile is raised by what follows."""
        await self.wait_shielded()
        await self._trio.lowlevel.checkpoint_if_cancelled()


def new_signal() -> Signal:
    """Return a signal for the event loop that this runs in.

    Raises
    ------
    RuntimeError
        When there is none that is known here.
    """
    trio = loaded("trio")
    if trio is not None and _is_in(trio):
        return TrioSignal(trio)
    asyncio = loaded("asyncio")
    if asyncio is not None:
        try:
            return AsyncioSignal(asyncio)
        except RuntimeError:
            pass
    raise RuntimeError(
        "no event loop is running here: await astream() and acall() from asyncio or trio, and call "
        "the Parallel object itself from elsewhere"
    )


def _is_in(trio: Any) -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
