"""A running `make ui`: its runs end whatever happens to their processes, and a second one is refused."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.prefect.server import free_port
from tests.support.processes import wait_for
from tests.support.ui import LAST_STATES, SECONDS, Ui, processes, start_ui
from tests.support.waiting import hold, make_it_wait, release, wait_until_it_waits
from tests.support.workspaces import ROOT, clone

pytestmark = [pytest.mark.xdist_group("ui"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def workspace(two_models, environment, tmp_path_factory) -> Path:
    """A workspace in which everything is trained."""
    folder = clone(two_models, tmp_path_factory.mktemp("ui") / "with a space")
    shutil.copy(ROOT / "prefect.yaml", folder)
    make_it_wait(folder, environment)
    return folder


@pytest.fixture(scope="module")
def ui(workspace, environment) -> Iterator[Ui]:
    """A UI for the tests that leave it running; it runs until the module's end, so they come last."""
    ui = start_ui(workspace, environment)
    yield ui
    ui.process.send_signal(signal.SIGINT)
    assert ui.wait() == 130, ui.said()
    assert not processes(workspace)


def no_run_is_under_way(ui: Ui) -> bool:
    wanted = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    runs = ui.http("POST", "flow_runs/filter", flow_runs=wanted)
    return not (runs or ui.http("POST", "task_runs/filter", task_runs=wanted))


@pytest.mark.rotates
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_whose_process_is_killed_ends_with_its_subflows_and_tasks(ui, workspace, number):
    id = ui.waiting_run()
    os.kill(int(ui.run(id)["infrastructure_pid"]), number)
    assert ui.ended(id)["state"]["type"] == "CRASHED"
    wait_for(lambda: no_run_is_under_way(ui), "the end of subflows and tasks")


@pytest.mark.rotates
def test_a_run_that_ends_without_a_word_frees_the_slot(ui, workspace, environment):
    code = workspace / "flows/deployments.py"
    before = code.read_text()
    start = "    make_workspace(SMOKE, epochs)\n"
    assert start in before
    code.write_text(before.replace(start, "    os._exit(0)\n"))
    try:
        id = ui.start_run("smoke/smoke")
        run = ui.ended(id)
    finally:
        code.write_text(before)
    assert run["state"]["type"] == "CRASHED"
    assert "process" in run["state"]["message"]
    subprocess.run(
        [sys.executable, "-m", "flows.pipeline", "--dry"], cwd=workspace, env=environment, check=True
    )  # puts back what the killed experiments before have left
    release(workspace)
    after = ui.start_run("pipeline/pipeline", targets=["ingest@line"])
    assert ui.ended(after)["state"]["type"] == "COMPLETED"


@pytest.mark.rotates
def test_a_run_from_a_terminal_that_lives_is_left_alone(ui, workspace, environment):
    secret = workspace / ".prefect/auth-string"
    configured = {"PREFECT_API_URL": f"http://127.0.0.1:{ui.port}/api"}
    if secret.exists():
        configured["PREFECT_API_AUTH_STRING"] = secret.read_text()
    hold(workspace)
    command = [sys.executable, "-m", "flows.pipeline", "--force", "ingest@line"]
    run = subprocess.Popen(command, cwd=workspace, env={**environment, **configured})
    wanted = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    found = wait_for(lambda: ui.http("POST", "flow_runs/filter", **wanted), "the run")
    wait_until_it_waits(workspace)
    time.sleep(20)  # several looks for dead runs
    assert run.poll() is None
    assert ui.run(found[0]["id"])["state"]["type"] == "RUNNING"
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=SECONDS) == 130
    assert ui.run(found[0]["id"])["state"]["type"] in LAST_STATES


def test_a_second_ui_of_the_workspace_is_refused_in_one_message(ui, workspace, environment):
    command = [sys.executable, "-m", "flows.ui", "--port", str(free_port())]
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"http://127.0.0.1:{ui.port}" in done.stderr
    assert str(ui.process.pid) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert ui.process.poll() is None
