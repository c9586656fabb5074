"""Who may do what: our servers ask every caller for a secret, and start nothing but our own command."""

import asyncio
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import websockets
from prefect.settings import PREFECT_HOME, temporary_settings

from orchestration.prefect.server import SECRET, start_server, stop
from tests.support.processes import words_of
from tests.support.servers import open_ui, serve, sign_in
from tests.support.workspaces import DVC, MIGRATED, ROOT, make_workspace

pytestmark = [pytest.mark.xdist_group("security"), pytest.mark.timeout(600)]

NOBODY = 65534
# What a person may have set for another server, of which none is ours.
ANOTHER_SERVERS = {
    "PREFECT_SERVER_API_AUTH_STRING": "a:b",
    "PREFECT_SERVER_API_BASE_PATH": "/v2",
    "PREFECT_SERVER_API_PORT": "a word that another version may know",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://a:b@127.0.0.1:9/none",
    "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://a:b@127.0.0.1:9/none",
    "PREFECT_API_AUTH_STRING": "c:d",
    "PREFECT_API_KEY": "a-key",
    "PREFECT_API_SSL_CERT_FILE": "/none.pem",
    "prefect_client_custom_headers": '{"Authorization": "Bearer another"}',
    "PREFECT_CLIENT_MAX_RETRIES": "0",
    "PREFECT_PROFILE": "another",
}


@pytest.fixture(scope="module")
def small_workspace(tmp_path_factory) -> Path:
    """A workspace on the sample in which nothing has run yet, with DVC and without git."""
    folder = make_workspace(tmp_path_factory.mktemp("security") / "with [a] space, 100%")
    subprocess.run([*DVC, "init", "--quiet", "--no-scm"], cwd=folder, check=True)
    (folder / "prefect.yaml").write_bytes((ROOT / "prefect.yaml").read_bytes())
    return folder


@pytest.fixture(scope="module")
def ui(small_workspace, environment) -> Iterator[httpx.Client]:
    with open_ui(small_workspace, environment) as client:
        yield client


