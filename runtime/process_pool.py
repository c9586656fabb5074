"""A process pool for work that holds the GIL."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from runtime.isolated_process import end_with_parent, without_main_module


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def process_pool(max_processes: int) -> Iterator[Executor]:
    """Yield a pool of as many processes as there are cores, at most `max_processes`.

    They end with this process, and Ctrl-C reaches this process alone.
    """
    count = min(usable_cores(), max_processes)
    with (
        without_main_module(),
        ProcessPoolExecutor(count, get_context("spawn"), initializer=end_with_parent) as processes,
    ):
        with interrupts_put_off():  # a process that starts now inherits the blocked signal
            for _ in range(count):
                processes.submit(os.getpid)
        try:
            yield processes
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def interrupts_put_off() -> Iterator[None]:
    """Block SIGINT, and raise one that came meanwhile after the block.

    The mask is of this thread alone: another one (Prefect's, say) takes the signal, and Python runs the handler in
    the main thread all the same. There it would end the start of a process half-way, whose traceback follows.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if in_main_thread else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if came:
            signal.raise_signal(signal.SIGINT)
