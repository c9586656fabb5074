"""Logs of processes that may run for a year: what is written goes to the end, so another process may empty the file."""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import IO


def open_log(path: Path) -> IO[str]:
    """Empty the log `path`, and open it for a process that will write to it."""
    path.write_text("")
    return path.open("a")


def bound_log(path: Path, most: int) -> None:
    """Move what a log holds into PATH.1, in place of what is there, once it has more than `most` bytes.

    Lines that are written between the copy and the cut are lost.
    """
    with suppress(OSError):  # it was removed, or cannot be copied, as on a full disk
        if path.stat().st_size <= most:
            return
        with suppress(OSError):
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
        os.truncate(path, 0)
