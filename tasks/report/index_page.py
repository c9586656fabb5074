"""Overview: all models and baselines side by side, as `summary.json` and as the first page (index.html)."""

import subprocess
from dataclasses import dataclass
from typing import Any

from config import paths
from config.params import Params
from datasets import get_dataset
from tasks.evaluation.metrics_files import ModelMetrics
from tasks.publishing.records import RunRecord
from tasks.report import charts
from tasks.report.model_page import comparable_notes, is_out_of_date
from tasks.report.read import Artifacts, BaselineResult, Data, LectureRecipe
from tasks.report.search_page import Search
from tasks.report.summary import FILE, SummaryRow, SummarySeconds, parse_summary
from tasks.report.verdict import PRIMARY_METRIC, SAME_TARGET, Evidence, compare_with_reference, lower_is_better


@dataclass(frozen=True)
class Committed:
    """The commit that last changed summary.json, and the rows of it by name."""

    commit: str
    rows: dict[str, SummaryRow]


def summarize(
    params: Params,
    artifacts: dict[str, Artifacts],
    lecture_recipes: dict[str, LectureRecipe | None],
    baselines: dict[str, BaselineResult],
) -> list[SummaryRow]:
    """Return a row for each model, then for each baseline, in the order of params.yaml; none for missing ones.

    Args:
        params: of params.yaml.
        artifacts: what `train` has written, by model.
        lecture_recipes: what `lecture_recipe` has written, by model.
        baselines: what `baselines` has written.
    """
    networks = [
        summarize_network(params, read.metrics, read.run, lecture_recipes.get(name))
        for name, read in artifacts.items()
        if read.metrics
    ]
    return networks + [summarize_baseline(params, name, read) for name, read in baselines.items()]


def summarize_network(
    params: Params, metrics: ModelMetrics, run: RunRecord | None, lecture_recipe: LectureRecipe | None
) -> SummaryRow:
    return SummaryRow(
        name=metrics.name,
        kind="network",
        dataset=metrics.dataset,
        task=metrics.task,
        source=metrics.source,
        params=metrics.parameters.total,
        metrics=metrics.metrics,
        probes=metrics.probes,
        notes=comparable_notes(params, metrics.name, metrics.source),
        notes_recipe=lecture_recipe.runs if lecture_recipe else None,
        members=metrics.members,
        seconds=SummarySeconds(fit=run.seconds.fit, total=run.seconds.total) if run else None,
    )


def summarize_baseline(params: Params, name: str, read: BaselineResult) -> SummaryRow:
    metrics, seconds = read.metrics, read.seconds
    return SummaryRow(
        name=name,
        kind="baseline",
        dataset=metrics.dataset,
        task=metrics.task,
        source=metrics.source,
        params=metrics.parameters.total,
        metrics=metrics.metrics,
        probes={},
        notes=comparable_notes(params, name, metrics.source),
        seconds=None if seconds is None else SummarySeconds(fit=seconds, total=seconds),
    )


def describe_overview(
    params: Params,
    summary: list[SummaryRow],
    artifacts: dict[str, Artifacts],
    data: dict[str, Data],
    searches: dict[str, Search],
    statuses: dict[str, str],
) -> dict[str, Any]:
    """Return what the first page shows.

    Args:
        params: the parameters of the workspace.
        summary: of `summarize`.
        artifacts: what `train` wrote, by model.
        data: what `ingest` and `prepare` wrote, by data set.
        searches: what `search` wrote, by model.
        statuses: the status of each stage that the last run did not complete.
    """
    committed = last_committed()
    measured = {row.name: row for row in summary}
    rows = []
    for name in [*params.models, *params.baselines]:
        read = artifacts.get(name)
        row = describe_row(params, name, measured.get(name), committed)
        if row["measured"]:
            evidence = Evidence(
                row["measured"].notes_recipe or (),
                read.predictions if read else None,
                data[row["dataset"]["name"]].split_rows,
            )
            notes = row["measured"].notes or {}
            row["verdict"] = compare_with_reference(row["measured"].metrics, notes, row["metric"], evidence)
        rows.append(row | {"status": status(params, name, name in measured, read, statuses)})
    groups = group_by_task(rows)
    mark_best(groups)
    return {
        "rows": rows,
        "groups": [describe_group(group) for group in groups],
        "incomplete": statuses,
        "committed": committed.commit if committed else None,
        "runs": describe_runs([read.run for read in artifacts.values() if read.run]),
        "data": [
            {"name": name, "title": read.dataset.title, "provenance": read.provenance, "rows": read.rows}
            for name, read in data.items()
        ],
        "searches": [describe_searched(params, name, read) for name, read in searches.items()],
        "datasets": list(dict.fromkeys(row["dataset"]["title"] for row in rows)),
        "tasks": list(dict.fromkeys(row["task"] for row in rows)),
    }


def describe_searched(params: Params, name: str, read: Search) -> dict[str, Any]:
    """Return a row of the table of searches.

    Args:
        params: the parameters of the workspace.
        name: of the model.
        read: what `search` wrote.
    """
    reference = params.search[name].reference or name
    notes = comparable_notes(params, reference, read.metrics.source) if read.metrics else None
    return {"name": name, "metrics": read.metrics, "run": read.run, "notes": notes or {}}


