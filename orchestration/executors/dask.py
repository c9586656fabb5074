"""The stages' commands on a Dask cluster whose workers see this workspace at the same path, by a shared file system.

DVC's bookkeeping stays in the flow's process, which is the only one that writes dvc.lock. A worker is started with
`--resources threads=N`, of which a stage takes as many as it has threads; so Dask places no more than fits.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from orchestration.executors.local import STOP_SECONDS, Emit, Stopped
from runtime.errors import UserError
from runtime.variables import PIPELINE_PROCESS, PIPELINE_RUN

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 10
LOOK_SECONDS = 0.5  # between two looks of a worker whether its stage is still wanted


@dataclass
class Cluster:
    """A connection to a scheduler. threads: of all its workers; largest: of one. running: by name of the task.

    stopping: none may start any more.
    """

    client: "Client"
    threads: int
    largest: int
    running: dict[str, "Future"] = field(default_factory=dict)
    stopping: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def open_cluster(address: str) -> Iterator[Cluster]:
    """Connect to the Dask scheduler at `address`, such as tcp://host:8786.

    Raises UserError when distributed is not installed, nobody answers there, or no worker has `threads`.
    """
    try:
        import cloudpickle
        from distributed import Client
    except ModuleNotFoundError:
        install = "`.venv/bin/python -m uv pip install -r pyproject.toml --extra dask`"
        raise UserError(f"--runner dask needs the package distributed: {install}") from None
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # a worker need not import our code
    try:
        client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers at {address} ({error}).") from None
    with client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        threads = [int(worker["resources"].get("threads", 0)) for worker in workers]
        if not any(threads):
            raise UserError(f"no worker of {address} offers threads: start them with `--resources threads=N`.")
        yield Cluster(client, sum(threads), max(threads))


def run_on_cluster(cluster: Cluster, command: str, environment: dict[str, str], emit: Emit, threads: int) -> int:
    """Run `command` on a worker, hand over the lines that it prints as they come, and return its exit code."""
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    topic = f"stage-{uuid4().hex}"
    begun, ended = threading.Event(), threading.Event()

    def hear(event: tuple[float, str | bool]) -> None:
        if isinstance(event[1], str):
            emit(event[1])
        else:
            (begun if event[1] else ended).set()

    own = {
        name: value
        for name, value in environment.items()
        if os.environ.get(name) != value or name == PIPELINE_RUN or name.startswith(("PREFECT_API_", "PREFECT_CLIENT_"))
    }
    with cluster.lock:
        if cluster.stopping:
            raise Stopped
        cluster.client.subscribe_topic(topic, hear)
        future = cluster.client.submit(
            run_there,
            command,
            own,
            str(Path.cwd()),
            topic,
            key=topic,
            pure=False,
            resources={"threads": min(threads, cluster.largest)},
        )
        cluster.running[topic] = future
    try:
        return future.result()
    except FutureCancelledError:
        if begun.is_set():
            ended.wait(STOP_SECONDS)
        raise Stopped from None
    except KilledWorker as error:
        raise UserError(f"the worker that ran it was lost: {error}") from None
    finally:
        del cluster.running[topic]
        cluster.client.unsubscribe_topic(topic)


def stop_on_cluster(cluster: Cluster) -> None:
    """Cancel every running command; its worker ends it (`end_when_unwanted`), which `run_on_cluster` waits for."""
    with cluster.lock:
        cluster.stopping = True
        cluster.client.cancel([*cluster.running.values()])


def run_there(command: str, environment: dict[str, str], folder: str, topic: str) -> int:
    """Run `command` in `folder` on this worker, tell each line that it prints, and return its exit code.

    Also told: True when it begins, False when it has ended. Raises OSError where the folder is not to be seen.
    """
    from distributed import get_worker

    worker = get_worker()
    if not Path(folder, "dvc.yaml").exists():
        raise OSError(f"the worker {worker.name} does not see the workspace {folder}: share it at the same path.")
    worker.log_event(topic, True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    process = subprocess.Popen(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, **environment, "PATH": path, PIPELINE_PROCESS: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    threading.Thread(target=end_when_unwanted, args=(worker, topic, process), daemon=True).start()
    assert process.stdout
    for line in process.stdout:
        worker.log_event(topic, line.rstrip("\n"))
    code = process.wait()
    worker.log_event(topic, False)
    return code


def end_when_unwanted(worker, key: str, process: subprocess.Popen) -> None:
    """End `process` when the flow has cancelled its task or is gone, upon which Dask forgets it."""
    while process.poll() is None:
        try:
            process.wait(LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            task = worker.state.tasks.get(key)
            if task is None or task.state not in ("executing", "long-running"):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                return
