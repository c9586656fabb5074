"""The Prefect UI of this workspace: a server, a worker and the deployments of prefect.yaml, until Ctrl-C."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
from prefect.settings import PREFECT_HOME

from config.errors import UserError
from config.params import load_params
from flows.command_line import prepare_process, telling_mistakes
from flows.registration import environment, pool_name, register
from flows.server import ADDRESS, bring_loopback_up, start_keeper, stop
from stages.workspace import refuse_unusable_folders

PORT = 4200
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
        refuse_unusable_folders()
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


def start_worker() -> subprocess.Popen:
    """Start the worker that runs what is started in the UI; Ctrl-C is for us, and we end it."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool_name(), "--name", "heaviside"]
    return subprocess.Popen(command, env=environment(), start_new_session=True)


if __name__ == "__main__":
    sys.exit(main())
