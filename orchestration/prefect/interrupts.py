"""The signals that end a program: the first one raises KeyboardInterrupt, those after it are ignored."""

import signal
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def catch_signals() -> None:
    """Have the first of SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, and those after it ignored.

    A shell has SIGINT ignored in what it starts in the background; it is caught all the same, for Ctrl-C ends us.
    SIGHUP stays ignored where it is, as under `nohup`.
    """

    def interrupt(*_: object) -> NoReturn:
        ignore_signals()
        raise KeyboardInterrupt

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
