"""Overview: all models and baselines side by side, as `summary.json` and as the first page."""

import json
import subprocess
from typing import Any

from config import paths
from config.params import Params
from datasets import get_dataset
from tasks.data import contracts
from tasks.report.formatting import MAIN_FIGURE, verdict
from tasks.report.model_page import comparable_notes, is_out_of_date
from tasks.report.read import Artifacts, Data

SUMMARY = "summary.json"


def summarize(
    params: Params, artifacts: dict[str, Artifacts], parities: dict[str, dict | None], baselines: dict[str, dict]
) -> list[dict[str, Any]]:
    """Return the content of summary.json: an object a model, then one a baseline, in the order of params.yaml.

    A model that was not measured is left out.
    """
    networks = [
        {
            "name": name,
            "kind": "network",
            "dataset": read.metrics["dataset"],
            "task": read.metrics["task"],
            "source": read.metrics["source"],
            "params": read.metrics["parameters"]["total"],
            "metrics": read.metrics["metrics"],
            "probes": read.metrics["probes"],
            "notes": comparable_notes(params, name, read.metrics["source"]),
            "notes_recipe": (parities.get(name) or {}).get("runs"),
            "seconds": {step: read.run["seconds"][step] for step in ("fit", "total")} if read.run else None,
        }
        for name, read in artifacts.items()
        if read.metrics
    ]
    return networks + [
        {
            "name": name,
            "kind": "baseline",
            **{key: read[key] for key in ("dataset", "task", "source")},
            "params": read["parameters"]["total"],
            "metrics": read["metrics"],
            "probes": {},
            "notes": comparable_notes(params, name, read["source"]),
            "notes_recipe": None,
            "seconds": {"fit": read["seconds"]["fit"], "total": read["seconds"]["fit"]} if read["seconds"] else None,
        }
        for name, read in baselines.items()
    ]


def describe_overview(
    params: Params,
    summary: list[dict[str, Any]],
    artifacts: dict[str, Artifacts],
    data: dict[str, Data],
    endings: dict[str, str],
) -> dict[str, Any]:
    """Return what the first page shows. summary: of `summarize`. endings: of the stages that a run did not do."""
    committed = last_committed()
    measured = {row["name"]: row for row in summary}
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
        "committed": committed["commit"] if committed else None,
        "runs": describe_runs(runs),
        "data": [
            {"name": name, "title": read.dataset.title, "provenance": read.provenance, "rows": read.rows}
            for name, read in data.items()
        ],
        "datasets": list(dict.fromkeys(row["dataset"]["title"] for row in rows)),
        "tasks": list(dict.fromkeys(row["task"] for row in rows)),
    }


def describe_row(params: Params, name: str, measured: dict | None, committed: dict | None) -> dict[str, Any]:
    """Return a row of the table of all models. measured: of the summary; None where it was not."""
    baseline = name in params.baselines
    source: Any = params.baselines[name] if baseline else params.models[name]
    task = measured["task"] if measured else getattr(source, "task", "")
    figure, more_is_better = MAIN_FIGURE.get(task, ("", True))
    before = committed["models"].get(name) if committed else None
    same = before and measured and before["source"] == measured["source"]
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
        "verdict": verdict(measured["metrics"], measured["notes"] or {}, figure, more_is_better) if measured else None,
        "before": before["metrics"].get("test", {}).get(figure) if before and same else None,
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
            groups.setdefault(
                (row["dataset"]["name"], row["target"], row["task"], row["measured"]["source"]), []
            ).append(row)
    for group in groups.values():
        sign = 1 if group[0]["more_is_better"] else -1
        best = max(sign * row["measured"]["metrics"]["test"][row["figure"]] for row in group)
        for row in group:
            row["best"] = len(group) > 1 and sign * row["measured"]["metrics"]["test"][row["figure"]] == best


def describe_runs(runs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return when, where and from which commits the models were trained, and how long it took in all."""
    if not runs:
        return None
    return {
        "first": min(run["began"] for run in runs),
        "last": max(run["began"] for run in runs),
        "seconds": sum(run["seconds"]["total"] for run in runs),
        "commits": sorted({run["git_commit"] for run in runs if run["git_commit"]}),
        "devices": sorted({f"{run['device']}, {run['cores']} cores" for run in runs}),
        "backends": sorted({f"Keras {run['versions']['keras']} on {run['backend']}" for run in runs}),
    }


def last_committed() -> dict[str, Any] | None:
    """Return the commit that last changed `summary.json`, and what it says of each model by name; None outside git."""
    path = (paths.REPORTS / SUMMARY).as_posix()
    try:
        log = ["git", "log", "-1", "--format=%H", "--", path]
        commit = subprocess.run(log, capture_output=True, text=True, check=True).stdout.strip()
        if not commit:
            return None
        text = subprocess.run(["git", "show", f"{commit}:./{path}"], capture_output=True, text=True, check=True).stdout
        rows = json.loads(text)
        contracts.SUMMARY.validate_python(rows)
        return {"commit": commit, "models": {row["name"]: row for row in rows}}
    except (OSError, subprocess.CalledProcessError, ValueError, RecursionError):
        return None
