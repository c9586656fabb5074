"""An executor: a machine or cluster that runs the stages' commands."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

from prefect.settings import PREFECT_API_URL

from config.params import Params
from orchestration.executors.dask import open_cluster, run_on_cluster, stop_on_cluster
from orchestration.executors.local import Emit, open_processes, run, stop
from orchestration.resources import Machine, Resources, this_machine
from runtime.errors import UserError
from runtime.variables import PIPELINE_PROCESS

ExecutorKind = Literal["local", "dask"]


@dataclass(frozen=True)
class Executor:
    """Runs commands.

    machine: what all commands together may take. run: runs a command in an environment, hands over the lines that it
    prints, and returns its exit code; its resources are the last argument. stop: asks all running commands to end, and
    waits until they have.
    """

    machine: Machine
    run: Callable[[str, dict[str, str], Emit, Resources], int]
    stop: Callable[[], None]


@contextmanager
def open_executor(
    kind: ExecutorKind, address: str | None, params: Params, jobs: int | None, trains: bool
) -> Iterator[Executor]:
    """Yield an executor; when the block ends, nothing that it started runs any more.

    Args:
        kind: this machine, or a Dask cluster.
        address: of the Dask scheduler, such as tcp://host:8786.
        params: say whether GPUs are used.
        jobs: the maximum of stages at once; None: as many as there are threads.
        trains: whether networks will be trained.

    Raises:
        UserError: the cluster has no address, does not answer, or cannot reach the Prefect server.
    """
    if kind == "dask":
        if not address:
            raise UserError("the runner dask needs the address of its scheduler: --address tcp://host:8786.")
        refuse_unreachable_server(address, str(PREFECT_API_URL.value()))
        with open_cluster(address) as cluster:
            machine = Machine(cluster.threads, (), jobs or cluster.threads)
            yield Executor(machine, partial(run_on_cluster, cluster), partial(stop_on_cluster, cluster))
        return
    machine = this_machine(params, jobs)
    with open_processes(not machine.gpus, trains) as processes:

        def run_here(command: str, environment: dict[str, str], emit: Emit, resources: Resources) -> int:
            own = environment | {PIPELINE_PROCESS: str(os.getpid())}
            return run(processes, command, own, emit, resources.spare_process)

        yield Executor(machine, run_here, partial(stop, processes))


def refuse_unreachable_server(scheduler: str, server: str) -> None:
    """Raise UserError if workers may be on other machines while the Prefect server listens on this one's loopback."""
    if is_loopback(server) and not is_loopback(scheduler):
        raise UserError(
            f"the workers of {scheduler} cannot report to {server}, which only this machine reaches: "
            "set PREFECT_API_URL to a server that they reach."
        )


def is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
