"""Signals: an interrupt is never lost."""

import sys
import time

import pytest


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
