"""Run a program in an isolated process, without this project's code.

Forked stages (orchestration/executors/local.py) keep a spare process, forked beforehand, so that TensorFlow need not be
imported again.
"""

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import ModuleType

from runtime.packages import PACKAGES

OWN_PACKAGES = (*PACKAGES, "benchmarks")
# linux/prctl.h
PR_SET_PDEATHSIG = 1


@dataclass
class Spare:
    """A forked process that waits for its program."""

    process: ForkProcess
    requests: Connection


_spares: list[Spare] = []


def fork_spare() -> None:
    """Fork a process for the next `run_isolated`; it ends with this one."""
    sender, receiver = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=run_isolated_program, args=(receiver,), daemon=True)
    process.start()
    receiver.close()
    _spares.append(Spare(process, sender))


def run_isolated(program: str, arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run a program in an isolated process: the spare one if there is one, else a new interpreter.

    Args:
        program: its text.
        arguments: its command line, `sys.argv[1:]`.
        folder: its current directory.

    Returns:
        Its exit code, and what it wrote to standard error.
    """
    if not _spares:
        return run_program(program, arguments, folder)
    spare = _spares.pop()
    errors = folder / "errors.txt"
    spare.requests.send((program, arguments, str(folder), str(errors)))
    spare.process.join()
    return spare.process.exitcode or 0, errors.read_text(errors="replace")


def run_program(program: str, arguments: list[str], folder: Path) -> tuple[int, str]:
    """Run a program in a new interpreter, which has imported nothing; otherwise as `run_isolated`.

    Args:
        program: its text.
        arguments: its command line, `sys.argv[1:]`.
        folder: its current directory.
    """
    command = [sys.executable, "-I", "-c", program, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def run_isolated_program(requests: Connection) -> None:
    """Wait for a program and run it as `python -I` would, without our modules and the path to them."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the stage, which ends this process
    program, arguments, folder, errors = requests.recv()
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    project = Path.cwd().resolve()
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != project]
    for name in [*sys.modules]:
        if name.partition(".")[0] in OWN_PACKAGES:
            del sys.modules[name]
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
    exec(program, {"__name__": "__main__"})  # noqa: S102  # our own text


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends, for whatever reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def without_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing this process's main module in the processes that the block starts."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
