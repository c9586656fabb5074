"""The Prefect UI of this workspace: a server, a worker and the deployments of prefect.yaml, until Ctrl-C."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings
from prefect.states import Crashed
from ruamel.yaml import YAML

from config.errors import UserError
from config.params import load_params
from flows.command_line import prepare_process, telling_mistakes
from flows.server import ADDRESS, bring_loopback_up, start_keeper, stop
from stages.workspace import claimed_workspace

PORT = 4200
DEPLOYMENTS = Path("prefect.yaml")
UNENDED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
POLL_SECONDS = 2  # how often the worker asks for runs, and the server for scheduled ones


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=PORT, help=f"of the server on {ADDRESS}; default: {PORT}")
    port = parser.parse_args().port
    prepare_process()
    # A shell has SIGINT ignored in what it starts in the background; the worker, which ends itself by it, must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = str(POLL_SECONDS)
    with telling_mistakes("the server and the worker have ended."):
        load_params()
        serve(port)
    return 0


def serve(port: int) -> None:
    refuse_taken_port(port)
    bring_loopback_up()
    folder = PREFECT_HOME.value()
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"server-ui-{port}"
    keeper = start_keeper(psutil.Process(), record, port, pages=True)
    os.environ["PREFECT_API_URL"] = record.read_text()
    worker = None
    try:
        register()
        worker = start_worker()
        print(f"Prefect UI: http://{ADDRESS}:{port}  (Ctrl-C ends it)", flush=True)
        while keeper.poll() is None and worker.poll() is None:
            time.sleep(0.5)
        ended = "worker" if keeper.poll() is None else "server"
        raise UserError(f"the {ended} has ended; see {folder / 'server.log'}.")
    finally:
        if worker:
            worker.terminate()
            worker.wait()
        stop(keeper)


def refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except (OSError, OverflowError) as error:
            remedy = "Take another: python -m flows.ui --port N"
            raise UserError(f"port {port} is not to be had ({error}). {remedy}") from None


def register() -> None:
    """Register the work pool and the deployments of prefect.yaml with the server at PREFECT_API_URL."""
    prefect("work-pool", "create", pool_name(), "--type", "process", "--overwrite")
    prefect("work-pool", "set-concurrency-limit", pool_name(), "1")
    prefect("--no-prompt", "deploy", "--all")
    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}), get_client(sync_client=True) as client:
        pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[pool_name()]))
        for deployment in client.read_deployments(work_pool_filter=pool):
            refuse_unknown_parameters(client, str(deployment.id), deployment.parameter_openapi_schema or {})
        end_dead_runs(client, pool)


def refuse_unknown_parameters(client: SyncPrefectClient, deployment: str, schema: dict) -> None:
    """Have the server answer 409 to a parameter that the flow does not have, which it would let crash the run."""
    strict = {**schema, "additionalProperties": False}
    client.request(
        "PATCH", "/deployments/{id}", path_params={"id": deployment}, json={"parameter_openapi_schema": strict}
    )


def end_dead_runs(client: SyncPrefectClient, pool: WorkPoolFilter) -> None:
    """Have the server know that runs have ended whose process was killed: the pool would wait for them for ever."""
    with suppress(UserError), claimed_workspace():  # which a living run has
        unended = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNENDED))
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=unended), work_pool_filter=pool):
            client.set_flow_run_state(run.id, Crashed(message="Its process was killed."), force=True)


def pool_name() -> str:
    return YAML(typ="safe").load(DEPLOYMENTS)["definitions"]["work_pool"]["name"]


def prefect(*words: str) -> None:
    command = [sys.executable, "-m", "prefect", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"prefect {' '.join(words)} failed:\n{(done.stdout + done.stderr).strip()[-2000:]}")


def start_worker() -> subprocess.Popen:
    """Start the worker that runs what is started in the UI; Ctrl-C is for us, and we end it."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool_name(), "--name", "heaviside"]
    return subprocess.Popen(command, env=environment(), start_new_session=True)


def environment() -> dict[str, str]:
    return {**os.environ, "PWD": str(Path.cwd()), "PYTHONPATH": str(Path.cwd())}


if __name__ == "__main__":
    sys.exit(main())
