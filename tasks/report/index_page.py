"""Overview: all models and baselines side by side, as `summary.json` and as the first page."""

import subprocess
from dataclasses import dataclass
from typing import Any

from config import paths
from config.params import Params
from datasets import get_dataset
from tasks.evaluation.metrics_files import ModelMetrics
from tasks.publishing.records import RunRecord
from tasks.report.formatting import MAIN_FIGURE, verdict
from tasks.report.model_page import comparable_notes, is_out_of_date
from tasks.report.read import Artifacts, BaselineResult, Data, LectureRecipe
from tasks.report.summary import FILE, SummaryRow, SummarySeconds, parse_summary


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
    endings: dict[str, str],
) -> dict[str, Any]:
    """Return what the first page shows. summary: of `summarize`. endings: of the stages that a run did not do."""
    committed = last_committed()
    measured = {row.name: row for row in summary}
    rows = [
        describe_row(params, name, measured.get(name), committed)
        | {"status": status(params, name, name in measured, artifacts.get(name), endings)}
        for name in [*params.models, *params.baselines]
    ]
    mark_best(rows)
    runs = [read.run for read in artifacts.values() if read.run]
    return {
        "rows": rows,
        "undone": endings,
        "committed": committed.commit if committed else None,
        "runs": describe_runs(runs),
        "data": [
            {"name": name, "title": read.dataset.title, "provenance": read.provenance, "rows": read.rows}
            for name, read in data.items()
        ],
        "datasets": list(dict.fromkeys(row["dataset"]["title"] for row in rows)),
        "tasks": list(dict.fromkeys(row["task"] for row in rows)),
    }


def describe_row(params: Params, name: str, measured: SummaryRow | None, committed: Committed | None) -> dict[str, Any]:
    """Return a row of the table of all models. measured: of the summary; None where it was not."""
    baseline = name in params.baselines
    source: Any = params.baselines[name] if baseline else params.models[name]
    task = measured.task if measured else getattr(source, "task", "")
    figure, more_is_better = MAIN_FIGURE.get(task, ("", True))
    before = committed.rows.get(name) if committed else None
    same = before and measured and before.source == measured.source
    return {
        "name": name,
        "kind": "baseline" if baseline else "network",
        "dataset": {"name": source.dataset, "title": get_dataset(source.dataset).title},
        "target": source.target,
        "task": task,
        "figure": figure,
        "more_is_better": more_is_better,
        "measured": measured,
        "file": paths.BASELINES / "metrics.json" if baseline else paths.artifacts_folder(name) / "metrics.json",
        "way": [name] if baseline else [],
        "verdict": verdict(measured.metrics, measured.notes or {}, figure, more_is_better) if measured else None,
        "before": before.metrics.get("test", {}).get(figure) if before and same else None,
        "best": False,
    }


def status(params: Params, name: str, measured: bool, read: Artifacts | None, endings: dict[str, str]) -> str:
    """Return "done", what became of the model in a run that did not do it, "missing", "mixed" (files of two trainings),
    or "out of date": trained by another recipe than that of params.yaml.
    """
    if ending := endings.get(f"train@{name}" if name in params.models else "baselines"):
        return ending
    if not measured:
        return "missing"
    if read and read.mixed:
        return "mixed"
    if read and is_out_of_date(read, params.models[name]):
        return "out of date"
    return "done"


def mark_best(rows: list[dict[str, Any]]) -> None:
    """Mark, of those that learn the same from the same data set, the one with the best figure on test."""
    groups: dict[tuple, list[dict[str, Any]]] = {}
    for row in rows:
        if row["measured"]:
            groups.setdefault((row["dataset"]["name"], row["target"], row["task"], row["measured"].source), []).append(
                row
            )
    for group in groups.values():
        sign = 1 if group[0]["more_is_better"] else -1
        best = max(sign * row["measured"].metrics["test"][row["figure"]] for row in group)
        for row in group:
            row["best"] = len(group) > 1 and sign * row["measured"].metrics["test"][row["figure"]] == best


def describe_runs(runs: list[RunRecord]) -> dict[str, Any] | None:
    """Return when, where and from which commits the models were trained, and how long it took in all."""
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
