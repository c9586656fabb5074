"""Every way in which `make ui`, a process that it starts, or a run of it can end, with the real server and worker."""

import fcntl
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from conftest import DVC, ROOT, contents, edit_params, make_repository

from orchestration.prefect.server import free_port
from orchestration.prefect.services import LogWatch, repeated_failures
from orchestration.prefect.ui_processes import MARK

pytestmark = pytest.mark.xdist_group("ui")

SECONDS = 240  # a test waits at most so long for anything
LAST_STATES = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def wait_for(true: Callable[[], Any], what: str) -> Any:
    """Return what `true` returns as soon as that is true."""
    deadline = time.monotonic() + SECONDS
    while not (value := true()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.5)
    return value


@pytest.fixture(scope="module")
def environment(settings) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name != "PREFECT_API_URL"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, settings) -> Path:
    """A workspace in which one model is trained."""
    command = [*DVC, "repro", "--quiet", "train@fashion_mlp"]
    folder = make_repository(tmp_path_factory.mktemp("ui") / "with a space", settings, command)
    (folder / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    return folder


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
        return response.json()

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

    def training(self) -> str:
        """Start an experiment that takes very long, wait until it trains, and return its run's id."""
        log = self.workspace / ".prefect/worker.log"
        size = len(log.read_text())
        id = self.start_run("train model/train", model="fashion_mlp", epochs=9999)
        wait_for(lambda: re.search(r"epoch \d+/9999", log.read_text()[size:]), "an epoch")
        assert "9999" in (self.workspace / "params.yaml").read_text()
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
        return next(process.pid for process in processes(self.workspace) if word in process.cmdline())

    def wait(self) -> int:
        return self.process.wait(timeout=SECONDS)


def open_ui(workspace: Path, environment: dict[str, str], wait: bool = True) -> Ui:
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


@pytest.fixture
def start_ui(workspace, environment) -> Iterator[Callable[..., Ui]]:
    """Start the UI; at the end none of its processes is left, which is the test's to see to."""
    started: list[Ui] = []

    def start(**given: Any) -> Ui:
        started.append(open_ui(workspace, environment, **given))
        return started[-1]

    yield start
    for ui in started:
        ui.process.kill()
        ui.process.wait()
    left = processes(workspace)
    for process in left:
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
    return (workspace / "params.yaml").read_bytes(), contents(workspace / "artifacts/fashion_mlp")


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


@pytest.mark.parametrize(
    ("part", "signals", "code", "said", "state"),
    ENDINGS,
    ids=[f"{part}-{'-'.join(number.name for number in signals)}" for part, signals, *_ in ENDINGS],
)
def test_however_it_ends_an_experiment_is_put_back_and_nothing_is_left(
    start_ui, workspace, part, signals, code, said, state
):
    before = state_of(workspace)
    ui = start_ui()
    id = ui.training()
    pid = ui.pid(part)
    for number in signals:
        os.kill(pid, number)
        time.sleep(0.5)
    assert ui.wait() == code, ui.said()
    assert_all_ended(workspace, before, state, id)
    assert said in ui.said()
    assert "Traceback" not in ui.said()


def test_what_two_kills_leave_is_ended_by_the_next_ui(start_ui, workspace):
    before = state_of(workspace)
    ui = start_ui()
    id = ui.training()
    for pid in [ui.pid("guard"), ui.pid("supervisor"), ui.pid("server"), ui.pid("ui")]:
        os.kill(pid, signal.SIGKILL)
    ui.wait()
    old = {process.pid for process in processes(workspace)}
    assert old  # the worker and the run
    again = start_ui()
    assert "ending the processes" in again.said()
    assert not old & {process.pid for process in processes(workspace)}
    assert again.ended(id)["state"]["type"] in ("CANCELLED", "CRASHED")
    assert again.process.poll() is None
    again.process.send_signal(signal.SIGINT)
    assert again.wait() == 130
    assert_all_ended(workspace, before, "CANCELLED CRASHED", id)


def test_it_says_what_it_does_before_its_imports_are_done(workspace, environment):
    before = time.monotonic()
    ui = open_ui(workspace, environment, wait=False)
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
    before = code.read_text()
    code.write_text("import no_such_module\n")
    try:
        ui = open_ui(workspace, environment, wait=False)
        assert ui.wait() == 1
    finally:
        code.write_text(before)
    assert "the worker has ended with exit code 1; .prefect/worker.log ends:" in ui.said()
    assert "ModuleNotFoundError: No module named 'no_such_module'" in ui.said()
    wait_for(lambda: not processes(workspace), "the end of every process")


def test_a_service_that_fails_again_and_again_is_named_once(start_ui, workspace):
    ui = start_ui()
    rename = "ALTER TABLE {} RENAME TO {}"
    with closing(sqlite3.connect(workspace / ".prefect/prefect.db", timeout=60)) as database:
        database.execute(rename.format("deployment_schedule", "away"))
        database.commit()
        try:
            name = "the service schedule_recent_deployments"
            wait_for(lambda: name in ui.said(), "the service's name")
            log = workspace / ".prefect/server.log"
            count = log.read_text().count("schedule_recent_deployments()")
            wait_for(lambda: log.read_text().count("schedule_recent_deployments()") > count + 1, "more failures")
            assert ui.said().count(name) == 1
            assert "no such table: deployment_schedule" in ui.said()
        finally:
            database.execute(rename.format("away", "deployment_schedule"))
            database.commit()
    ui.process.send_signal(signal.SIGINT)
    assert ui.wait() == 130


def test_an_error_that_does_not_come_again_is_not_named(tmp_path):
    log = tmp_path / "server.log"
    watch = LogWatch(log)
    assert [*repeated_failures(watch)] == []  # there is no log yet
    record = "07:08:51.587 | ERROR   | docket.dependencies - ↩ [     8ms] {}(){{{}}}\nTraceback\n  a line\n"
    log.write_text(record.format("one", "one") + "sqlite3.OperationalError: locked\n")
    assert [*repeated_failures(watch)] == []
    with log.open("a") as file:
        file.write(record.format("two", "two") + "ValueError: 2\n" + record.format("two", "two"))
    [line] = repeated_failures(watch)
    assert line.startswith("the service two of the server fails repeatedly")
    log.write_text("")  # another server began
    assert [*repeated_failures(watch)] == []


def last(workspace: Path, environment: dict[str, str]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "flows.ui", "--last"]
    return subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)


