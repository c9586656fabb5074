"""Waiting for what another process does, and finding it."""

import time
from collections.abc import Callable
from typing import Any

import psutil


def wait_for(look: Callable[[], Any], told: Callable[[], object] | str = "", seconds: float = 240) -> Any:
    """Return what `look` returns as soon as that is true.

    Args:
        look: called again and again.
        told: says, or returns, what the failure of the test shows when the time is over.
        seconds: the longest wait.
    """
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain: {told() if callable(told) else told}"
        time.sleep(0.2)
    return found


def words_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process; nothing where it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