def describe_row(params: Params, name: str, measured: SummaryRow | None, committed: Committed | None) -> dict[str, Any]:
    """Return a row of the table of all models.

    Args:
        params: the parameters of the workspace.
        name: of the model or baseline.
        measured: its entry of the summary; None if it was not measured.
        committed: of `last_committed`.
    """
    baseline = name in params.baselines
    source: Any = params.baselines[name] if baseline else params.models[name]
    task = measured.task if measured else getattr(source, "task", "")
    metric = PRIMARY_METRIC.get(task, "")
    before = committed.rows.get(name) if committed else None
    same_source = before and measured and before.source == measured.source
    dataset = get_dataset(source.dataset)
    return {
        "name": name,
        "kind": "baseline" if baseline else "network",
        "dataset": {"name": source.dataset, "title": dataset.title, "unit": dataset.target_unit},
        "target": SAME_TARGET.get(source.target, source.target),
        "task": task,
        "metric": metric,
        "measured": measured,
        "file": paths.BASELINES / "metrics.json" if baseline else paths.artifacts_folder(name) / "metrics.json",
        "pointer": [name] if baseline else [],
        "verdict": None,
        "before": before.metrics.get("test", {}).get(metric) if before and same_source else None,
        "best": False,
    }


def status(params: Params, name: str, measured: bool, read: Artifacts | None, statuses: dict[str, str]) -> str:
    """Return the status of a model or baseline.

    Args:
        params: the parameters of the workspace.
        name: of the model or baseline.
        measured: whether its metrics are there.
        read: what `train` wrote; None for a baseline.
        statuses: the status of each stage that the last run did not complete.

    Returns:
        The status of its stage in the last run if it was not completed; else "missing", "mixed" (files of two
        trainings), "out of date" (trained by another recipe than that of params.yaml) or "done".
    """
    if stage_status := statuses.get(f"train@{name}" if name in params.models else "baselines"):
        return stage_status
    if not measured:
        return "missing"
    if read and read.mixed:
        return "mixed"
    if read and is_out_of_date(read, params.models[name]):
        return "out of date"
    return "done"


def group_by_task(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the measured rows by task: those that learn the same target from the same data set."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        if row["measured"]:
            key = (row["dataset"]["name"], row["target"], row["task"], row["measured"].source)
            groups.setdefault(key, []).append(row)
    return list(groups.values())


def on_test(row: dict[str, Any]) -> float:
    """Return the primary metric of a measured row on test."""
    return row["measured"].metrics["test"][row["metric"]]


def mark_best(groups: list[list[dict[str, Any]]]) -> None:
    """Mark in each group the row with the best metric on test; a row alone is not compared."""
    for group in groups:
        choose = min if lower_is_better(group[0]["metric"]) else max
        best = choose(on_test(row) for row in group)
        for row in group:
            row["best"] = len(group) > 1 and on_test(row) == best


def describe_group(group: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the title and the chart of a task. group: of `group_by_task`."""
    first = group[0]
    ordered = sorted(group, key=on_test, reverse=not lower_is_better(first["metric"]))
    results = [charts.Result(row["name"], row["kind"], on_test(row), row["verdict"]) for row in ordered]
    sample = ", sample" if first["measured"].source == "sample" else ""
    unit = f" ({first['dataset']['unit']})" if first["metric"] == "rmse" and first["dataset"]["unit"] else ""
    direction = "lower" if lower_is_better(first["metric"]) else "higher"
    title = f"{first['dataset']['title']}: {first['target']}{sample}"
    return {
        "title": title,
        "dataset": first["dataset"]["name"],
        "chart": charts.results(results, title, f"{first['metric']} on test{unit}, {direction} is better"),
    }


def describe_runs(runs: list[RunRecord]) -> dict[str, Any] | None:
    """Return when, where and from which commits the models were trained, and how long all of it took."""
    if not runs:
        return None
    return {
        "first": min(run.began for run in runs),
        "last": max(run.began for run in runs),
        "seconds": sum(run.seconds.total for run in runs),
        "commits": sorted({run.git_commit for run in runs if run.git_commit}),
        "devices": sorted({f"{run.device}, {run.cores} cores" for run in runs}),
        "backends": sorted({f"Keras {run.versions.keras} on {run.backend}" for run in runs}),
    }


def last_committed() -> Committed | None:
    """Return the last committed summary; None outside git, or where it cannot be read."""
    path = (paths.REPORTS / FILE).as_posix()
    try:
        log = ["git", "log", "-1", "--format=%H", "--", path]
        commit = subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
        if not commit:
            return None
        text = subprocess.run(["git", "show", f"{commit}:./{path}"], capture_output=True, text=True, check=True).stdout
        return Committed(commit, {row.name: row for row in parse_summary(text)})
    except (OSError, subprocess.CalledProcessError, ValueError, RecursionError):
        return None
