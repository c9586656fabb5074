"""A Prefect server for a run: the one at PREFECT_API_URL, or a private one that ends with the run.

Starting a server takes most of a small flow's time. So the stages of one `dvc repro` share a server: the first stage
starts it, and it ends with the DVC process. A flow that a person runs gets its own, which ends with the flow. A
supervisor process ends the server in both cases, so that neither Ctrl-C nor `kill -9` leaves one behind. The database
is in the project's own Prefect home (pyproject.toml).

A private server listens on 127.0.0.1 and asks for a secret, which a file in the Prefect home holds (`auth_string`). It
and its clients have settings of their own and ignore what the environment says about another server
(`configures_server`). With a PREFECT_API_URL the server is the user's, and all of the user's settings apply.
"""

import atexit
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import psutil
from filelock import FileLock
from pydantic import BaseModel

from config.params import load_params
from config.retention import Retention
from orchestration.environment import SERVER
from orchestration.prefect.log_files import open_log
from orchestration.workspace_lock import share_workspace_until_exit
from runtime.errors import UserError
from runtime.variables import PIPELINE_RUN

if TYPE_CHECKING:
    from prefect.settings.models.api import APISettings
    from prefect.settings.models.client import ClientSettings

ADDRESS = "127.0.0.1"
START_SECONDS = 120
CONNECT_SECONDS = 5  # for the server at PREFECT_API_URL to accept a connection
ANSWER_SECONDS = 60  # for it to answer then, on a busy machine
JOIN_SECONDS = 20
BACKLOG = 2048  # uvicorn's
# The file in the Prefect home that holds the secret of our servers, as USER:PASSWORD.
SECRET = "auth-string"
SECRET_PATTERN = re.compile(r"heaviside:[\w-]{43}")
# The database of the server of `make ui`, where it is not Prefect's SQLite file.
DATABASE = "HEAVISIDE_PREFECT_DATABASE"
# How often a run of the worker gives a sign of life: the shortest time that Prefect knows.
HEARTBEAT, HEARTBEAT_SECONDS = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY", 30
# Prefect's variables about flows, whichever server they report to. All others are about a server: its address, how to
# reach it, or how to be one.
KEPT = re.compile(r"PREFECT_(HOME$|(LOGGING|FLOWS|TASKS|RESULTS|RUNNER|WORKER)_)")
# Private servers have no UI and record no events, which nobody would see; runs, tasks, logs and artifacts are recorded.
# They flush the states of tasks once per second: state by state, that takes a third of the server's time.
BARE = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "0",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "0",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "1000",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}


@contextmanager
def prefect_server() -> Iterator[dict[Any, Any]]:
    """Yield Prefect's settings for the server that flows report to.

    Raises UserError if the server at PREFECT_API_URL does not answer or refuses us, or if a private one does not start.
    """
    from prefect.settings.models.api import APISettings
    from prefect.settings.models.client import ClientSettings

    # Read again: a forked stage has the settings of the fork server's start, and a newer environment.
    api = APISettings()
    if api.url:
        yield configured_server(api, ClientSettings())
        return
    refuse_loopback_down()
    for name in [*os.environ]:
        if configures_server(name):
            del os.environ[name]
    owner = owner_process()
    folder = prefect_home()
    record = folder / f"server-{owner.pid}-{int(owner.create_time())}"
    with FileLock(folder / "server.lock"):
        joins = record.exists() and answers(record.read_text(), JOIN_SECONDS)
        supervisor = None if joins else start_server(owner, record)
        address = record.read_text()
    if supervisor and owner.pid == os.getpid():
        atexit.register(stop, supervisor)  # not earlier: Prefect sends its last logs and events at exit
    yield {**auth_settings(), "api.url": address}


def configured_server(api: "APISettings", client: "ClientSettings") -> dict[Any, Any]:
    """Return Prefect's settings for the user's server at `api.url`; raises UserError if it does not let us in."""
    given = str(api.url)
    address = api_address(given)
    settings = {**flat("api", api), **flat("client", client), "api.url": address}
    if "ssl_cert_file" not in api.model_fields_set:  # with Dask, the default of this machine would reach others
        del settings["api.ssl_cert_file"]
    if PIPELINE_RUN in os.environ:  # the run's process has checked the server
        return settings
    if is_ours(address) and not (api.auth_string and api.auth_string.get_secret_value()):
        settings["api.auth_string"] = auth_string()
    refuse_bad_server(given, settings)
    return settings


