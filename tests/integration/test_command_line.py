"""What a stranger sees at the prompt: one clear message, the right exit code, no traceback."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from tests.support.namespaces import NO_NETWORK, needs_namespaces
from tests.support.workspaces import ROOT, edit_params


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "housing"), "unknown model 'housing'. Did you mean 'housing_mlp'?"),
        (("ingest", "mnist"), "The data sets of params.yaml: california_housing, fashion_mnist, iris, line, logic."),
        (("prepare", "iris"), "data/raw/iris.json not found. Run `dvc repro ingest@iris` first."),
        (("report",), "artifacts: there is no model to report on. Run `make pipeline` or `dvc repro` first."),
    ],
)
def test_a_mistake_gets_one_message_and_exit_code_1(run_flow, words, told):
    done = run_flow(*words)
    assert done.returncode == 1
    assert done.stderr.count(told) == 1
    assert "Traceback" not in done.stderr + done.stdout


def test_a_server_that_does_not_answer_is_named(run_flow, monkeypatch):
    done = run_flow("ingest", "line", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Prefect server answers at PREFECT_API_URL (http://127.0.0.1:9/api).")


def test_a_server_takes_all_that_begin_at_once(api_url):
    with httpx.Client(base_url=api_url) as client:
        flow = client.post("/flows/", json={"name": "begins"}).json()["id"]

    def begin(runs: int) -> list[int]:
        run = {"flow_id": flow, "state": {"type": "PENDING"}}
        with httpx.Client(base_url=api_url) as client:
            keys = ({"idempotency_key": str(uuid4())} for _ in range(runs))
            return [client.post("/flow_runs/", json=run | key).status_code for key in keys]

    with ThreadPoolExecutor(6) as clients:
        answers = [answer for taken in clients.map(begin, [10] * 6) for answer in taken]
    assert answers == [201] * 60


def test_a_faulty_parameter_stops_every_flow_before_it_starts(workspace, run_flow):
    edit_params(workspace, models__housing_mlp__fit__epochs=-3)
    done = run_flow("ingest", "line")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: params.yaml: models.housing_mlp.fit.epochs: Input should be greater than 0, got -3"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
def test_a_flow_runs_with_the_network_cut_off(workspace, environment):
    needs_namespaces()
    command = [*NO_NETWORK, sys.executable, "-m", "flows.ingest", "line"]
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (workspace / "data/raw/line.parquet").exists()


def test_help_does_not_wait_for_tensorflow(workspace, settings):
    flows = ("receive", "ingest", "prepare", "train", "lecture_recipe", "baselines", "report")
    imports = "; ".join(f"import flows.{flow}" for flow in flows)
    for words in (["-c", imports], ["-m", "flows.train", "--help"]):
        command = [sys.executable, "-X", "importtime", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=settings)
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert any(name.startswith("prefect.") for name in imported)
        assert not {"tensorflow", "keras", "sklearn", "pandas", "tensorflow_datasets"} & imported
    assert "usage" in done.stdout


@pytest.mark.parametrize("port", ["65536", "many"])
def test_a_port_that_is_none_is_refused(workspace, environment, port):
    command = [sys.executable, "-m", "flows.ui", f"--port={port}"]
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert port in done.stderr
    assert "Traceback" not in done.stderr


def test_make_ui_takes_a_port_and_no_variable_of_the_environment(environment):
    def command(*words: str) -> str:
        words = ("make", "--no-print-directory", "--dry-run", "ui", *words)
        told = {**environment, "PORT": "9999"}
        return subprocess.run(words, cwd=ROOT, env=told, capture_output=True, text=True, check=True).stdout

    assert command().strip().endswith("--port 4200")
    assert command("PORT=4300").strip().endswith("--port 4300")
