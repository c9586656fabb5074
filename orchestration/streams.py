"""The standard streams of a process, if the user closed them or nobody reads them any more."""

import errno
import io
import os
import sys
from typing import TextIO

# The errors of a write to a pipe without a reader, to a closed terminal, and to a closed file.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


def open_standard_streams() -> None:
    """Connect standard streams that are closed (`2>&-`) to the null device.

    Otherwise the next file that is opened gets the stream's number, and C code writes its messages into that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            stream = open(number, mode, closefd=False, errors="backslashreplace")  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


class Lenient(io.FileIO):
    """An output file that drops what is written to it once nobody reads it.

    Standard error also drops what does not fit on a full disk: the run loses messages, but goes on.
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
    """Let this process go on if nobody reads its output any more, or the encoding lacks a character.

    `| head -1` and a closed terminal would otherwise end it with a traceback in the middle of its work.
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
