"""The signals that end a program: the first one raises KeyboardInterrupt, and later ones are ignored."""

import signal
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_caught: list[int] = []


def catch_signals() -> None:
    """Raise KeyboardInterrupt on the first SIGINT, SIGTERM or SIGHUP, and ignore later ones.

    SIGINT is caught even if it was ignored, as in what a shell starts in the background, because Ctrl-C ends `make ui`.
    SIGHUP stays ignored if it was, as under `nohup`.
    """

    def interrupt(number: int, _: object) -> NoReturn:
        _caught.append(number)
        ignore_signals()
        raise KeyboardInterrupt

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def has_caught_signal() -> bool:
    return bool(_caught)


def ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
