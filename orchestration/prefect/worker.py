"""The worker of `make ui`: runs what is started in the UI, and stops its runs before it ends.

On a signal, Prefect's own command (`prefect worker start`) kills its runs in the middle of their work. This worker lets
them restore what they have changed.
"""

import asyncio
import signal
import sys
from contextlib import suppress

from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessWorker

from orchestration.prefect.registration import pool_name
from orchestration.prefect.ui_processes import stop_runs

NAME = "heaviside"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Worker(ProcessWorker):
    """A process worker that starts no more runs once it is stopping."""

    stopping = False

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        return [] if self.stopping else await super().get_and_submit_flow_runs()


async def work() -> None:
    """Run what the work pool has until SIGINT, SIGTERM or SIGHUP; then stop the runs, and end."""
    worker = Worker(work_pool_name=pool_name(), name=NAME, create_pool_if_not_found=False)
    signaled = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, signaled.set)
    working = asyncio.create_task(worker.start())
    waiting = asyncio.create_task(signaled.wait())
    await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
    if not working.done():
        worker.stopping = True
        await asyncio.to_thread(stop_runs)
        working.cancel()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await working


if __name__ == "__main__":
    asyncio.run(work())
    sys.exit(0)
