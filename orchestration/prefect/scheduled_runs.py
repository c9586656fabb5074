"""Show how the last scheduled runs of each deployment ended."""

import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterCreatedBy,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from rich.console import Console
from rich.table import Table

MAX_RUNS = 5  # of each deployment
PLAN_TIME = timedelta(minutes=3)  # within which the server plans the runs of a new schedule
START_TIME = timedelta(minutes=1)  # within which the worker starts a run that is due
COLUMNS = ("deployment", "scheduled", "state", "took", "message")


def scheduled_runs(client: SyncPrefectClient, now: datetime) -> dict[str, list[FlowRun]]:
    """Return, by deployment, the last scheduled runs that are due, the latest first."""
    found = {}
    for deployment in client.read_deployments():
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]),
                created_by=FlowRunFilterCreatedBy(type_=["SCHEDULE"]),
                expected_start_time=FlowRunFilterExpectedStartTime(before_=now),  # type: ignore[arg-type]
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=MAX_RUNS,
        )
        if due := [run for run in runs if not about_to_start(run, now)]:
            found[deployment.name] = due
    return found


def about_to_start(run: FlowRun, now: datetime) -> bool:
    """Return whether the worker had no time yet to start a run."""
    scheduled = run.state and run.state.type == StateType.SCHEDULED and run.expected_start_time
    return bool(scheduled and scheduled > now - START_TIME)


def unplanned(client: SyncPrefectClient, now: datetime) -> list[str]:
    """Return a sentence for each deployment with an active schedule for which no run is planned."""
    return [
        sentence
        for deployment in client.read_deployments()
        if any(schedule.active for schedule in deployment.schedules)
        and not deployment.paused
        and (sentence := without_plan(client, deployment, now))
    ]


def without_plan(client: SyncPrefectClient, deployment: DeploymentResponse, now: datetime) -> str | None:
    """Check that the schedule of a deployment works.

    Args:
        client: of the server.
        deployment: one with an active schedule.
        now: the current time.

    Returns:
        A sentence if no run is planned though the server had the time to plan one; else None.
    """
    newest = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]),
            created_by=FlowRunFilterCreatedBy(type_=["SCHEDULE"]),
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=1,
    )
    planned = newest[0].expected_start_time if newest else None
    changed = max(schedule.updated for schedule in deployment.schedules if schedule.updated)
    if (planned and planned > now) or changed > now - PLAN_TIME:
        return None
    since = f"since {moment(planned)}" if planned else f"since it was set at {moment(changed)}"
    return f"the schedule of `{deployment.name}` is on, but no run has been planned {since}"


def rows(runs: dict[str, list[FlowRun]]) -> Iterable[tuple[str, ...]]:
    for name, found in runs.items():
        for run in found:
            assert run.state
            never = run.state.type == StateType.SCHEDULED
            took = "-" if never or not run.start_time else duration(run.total_run_time)
            message = run.state.message or ("it has not started" if never else "")
            yield name, moment(run.expected_start_time), run.state.name or "", took, first_line(message)


def first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""


def duration(took: timedelta) -> str:
    """Return a duration as `1:02:03` (hours, minutes, seconds)."""
    return str(timedelta(seconds=round(took.total_seconds())))


def moment(time: datetime | None) -> str:
    """Return a time in the machine's time zone, with its name."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M %Z") if time else "-"


def ended_well(runs: dict[str, list[FlowRun]]) -> bool:
    """Return whether the last finished run of each deployment has completed."""
    return all(last_state(found) in (None, StateType.COMPLETED) for found in runs.values())


def last_state(found: list[FlowRun]) -> StateType | None:
    """Return the state of the last run that has ended or has never started; None: there is none."""
    under_way = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
    return next((run.state.type for run in found if run.state and run.state.type not in under_way), None)


def show(client: SyncPrefectClient, quiet: bool = False) -> bool:
    """Print how the last scheduled runs ended, and return whether the last of each deployment ended well.

    quiet: print nothing if there are none.
    """
    now = datetime.now(UTC)
    runs, missing = scheduled_runs(client, now), unplanned(client, now)
    table = [*rows(runs)]
    if not table and not missing and not quiet:
        print("No scheduled run yet.")
    elif table and sys.stdout.isatty():
        show_table(table)
    elif table:
        print("The last scheduled runs:")
        for row in table:
            print("  " + "  ".join(row).rstrip())
    for sentence in missing:
        print(f"{sentence}.")
    sys.stdout.flush()
    return ended_well(runs) and not missing


def show_table(table: list[tuple[str, ...]]) -> None:
    shown = Table(*COLUMNS, title="The last scheduled runs", title_justify="left")
    for name, time, state, took, message in table:
        style = "green" if state == "Completed" else "red"
        shown.add_row(name, time, f"[{style}]{state}[/]", took, message.replace("[", r"\["))
    Console().print(shown)
