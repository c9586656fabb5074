"""What the Prefect UI does, over its REST API: a real server and worker run the deployments or refuse to."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from ruamel.yaml import YAML

from config.params import load_params
from tests.support.processes import wait_for
from tests.support.searches import put_search
from tests.support.servers import open_ui
from tests.support.waiting import hold, make_it_wait, release, wait_until_it_waits
from tests.support.workspaces import DVC, ROOT, clone, contents

pytestmark = [pytest.mark.xdist_group("deployments"), pytest.mark.timeout(600)]

DEPLOYMENTS = {
    "pipeline": "pipeline/pipeline",
    "train": "train model/train",
    "search": "search model/search",
    "retrain": "retrain/retrain",
    "predict": "predict/predict",
    "smoke": "smoke/smoke",
}


@pytest.fixture(scope="module")
def workspace(two_models, environment, tmp_path_factory) -> Path:
    """A workspace after a `pipeline`, whose own server the fixture `ui` starts."""
    folder = clone(two_models, tmp_path_factory.mktemp("deployments") / "with a space")
    shutil.copy(ROOT / "prefect.yaml", folder)
    make_it_wait(folder, environment)
    return folder


@pytest.fixture(scope="module")
def ui(workspace, environment) -> Iterator[httpx.Client]:
    """A client of the API of a running `python -m flows.ui`, which leaves no process behind."""
    with open_ui(workspace, environment) as client:
        yield client


@pytest.fixture
def dvc(workspace, environment) -> Callable[..., str]:
    """Run DVC in the workspace and return what it prints."""

    def run(*words: str) -> str:
        command = [*DVC, *words]
        return subprocess.run(
            command, cwd=workspace, env=environment, capture_output=True, text=True, check=True
        ).stdout

    return run


def deployment(ui: httpx.Client, name: str) -> dict:
    return ui.get(f"/deployments/name/{DEPLOYMENTS[name]}").json()


def start(ui: httpx.Client, name: str, **parameters: object) -> httpx.Response:
    address = f"/deployments/{deployment(ui, name)['id']}/create_flow_run"
    return ui.post(address, json={"parameters": parameters, "state": {"type": "SCHEDULED"}})


def ended(ui: httpx.Client, response: httpx.Response, seconds: float = 600) -> dict:
    """Return a run when it has ended; a test waits at most so long."""
    assert response.status_code == 201, response.text
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run = ui.get(f"/flow_runs/{response.json()['id']}").json()
        if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            return run
        time.sleep(0.5)
    raise AssertionError(run["state"])


def logs(ui: httpx.Client, run: dict) -> str:
    query = {"logs": {"flow_run_id": {"any_": [run["id"]]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
    return "\n".join(entry["message"] for entry in ui.post("/logs/filter", json=query).json())


def assert_logged(ui: httpx.Client, run: dict, text: str, seconds: float = 60) -> None:
    """Wait for `text` in the log of a run, whose last lines can reach the server after its last state."""
    deadline = time.monotonic() + seconds
    while text not in logs(ui, run):
        assert time.monotonic() < deadline, logs(ui, run)
        time.sleep(1)


def test_the_models_are_offered_as_choices(ui, workspace):
    model = deployment(ui, "train")["parameter_openapi_schema"]["properties"]["model"]
    assert model["enum"] == [*load_params(workspace / "params.yaml").models]


def test_the_nightly_schedule_is_there_and_paused(ui):
    [schedule] = deployment(ui, "retrain")["schedules"]
    assert schedule["schedule"]["cron"] == "0 3 * * *"
    assert schedule["active"] is False


@pytest.mark.parametrize(
    ("name", "parameters", "told"),
    [
        ("train", {"model": "no_such_model"}, "'no_such_model' is not one of"),
        ("train", {"model": "iris_mlp", "epochs": 0}, "0 is less than the minimum of 1"),
        ("train", {"model": "iris_mlp", "epochs": "many"}, "many"),
        ("train", {}, "'model' is a required property"),
        ("train", {"model": "iris_mlp", "epoch": 3}, "'epoch' was unexpected"),
        ("pipeline", {"jobs": 0}, "0 is less than the minimum of 1"),
        ("pipeline", {"target": ["report"]}, "'target' was unexpected"),
        ("pipeline", {"targets": ["train@nothing"]}, "train@nothing"),
        ("pipeline", {"settings": ["seed 7"]}, "seed 7"),
        ("smoke", {"epochs": 11}, "11 is greater than the maximum of 10"),
    ],
)
def test_a_bad_or_unknown_parameter_is_refused_before_the_run_with_the_reason(ui, name, parameters, told):
    response = start(ui, name, **parameters)
    assert 400 <= response.status_code < 500
    assert told in response.text


@pytest.mark.rotates
def test_other_epochs_are_an_experiment(ui, workspace, dvc):
    run = ended(ui, start(ui, "train", model="iris_mlp", epochs=3))
    assert run["state"]["type"] == "COMPLETED", logs(ui, run)
    assert_logged(ui, run, "dvc exp show")
    assert len(dvc("exp", "list", "--name-only").split()) == 1
    assert json.loads((workspace / "artifacts/iris_mlp/metrics.json").read_text())["epochs"] == 1


@pytest.mark.rotates
def test_two_runs_started_at_once_run_one_after_the_other_and_through_dvc(ui, dvc):
    started = {"train-iris_mlp": start(ui, "train", model="iris_mlp", force=True), "pipeline": start(ui, "pipeline")}
    runs = {name: ended(ui, response) for name, response in started.items()}
    for run in runs.values():
        assert run["state"]["type"] == "COMPLETED", logs(ui, run)
    first, second = sorted(runs.values(), key=lambda run: run["start_time"])
    assert first["end_time"] <= second["start_time"]
    assert runs["train-iris_mlp"]["name"] == "train-iris_mlp"
    assert "up to date" in dvc("status", "train@iris_mlp")
    assert_shows_the_metrics(ui, runs["pipeline"])


@pytest.mark.rotates
def test_a_search_is_a_run_with_a_run_for_each_trial_and_recorded_by_dvc(ui, workspace, dvc):
    before = (workspace / "params.yaml").read_text()
    put_search(workspace, trials=2, finalists=1, seeds=[1])
    try:
        run = ended(ui, start(ui, "search", model="iris_mlp"))
        assert run["state"]["type"] == "COMPLETED", logs(ui, run)
        assert "up to date" in dvc("status", "search@iris_mlp")
        assert (workspace / "artifacts/search/iris_mlp/best.yaml").exists()
        names = {task["name"] for task in ui.post("/task_runs/filter", json={"limit": 200}).json()}
        assert {"search@iris_mlp", "trial-0000", "trial-0001", "test"} <= names
    finally:
        (workspace / "params.yaml").write_text(before)


def assert_shows_the_metrics(ui: httpx.Client, run: dict) -> None:
    query = {"artifacts": {"flow_run_id": {"any_": [run["id"]]}}}
    [metrics] = ui.post("/artifacts/filter", json=query).json()
    assert "| iris_mlp | sample | " in metrics["data"]
    assert "reports/index.html" in metrics["data"]


def test_a_cancelled_run_leaves_everything_as_it_was(ui, workspace, dvc):
    before, status = contents(workspace / "data/raw"), dvc("status", "ingest@line")
    hold(workspace)
    response = start(ui, "pipeline", targets=["ingest@line"], force=True)
    address = f"/flow_runs/{response.json()['id']}"
    wait_until_it_waits(workspace)
    ui.post(f"{address}/set_state", json={"state": {"type": "CANCELLING"}}).raise_for_status()
    run = ended(ui, response)
    release(workspace)
    assert run["state"]["type"] == "CANCELLED"
    # The worker tells of it a little earlier.
    wait_for(lambda: len(contents(workspace / "data/raw")) == len(before), "the outputs")
    assert contents(workspace / "data/raw") == before
    assert dvc("status", "ingest@line") == status


@pytest.mark.rotates
def test_smoke_runs_the_whole_graph_on_the_sample_beside_the_workspace(ui, workspace):
    before = (workspace / "dvc.lock").read_bytes()
    run = ended(ui, start(ui, "smoke"))
    assert run["state"]["type"] == "COMPLETED", logs(ui, run)
    stages = YAML(typ="safe").load(workspace / ".smoke/dvc.lock")["stages"]
    assert stages.keys() == YAML(typ="safe").load(before)["stages"].keys()
    assert (workspace / ".smoke/reports/index.html").exists()
    assert (workspace / "dvc.lock").read_bytes() == before


def test_a_taken_port_is_named(ui, workspace, environment):
    port = str(ui.base_url.port)
    command = [sys.executable, "-m", "flows.ui", "--port", port]
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"port {port} is not to be had" in done.stderr
    assert "Traceback" not in done.stderr
