"""Signals: an interrupt is never lost."""

import os
import signal
import sys
import threading
import time

import pytest

from runtime.process_pool import interrupts_put_off


def test_an_interrupt_that_hits_a_destructor_is_delivered_again(monkeypatch):
    from orchestration.command_line import interrupt_again

    class Unlucky:
        def __del__(self):
            raise KeyboardInterrupt

    monkeypatch.setattr(sys, "unraisablehook", interrupt_again)
    with pytest.raises(KeyboardInterrupt):
        destroy_and_wait(Unlucky())


def destroy_and_wait(unlucky: object) -> None:
    del unlucky
    time.sleep(5)


def test_an_interrupt_waits_until_a_process_has_started_whatever_thread_takes_it():
    ended, went_on = threading.Event(), []
    other = threading.Thread(target=ended.wait)  # it does not block SIGINT, so the kernel gives it the signal
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_put_off():
            interrupt_and_go_on(went_on)
    finally:
        ended.set()
        other.join()
    assert went_on


def interrupt_and_go_on(went_on: list[bool]) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    went_on.append(True)
