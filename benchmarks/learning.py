"""The seconds of the last `pipeline` run of this workspace, and those in which some stage was fitting or evaluating."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from prefect import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, TaskRunFilter, TaskRunFilterName
from prefect.client.schemas.sorting import FlowRunSort

from orchestration.command_line import reporting

# Parts of the names of the task runs that fit or evaluate, in `train`, `baselines` and `lecture_recipe`.
LEARNING = ("fit-", "evaluate-", "baseline-", "-seed-")
PAGE = 200  # the most that Prefect's API returns at once

Span = tuple[datetime, datetime]


def read_spans() -> tuple[Span, list[Span]]:
    """Return the start and end of the newest `pipeline` run, and of each of its tasks that fits or evaluates."""
    with reporting(), get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=["pipeline"])), sort=FlowRunSort.START_TIME_DESC, limit=1
        )
        flow = span(runs[0])
        tasks: list[Any] = []
        for name in LEARNING:
            found = client.read_task_runs(task_run_filter=TaskRunFilter(name=TaskRunFilterName(like_=name)), limit=PAGE)
            assert len(found) < PAGE
            tasks += found
    spans = map(span, tasks)
    return flow, [(began, ended) for began, ended in spans if began >= flow[0]]


def span(run: Any) -> Span:
    return run.start_time, run.end_time


def covered_seconds(spans: Iterable[Span]) -> float:
    """Return the seconds that at least one of the spans covers."""
    seconds, until = 0.0, None
    for began, ended in sorted(spans):
        since = began if until is None else max(began, until)
        if ended > since:
            seconds, until = seconds + (ended - since).total_seconds(), ended
    return seconds


if __name__ == "__main__":
    whole, learning = read_spans()
    print(json.dumps({"flow": covered_seconds([whole]), "learning": covered_seconds(learning)}))
