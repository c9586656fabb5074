"""Mark runs whose process was killed as crashed; the server would otherwise show them as running forever.

The process of a flow run has the run's id in its environment, and so have the processes that it starts. A run that has
not ended, and whose id no process has, is dead, and so are its subflows and tasks.
A flow that a person runs in a terminal has no such id; it holds the lock on the workspace instead.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psutil
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Crashed

from orchestration.prefect.server import auth_settings
from orchestration.workspace_lock import exclusive_workspace
from runtime.errors import UserError

RUN_ID = "PREFECT__FLOW_RUN_ID"  # set by Prefect's worker
UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
START_TIME = timedelta(seconds=60)  # within which a pending run gets its process
PAGE_SIZE = 200  # the maximum that the server returns at once
MAX_PAGES = 50


@contextmanager
def server_client() -> Iterator[SyncPrefectClient]:
    """Yield a client of the server at PREFECT_API_URL in the current environment."""
    settings = {**auth_settings(), PREFECT_API_URL: os.environ["PREFECT_API_URL"]}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        yield client


def end_all_dead_runs(client: SyncPrefectClient) -> None:
    """End all dead runs; call it while no worker runs. Those of a terminal, too, if nobody uses the workspace."""
    try:
        with exclusive_workspace():
            end_every(client, by_hand=True)
    except UserError:
        end_every(client)


def end_every(client: SyncPrefectClient, by_hand: bool = False) -> None:
    for _ in range(MAX_PAGES):
        if not (dead := dead_runs(client, by_hand)):
            return
        end_runs(client, dead)


def end_dead_runs(client: SyncPrefectClient, suspects: dict[UUID, State]) -> dict[UUID, State]:
    """End the dead runs that were dead in the last check, too; return those that are dead now, for the next check.

    When a run ends, its process is gone a little before the server knows its last state; so one check is not enough. A
    pending run may still get its process. suspects: the result of the last check.
    """
    dead = dead_runs(client)
    end_runs(client, {id: state for id, state in dead.items() if id in suspects and not may_start(state)})
    return dead


def may_start(state: State) -> bool:
    return state.type == StateType.PENDING and datetime.now(UTC) - state.timestamp < START_TIME


def dead_runs(client: SyncPrefectClient, by_hand: bool = False) -> dict[UUID, State]:
    """Return the dead runs without a parent, and their states; perhaps only subflows or tasks have not ended.

    by_hand: include runs without a deployment; nobody can be running one.
    """
    roots = {root.id: root for root, _ in unfinished(client)}
    if not roots:
        return {}
    living = living_runs()
    return {
        id: root.state
        for id, root in roots.items()
        if root.state and str(id) not in living and (by_hand or root.deployment_id)
    }


def end_runs(client: SyncPrefectClient, dead: dict[UUID, State]) -> None:
    """Set the state of dead runs, their subflows and tasks: Cancelled if that was requested, else Crashed."""
    if not dead:
        return
    for root, run in unfinished(client):
        if root.id in dead and root.state:
            requested = root.state.type in (StateType.CANCELLING, StateType.CANCELLED)
            state: State[Any] = (Cancelled if requested else Crashed)(message="Its process has ended.")
            set_state = client.set_flow_run_state if isinstance(run, FlowRun) else client.set_task_run_state
            set_state(run.id, state, force=True)


def unfinished(client: SyncPrefectClient) -> list[tuple[FlowRun, Any]]:
    """Return the flow runs and task runs that have started and not ended, each as a pair with the root of its run."""
    flow_state = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNFINISHED))
    task_state = TaskRunFilterState(type=TaskRunFilterStateType(any_=UNFINISHED))
    tasks = client.read_task_runs(task_run_filter=TaskRunFilter(state=task_state), limit=PAGE_SIZE)
    flows = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=flow_state), limit=PAGE_SIZE)
    roots: dict[UUID, FlowRun] = {}

    def root_of(id: UUID) -> FlowRun:
        if id not in roots:
            run = client.read_flow_run(id)
            parent = client.read_task_run(run.parent_task_run_id) if run.parent_task_run_id else None
            roots[id] = root_of(parent.flow_run_id) if parent and parent.flow_run_id else run
        return roots[id]

    # Tasks and subflows come first, because the root's state decides theirs.
    owned: list[tuple[UUID, Any]] = [(task.flow_run_id, task) for task in tasks if task.flow_run_id]
    owned += [(run.id, run) for run in sorted(flows, key=lambda run: run.parent_task_run_id is None)]
    found = []
    for id, run in owned:
        with suppress(ObjectNotFound):  # it was deleted
            found.append((root_of(id), run))
    return found


def living_runs() -> set[str]:
    """Return the ids of the flow runs that have a process on this machine."""
    return {environment[RUN_ID] for environment in map(environment_of, psutil.process_iter()) if RUN_ID in environment}


def environment_of(process: psutil.Process) -> dict[str, str]:
    """Return the environment with which a process started; {} if it has ended or is another user's."""
    try:
        return dict(process.environ())
    except (psutil.Error, OSError):
        return {}
