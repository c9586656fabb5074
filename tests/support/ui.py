"""A running `make ui` for tests, and what of it lives."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from orchestration.prefect.server import free_port
from orchestration.prefect.ui_processes import MARK
from tests.support.processes import wait_for, words_of
from tests.support.waiting import hold, wait_until_it_waits

SECONDS = 240  # a test waits at most so long for anything

LAST_STATES = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def processes(workspace: Path) -> list[psutil.Process]:
    """Return every process that a `make ui` of `workspace` has started, however far below."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(workspace.resolve()):
                found.append(process)
        except psutil.Error:
            continue
    return found


@dataclass
class Ui:
    """A running `python -m flows.ui`."""

    workspace: Path
    process: subprocess.Popen
    port: int
    output: Path

    def http(self, method: str, path: str, json: Any = None, **fields: Any) -> Any:
        secret = self.workspace / ".prefect/auth-string"
        auth = tuple(secret.read_text().split(":", 1)) if secret.exists() else None
        address = f"http://127.0.0.1:{self.port}/api/{path}"
        response = httpx.request(method, address, json=json or fields or None, auth=auth, timeout=60, trust_env=False)
        response.raise_for_status()
        return response.json() if response.content else None

    def said(self) -> str:
        return self.output.read_text()

    def start_run(self, name: str, **parameters: Any) -> str:
        """Start a run of the deployment FLOW/NAME and return its id."""
        deployment = self.http("GET", f"deployments/name/{name}")["id"]
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.http("POST", f"deployments/{deployment}/create_flow_run", **body)["id"]

    def run(self, id: str) -> dict:
        return self.http("GET", f"flow_runs/{id}")

    def ended(self, id: str) -> dict:
        return wait_for(lambda: (run := self.run(id))["state"]["type"] in LAST_STATES and run, "the run's end")

    def waiting_run(self) -> str:
        """Start an experiment whose `ingest@line` waits, and return its run's id when it does; see `make_it_wait`."""
        hold(self.workspace)
        id = self.start_run("pipeline/pipeline", targets=["ingest@line"], force=True, settings=["seed=7"])
        wait_until_it_waits(self.workspace, (self.workspace / ".prefect/worker.log").read_text)
        assert "seed: 7" in (self.workspace / "params.yaml").read_text()
        return id

    def pid(self, part: str) -> int:
        """Return the process of a part, by what its command line has."""
        if part == "ui":
            return self.process.pid
        if part == "server":  # the supervisor's child
            return psutil.Process(self.pid("supervisor")).children()[0].pid
        word = {
            "worker": "orchestration.prefect.worker",
            "supervisor": "orchestration.prefect.server",
            "guard": "orchestration.prefect.ui_processes",
        }[part]
        return next(process.pid for process in processes(self.workspace) if word in words_of(process))

    def wait(self) -> int:
        return self.process.wait(timeout=SECONDS)


def start_ui(workspace: Path, environment: dict[str, str], wait: bool = True) -> Ui:
    """Start `python -m flows.ui` in a workspace; wait: until it says that it is ready."""
    port = free_port()
    output = workspace.parent / f"output-{port}.txt"
    with output.open("w") as file:
        command = [sys.executable, "-m", "flows.ui", "--port", str(port)]
        process = subprocess.Popen(
            command, cwd=workspace, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    ui = Ui(workspace, process, port, output)
    if wait:
        wait_for(lambda: "Prefect UI:" in ui.said() or process.poll() is not None, "the UI")
        assert process.poll() is None, ui.said()
    return ui
