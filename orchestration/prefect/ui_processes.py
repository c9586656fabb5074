"""The processes of `make ui`: how they are found, how their runs are stopped, and what happens if `make ui` is killed.

`make ui` sets a mark, the workspace, in the environment of everything that it starts, and all descendants inherit it.
So they can be found even if their parents have ended. A guard, `python -m orchestration.prefect.ui_processes`, watches
`make ui`; if that is killed, the guard stops the runs and ends the worker and the server.
"""

import math
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_HOME
from prefect.states import Cancelling

from orchestration.prefect.dead_runs import RUN_ID, end_all_dead_runs, environment_of, server_client
from orchestration.prefect.server import ADDRESS, answers, client_environment, start_server
from orchestration.workspace_lock import EXPERIMENT_BACKUP
from runtime.errors import UserError

MARK = "HEAVISIDE_UI"
# The modules that the guard and the worker run.
GUARD, WORKER = "orchestration.prefect.ui_processes", "orchestration.prefect.worker"
STOP_SECONDS = 60  # for runs to restore what they have changed
CANCEL_SECONDS = 25  # for the worker to learn that its runs are cancelled
END_SECONDS = 20  # for a worker without runs, or a server, to end
POLL_SECONDS = 0.5
ANSWER_SECONDS = 10  # for a server to answer
SPAWN_SECONDS = 3  # for a run that was just taken from the pool to get its process
NO_ANSWER = (httpx.HTTPError, PrefectException, OSError)


def say(text: str) -> None:
    """Print `text`, if the terminal still exists."""
    with suppress(OSError, ValueError):
        print(text, flush=True)


def mark() -> str:
    return str(Path.cwd().resolve())


def record_of(port: int) -> Path:
    """Return the file that holds the API's address as long as the server on `port` runs."""
    return PREFECT_HOME.value() / f"server-ui-{port}"


def api_address(port: int) -> str:
    return f"http://{ADDRESS}:{port}/api"


def ui_processes() -> list[psutil.Process]:
    """Return the running processes of this workspace's `make ui`, except this one and the guard."""
    here, me = mark(), os.getpid()
    marked = (process for process in psutil.process_iter() if environment_of(process).get(MARK) == here)
    return [process for process in marked if process.pid != me and not runs_module(process, GUARD)]


def runs_module(process: psutil.Process, module: str) -> bool:
    try:
        return module in process.cmdline()
    except psutil.Error:
        return False


def is_run(process: psutil.Process) -> bool:
    """Return whether a process belongs to a flow run."""
    return RUN_ID in environment_of(process)


def workers() -> list[psutil.Process]:
    return [process for process in ui_processes() if runs_module(process, WORKER)]


def servers() -> list[psutil.Process]:
    """Return the server and its supervisor."""
    return [process for process in ui_processes() if not (is_run(process) or runs_module(process, WORKER))]


def run_processes() -> list[psutil.Process]:
    return [process for process in ui_processes() if is_run(process)]


def heads(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes whose parents are not among `processes`."""
    pids = {process.pid for process in processes}
    found = []
    for process in processes:
        with suppress(psutil.Error):
            if process.ppid() not in pids:
                found.append(process)
    return found


def stop_runs() -> None:
    """Stop the runs as a cancellation in the UI does, wait until they have ended, and kill those that do not.

    The worker calls this, and the worker also carries out the cancellation. If it has not learned of it within
    `CANCEL_SECONDS`, as may happen after a restart of the server, or if no server answers, the runs get SIGTERM.
    """
    began = time.monotonic()
    last_seen = -math.inf
    with server_client() as client:
        while time.monotonic() < began + CANCEL_SECONDS and answers(os.environ["PREFECT_API_URL"], ANSWER_SECONDS):
            try:
                cancelled = cancel_runs(client)
            except NO_ANSWER:
                break
            if cancelled or run_processes():
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > SPAWN_SECONDS:
                return
            time.sleep(POLL_SECONDS)
    terminate_runs(max(began + STOP_SECONDS - time.monotonic(), CANCEL_SECONDS))


def cancel_runs(client: SyncPrefectClient) -> int:
    """Ask the server to cancel every started run of a deployment; return how many there were."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]))
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=state))
    chosen = [run for run in runs if run.deployment_id]
    for run in chosen:
        client.set_flow_run_state(run.id, Cancelling(message="`make ui` was ended."), force=True)
    return len(chosen)


def terminate_runs(seconds: float = STOP_SECONDS) -> None:
    """Send SIGTERM to the runs, wait for them, and kill, with a message, what is left after `seconds`.

    A run that is already ending ignores the signal.
    """
    for process in heads(run_processes()):
        with suppress(psutil.Error):
            process.terminate()
    wait_for_runs(seconds)
    for process in run_processes():
        with suppress(psutil.Error):
            say(f"killed, for it did not end: process {process.pid} ({' '.join(process.cmdline()[-3:])})")
            process.kill()


def wait_for_runs(seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while run_processes() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def end(processes: list[psutil.Process], seconds: float) -> None:
    """Ask `processes` to end, and kill those that have not ended after `seconds`."""
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(processes, timeout=seconds)[1]:
        with suppress(psutil.Error):
            process.kill()


def end_all(port: int, server_is_ending: bool = False) -> None:
    """Stop the runs, then the worker, then the server on `port`, which is restarted first if the runs need it.

    server_is_ending: the server may still answer, but not for long.
    """
    running = run_processes()
    if running:
        say(f"stopping the runs, which restore their outputs (at most {STOP_SECONDS} s) ...")
        if server_is_ending:
            end(servers(), END_SECONDS)
        with suppress(UserError):
            ensure_server(port)
    end(workers(), STOP_SECONDS + END_SECONDS)
    terminate_runs()
    if answers(os.environ["PREFECT_API_URL"], POLL_SECONDS):
        with suppress(*NO_ANSWER), server_client() as client:
            end_all_dead_runs(client)
    end(ui_processes(), END_SECONDS)
    if EXPERIMENT_BACKUP.exists() and running:
        say("an experiment had no time to restore the workspace: `python -m flows.pipeline --dry` restores it.")


def ensure_server(port: int) -> None:
    """Restart the server on `port` if it does not answer; raises UserError if it does not start."""
    if answers(os.environ["PREFECT_API_URL"], ANSWER_SECONDS):
        return
    end(servers(), END_SECONDS)
    say(f"starting the server on port {port} again ...")
    start_server(psutil.Process(), record_of(port), port, pages=True)


def end_leftovers() -> None:
    """End what an earlier `make ui` of this workspace has left, if its guard was killed, too."""
    if not ui_processes():
        return
    say("ending the processes of the last `make ui`, which was killed ...")
    end(workers(), STOP_SECONDS + END_SECONDS)
    terminate_runs()
    end(servers(), END_SECONDS)


def start_guard(port: int, lock: int) -> subprocess.Popen:
    """Start the guard of this process. lock: the descriptor of the lock on the database, which the guard shares."""
    command = [sys.executable, "-m", GUARD, str(os.getpid()), str(port)]
    return subprocess.Popen(
        command, env=client_environment(), stdin=subprocess.DEVNULL, pass_fds=[lock], start_new_session=True
    )


def guard(pid: int, port: int) -> None:
    """Wait until `make ui`, the parent process `pid`, has ended; then end what it has started.

    A `make ui` that ends in order does that itself, and kills this process.
    """
    while os.getppid() == pid:
        time.sleep(POLL_SECONDS)
    os.environ["PREFECT_API_URL"] = api_address(port)
    say("`make ui` was killed.")
    end_all(port)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    guard(int(sys.argv[1]), int(sys.argv[2]))
