"""Every way in which `make ui`, or a process that it starts, can end, with the real server and worker."""

import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.processes import wait_for
from tests.support.ui import Ui, processes, start_ui
from tests.support.waiting import make_it_wait
from tests.support.workspaces import ROOT, contents, edit_params

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def workspace(small, environment) -> Path:
    """A workspace in which everything is trained."""
    shutil.copy(ROOT / "prefect.yaml", small)
    make_it_wait(small, environment)
    return small


@pytest.fixture
def start(workspace, environment) -> Iterator[Callable[[], Ui]]:
    """Start the UI; at the end none of its processes is left, which is the test's to see to."""
    started: list[Ui] = []

    def start() -> Ui:
        started.append(start_ui(workspace, environment))
        return started[-1]

    yield start
    for ui in started:
        ui.process.kill()
        ui.process.wait()
    for process in processes(workspace):
        process.kill()


def lock_is_free(workspace: Path) -> bool:
    path = workspace / ".staging/workspace.lock"
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def unended(workspace: Path) -> list[tuple]:
    """Return the runs and tasks that the database has as under way."""
    with closing(sqlite3.connect(workspace / ".prefect/prefect.db", timeout=60)) as database:
        query = "SELECT name, state_type FROM {} WHERE state_type IN ('PENDING', 'RUNNING', 'CANCELLING')"
        return [row for table in ("flow_run", "task_run") for row in database.execute(query.format(table))]


def state_in_database(workspace: Path, id: str) -> str:
    with closing(sqlite3.connect(workspace / ".prefect/prefect.db", timeout=60)) as database:
        [(state,)] = database.execute("SELECT state_type FROM flow_run WHERE id = ?", (id,))
        return state


def state_of(workspace: Path) -> tuple[bytes, dict[str, bytes]]:
    """Return what an experiment changes and puts back."""
    return (workspace / "params.yaml").read_bytes(), contents(workspace / "data/raw")


def assert_all_ended(workspace: Path, before: tuple, state: str, id: str) -> None:
    wait_for(lambda: not processes(workspace), "the end of every process")
    assert state_of(workspace) == before
    assert lock_is_free(workspace)
    assert state_in_database(workspace, id) in state.split()
    assert unended(workspace) == []


# The process that gets signals, the signals, the exit code of `make ui`, what it says, and the state of the run.
# That is Crashed where the worker did not hear in time of a cancellation, after its server was started again.
ENDINGS = [
    ("ui", [signal.SIGINT, signal.SIGINT], 130, "stopping the runs", "CANCELLED"),
    ("ui", [signal.SIGTERM], 130, "stopping the runs", "CANCELLED"),
    ("ui", [signal.SIGHUP], 130, "stopping the runs", "CANCELLED"),
    ("ui", [signal.SIGKILL], -9, "`make ui` was killed", "CANCELLED"),
    ("worker", [signal.SIGTERM], 1, "the worker has ended", "CANCELLED"),
    ("worker", [signal.SIGINT, signal.SIGINT], 1, "the worker has ended", "CANCELLED"),
    ("worker", [signal.SIGKILL], 1, "the worker was killed by signal 9", "CRASHED FAILED"),
    ("supervisor", [signal.SIGTERM], 1, "the server has ended", "CANCELLED CRASHED"),
    ("supervisor", [signal.SIGKILL], 1, "the server was killed by signal 9", "CANCELLED"),
    ("server", [signal.SIGKILL], 1, "the server has ended", "CANCELLED CRASHED"),
    ("guard", [signal.SIGKILL], 1, "was killed by signal 9", "CANCELLED CRASHED"),
]


@pytest.mark.rotates
@pytest.mark.parametrize(
    ("part", "signals", "code", "said", "state"),
    ENDINGS,
    ids=[f"{part}-{'-'.join(number.name for number in signals)}" for part, signals, *_ in ENDINGS],
)
def test_however_it_ends_an_experiment_is_put_back_and_nothing_is_left(
    start, workspace, part, signals, code, said, state
):
    before = state_of(workspace)
    ui = start()
    id = ui.waiting_run()
    pid = ui.pid(part)
    for number in signals:
        os.kill(pid, number)
        time.sleep(0.5)
    assert ui.wait() == code, ui.said()
    assert_all_ended(workspace, before, state, id)
    assert said in ui.said()
    assert "Traceback" not in ui.said()


@pytest.mark.rotates
def test_what_two_kills_leave_is_ended_by_the_next_ui(start, workspace):
    before = state_of(workspace)
    ui = start()
    id = ui.waiting_run()
    for pid in [ui.pid("guard"), ui.pid("supervisor"), ui.pid("server"), ui.pid("ui")]:
        os.kill(pid, signal.SIGKILL)
    ui.wait()
    old = {process.pid for process in processes(workspace)}
    assert old  # the worker and the run
    again = start()
    assert "ending the processes" in again.said()
    assert not old & {process.pid for process in processes(workspace)}
    assert again.ended(id)["state"]["type"] in ("CANCELLED", "CRASHED")
    assert again.process.poll() is None
    again.process.send_signal(signal.SIGINT)
    assert again.wait() == 130
    assert_all_ended(workspace, before, "CANCELLED CRASHED", id)