def api_address(given: str) -> str:
    """Return the address of the API that `given`, a PREFECT_API_URL, means: with a path, without a slash at its end."""
    try:
        parts = urlsplit(given.strip())
        known = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        known = False
    if not known:
        raise UserError(
            f"PREFECT_API_URL ({given}) is no address of a Prefect server: write it as http://HOST:PORT/api, or unset "
            "PREFECT_API_URL to have a private server for this run."
        )
    return urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/") or "/api", "", ""))


def refuse_bad_server(given: str, settings: dict[Any, Any]) -> None:
    """Raise UserError unless the Prefect server of `settings` answers and lets us read. given: PREFECT_API_URL."""
    import httpx
    from prefect import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import temporary_settings

    name = f"PREFECT_API_URL ({given})"
    once = {"client.max_retries": 0, "client.server_version_check_enabled": False}
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            with (
                temporary_settings({**settings, **once}),
                get_client({"timeout": timeout}, sync_client=True) as client,
            ):
                client.read_flows(limit=1)
            return
        except PrefectHTTPStatusError as error:
            if error.response.status_code in (401, 403):
                raise UserError(
                    f"the Prefect server at {name} asks for a login: set PREFECT_API_AUTH_STRING to its USER:PASSWORD, "
                    "or PREFECT_API_KEY for Prefect Cloud."
                ) from None
            reason = f"It answers with {error.response.status_code} {error.response.reason_phrase}"
        except httpx.TransportError as error:
            reason = f"The connection fails: {error or type(error).__name__}"
            if "[Errno -" not in reason and time.monotonic() < deadline:  # those are unknown host names
                time.sleep(0.2)
                continue
        except (ValueError, OSError) as error:  # the answer is no JSON, or a certificate cannot be read
            reason = f"What answers is not its API: {str(error).splitlines()[0]}"
        raise UserError(
            f"no Prefect server answers at {name}. {reason}. Start it, or unset PREFECT_API_URL to have a "
            "private server for this run."
        )


def is_ours(address: str) -> bool:
    """Return whether a server of this workspace, such as that of `make ui`, has this address."""
    from prefect.settings import PREFECT_HOME

    loopback = address.replace("//localhost:", f"//{ADDRESS}:")
    return any(record.read_text() == loopback for record in PREFECT_HOME.value().glob("server-*"))


def auth_settings() -> dict[Any, Any]:
    """Return Prefect's settings for clients of a server that we started, without its address, PREFECT_API_URL.

    They hold the secret, and Prefect's defaults for whatever the user may have set for another server.
    """
    from prefect.settings.models.api import APISettings
    from prefect.settings.models.client import ClientSettings

    api, client = APISettings.model_construct(), ClientSettings.model_construct()
    settings = {**flat("api", api), **flat("client", client)}
    del settings["api.url"]
    secret = auth_string()
    return settings | {
        "api.auth_string": secret,
        # Prefect would prefer a header that is meant for another server, also one in a file `.env`.
        "client.custom_headers": json.dumps({"Authorization": f"Basic {b64encode(secret.encode()).decode()}"}),
        # Not None: no environment variable can pass that to another process and overrule a file `.env`.
        "api.key": "",
        "api.ssl_cert_file": "",
        # Checks that are only useful against a foreign server.
        "client.csrf_support_enabled": False,
        "client.server_version_check_enabled": False,
        "client.metrics.enabled": False,
    }


