"""Run the stages' commands on a Dask cluster whose workers see this workspace at the same path, on a shared disk.

DVC's bookkeeping stays in the flow's process, the only one that writes dvc.lock. Workers are started with
`--resources threads=N`, and each stage takes as many as it has threads; so Dask places no more stages than fit.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from orchestration.executors.local import STOP_SECONDS, Emit, Stopped
from orchestration.resources import Resources
from runtime.errors import UserError
from runtime.variables import PIPELINE_PROCESS, PIPELINE_RUN

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_SECONDS = 10
POLL_SECONDS = 0.5  # how often a worker checks whether its stage is still wanted


@dataclass
class Cluster:
    """A connection to a Dask scheduler.

    threads: of all workers. largest: the threads of the largest worker. running: futures by name of the task.
    stopping: no command may start any more.
    """

    client: "Client"
    threads: int
    largest: int
    running: dict[str, "Future"] = field(default_factory=dict)
    stopping: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class ByValue:
    """A function that arrives whole: neither the scheduler nor a worker can import our code.

    Dask tries Python's pickle first, which would send the function's name alone.
    """

    function: Callable

    def __call__(self, *arguments: object) -> object:
        return self.function(*arguments)

    def __reduce__(self) -> tuple[Callable, tuple[bytes]]:
        import cloudpickle

        return cloudpickle.loads, (cloudpickle.dumps(self.function),)


@contextmanager
def open_cluster(address: str) -> Iterator[Cluster]:
    """Connect to the Dask scheduler at `address`, such as tcp://host:8786.

    Raises UserError if distributed is not installed, the scheduler does not answer, or no worker offers `threads`.
    """
    try:
        import cloudpickle
        from distributed import Client
    except ModuleNotFoundError:
        install = "`.venv/bin/python -m uv pip install -r pyproject.toml --extra dask`"
        raise UserError(f"--runner dask needs the package distributed: {install}") from None
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
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


def run_on_cluster(
    cluster: Cluster, command: str, environment: dict[str, str], emit: Emit, resources: Resources
) -> int:
    """Run a command on a worker.

    Args:
        cluster: which one.
        command: for a shell.
        environment: of the command; the worker gets what differs from this process's environment.
        emit: gets the lines that it prints, as they come.
        resources: how many threads it takes.

    Returns:
        Its exit code.

    Raises:
        Stopped: the run is being stopped.
        UserError: the worker was lost.
    """
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker

    topic = f"stage-{uuid4().hex}"
    begun, ended = threading.Event(), threading.Event()

    def on_event(event: tuple[float, str | bool]) -> None:
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
        cluster.client.subscribe_topic(topic, on_event)
        future = cluster.client.submit(
            ByValue(run_on_worker),
            command,
            own,
            str(Path.cwd()),
            topic,
            key=topic,
            pure=False,
            resources={"threads": min(resources.threads, cluster.largest)},
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
    """Cancel every running command. Its worker ends it (`end_when_cancelled`), and `run_on_cluster` waits for that."""
    with cluster.lock:
        cluster.stopping = True
        cluster.client.cancel([*cluster.running.values()])


def run_on_worker(command: str, environment: dict[str, str], folder: str, topic: str) -> int:
    """Run a command on this worker.

    Args:
        command: for a shell.
        environment: what to add to the worker's own.
        folder: the workspace.
        topic: gets an event for each line that the command prints, True when it begins, and False when it has ended.

    Returns:
        The exit code of the command.

    Raises:
        OSError: the worker does not see the folder.
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
    threading.Thread(target=end_when_cancelled, args=(worker, topic, process), daemon=True).start()
    assert process.stdout
    for line in process.stdout:
        worker.log_event(topic, line.rstrip("\n"))
    code = process.wait()
    worker.log_event(topic, False)
    return code


def end_when_cancelled(worker, key: str, process: subprocess.Popen) -> None:
    """End a process when its task is cancelled or the flow is gone; Dask forgets the task in both cases.

    Args:
        worker: the Dask worker that this is.
        key: of the task.
        process: runs the task's command.
    """
    while process.poll() is None:
        try:
            process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            task = worker.state.tasks.get(key)
            if task is None or task.state not in ("executing", "long-running"):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                return