def test_it_says_what_it_does_before_its_imports_are_done(workspace, environment):
    before = time.monotonic()
    ui = start_ui(workspace, environment, wait=False)
    wait_for(lambda: "starting the server on port" in ui.said(), "the first line")
    first = time.monotonic() - before
    wait_for(lambda: "registering" in ui.said(), "the second line")
    second = time.monotonic() - before
    ui.process.send_signal(signal.SIGINT)
    assert ui.wait() == 130
    wait_for(lambda: not processes(workspace), "the end of every process")
    assert first < second


def test_a_worker_that_cannot_start_is_told_with_the_end_of_its_log(workspace, environment):
    code = workspace / "orchestration/prefect/worker.py"
    code.write_text("import no_such_module\n")
    ui = start_ui(workspace, environment, wait=False)
    assert ui.wait() == 1
    assert "the worker has ended with exit code 1; .prefect/worker.log ends:" in ui.said()
    assert "ModuleNotFoundError: No module named 'no_such_module'" in ui.said()
    wait_for(lambda: not processes(workspace), "the end of every process")


@pytest.mark.rotates
def test_a_service_that_fails_again_and_again_is_named_once(start, workspace):
    ui = start()
    rename = "ALTER TABLE {} RENAME TO {}"
    with closing(sqlite3.connect(workspace / ".prefect/prefect.db", timeout=60)) as database:
        database.execute(rename.format("deployment_schedule", "away"))
        database.commit()
        name = "the service schedule_recent_deployments"
        wait_for(lambda: name in ui.said(), "the service's name")
        log = workspace / ".prefect/server.log"
        count = log.read_text().count("schedule_recent_deployments()")
        wait_for(lambda: log.read_text().count("schedule_recent_deployments()") > count + 1, "more failures")
        assert ui.said().count(name) == 1
        assert "no such table: deployment_schedule" in ui.said()
        database.execute(rename.format("away", "deployment_schedule"))
        database.commit()
    ui.process.send_signal(signal.SIGINT)
    assert ui.wait() == 130


def last(workspace: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "flows.ui", "--last"]
    return subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.rotates
def test_the_last_scheduled_runs_are_told_with_and_without_a_server(start, workspace, environment):
    nothing = last(workspace, environment)
    assert nothing.returncode == 0, nothing.stderr
    assert "No scheduled run yet." in nothing.stdout
    ui = start()
    deployment = ui.http("GET", "deployments/name/pipeline/pipeline")["id"]
    first = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    schedule = {"schedule": {"interval": 30, "anchor_date": first, "timezone": "UTC"}, "active": True}
    parameters = {"targets": ["receive@line"]}
    ui.http("POST", f"deployments/{deployment}/schedules", json=[{**schedule, "parameters": parameters}])

    def scheduled(*states: str) -> bool:
        with closing(sqlite3.connect(workspace / ".prefect/prefect.db", timeout=60)) as database:
            found = database.execute("SELECT state_type FROM flow_run WHERE auto_scheduled")
            return any(state in states for (state,) in found)

    def told(state: str) -> str | None:
        done = last(workspace, environment)
        lines = [line for line in done.stdout.splitlines() if line.strip().startswith("pipeline ")]
        return lines[0] if lines and state in lines[0] and done.returncode == (state != "Completed") else None

    wait_for(lambda: scheduled("COMPLETED"), "a scheduled run that completes")
    wait_for(lambda: told("Completed"), "its line")
    before = (workspace / "params.yaml").read_bytes()
    edit_params(workspace, models__linear_neuron__fit__epochs=0)
    wait_for(lambda: scheduled("FAILED", "CRASHED"), "a scheduled run that fails")
    wait_for(lambda: told("Failed") or told("Crashed"), "its line")
    (workspace / "params.yaml").write_bytes(before)
    ui.process.send_signal(signal.SIGINT)
    assert ui.wait() == 130
    without = last(workspace, environment)
    assert without.returncode == 1
    assert "Completed" in without.stdout
    with closing(sqlite3.connect(workspace / ".prefect/prefect.db", timeout=60)) as database:
        database.execute("DELETE FROM flow_run WHERE state_type = 'SCHEDULED'")
        database.execute("UPDATE deployment_schedule SET updated = '2026-01-01 00:00:00.000000'")
        database.commit()
    unplanned = last(workspace, environment)
    assert unplanned.returncode == 1
    assert "the schedule of `pipeline` is on, but no run has been planned since" in unplanned.stdout
