"""The page of a search: every trial, what matters, the finalists, and the winner against the lecture notes."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from config import paths
from config.params import Params
from config.search import MAXIMIZED
from tasks.report import charts
from tasks.report.model_page import comparable_notes
from tasks.report.read import Attempts, read_frame
from tasks.search.results import COLUMNS, TRIALS, SearchMetrics, SearchRun, read_search_metrics, read_search_run

NUMBERS = ("trial", "epochs")  # columns of trials.csv that always hold numbers
MIN_LINES = 2  # trials, without which parallel coordinates say nothing


@dataclass(frozen=True)
class Search:
    """What `search` has written for a model; None where it is missing. table: a row for each trial."""

    name: str
    metrics: SearchMetrics | None
    run: SearchRun | None
    table: pd.DataFrame | None
    missing: list[str]


def read_search(name: str) -> Search:
    attempt, stage = Attempts(), f"search@{name}"
    metrics = attempt(read_search_metrics, name)
    run = attempt(read_search_run, name)
    table = attempt(read_frame, pd.read_csv, paths.search_folder(name) / TRIALS, NUMBERS, stage)
    return Search(name, metrics, run, table, attempt.missing)


def describe_search(read: Search, params: Params) -> dict[str, Any]:
    """Return what the page of a search shows."""
    described: dict[str, Any] = {"name": read.name, "missing": read.missing, "metrics": read.metrics, "run": read.run}
    if read.metrics is None or read.table is None or read.missing:
        return described | {"metrics": None}
    metrics, objective = read.metrics, read.metrics.objective
    notes = comparable_notes(params, params.search[read.name].reference or read.name, metrics.source) or {}
    parameters = [name for name in read.table.columns if name not in COLUMNS]
    complete = read.table[read.table["state"] == "complete"]
    reference = notes.get("valid", {}).get(objective)
    lines = coordinates(complete, parameters, objective)
    return described | {
        "folder": paths.search_folder(read.name),
        "objective": objective,
        "notes": notes,
        "winner": metrics.winner,
        "values": {name: shown(value) for name, value in metrics.winner.parameters.items()},
        "history": charts.search_history(read.table, objective, reference),
        "reference": reference,
        "importance": charts.importance(metrics.importance) if metrics.importance else None,
        "coordinates": charts.parallel_coordinates(lines, [*parameters, objective], metrics.winner.trial)
        if lines is not None
        else None,
        "trials": [trial_row(row, parameters) for row in read.table.to_dict("records")],
        "parameters": parameters,
    }


def trial_row(row: dict[Any, Any], parameters: list[str]) -> dict[str, Any]:
    """Return a row of the table of trials. row: of trials.csv."""
    value = None if pd.isna(row["value"]) else float(row["value"])
    return {
        "trial": int(row["trial"]),
        "state": row["state"],
        "value": value,
        "epochs": int(row["epochs"]),
        "parameters": [shown(row[name]) for name in parameters],
    }


def shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def coordinates(complete: pd.DataFrame, parameters: list[str], objective: str) -> pd.DataFrame | None:
    """Return the lines of the chart of parallel coordinates; None of fewer than two trials.

    Numbers are placed by their rank among the trials' values, and so are categories, in the order of their names.

    Args:
        complete: rows of trials.csv that were trained to their end.
        parameters: the columns of the hyperparameters.
        objective: the name of the value, the last axis, on which the best trial is highest.
    """
    if len(complete) < MIN_LINES:
        return None
    sign = 1 if objective in MAXIMIZED else -1
    rank = (sign * complete["value"]).rank(pct=True)
    quarter = rank.gt(0.75).map({True: "best quarter", False: "others"})
    parts = []
    for order, name in enumerate([*parameters, "value"]):
        values = complete[name]
        numbers = values if values.dtype.kind in "iuf" else values.astype(str)
        place = rank if name == "value" else numbers.rank(method="dense")
        span = place.max() - place.min()
        parts.append(
            pd.DataFrame(
                {
                    "trial": complete["trial"],
                    "axis": objective if name == "value" else name,
                    "position": (place - place.min()) / (span or 1),
                    "shown": [shown(value) for value in values],
                    "quarter": quarter,
                    "order": order,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
