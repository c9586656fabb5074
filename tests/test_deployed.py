"""What a mistake in a deployment's run looks like in its log, and what the server refuses before there is a run."""

import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from conftest import DVC, edit_params
from prefect.utilities.callables import parameter_schema

from flows import deployments
from flows.pipeline import pipeline

ENTRYPOINTS = {"pipeline": "flows/pipeline.py:pipeline", "train": "flows/deployments.py:train_model"}
FLOWS = {"pipeline": pipeline, "train": deployments.train_model}


@pytest.fixture
def deployment(workspace, api_url):
    """Make a deployment of this workspace's flow NAME, as `make ui` does, and return its id."""

    def make(name: str) -> str:
        with httpx.Client(base_url=api_url) as client:
            flow = client.post("/flows/", json={"name": FLOWS[name].name}).json()["id"]
            made = {
                "name": uuid4().hex,
                "flow_id": flow,
                "entrypoint": ENTRYPOINTS[name],
                "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(workspace)}}],
                "parameter_openapi_schema": {
                    **parameter_schema(FLOWS[name].fn).model_dump(),
                    "additionalProperties": False,
                },
                "enforce_parameter_schema": True,
            }
            return client.post("/deployments/", json=made).json()["id"]

    return make


def create_run(api_url: str, deployment: str, parameters: dict) -> httpx.Response:
    return httpx.post(f"{api_url}/deployments/{deployment}/create_flow_run", json={"parameters": parameters})


def execute(run: str, folder: Path, settings: dict[str, str]) -> str:
    """Do what a worker does for a run, and return what its process prints."""
    command = [sys.executable, "-m", "prefect.engine", run]
    done = subprocess.run(
        command, cwd=folder, env={**settings, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def log_of(api_url: str, run: str) -> list[str]:
    """Return the run's log when its last line has reached the server."""
    query = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        lines = [entry["message"] for entry in httpx.post(f"{api_url}/logs/filter", json=query).json()]
        if any(line.startswith("Finished in state") for line in lines):
            return lines
        time.sleep(0.5)
    raise AssertionError(lines)


def fault(workspace: Path) -> None:
    edit_params(workspace, models__iris_mlp__fit__epochs=-3)


@pytest.mark.parametrize(
    ("name", "parameters", "broken", "told"),
    [
        ("pipeline", {"settings": ["models.iris_mlp.fit.epoch=3"]}, False, "Did you mean 'epochs'?"),
        ("train", {"model": "iris_mlp"}, True, "models.iris_mlp.fit.epochs: Input should be greater than 0, got -3"),
    ],
)
def test_a_mistake_is_one_message_in_the_log_of_a_run(
    workspace, deployment, settings, api_url, name, parameters, broken, told
):
    for words in (["git", "init", "--quiet"], [*DVC, "init", "--quiet"], ["git", "add", "."]):
        subprocess.run(words, cwd=workspace, env=settings, check=True)
    subprocess.run(["git", "commit", "--quiet", "-m", "a state"], cwd=workspace, env=settings, check=True)
    made = deployment(name)
    if broken:
        fault(workspace)
    run = create_run(api_url, made, parameters).json()["id"]
    printed = execute(run, workspace, settings)
    lines = log_of(api_url, run)
    assert sum(told in line for line in lines) == 1, lines
    assert "Traceback" not in "\n".join(lines)
    assert "Traceback" not in printed
    state = httpx.get(f"{api_url}/flow_runs/{run}").json()["state"]
    assert state["type"] == "FAILED"


@pytest.mark.parametrize(
    "parameters",
    [
        {"runner": "dask"},
        {"address": "nonsense"},
        {"address": "tcp://host"},
        {"address": "a host:8786"},
        {"settings": ["models.iris_mlp.family=${oc.env:HOME}"]},
        {"settings": ["seed=$${oc.env:HOME}"]},
    ],
)
def test_the_server_refuses_what_cannot_run_before_there_is_a_run(deployment, api_url, parameters):
    answer = create_run(api_url, deployment("pipeline"), parameters)
    assert answer.status_code == 409
    assert next(iter(parameters)) in answer.text or "does not match" in answer.text


@pytest.mark.parametrize(
    "parameters",
    [
        {"address": "tcp://host:8786"},
        {"address": "host:8786"},
        {"address": ""},
        {"address": None},
        {"settings": ["seed=7", "++seed=7", "~notes", "+models.iris_mlp.fit.resume=true", "seed=$7$"]},
    ],
)
def test_the_server_takes_what_can_run(deployment, api_url, parameters):
    assert create_run(api_url, deployment("pipeline"), parameters).status_code == 201
