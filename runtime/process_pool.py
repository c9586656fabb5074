"""Processes that work beside this one, at what would let no other thread of it go on."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from runtime.isolated_process import end_with_parent, without_main_module


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def processes_beside(most: int) -> Iterator[Executor]:
    """Yield what runs functions in as many processes as there are cores, but no more than `most`.

    They end with this one, and leave Ctrl-C to it.
    """
    count = min(usable_cores(), most)
    with (
        without_main_module(),
        ProcessPoolExecutor(count, get_context("spawn"), initializer=end_with_parent) as processes,
    ):
        with interrupts_blocked():  # which a process that starts now inherits
            for _ in range(count):
                processes.submit(os.getpid)
        try:
            yield processes
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
