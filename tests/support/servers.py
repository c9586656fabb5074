"""Prefect servers for tests: a user's own, and that of `make ui`."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from tests.support.processes import wait_for
from tests.support.workspaces import ROOT


def start_server(home: Path, owner: int, **settings: str) -> tuple[str, subprocess.Popen]:
    """Start a Prefect server that is none of a workspace's, and return its address when it answers.

    Args:
        home: its folder.
        owner: the process with which it ends, even when that is killed.
        settings: of Prefect, as environment variables.

    Returns:
        The address, and the process to stop.
    """
    from orchestration.environment import SERVER
    from orchestration.prefect.server import BARE, answers, bound_socket

    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with bound_socket(None) as listener, (home / "server.log").open("w") as log:
        port, descriptor = listener.getsockname()[1], listener.fileno()
        words = [owner, home / "server", descriptor]
        keeper = subprocess.Popen(
            [sys.executable, "-m", "orchestration.prefect.server", *map(str, words)],
            cwd=ROOT,
            env={**own, **BARE, SERVER: "1", "PREFECT_HOME": ".", "PREFECT_SERVER_ANALYTICS_ENABLED": "0", **settings},
            stdout=log,
            stderr=log,
            pass_fds=[descriptor],
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}/api"
    assert answers(address, 120), (home / "server.log").read_text()
    return address, keeper


@contextmanager
def serve(home: Path, **settings: str) -> Iterator[str]:
    """Run a Prefect server that is none of a workspace's; settings: of Prefect, as environment variables."""
    from orchestration.prefect.server import stop

    address, keeper = start_server(home, os.getpid(), **settings)
    try:
        yield address
    finally:
        stop(keeper)


@contextmanager
def open_ui(folder: Path, environment: dict[str, str], port: int | None = None) -> Iterator[httpx.Client]:
    """Run `python -m flows.ui` in a workspace and yield a client of its API; at the end no process of it is left."""
    from orchestration.prefect.server import free_port

    port = port or free_port()
    command = [sys.executable, "-m", "flows.ui", "--port", str(port)]
    log = folder / "ui.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    wait_for(lambda: "Prefect UI:" in log.read_text() or process.poll() is not None, log.read_text, 240)
    assert process.poll() is None, log.read_text()
    children = psutil.Process(process.pid).children(recursive=True)
    try:
        with sign_in(folder, f"http://127.0.0.1:{port}/api") as client:
            yield client
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
    assert process.returncode == 130
    assert not psutil.wait_procs(children, timeout=60)[1]


def sign_in(folder: Path, address: str) -> httpx.Client:
    """Return a client of the server of a workspace that knows its secret."""
    user, _, password = (folder / ".prefect" / "auth-string").read_text().partition(":")
    return httpx.Client(base_url=address, auth=(user, password), timeout=60)
