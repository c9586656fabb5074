"""The requests that compute: a few at once, in threads beside the event loop, and a short queue."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TypeVar

from serving.limits import Limits
from serving.refusal import later

Made = TypeVar("Made")


class Slots:
    """Runs functions in a bounded number of threads. computing, waiting: how many do so now."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pool = ThreadPoolExecutor(limits.computing, "compute")
        self.free = asyncio.Semaphore(limits.computing)
        self.computing = self.waiting = 0

    async def run(self, work: Callable[[], Made]) -> Made:
        """Return what `work` returns; raises Refusal if too many wait already, or if it takes too long.

        TensorFlow cannot be interrupted, so the thread of a request that took too long is free only when it ends.
        """
        try:
            async with asyncio.timeout(self.limits.seconds):
                await self.wait_for_turn()
                self.computing += 1
                future = asyncio.get_running_loop().run_in_executor(self.pool, work)
                future.add_done_callback(self.end)
                return await asyncio.shield(future)
        except TimeoutError:
            told = f"the answer took more than {self.limits.seconds:g} s."
            raise later(HTTPStatus.GATEWAY_TIMEOUT, told) from None

    async def wait_for_turn(self) -> None:
        if not self.free.locked():
            await self.free.acquire()
            return
        if self.waiting >= self.limits.waiting:
            told = f"{self.computing} requests compute and {self.waiting} wait; try again."
            raise later(HTTPStatus.SERVICE_UNAVAILABLE, told)
        self.waiting += 1
        try:
            await self.free.acquire()
        finally:
            self.waiting -= 1

    def end(self, future: asyncio.Future) -> None:
        self.computing -= 1
        self.free.release()
        if not future.cancelled():
            future.exception()  # of a request that nobody waits for any more
