"""What `make ui` runs: a server and a worker, which start and end together."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn
from uuid import UUID

import psutil
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import State
from prefect.settings import temporary_settings

from config.params import load_params
from orchestration.prefect.automations import register_automations
from orchestration.prefect.dead_runs import end_all_dead_runs, end_dead_runs, server_client
from orchestration.prefect.interrupts import ignore_signals
from orchestration.prefect.log_files import bound_log, open_log
from orchestration.prefect.registration import DEPLOYMENTS, register
from orchestration.prefect.scheduled_runs import show
from orchestration.prefect.server import (
    ADDRESS,
    answers,
    client_environment,
    how_to_sign_in,
    is_alive,
    prefect_home,
    prefect_server,
    refuse_loopback_down,
    start_server,
)
from orchestration.prefect.services import LogWatch, last_lines, repeated_failures
from orchestration.prefect.ui_processes import (
    MARK,
    NO_ANSWER,
    WORKER,
    api_address,
    end_all,
    end_leftovers,
    mark,
    record_of,
    say,
    start_guard,
)
from orchestration.workspace_lock import refuse_unusable_folders
from runtime.errors import UserError

QUERY_SECONDS = 2  # how often the worker asks for runs
POLL_SECONDS = 0.5  # how often the state of processes is checked
DEAD_RUNS_SECONDS = 5  # how often runs without a process are looked for
PREVIOUS_SECONDS = 120  # for the processes of the previous `make ui` to end


def serve(port: int) -> NoReturn:
    """Start everything, and end it on a signal (KeyboardInterrupt) or when a part has ended (UserError)."""
    refuse_unusable_folders()
    log_size = load_params().retention.log_size
    folder = prefect_home()
    with ui_lock(folder, port) as lock:
        os.environ |= {
            MARK: mark(),
            "PREFECT_API_URL": api_address(port),
            "PREFECT_WORKER_QUERY_SECONDS": str(QUERY_SECONDS),
        }
        end_leftovers()
        refuse_taken_port(port)
        refuse_loopback_down()
        guard = start_guard(port, lock.fileno())
        try:
            watch(start(port, folder, guard), folder, log_size)
        finally:
            ignore_signals()
            end_all(port, server_is_ending=guard.poll() is not None)  # it ends with the guard
            guard.kill()
            guard.wait()


@contextmanager
def ui_lock(folder: Path, port: int) -> Iterator[IO[str]]:
    """Lock the database in `folder` for this UI; yield the lock's file, which the guard shares.

    Raises UserError if another UI of this workspace holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "ui.lock").open("a+") as lock:
        deadline = time.monotonic() + PREVIOUS_SECONDS
        waiting = False
        while not try_lock(lock):
            refuse_second_ui(lock, port)
            if time.monotonic() > deadline:
                raise UserError(f"the processes of the last `make ui` have not ended: see {lock.name}.")
            if not waiting:
                print("waiting until the processes of the last `make ui` have ended ...", flush=True)
                waiting = True
            time.sleep(POLL_SECONDS)
        lock.seek(0)
        lock.truncate()
        json.dump({"pid": os.getpid(), "port": port}, lock)
        lock.flush()
        yield lock


def try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_second_ui(lock: IO[str], port: int) -> None:
    """Raise UserError if the process that took the lock still runs, and not only its guard."""
    lock.seek(0)
    try:
        other = json.loads(lock.read())
    except json.JSONDecodeError:
        return  # it is being written right now
    if is_alive(other["pid"]):
        taken = f"port {port} is not to be had: " if port == other["port"] else ""
        raise UserError(
            f"{taken}the UI of this workspace runs already, at http://{ADDRESS}:{other['port']} "
            f"(process {other['pid']}). Use that one, or end it first."
        )


def refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            raise UserError(f"port {port} is not to be had ({error}). Take another: make ui PORT=N") from None


@dataclass(frozen=True)
class Part:
    """A process that must run as long as the UI. log: the file with its output."""

    name: str
    process: subprocess.Popen
    log: Path


def start(port: int, folder: Path, guard: subprocess.Popen) -> list[Part]:
    """Start the server and the worker, and print how the last scheduled runs ended.

    Args:
        port: of the server.
        folder: the Prefect home, which gets the logs.
        guard: the process with which the server ends.

    Returns:
        The processes that must run as long as the UI.
    """
    supervisor = start_server(psutil.Process(guard.pid), record_of(port), port, pages=True)
    print(f"registering the deployments of {DEPLOYMENTS} ...", flush=True)
    register()
    with server_client() as client:
        register_automations(client)
        end_all_dead_runs(client)
        show(client, quiet=True)
    print("starting the worker ...", flush=True)
    worker_log = folder / "worker.log"
    worker = start_worker(worker_log)
    print(f"Prefect UI: http://{ADDRESS}:{port}  (Ctrl-C ends it)\n{how_to_sign_in()}", flush=True)
    server_log = folder / "server.log"
    return [
        Part("worker", worker, worker_log),
        Part("server", supervisor, server_log),
        Part("guard", guard, server_log),
    ]


def start_worker(log_path: Path) -> subprocess.Popen:
    """Start the worker, which runs what is started in the UI. Ctrl-C does not reach it: this process ends it."""
    with open_log(log_path) as log:
        return subprocess.Popen(
            [sys.executable, "-m", WORKER],
            env=client_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def watch(parts: list[Part], folder: Path, log_size: int) -> NoReturn:
    """Report failures, end dead runs, and bound the logs.

    Args:
        parts: the processes that must run.
        folder: the Prefect home.
        log_size: the bytes of a log.

    Raises:
        UserError: a part has ended.
    """
    make = parent_make()
    log = LogWatch(folder / "server.log")
    suspects: dict[UUID, State] = {}
    next_check = time.monotonic()
    while True:
        for part in parts:
            if part.process.poll() is not None:
                say(f"the {part.name} has ended, and so must the rest ...")
                raise UserError(ended(part))
        if make and os.getppid() != make:
            raise UserError("`make` has ended.")
        for line in repeated_failures(log):
            say(f"warning: {line}")
        for part in parts:
            bound_log(part.log, log_size)
        if time.monotonic() >= next_check:
            with suppress(*NO_ANSWER), server_client() as client:
                suspects = end_dead_runs(client, suspects)
            next_check = time.monotonic() + DEAD_RUNS_SECONDS
        time.sleep(POLL_SECONDS)


def parent_make() -> int | None:
    """Return the process of `make`, if that has started this process; Ctrl-C reaches both."""
    parent = psutil.Process().parent()
    return parent.pid if parent and parent.name() in ("make", "gmake") else None


def ended(part: Part) -> str:
    """Return the message that a part has ended, with the end of its log."""
    code = part.process.returncode
    how = f"was killed by signal {-code}" if code < 0 else f"has ended with exit code {code}"
    output = last_lines(part.log)
    return f"the {part.name} {how}; {part.log} " + (f"ends:\n{output}" if output else "is empty.")


def show_last() -> int:
    """Print how the last scheduled runs ended, by the server of a running `make ui`, else by a private one."""
    with last_client() as client:
        return 0 if show(client) else 1


@contextmanager
def last_client() -> Iterator[SyncPrefectClient]:
    for record in prefect_home().glob("server-ui-*"):
        address = record.read_text()
        if answers(address, POLL_SECONDS):
            os.environ["PREFECT_API_URL"] = address
            with server_client() as client:
                yield client
            return
    with prefect_server() as settings, temporary_settings(settings), get_client(sync_client=True) as client:
        yield client