def flat(family: str, settings: Any) -> dict[Any, Any]:
    """Return the settings of a family by Prefect's names, such as `api.url`, without those of nested families."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    return {
        # As text, because Prefect merges a dict with the current one.
        f"{family}.{name}": json.dumps(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if not isinstance(value, BaseModel)
    }


def reporting_environment() -> dict[str, str]:
    """Return the variables by which another process reports to the server that this process reports to."""
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    return {
        **settings.api.to_environment_variables(exclude_unset=True),
        **settings.client.to_environment_variables(exclude_unset=True),
    }


def client_environment() -> dict[str, str]:
    """Return the environment of a client, such as the worker, of our server at PREFECT_API_URL."""
    from prefect.settings import temporary_settings

    with temporary_settings({**auth_settings(), "api.url": os.environ["PREFECT_API_URL"]}):
        reporting = reporting_environment()
    kept = {name: value for name, value in os.environ.items() if not configures_server(name)}
    path = os.pathsep.join([str(Path.cwd()), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "PYTHONPATH": path, HEARTBEAT: str(HEARTBEAT_SECONDS), **reporting}


def server_environment(port: int, pages: bool) -> dict[str, str]:
    """Return the environment of our server on `port`, whose working directory is the Prefect home.

    Prefect also reads `.env`, prefect.toml and pyproject.toml of the working directory, which has none. PREFECT_HOME is
    ".", so that no character of its path has a meaning in the address of the database.
    """
    origins = [f"http://{host}:{port}" for host in (ADDRESS, "localhost")]
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("PREFECT_")}
    environment |= {
        SERVER: "1",
        "PREFECT_HOME": ".",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
        "PREFECT_SERVER_API_HOST": ADDRESS,
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_API_AUTH_STRING": auth_string(),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(origins),
        "PREFECT_UI_API_URL": f"{origins[0]}/api",
        # Its background services are clients, too.
        "PREFECT_API_AUTH_STRING": auth_string(),
    }
    if not pages:
        return environment | BARE
    environment |= vacuum_environment(load_params().retention)
    if database := os.environ.get(DATABASE):
        environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
    return environment


def vacuum_environment(kept: Retention) -> dict[str, str]:
    """Return the variables by which Prefect's own service removes what is older than `kept` says, once an hour.

    The file of the database does not shrink: SQLite fills what has become free.
    """
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": f"P{kept.runs_days}D",
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{kept.events_days}D",
    }


def configures_server(name: str) -> bool:
    """Return whether an environment variable is Prefect's and about a server; Prefect ignores case."""
    return name.upper().startswith("PREFECT_") and not KEPT.match(name.upper())


def auth_string() -> str:
    """Return the secret of this workspace's servers, USER:PASSWORD, which only this user can read; create it once."""
    path = prefect_home() / SECRET
    if known := known_secret(path):
        return known
    with FileLock(path.with_name(f"{SECRET}.lock")):
        if known := known_secret(path):  # another process was faster
            return known
        made = f"heaviside:{secrets.token_urlsafe(32)}"
        staged = path.with_name(f"{SECRET}.new")
        staged.unlink(missing_ok=True)
        staged.touch(0o600, exist_ok=False)
        staged.write_text(made)
        staged.replace(path)
        return made


def known_secret(path: Path) -> str | None:
    """Return the secret in a file, from now on unreadable for others; None if there is no complete one."""
    if not path.is_file():
        return None
    path.chmod(0o600)
    known = path.read_text(errors="replace")
    return known if SECRET_PATTERN.fullmatch(known) else None


def how_to_sign_in() -> str:
    """Return how a person signs in to the UI of our server; only a terminal is shown the secret itself."""
    if sys.stdout.isatty():
        return f"It asks once for: {auth_string()}"
    return f"It asks once for what the file {prefect_home() / SECRET} holds."


def prefect_home() -> Path:
    """Return the folder of the servers' database, logs and secret; raises UserError if it cannot be created."""
    from prefect.settings import PREFECT_HOME

    folder = PREFECT_HOME.value()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not folder.is_absolute() and folder.stat().st_uid == os.geteuid():  # the project's own, not a PREFECT_HOME
            folder.chmod(0o700)
    except OSError as error:
        raise UserError(
            f"Prefect's folder {folder} cannot be made ({error.strerror}). Make its parent writable, or set "
            "PREFECT_HOME to another folder."
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"Prefect's folder {folder} cannot be written. Make it writable, or set PREFECT_HOME to another folder."
        )
    return folder


def stop(supervisor: subprocess.Popen) -> None:
    supervisor.terminate()
    supervisor.wait()


def owner_process() -> psutil.Process:
    """Return the process with which the server ends: the DVC that runs this stage, else this process.

    DVC sets DVC_STAGE for the commands of its stages; so DVC is the nearest ancestor without that variable.
    """
    this = psutil.Process()
    if "DVC_STAGE" not in os.environ:
        return this
    for ancestor in this.parents():
        try:
            if "DVC_STAGE" not in ancestor.environ():
                return ancestor
        except psutil.Error:
            break
    return this


