"""A Prefect server for a run: the one that is configured, or a private one that ends with the run.

Starting a server takes most of a small flow's time. So the stages of one `dvc repro` share a server:
the first stage starts it, and it lives exactly as long as the DVC process. A flow that is run by hand
gets its own, which ends with it. A keeper process sees to both, so that neither Ctrl-C nor `kill -9`
leaves a server behind. Its database is in the project's own Prefect home (pyproject.toml).
"""

import atexit
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock

from config.errors import UserError
from stages.workspace import share_workspace_until_exit

if TYPE_CHECKING:
    from prefect.settings.legacy import Setting

ADDRESS = "127.0.0.1"
START_SECONDS = 120
# Prefect's own names for a server without pages, without services, and without a record of every event, which nobody
# would see: runs, tasks, logs and artifacts are kept all the same. What becomes of tasks it writes down once a second,
# not state by state, which takes it a third of its time.
BARE = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED": "0",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "0",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "1000",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
CONFIGURED_SECONDS = 10


@contextmanager
def prefect_server() -> Iterator[dict["Setting", Any]]:
    """Yield Prefect's settings for the server that flows shall report to."""
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_CLIENT_CSRF_SUPPORT_ENABLED,
        PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
        PREFECT_HOME,
    )

    # A forked stage has the settings of the time when its server started; its environment is newer.
    if configured := os.environ.get("PREFECT_API_URL") or PREFECT_API_URL.value():
        if not answers(configured, CONFIGURED_SECONDS):
            raise UserError(
                f"no Prefect server answers at PREFECT_API_URL ({configured}). Start it, or unset PREFECT_API_URL to "
                "have a private server for this run."
            )
        yield {PREFECT_API_URL: configured}
        return
    bring_loopback_up()
    owner = owner_process()
    folder = PREFECT_HOME.value()
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"server-{owner.pid}-{int(owner.create_time())}"
    with FileLock(folder / "server.lock"):
        keeper = None if record.exists() else start_keeper(owner, record)
        address = record.read_text()
    if keeper and owner.pid == os.getpid():
        atexit.register(stop, keeper)  # not sooner: at exit Prefect still sends its last logs and events
    # What every client would ask a server that may be another's.
    yield {
        PREFECT_API_URL: address,
        PREFECT_CLIENT_CSRF_SUPPORT_ENABLED: False,
        PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,
    }


def stop(keeper: subprocess.Popen) -> None:
    keeper.terminate()
    keeper.wait()


def owner_process() -> psutil.Process:
    """Return the process whose life the server shares: the DVC that runs this stage, else this process.

    DVC sets DVC_STAGE for the commands of its stages; so it is the nearest ancestor without it.
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


def start_keeper(owner: psutil.Process, record: Path, port: int | None = None, pages: bool = False) -> subprocess.Popen:
    """Start a keeper for `owner` and return it when its server answers; `record` then holds the address.

    port: None for any that is free. pages: serve the UI, too.
    """
    port = port or free_port()
    address = f"http://{ADDRESS}:{port}/api"
    log_path = record.parent / "server.log"
    with log_path.open("w") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(owner.pid), str(port), str(record), str(int(pages))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the run; the server follows it
        )
    if not answers(address, START_SECONDS, keeper):
        stop(keeper)
        raise UserError(f"the Prefect server did not start; {log_path} says:\n{log_path.read_text()[-2000:]}")
    record.write_text(address)
    return keeper


def free_port() -> int:
    with socket.socket() as free:
        free.bind((ADDRESS, 0))
        return free.getsockname()[1]


def answers(address: str, seconds: float, keeper: subprocess.Popen | None = None) -> bool:
    """Tell whether the API answers within `seconds`; give up at once when its keeper has ended."""
    deadline = time.monotonic() + seconds
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline and (keeper is None or keeper.poll() is None):
        try:
            with direct.open(f"{address}/health", timeout=5):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def keep(owner_pid: int, port: int, record: Path, pages: bool) -> None:
    """Run a Prefect server on `port` until process `owner_pid` has ended or this one is told to.

    pages: with its UI and the services, such as the scheduler, that a run from the command line does not need.
    """
    options = {"host": ADDRESS, "port": port, "log-level": "error", "lifespan": "on"}
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", "flows.api:create_app"]
        + [f"--{name}={value}" for name, value in options.items()],
        env={**os.environ, "PREFECT__SERVER_FINAL": "1", **({} if pages else BARE)},
    )
    if "DVC_STAGE" in os.environ:  # between two stages of a `dvc repro` it has the workspace all the same
        share_workspace_until_exit()
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


# linux/sockios.h and net/if.h
GET_FLAGS, SET_FLAGS, INTERFACE_UP = 0x8913, 0x8914, 1


def bring_loopback_up() -> None:
    """Bring the loopback interface up where it is down, as in a fresh network namespace (`unshare -n`).

    The server listens on 127.0.0.1 alone. Raises UserError where that is not permitted.
    """
    if sys.platform != "linux":
        return
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, GET_FLAGS, request))[1]
        if flags & INTERFACE_UP:
            return
        try:
            fcntl.ioctl(control, SET_FLAGS, struct.pack("16sh14x", b"lo", flags | INTERFACE_UP))
        except PermissionError:
            raise UserError(
                "the loopback interface `lo` is down, and Prefect's server listens on 127.0.0.1. "
                "Run `ip link set lo up` as root first."
            ) from None


if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    keep(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "1")
