"""What the server prints: messages at once, and a line for each request a moment later, from a thread of its own.

A line has the path without its query, and nothing of headers and bodies: no token, and no value of a row.
"""

import sys
import threading
import time
from collections import deque
from contextlib import suppress

FLUSH_SECONDS = 0.25
MAX_LINES = 100_000  # that wait to be printed; if nobody reads them, the oldest go
MAX_PATH = 200


def say(text: str) -> None:
    """Print a message with the time."""
    with suppress(OSError, ValueError):  # nobody reads it any more
        print(stamped(time.time(), text), flush=True)


def stamped(seconds: float, text: str) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(seconds))} {text}"


class AccessLog:
    """The lines of requests. A request appends one and does not wait until it is printed."""

    def __init__(self) -> None:
        self.lines: deque[tuple[float, str]] = deque(maxlen=MAX_LINES)
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, name="access log", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def add(self, text: str) -> None:
        self.lines.append((time.time(), text))

    def run(self) -> None:
        while not self.ending.wait(FLUSH_SECONDS):
            self.flush()
        self.flush()

    def flush(self) -> None:
        taken = []
        with suppress(IndexError):
            while True:
                taken.append(stamped(*self.lines.popleft()))
        if taken:
            with suppress(OSError, ValueError):
                sys.stdout.write("\n".join(taken) + "\n")
                sys.stdout.flush()

    def stop(self) -> None:
        self.ending.set()
        self.thread.join()


def line(method: str, path: str, status: int, seconds: float, rows: int, version: str) -> str:
    """Return the line of a request.

    Args:
        method: of HTTP.
        path: as it came, without the query.
        status: of the answer.
        seconds: that it took.
        rows: that were computed.
        version: that has computed, "" for none.
    """
    shown = path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}..."
    computed = f" {rows} rows by {version}" if rows else ""
    return f"{method} {shown} {status} {1000 * seconds:.1f} ms{computed}"