def start_server(owner: psutil.Process, record: Path, port: int | None = None, pages: bool = False) -> subprocess.Popen:
    """Start a server below a supervisor process, and wait until it answers.

    Args:
        owner: the process with which the server ends.
        record: the file that holds the server's address as long as it runs.
        port: None: any free one.
        pages: serve the UI, too.

    Returns:
        The supervisor process.

    Raises:
        UserError: the server does not start.
    """
    log_path = record.parent / ("server.log" if pages else "private-server.log")
    with bound_socket(port) as listener, open_log(log_path) as log:
        port, descriptor = listener.getsockname()[1], listener.fileno()
        words = [owner.pid, record.absolute(), descriptor]
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "orchestration.prefect.server", *map(str, words)],
            env=server_environment(port, pages),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[descriptor],
            start_new_session=True,  # Ctrl-C is for the run, and the server ends with the run
        )
    address = f"http://{ADDRESS}:{port}/api"
    if not answers(address, START_SECONDS, supervisor):
        ended = supervisor.poll() is not None
        stop(supervisor)
        reason = reason_in(log_path) or ("it ended" if ended else f"it did not answer for {START_SECONDS} s")
        database = "sqlite3" in reason or "alembic" in reason
        remedy = f" Move {record.parent / 'prefect.db'} away to begin with a new database." if database else ""
        raise UserError(f"the Prefect server did not start: {reason}. Its log is {log_path}.{remedy}")
    record.write_text(address)
    return supervisor


def bound_socket(port: int | None) -> socket.socket:
    """Return a listening socket on `port`, None for any free one; no other process can take the port then."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port or 0))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(f"the Prefect server did not start: port {port} is not to be had ({error}).") from None
    return listener


def reason_in(log_path: Path) -> str:
    """Return the last line of a server's log that says why it did not start; "" if there is none."""
    lines = [line.strip() for line in log_path.read_text(errors="replace").splitlines()]
    reasons = [line for line in lines if line and not line.startswith("ERROR:    Application startup failed")]
    errors = [line for line in reasons if re.match(r"[\w.]+(Error|Exception|Exit)\b", line) and "[SQL" not in line]
    return (errors or reasons or [""])[-1].rstrip(".")


def free_port() -> int:
    with socket.socket() as free:
        free.bind((ADDRESS, 0))
        return free.getsockname()[1]


def answers(address: str, seconds: float, supervisor: subprocess.Popen | None = None) -> bool:
    """Wait until Prefect's API answers.

    Args:
        address: of the API.
        seconds: how long to wait.
        supervisor: of the server; if it has ended, there is nothing to wait for.

    Returns:
        Whether it answers.
    """
    deadline = time.monotonic() + seconds
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and (supervisor is None or supervisor.poll() is None):
        try:
            with direct.open(f"{address}/health", timeout=5) as response:
                return response.read(10) == b"true"  # not a page of another server
        except OSError:
            time.sleep(0.1)
    return False


# Its working directory is the Prefect home; our modules are elsewhere.
SERVE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from orchestration.prefect.app import serve; serve(int(sys.argv[2]))"
)


def run_server(owner_pid: int, record: Path, listener: int) -> None:
    """Run a Prefect server until process `owner_pid` has ended, or this process is asked to end.

    Args:
        owner_pid: the process with which the server ends.
        record: the file with the server's address, an absolute path in the Prefect home.
        listener: the descriptor of the server's listening socket.
    """
    command = [sys.executable, "-c", SERVE, str(Path.cwd()), str(listener)]
    server = subprocess.Popen(command, cwd=record.parent, pass_fds=[listener])
    os.close(listener)
    if "DVC_STAGE" in os.environ:  # so a `dvc repro` holds the workspace between its stages, too
        share_workspace_until_exit(psutil.Process(owner_pid))
    try:
        while is_alive(owner_pid) and server.poll() is None:
            time.sleep(0.2)
    finally:
        record.unlink(missing_ok=True)
        server.terminate()
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def refuse_loopback_down() -> None:
    """Raise UserError where the loopback interface is down, as in a fresh network namespace (`unshare -n`).

    Our servers listen on 127.0.0.1 alone, and a bind to it succeeds all the same.
    """
    loopback = psutil.net_if_stats().get("lo")
    if loopback and not loopback.isup:
        raise UserError(
            "the loopback interface `lo` is down, and Prefect's server listens on 127.0.0.1. "
            "Run `ip link set lo up` as root first."
        )


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    run_server(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
