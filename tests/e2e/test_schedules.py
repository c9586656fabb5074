"""Schedules, with the real server, worker and clock: they run, they stay as a person has set them, they are told."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.settings import PREFECT_HOME, temporary_settings
from ruamel.yaml import YAML

from orchestration.prefect import registration
from orchestration.prefect.server import start_server, stop
from runtime.errors import UserError
from tests.support.processes import wait_for, words_of
from tests.support.servers import open_ui, sign_in
from tests.support.waiting import hold, make_it_wait, wait_until_it_waits
from tests.support.workspaces import DVC, ROOT, make_workspace

pytestmark = [pytest.mark.xdist_group("schedule"), pytest.mark.timeout(600)]

EVERY_MINUTE = {"schedule": {"cron": "* * * * *", "timezone": "UTC"}, "active": True}
RETRAIN = "/deployments/name/retrain/retrain"


def make_small_workspace(folder: Path) -> Path:
    """Make a workspace on the sample in which nothing has run yet, with DVC and without git."""
    make_workspace(folder)
    subprocess.run([*DVC, "init", "--quiet", "--no-scm"], cwd=folder, check=True)
    (folder / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    return folder


@pytest.fixture
def small_workspace(tmp_path) -> Path:
    return make_small_workspace(tmp_path / "a workspace")


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[tuple[Path, httpx.Client]]:
    """A workspace, and a client of a server of its own, with which nothing is registered yet."""
    folder = make_small_workspace(tmp_path_factory.mktemp("registration") / "a workspace")
    home = folder / ".prefect"
    with temporary_settings({PREFECT_HOME: home}):
        home.mkdir(exist_ok=True)
        supervisor = start_server(psutil.Process(), home / "server")
    try:
        with sign_in(folder, (home / "server").read_text()) as client:
            yield folder, client
    finally:
        stop(supervisor)


@pytest.fixture
def register(served, monkeypatch) -> Callable[[], None]:
    """Register prefect.yaml as `make ui` does when it starts."""
    folder, client = served
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PREFECT_API_URL", str(client.base_url).rstrip("/"))

    def run() -> None:
        with temporary_settings({PREFECT_HOME: folder / ".prefect"}):
            registration.register()

    return run


@pytest.fixture
def registered(served, register) -> httpx.Client:
    """A client of a server with which prefect.yaml, as it is in the repository, has just been registered anew."""
    folder, client = served
    if client.get(RETRAIN).status_code == 200:
        client.delete(f"/deployments/{client.get(RETRAIN).json()['id']}").raise_for_status()
    (folder / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    register()
    return client


def edit_deployments(folder: Path, **changes: object) -> None:
    """Set keys of the deployment `retrain` in prefect.yaml."""
    yaml = YAML()
    values = yaml.load(folder / "prefect.yaml")
    next(entry for entry in values["deployments"] if entry["name"] == "retrain").update(changes)
    yaml.dump(values, folder / "prefect.yaml")


def crons(client: httpx.Client) -> dict[str, bool]:
    """Return the schedules of `retrain`: whether each cron is on."""
    return {entry["schedule"]["cron"]: entry["active"] for entry in client.get(RETRAIN).json()["schedules"]}


def runs(client: httpx.Client, deployment: str) -> list[dict]:
    query = {"flow_runs": {"deployment_id": {"any_": [deployment]}}, "sort": "START_TIME_ASC"}
    return client.post("/flow_runs/filter", json=query).json()


def completed(client: httpx.Client, deployment: str) -> list[str]:
    """Return the ids of the runs of a schedule that have completed."""
    found = runs(client, deployment)
    return [run["id"] for run in found if run["auto_scheduled"] and run["state"]["type"] == "COMPLETED"]


def test_a_schedule_of_every_minute_runs_and_does_so_after_a_restart_with_its_hour(small_workspace, environment):
    with open_ui(small_workspace, environment) as ui:
        found = ui.get("/deployments/name/pipeline/pipeline").json()["id"]
        schedule = {**EVERY_MINUTE, "parameters": {"targets": ["ingest@line"]}}
        ui.post(f"/deployments/{found}/schedules", json=[schedule]).raise_for_status()
        wait_for(lambda: completed(ui, found), lambda: runs(ui, found))
        before = ui.get(f"/deployments/{found}").json()["schedules"]
        [retrain] = ui.get(RETRAIN).json()["schedules"]
        moved = {"schedule": {"cron": "30 4 * * 1-5", "timezone": "Europe/Paris"}, "active": True}
        address = f"/deployments/{ui.get(RETRAIN).json()['id']}/schedules/{retrain['id']}"
        ui.patch(address, json=moved).raise_for_status()
        known = completed(ui, found)
    with open_ui(small_workspace, environment) as ui:
        assert ui.get(f"/deployments/{found}").json()["schedules"] == before
        assert crons(ui) == {"30 4 * * 1-5": True}
        assert ui.get(RETRAIN).json()["schedules"][0]["schedule"]["timezone"] == "Europe/Paris"
        wait_for(lambda: set(completed(ui, found)) - {*known}, lambda: runs(ui, found))


@pytest.mark.rotates
def test_a_run_that_nobody_takes_is_late_and_a_cancelled_one_leaves_no_process(small_workspace, environment):
    make_it_wait(small_workspace)
    hold(small_workspace)
    with open_ui(small_workspace, environment) as ui:
        found = ui.get("/deployments/name/pipeline/pipeline").json()["id"]
        ui.patch("/work_pools/heaviside", json={"is_paused": True}).raise_for_status()
        asked = {"parameters": {"targets": ["ingest@line"]}, "state": {"type": "SCHEDULED"}}
        run = ui.post(f"/deployments/{found}/create_flow_run", json=asked).json()["id"]

        def state() -> dict:
            return ui.get(f"/flow_runs/{run}").json()["state"]

        def processes() -> list[psutil.Process]:
            found = []
            for process in psutil.process_iter():
                try:
                    if process.cwd() == str(small_workspace) and process.pid != os.getpid():
                        found.append(process)
                except psutil.Error:
                    continue
            return [process for process in found if "flows.ui" not in words_of(process)]

        wait_for(lambda: state()["name"] == "Late", state)
        idle = {process.pid for process in processes()}
        ui.patch("/work_pools/heaviside", json={"is_paused": False}).raise_for_status()
        wait_until_it_waits(small_workspace, state)
        assert {process.pid for process in processes()} - idle
        ui.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "CANCELLING"}}).raise_for_status()
        wait_for(lambda: state()["type"] == "CANCELLED", state)
        wait_for(lambda: not {process.pid for process in processes()} - idle, processes, 120)


def test_the_first_registration_takes_the_schedule_of_the_file(registered):
    assert crons(registered) == {"0 3 * * *": False}
    assert registered.get(RETRAIN).json()["global_concurrency_limit"]["limit"] == 1
    assert registered.get("/work_pools/heaviside").json()["concurrency_limit"] == 1


def test_what_was_set_in_the_ui_stays(registered, register):
    found = registered.get(RETRAIN).json()
    address = f"/deployments/{found['id']}"
    [nightly] = found["schedules"]
    changes = [
        registered.patch(f"{address}/schedules/{nightly['id']}", json={"active": True}),
        registered.post(f"{address}/schedules", json=[EVERY_MINUTE | {"slug": "often"}]),
        registered.patch(address, json={"concurrency_limit": 3}),
        registered.post(f"{address}/pause_deployment"),
        registered.patch("/work_pools/heaviside", json={"concurrency_limit": 2, "is_paused": True}),
    ]
    assert all(response.is_success for response in changes)
    register()
    assert crons(registered) == {"0 3 * * *": True, "* * * * *": True}
    found = registered.get(RETRAIN).json()
    assert found["paused"] is True
    assert found["global_concurrency_limit"]["limit"] == 3
    pool = registered.get("/work_pools/heaviside").json()
    assert (pool["concurrency_limit"], pool["is_paused"]) == (2, True)


def test_a_schedule_that_was_removed_in_the_ui_does_not_come_back(registered, register):
    found = registered.get(RETRAIN).json()
    registered.delete(f"/deployments/{found['id']}/schedules/{found['schedules'][0]['id']}").raise_for_status()
    register()
    assert crons(registered) == {}


def test_another_schedule_in_the_file_takes_the_place_of_the_uis_and_is_told(served, registered, register, capsys):
    found = registered.get(RETRAIN).json()
    registered.post(f"/deployments/{found['id']}/schedules", json=[EVERY_MINUTE | {"slug": "often"}]).raise_for_status()
    edit_deployments(served[0], schedules=[{"cron": "0 5 * * *", "timezone": "UTC", "active": True}])
    register()
    assert crons(registered) == {"0 5 * * *": True}
    assert "prefect.yaml has other settings for retrain" in capsys.readouterr().out
    register()
    assert "other settings" not in capsys.readouterr().out


def test_another_description_in_the_file_leaves_the_uis_schedule(served, registered, register):
    found = registered.get(RETRAIN).json()
    address = f"/deployments/{found['id']}/schedules/{found['schedules'][0]['id']}"
    registered.patch(address, json={"active": True}).raise_for_status()
    edit_deployments(served[0], description="Other words.")
    register()
    assert registered.get(RETRAIN).json()["description"] == "Other words."
    assert crons(registered) == {"0 3 * * *": True}


def test_a_registration_that_is_killed_loses_no_schedule(served, registered, environment):
    found = registered.get(RETRAIN).json()
    address = f"/deployments/{found['id']}/schedules/{found['schedules'][0]['id']}"
    registered.patch(address, json={"active": True, "schedule": {"cron": "1 2 * * *"}}).raise_for_status()
    folder, client = served
    settings = {**environment, "PREFECT_API_URL": str(client.base_url).rstrip("/")}
    program = "from orchestration.prefect.registration import register\nprint('begins', flush=True)\nregister()"
    for seconds in (0.2, 0.5, 0.8, 1.2):
        command = [sys.executable, "-c", program]
        with subprocess.Popen(command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
            one.stdout.readline()
            time.sleep(seconds)
            one.kill()
        assert crons(registered) == {"1 2 * * *": True}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"schedules": [{"cron": "61 * * * *"}]}, "is no schedule"),
        ({"schedules": [{"corn": "0 3 * * *"}]}, "is no schedule"),
        ({"entrypoint": "flows/deployments.py:nothing"}, "flows/deployments.py:nothing has no flow"),
        ({"entrypoint": "flows/none.py:retrain"}, "flows/none.py:retrain has no flow"),
        ({"schedule": "0 3 * * *"}, "Extra inputs are not permitted"),
        ({"concurrency_limit": "many"}, "concurrency_limit"),
        ({"parameters": {"forse": True}}, "'forse' was unexpected"),
    ],
)
def test_a_mistake_in_the_file_is_told_and_changes_nothing(served, registered, register, changes, told):
    edit_deployments(served[0], **changes)
    with pytest.raises(UserError, match=r"^prefect\.yaml: ") as caught:
        register()
    assert told in str(caught.value)
    assert crons(registered) == {"0 3 * * *": False}
