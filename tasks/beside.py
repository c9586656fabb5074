"""Processes that work beside this one, at what would let no other thread of it go on."""

import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

from config.params import usable_cores
from tasks.fresh import end_with_parent, without_main_module


@contextmanager
def processes_beside(most: int) -> Iterator[Executor]:
    """Yield what runs functions in as many processes as there are cores, but no more than `most`."""
    processes = min(usable_cores(), most)
    with without_main_module(), ProcessPoolExecutor(processes, get_context("spawn"), initializer=follow) as executor:
        yield executor


def follow() -> None:
    """Leave Ctrl-C to the process that started this one, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
