"""The processes that run the stages' commands: forks with the imports done where they can be, else a shell.

A command that is exactly `python -m MODULE WORD ...` runs in a fork of a server that has TensorFlow, Keras and Prefect
imported (preload.py), which takes 0.03 s to start instead of seconds. Anything else goes to the shell, as in DVC, and
so does everything where a GPU is used: what a driver holds must not be forked.
Each process is the head of a session, so that Ctrl-C reaches it through us alone, once.
"""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import forkserver, get_context, set_forkserver_preload
from multiprocessing.connection import Connection

import psutil

from runtime.isolated_process import end_with_parent, keep_spare, without_main_module

# Seconds that a stage gets to put its outputs back before it is killed.
STOP_SECONDS = 20
PLAIN_COMMAND = re.compile(r"python3? -m [\w.]+( [\w@.-]+)*")

Emit = Callable[[str], None]  # gets each line that a command prints


@dataclass
class Processes:
    """The commands that are running. stopping: none may start any more."""

    warm: bool
    running: set[int] = field(default_factory=set)
    stopping: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class NoForkServer(Exception):
    """The server that stages are forked from has ended, or could not start."""


class Stopped(Exception):
    """The run is being stopped."""


def import_ahead() -> None:
    """Start the server that stages are forked from, if it does not run; it does its imports while we go on."""
    set_forkserver_preload(["orchestration.executors.preload"])
    with without_main_module():
        forkserver.ensure_running()


@contextmanager
def open_processes(warm: bool) -> Iterator[Processes]:
    """Yield the processes of a run; at the block's end none is left, however it ends. warm: fork where it can be."""
    if warm:
        import_ahead()
    processes = Processes(warm)
    try:
        yield processes
    finally:
        stop(processes)


def run(processes: Processes, command: str, environment: dict[str, str], emit: Emit) -> int:
    """Run `command`, hand over the lines that it prints, and return its exit code (-9: killed by signal 9).

    Raises Stopped when the run is being stopped.
    """
    if processes.warm and PLAIN_COMMAND.fullmatch(command):
        try:
            return run_warm(processes, shlex.split(command)[2:], environment, emit)
        except NoForkServer as error:
            emit(f"The server that stages are forked from does not run ({error}): a new interpreter takes its place.")
    return run_cold(processes, command, environment, emit)


def run_cold(processes: Processes, command: str, environment: dict[str, str], emit: Emit) -> int:
    with processes.lock:
        refuse_when_stopping(processes)
        process = subprocess.Popen(
            command,
            shell=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        processes.running.add(process.pid)
    assert process.stdout
    for line in process.stdout:
        emit(line.rstrip("\n"))
    code = process.wait()
    return ended(processes, process.pid, code)


def run_warm(processes: Processes, words: list[str], environment: dict[str, str], emit: Emit) -> int:
    ours, its = get_context("forkserver").Pipe(duplex=False)
    process = get_context("forkserver").Process(target=be_stage, args=(its, words, environment))
    with processes.lock, without_main_module():
        refuse_when_stopping(processes)
        try:
            process.start()
        except (OSError, EOFError) as error:
            raise NoForkServer(f"{type(error).__name__}: {error}") from error
        its.close()
        assert process.pid
        processes.running.add(process.pid)
    with os.fdopen(os.dup(ours.fileno()), errors="replace") as lines:
        ours.close()
        for line in lines:
            emit(line.rstrip("\n"))
    process.join()
    return ended(processes, process.pid, process.exitcode or 0)


def refuse_when_stopping(processes: Processes) -> None:
    if processes.stopping:
        raise Stopped


def ended(processes: Processes, pid: int, code: int) -> int:
    processes.running.discard(pid)
    if code:
        refuse_when_stopping(processes)
    return code


def stop(processes: Processes) -> None:
    """Ask every running command to end, wait for it to put its outputs back, and kill what does not end."""
    with processes.lock:
        processes.stopping = True
        pids = [*processes.running]
    sessions = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    for pid in pids:
        send(pid, signal.SIGTERM)
    psutil.wait_procs(sessions, timeout=STOP_SECONDS)
    for pid in pids:
        send(pid, signal.SIGKILL)


def send(session: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(session, number)


def be_stage(output: Connection, words: list[str], environment: dict[str, str]) -> None:
    """Do in a forked process what `python -m WORDS` does in a new one, and print to `output`."""
    os.setsid()
    end_with_parent()  # the server
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    if words[0] == "flows.train":  # the one that looks at its export from outside
        keep_spare()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        # A child of multiprocessing ends without what Python does at its exit.
        import atexit

        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