def test_the_last_scheduled_runs_are_told_with_and_without_a_server(start_ui, workspace, environment):
    nothing = last(workspace, environment)
    assert nothing.returncode == 0, nothing.stderr
    assert "No scheduled run yet." in nothing.stdout
    ui = start_ui()
    deployment = ui.http("GET", "deployments/name/train model/train")["id"]
    start = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
    schedule = {"schedule": {"interval": 60, "anchor_date": start, "timezone": "UTC"}, "active": True}
    ui.http("POST", f"deployments/{deployment}/schedules", json=[{**schedule, "parameters": {"model": "fashion_mlp"}}])

    def told(state: str) -> str | None:
        done = last(workspace, environment)
        lines = [line for line in done.stdout.splitlines() if line.strip().startswith("train ")]
        return lines[0] if lines and state in lines[0] and done.returncode == (state != "Completed") else None

    wait_for(lambda: told("Completed"), "a scheduled run that completes")
    before = (workspace / "params.yaml").read_bytes()
    edit_params(workspace, models__fashion_mlp__fit__epochs=0)
    wait_for(lambda: told("Failed") or told("Crashed"), "a scheduled run that fails")
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
    assert "the schedule of `train` is on, but no run has been planned since" in unplanned.stdout
    with closing(sqlite3.connect(workspace / ".prefect/prefect.db", timeout=60)) as database:
        database.execute("DELETE FROM deployment_schedule")
        database.commit()


@pytest.fixture(scope="module")
def ui(workspace, environment) -> Iterator[Ui]:
    """A UI for the tests that leave it running; it runs until the module's end, so they come last."""
    ui = open_ui(workspace, environment)
    yield ui
    ui.process.send_signal(signal.SIGINT)
    assert ui.wait() == 130, ui.said()
    assert not processes(workspace)


def no_run_is_under_way(ui: Ui) -> bool:
    wanted = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
    runs = ui.http("POST", "flow_runs/filter", flow_runs=wanted)
    return not (runs or ui.http("POST", "task_runs/filter", task_runs=wanted))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_whose_process_is_killed_ends_with_its_subflows_and_tasks(ui, workspace, number):
    id = ui.training()
    os.kill(int(ui.run(id)["infrastructure_pid"]), number)
    assert ui.ended(id)["state"]["type"] == "CRASHED"
    wait_for(lambda: no_run_is_under_way(ui), "the end of subflows and tasks")


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
    after = ui.start_run("train model/train", model="fashion_mlp")
    assert ui.ended(after)["state"]["type"] == "COMPLETED"


def test_a_run_from_a_terminal_that_lives_is_left_alone(ui, workspace, environment):
    secret = workspace / ".prefect/auth-string"
    configured = {"PREFECT_API_URL": f"http://127.0.0.1:{ui.port}/api"}
    if secret.exists():
        configured["PREFECT_API_AUTH_STRING"] = secret.read_text()
    command = [sys.executable, "-m", "flows.pipeline", "--set", "models.fashion_mlp.fit.epochs=9999"]
    run = subprocess.Popen([*command, "train@fashion_mlp"], cwd=workspace, env={**environment, **configured})
    wanted = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    found = wait_for(lambda: ui.http("POST", "flow_runs/filter", **wanted), "the run")
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


@pytest.mark.parametrize("port", ["0", "65536", "-1", "many"])
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
