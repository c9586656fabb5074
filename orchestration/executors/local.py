"""Run the stages' commands in processes of this machine: forks where possible, else a shell.

A command that is exactly `python -m MODULE WORD ...` runs in a fork of a server that has imported Prefect (preload.py)
and, for a run with trainings, TensorFlow and Keras (preload_training.py): it starts in 0.03 s instead of seconds. Any
other command runs in the shell, as in DVC. With a GPU every command does, because the state of a GPU driver does not
survive a fork.
Each process leads a session of its own, so that Ctrl-C reaches it once, through the flow.
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

from runtime.isolated_process import end_with_parent, fork_spare, without_main_module

# Seconds that a stage gets to restore its outputs before it is killed.
STOP_SECONDS = 20
PLAIN_COMMAND = re.compile(r"python3? -m [\w.]+( [\w@.-]+)*")

Emit = Callable[[str], None]  # gets each line that a command prints


@dataclass
class Processes:
    """The running commands. warm: fork where possible. stopping: no command may start any more."""

    warm: bool
    running: set[int] = field(default_factory=set)
    stopping: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class NoForkServer(Exception):
    """The fork server has ended, or could not start."""


class Stopped(Exception):
    """The run is being stopped."""


def start_fork_server(trains: bool) -> None:
    """Start the fork server if it does not run; it imports its modules while this process goes on.

    trains: whether stages will run that import Keras.
    """
    set_forkserver_preload([f"orchestration.executors.{'preload_training' if trains else 'preload'}"])
    with without_main_module():
        forkserver.ensure_running()


@contextmanager
def open_processes(warm: bool, trains: bool) -> Iterator[Processes]:
    """Yield the processes of a run; none is left when the block ends, however it ends.

    Args:
        warm: fork where possible.
        trains: whether stages will run that import Keras.
    """
    if warm:
        start_fork_server(trains)
    processes = Processes(warm)
    try:
        yield processes
    finally:
        stop(processes)


def run(
    processes: Processes, command: str, environment: dict[str, str], emit: Emit, spare_process: bool = False
) -> int:
    """Run a command.

    Args:
        processes: those of the run, to which this one is added.
        command: for a shell.
        environment: of the command.
        emit: gets the lines that it prints.
        spare_process: whether a fork keeps a spare process, see `runtime.isolated_process.fork_spare`.

    Returns:
        Its exit code; -9 if signal 9 has killed it.

    Raises:
        Stopped: the run is being stopped.
    """
    if processes.warm and PLAIN_COMMAND.fullmatch(command):
        try:
            return run_in_fork(processes, shlex.split(command)[2:], environment, emit, spare_process)
        except NoForkServer as error:
            emit(f"The fork server does not run ({error}): the command starts in a new interpreter.")
    return run_in_shell(processes, command, environment, emit)


def run_in_shell(processes: Processes, command: str, environment: dict[str, str], emit: Emit) -> int:
    """Run a command as DVC does, by a shell; for Args, Returns and Raises see `run`."""
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


def run_in_fork(
    processes: Processes, words: list[str], environment: dict[str, str], emit: Emit, spare_process: bool
) -> int:
    """Run `python -m WORDS` in a fork; for Args, Returns and Raises see `run`. Also raises NoForkServer."""
    receiver, sender = get_context("forkserver").Pipe(duplex=False)
    arguments = (sender, words, environment, spare_process)
    process = get_context("forkserver").Process(target=run_stage_in_fork, args=arguments)
    with processes.lock, without_main_module():
        refuse_when_stopping(processes)
        try:
            process.start()
        except (OSError, EOFError) as error:
            raise NoForkServer(f"{type(error).__name__}: {error}") from error
        sender.close()
        assert process.pid
        processes.running.add(process.pid)
    with os.fdopen(os.dup(receiver.fileno()), errors="replace") as lines:
        receiver.close()
        for line in lines:
            emit(line.rstrip("\n"))
    process.join()
    return ended(processes, process.pid, process.exitcode or 0)


def refuse_when_stopping(processes: Processes) -> None:
    if processes.stopping:
        raise Stopped


def ended(processes: Processes, pid: int, code: int) -> int:
    """Return the exit code of a command that has ended; raises Stopped if it failed while the run is being stopped."""
    processes.running.discard(pid)
    if code:
        refuse_when_stopping(processes)
    return code


def stop(processes: Processes) -> None:
    """Ask every running command to end, wait until it has restored its outputs, and kill those that do not end."""
    with processes.lock:
        processes.stopping = True
        pids = [*processes.running]
    leaders = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    for pid in pids:
        signal_session(pid, signal.SIGTERM)
    psutil.wait_procs(leaders, timeout=STOP_SECONDS)
    for pid in pids:
        signal_session(pid, signal.SIGKILL)


def signal_session(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, number)


def run_stage_in_fork(output: Connection, words: list[str], environment: dict[str, str], spare_process: bool) -> None:
    """Do in a forked process what `python -m WORDS` does in a new one.

    Args:
        output: gets what it prints.
        words: the module and its arguments.
        environment: of the command.
        spare_process: whether it keeps a spare process.
    """
    os.setsid()
    end_with_parent()  # the fork server
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    output.close()
    sys.stdout = open(1, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    if spare_process:
        fork_spare()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:
        # A process of multiprocessing skips what Python does at its exit.
        import atexit

        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