@pytest.fixture
def run(small_workspace, environment) -> Callable[..., subprocess.CompletedProcess]:
    """Run `python -m flows.NAME ...` in the workspace, without a PREFECT_API_URL unless it is given."""

    def run(*words: str, **more: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", f"flows.{words[0]}", *words[1:]]
        settings = {**environment, **more}
        return subprocess.run(
            command, cwd=small_workspace, env=settings, capture_output=True, text=True, check=False, timeout=600
        )

    return run


def as_another_user(look: Callable[[], Any]) -> Any:
    """Return what `look` returns to another user of this machine; where we may not be one, to us without the secret."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            with os.fdopen(theirs, "wb") as answer:
                pickle.dump(look(), answer)
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as answer:
        found = answer.read()
    os.waitpid(child, 0)
    return pickle.loads(found)  # noqa: S301  # from ourselves


def routes(server: str) -> list[tuple[str, str]]:
    """Return the method and path of every route of the API, each with ids that exist nowhere."""
    described = httpx.get(f"{server}/openapi.json", timeout=60).json()["paths"]
    return [
        (method.upper(), re.sub(r"\{[^}]*\}", "00000000-0000-0000-0000-000000000000", path))
        for path, methods in described.items()
        for method in methods
    ]


def test_another_user_is_refused_on_every_route_but_the_two_that_say_that_the_server_lives(ui):
    address = str(ui.base_url).rstrip("/")
    wanted = routes(address.removesuffix("/api"))
    assert len(wanted) > 150

    def look() -> dict[tuple[str, str], int]:
        with httpx.Client(timeout=60) as client:
            return {route: client.request(route[0], address + route[1]).status_code for route in wanted}

    answered = as_another_user(look)
    open_routes = {route for route, status in answered.items() if status != 401}
    assert open_routes == {("GET", "/health"), ("GET", "/ready")}


def test_a_wrong_secret_is_refused_and_the_right_one_is_not(ui):
    address = f"{ui.base_url}flow_runs/filter"
    assert httpx.post(address, json={}, auth=("heaviside", "wrong"), timeout=60).status_code == 401
    assert ui.post("/flow_runs/filter", json={}).status_code == 200


@pytest.mark.parametrize("path", ["/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled"])
@pytest.mark.parametrize("said", [None, {"type": "auth"}, {"type": "auth", "token": "wrong"}])
def test_a_websocket_without_the_secret_is_closed(ui, path, said):
    address = f"{ui.base_url}".replace("http:", "ws:").rstrip("/") + path

    async def ask() -> None:
        protocols = ["prefect"] if said else None
        async with websockets.connect(address, subprotocols=protocols, open_timeout=60) as socket:
            await socket.send(json.dumps(said or {}))
            await asyncio.wait_for(socket.recv(), 60)

    with pytest.raises((websockets.ConnectionClosed, websockets.InvalidHandshake)):
        asyncio.run(ask())


def test_only_this_user_can_read_the_secret(ui, small_workspace):
    secret = small_workspace / ".prefect" / SECRET
    assert secret.stat().st_mode & 0o777 == 0o600
    assert secret.parent.stat().st_mode & 0o777 == 0o700  # nor the database
    if os.geteuid() == 0:
        with pytest.raises(EOFError):  # nothing was read there
            as_another_user(secret.read_text)
    words = [word for process in psutil.Process().children(recursive=True) for word in words_of(process)]
    assert not any(secret.read_text() in word for word in words)
    assert secret.read_text() not in (small_workspace / "ui.log").read_text()


def test_a_page_of_another_origin_may_not_read_and_one_of_another_name_is_refused(ui):
    address, port = str(ui.base_url), ui.base_url.port

    def allowed(origin: str) -> str | None:
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-a"}
        answer = httpx.options(f"{address}flow_runs/filter", headers=asked, timeout=60)
        return answer.headers.get("access-control-allow-origin")

    assert allowed("http://evil.example") is None
    assert allowed("http://127.0.0.1:9") is None
    assert allowed(f"http://localhost:{port}") == f"http://localhost:{port}"
    assert ui.post("/flow_runs/filter", json={}, headers={"Host": f"evil.example:{port}"}).status_code == 400
    assert ui.post("/flow_runs/filter", json={}, headers={"Host": f"localhost:{port}"}).status_code == 200


def test_the_pages_talk_to_the_server_that_serves_them_and_ask_for_the_secret(ui):
    told = httpx.get(f"http://127.0.0.1:{ui.base_url.port}/ui-settings", timeout=60).json()
    assert told["api_url"] == f"http://127.0.0.1:{ui.base_url.port}/api"
    assert told["auth"] == "BASIC"


def test_the_servers_listen_on_this_machine_alone(ui, small_workspace, environment):
    home = small_workspace / ".prefect"
    with temporary_settings({PREFECT_HOME: home}):
        supervisor = start_server(psutil.Process(), home / "server-of-a-test")
    try:
        tree = [
            process for child in psutil.Process().children() for process in (child, *child.children(recursive=True))
        ]
        listening = [
            connection.laddr.ip
            for process in tree
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(listening) >= 2
        assert set(listening) == {"127.0.0.1"}
        address = (home / "server-of-a-test").read_text()
        assert httpx.post(f"{address}/flow_runs/filter", json={}, timeout=60).status_code == 401
        with sign_in(small_workspace, address) as client:
            assert client.post("/flow_runs/filter", json={}).status_code == 200
    finally:
        stop(supervisor)


@pytest.mark.parametrize(
    "variables",
    [
        lambda marker: {"command": f"touch '{marker}'"},
        lambda marker: {"env": {"PREFECT_LOGGING_LEVEL": "DEBUG"}},
        lambda marker: {"env.PYTHONSTARTUP": str(marker)},
        lambda marker: {"working_dir": str(marker.parent)},
        lambda marker: {"name": "another"},
    ],
    ids=["command", "env", "env.NAME", "working_dir", "name"],
)
def test_no_run_brings_a_command_variables_or_a_folder(ui, tmp_path, variables):
    found = ui.get("/deployments/name/pipeline/pipeline").json()
    asked = {"parameters": {"targets": ["ingest@line"]}, "job_variables": variables(tmp_path / "marker")}
    response = ui.post(f"/deployments/{found['id']}/create_flow_run", json=asked)
    assert response.status_code == 422
    assert "not allowed" in response.text


@pytest.mark.rotates
def test_a_command_that_reached_the_server_all_the_same_is_not_run(ui, tmp_path):
    found = ui.get("/deployments/name/pipeline/pipeline").json()
    marker = tmp_path / "marker"
    variables = {"command": f"touch '{marker}'", "working_dir": "/", "env": {"HEAVISIDE_PIPELINE_RUN": "none"}}
    ui.patch(f"/deployments/{found['id']}", json={"job_variables": variables}).raise_for_status()
    asked = {
        "flow_id": found["flow_id"],
        "deployment_id": found["id"],
        "work_pool_name": "heaviside",
        "parameters": {"targets": ["ingest@line"]},
        "state": {"type": "SCHEDULED"},
    }
    runs = [ui.post("/flow_runs/", json={**asked, "job_variables": given}) for given in (variables, {})]
    created = [run.json()["id"] for run in runs if run.status_code == 201]
    deadline = time.monotonic() + 300
    for run in created:
        while (state := ui.get(f"/flow_runs/{run}").json()["state"]["type"]) in ("SCHEDULED", "PENDING", "RUNNING"):
            assert time.monotonic() < deadline, state
            time.sleep(1)
    ui.patch(f"/deployments/{found['id']}", json={"job_variables": {}}).raise_for_status()
    assert created
    assert not marker.exists()


def test_a_run_in_the_terminal_may_report_to_the_server_of_make_ui(ui, run):
    count = ui.post("/flow_runs/count", json={}).json()
    done = run("ingest", "line", PREFECT_API_URL=f"{str(ui.base_url).rstrip('/').removesuffix('/api')}/")
    assert done.returncode == 0, done.stderr
    assert ui.post("/flow_runs/count", json={}).json() == count + 1


@pytest.mark.rotates
def test_what_is_set_for_another_server_reaches_neither_ours_nor_its_clients(run, small_workspace):
    files = {
        ".env": "".join(f"{name}='{value}'\n" for name, value in ANOTHER_SERVERS.items() if "PORT" not in name),
        "prefect.toml": '[server.api]\nauth_string = "a:b"\nbase_path = "/v2"\n[api]\nkey = "a-key"\n',
    }
    done = run("pipeline", "ingest@line", "--force", **ANOTHER_SERVERS)
    assert done.returncode == 0, done.stdout + done.stderr
    try:
        for name, text in files.items():
            (small_workspace / name).write_text(text)
        done = run("ingest", "line")
    finally:
        for name in files:
            (small_workspace / name).unlink()
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stages_of_dvc_repro_share_a_server_that_asks_for_the_secret(small_workspace, environment):
    command = [*DVC, "repro", "--force", "ingest@line"]
    done = subprocess.run(
        command,
        cwd=small_workspace,
        env={**environment, **ANOTHER_SERVERS},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.rotates
def test_a_server_of_the_users_gets_what_the_user_has_set_for_it(run, tmp_path):
    with serve(tmp_path, PREFECT_SERVER_API_AUTH_STRING="me:mine") as address:
        refused = run("ingest", "line", PREFECT_API_URL=address)
        assert refused.returncode == 1
        assert refused.stderr.startswith(f"error: the Prefect server at PREFECT_API_URL ({address}) asks for a login")
        assert "PREFECT_API_AUTH_STRING" in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        done = run("pipeline", "ingest@line", "--force", PREFECT_API_URL=address, PREFECT_API_AUTH_STRING="me:mine")
        assert done.returncode == 0, done.stdout + done.stderr
        runs = httpx.post(f"{address}/flow_runs/count", json={}, auth=("me", "mine"), timeout=60)
        assert runs.json() == 3  # the pipeline's, and those of two stages


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("http://no-such-host.invalid:4200/api", "Name or service not known|name resolution"),
        ("http://127.0.0.1:9/api", "Connection refused"),
    ],
)
def test_a_server_that_is_not_there_is_told_in_one_line(run, given, told):
    done = run("ingest", "line", PREFECT_API_URL=given)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: no Prefect server answers at PREFECT_API_URL ({given}).")
    assert re.search(told, done.stderr)
    assert "unset PREFECT_API_URL" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("what", ["a database of something else", "no folder for the database"])
def test_a_server_that_does_not_start_says_why_in_one_line(run, tmp_path, what):
    home = tmp_path / "home"
    if what == "a database of something else":
        home.mkdir()
        (home / "prefect.db").write_text("This is no database. " * 100)
        told = "file is not a database"
    else:
        home.write_text("a file")
        told = f"Prefect's folder {home} cannot be made"
    done = run("ingest", "line", PREFECT_HOME=str(home))
    assert done.returncode == 1
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_database_for_the_server_of_make_ui_is_named_by_a_variable_of_ours(tmp_path, environment):
    database = shutil.copy(MIGRATED[0], tmp_path / "elsewhere.db")
    with temporary_settings({PREFECT_HOME: tmp_path}), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEAVISIDE_PREFECT_DATABASE", f"sqlite+aiosqlite:///{database}")
        patch.chdir(ROOT)
        supervisor = start_server(psutil.Process(), tmp_path / "server", pages=True)
        opened = {file.path for child in psutil.Process(supervisor.pid).children() for file in child.open_files()}
        stop(supervisor)
    assert str(database) in opened
    assert not (tmp_path / "prefect.db").exists()
