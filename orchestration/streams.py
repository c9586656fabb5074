"""The standard streams of a process, where the user closed them or nobody reads them any more."""

import errno
import io
import os
import sys
from typing import TextIO

# What a write to a pipe without a reader, to a terminal that is gone, or to a closed file ends in.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


def open_standard_streams() -> None:
    """Open those of the standard streams that are closed (`2>&-`) onto the null device.

    Otherwise the next file that is opened gets the number, and C code writes its messages into that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            stream = open(number, mode, closefd=False, errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


class Lenient(io.FileIO):
    """A file to write to, which drops what it is given once nobody is there to read it.

    Of standard error it also drops what a full disk does not take: what a run says is lost, not what it does.
    """

    def write(self, data) -> int:
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno == errno.ENOSPC and self.fileno() == 2:
                return len(data)
            if error.errno not in GONE:
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            return len(data)


def make_streams_lenient() -> None:
    """Let this process go on when nobody reads its output any more, or the encoding lacks a character of it.

    `| head -1` and a terminal that was closed would end it with a traceback in the middle of what it does.
    """
    sys.stdout, sys.stderr = lenient(sys.stdout), lenient(sys.stderr, line_buffering=True)


def lenient(stream: TextIO, line_buffering: bool = False) -> TextIO:
    stream.flush()
    raw = Lenient(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=line_buffering or stream.isatty() or getattr(stream, "write_through", False),
    )
