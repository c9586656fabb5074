"""Runs whose process has ended without a word, which the server would take for running for ever."""

from contextlib import suppress

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, WorkPoolFilter
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed

from config.errors import UserError
from stages.workspace import claimed_workspace

UNENDED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]


def end_dead_runs(client: SyncPrefectClient, pool: WorkPoolFilter) -> None:
    """Have the server know that runs have ended whose process was killed: the pool would wait for them for ever."""
    with suppress(UserError), claimed_workspace():  # which a living run has
        unended = FlowRunFilterState(type=FlowRunFilterStateType(any_=UNENDED))
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=unended), work_pool_filter=pool):
            client.set_flow_run_state(run.id, Crashed(message="Its process was killed."), force=True)
