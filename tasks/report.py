"""Report: `reports/index.html`, a page that works from a file without a network, and `summary.json`."""

import base64
import io
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from prefect import task

from config import paths
from config.errors import UserError
from config.params import Params
from datasets import get_dataset
from datasets.dataset import Dataset, to_values
from tasks import charts
from tasks.files import missing, read_json, write_json
from tasks.raw import read_provenance, read_raw

# The figure that stands for a model, by task; and whether more of it is better.
MAIN_FIGURE = {"regression": ("rmse", False), "binary": ("accuracy", True), "multiclass": ("accuracy", True)}
EXAMPLES = 3
# Validation is called stable or not by what it does after these.
SETTLED_EPOCHS = 3


def read_artifacts(name: str) -> dict[str, Any]:
    """Read what `train` wrote of model `name`; raises UserError when a file is missing or damaged."""
    folder, stage = paths.artifacts_folder(name), f"train@{name}"
    try:
        history = pd.read_csv(folder / "history.csv")
        predictions = pd.read_parquet(folder / "predictions.parquet")
    except FileNotFoundError as error:
        raise missing(Path(error.filename), stage) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{folder}: {error}. Run `dvc repro --force {stage}`.") from None
    return {
        "metrics": read_json(folder / "metrics.json", stage),
        "run": read_json(folder / "run.json", stage),
        "history": history,
        "predictions": predictions,
    }


def read_parity(name: str) -> dict[str, Any]:
    """Read what the stage `parity` wrote of model `name`: its figures, and `history`, a row an epoch of each run."""
    folder, stage = paths.parity_folder(name), f"parity@{name}"
    try:
        history = pd.read_csv(folder / "history.csv")
    except FileNotFoundError as error:
        raise missing(Path(error.filename), stage) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{folder}: {error}. Run `dvc repro --force {stage}`.") from None
    return {**read_json(folder / "metrics.json", stage), "history": history}


def read_baselines(params: Params) -> dict[str, dict]:
    """Read what the stage `baselines` wrote, by name, with `seconds` of the fit; {} where params.yaml has none."""
    if not params.baselines:
        return {}
    measured = read_json(paths.BASELINES / "metrics.json", "baselines")
    seconds = read_json(paths.BASELINES / "run.json", "baselines")
    return {name: {**measured[name], "seconds": seconds[name]} for name in params.baselines}


def summarize(
    params: Params, artifacts: dict[str, dict], parities: dict[str, dict], baselines: dict[str, dict]
) -> list[dict]:
    """Return the content of summary.json: an object a model, then one a baseline, in the order of params.yaml."""
    networks = [
        {
            "name": name,
            "kind": "network",
            "dataset": read["metrics"]["dataset"],
            "task": read["metrics"]["task"],
            "source": read["metrics"]["source"],
            "params": read["metrics"]["parameters"]["total"],
            "metrics": read["metrics"]["metrics"],
            "probes": read["metrics"]["probes"],
            "notes": comparable_notes(params, name, read["metrics"]["source"]),
            "notes_recipe": parities[name]["runs"] if name in parities else None,
            "seconds": {step: read["run"]["seconds"][step] for step in ("fit", "total")},
        }
        for name, read in artifacts.items()
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
            "seconds": {"fit": read["seconds"]["fit"], "total": read["seconds"]["fit"]},
        }
        for name, read in baselines.items()
    ]


def comparable_notes(params: Params, name: str, source: str) -> dict | None:
    """Return what the notes print for model `name`; None for a model of sample data, which they say nothing of."""
    return params.notes.get(name) if source == "real" else None


def describe_baseline(name: str, read: dict, notes: dict | None) -> dict[str, Any]:
    """Return what the page shows of one baseline. read: of `read_baselines`."""
    figure, more_is_better = MAIN_FIGURE[read["task"]]
    return {
        "name": name,
        "dataset": get_dataset(read["dataset"]).title,
        "estimator": read["estimator"],
        "figure": figure,
        "metrics": read["metrics"],
        "verdict": verdict(read["metrics"], notes or {}, figure, more_is_better),
        "parameters": read["parameters"],
        "seconds": read["seconds"]["fit"],
    }


def describe_parity(parity: dict, figure: str, notes: dict) -> dict[str, Any]:
    """Return what the page shows of a model's runs by the notes' own recipe. parity: of `read_parity`."""
    history = parity["history"]
    rows = []
    for run in parity["runs"]:
        mine = history[(history["normalization"] == run["normalization"]) & (history["seed"] == run["seed"])]
        settled = mine[mine["epoch"] > SETTLED_EPOCHS][f"val_{figure}"]
        rows.append(
            {
                "normalization": run["normalization"],
                "seed": run["seed"],
                "epochs": run["epochs"],
                "valid": run["metrics"]["valid"][figure],
                "test": {key: value for key, value in run["metrics"]["test"].items() if key.endswith(figure)},
                "highest": float(settled.max()) if len(settled) else None,
            }
        )
    figures = list(rows[0]["test"])
    means = []
    for normalization in dict.fromkeys(row["normalization"] for row in rows):
        same = [row for row in rows if row["normalization"] == normalization]
        test = {key: statistics.fmean(row["test"][key] for row in same) for key in figures}
        means.append(
            {"normalization": normalization, "valid": statistics.fmean(row["valid"] for row in same), "test": test}
        )
    return {
        "rows": rows,
        "means": means,
        "figures": figures,
        "notes": notes.get("test", {}),
        "after": SETTLED_EPOCHS,
        "chart": charts.parity_curves(history, figure),
    }


def describe(
    name: str, read: dict, notes: dict | None, table: pa.Table, parity: dict | None, baselines: dict[str, dict]
) -> dict[str, Any]:
    """Return what the page shows of one model.

    read: of `read_artifacts`. table: its data set's raw rows. parity: of `read_parity`. baselines: those that
    learn the same from the same data set.
    """
    metrics, predictions, history = read["metrics"], read["predictions"], read["history"]
    dataset = get_dataset(metrics["dataset"])
    figure, more_is_better = MAIN_FIGURE[metrics["task"]]
    regression = metrics["task"] == "regression"
    unit = f" ({dataset.target_unit})" if regression and dataset.target_unit else ""
    names = list(metrics["per_class"])
    return {
        "name": name,
        "dataset": dataset.title,
        "task": metrics["task"],
        "source": metrics["source"],
        "parameters": metrics["parameters"],
        "epochs": metrics["epochs"],
        "seed": metrics["seed"],
        "figure": figure,
        "unit": unit,
        "metrics": metrics["metrics"],
        "notes": notes or {},
        "verdict": verdict(metrics["metrics"], notes or {}, figure, more_is_better),
        "per_class": metrics["per_class"],
        "slices": metrics["slices"],
        "probes": metrics["probes"],
        "run": read["run"],
        "curves": [charts.learning_curves(history, column) for column in curve_columns(history, figure)],
        "parity": describe_parity(parity, figure, notes or {}) if parity else None,
        "baselines": {other: read["metrics"]["test"][figure] for other, read in baselines.items()},
        "scatter": charts.predicted_against_true(predictions, unit) if regression else None,
        "residuals": charts.residuals(predictions, unit) if regression else None,
        "confusion": confusion(predictions, names) if names else None,
        "examples": examples(dataset, table, predictions.head(EXAMPLES), names),
    }


def curve_columns(history: pd.DataFrame, figure: str) -> list[str]:
    """Return the figures to draw: the loss, the main figure, and the same figure of further outputs."""
    further = [str(name) for name in history.columns if name.endswith(f"_{figure}") and not name.startswith("val_")]
    return ["loss", figure, *further]


def verdict(metrics: dict, notes: dict, figure: str, more_is_better: bool) -> dict | None:
    """Compare `figure` with the notes' on test, or on valid where they print no other; None without one."""
    for split in ("test", "valid"):
        if figure in notes.get(split, {}):
            ours, theirs = metrics[split][figure], notes[split][figure]
            gain = ours - theirs if more_is_better else theirs - ours
            return {"split": split, "notes": theirs, "difference": ours - theirs, "reached": gain >= 0}
    return None


def confusion(predictions: pd.DataFrame, names: list[str]) -> list[dict]:
    """Return a row a true class: its name and, for each predicted class, the count and the row's share."""
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (predictions["true"], predictions["predicted"]), 1)
    return [
        {"name": name, "cells": [{"count": int(n), "share": float(n / max(1, row.sum()))} for n in row]}
        for name, row in zip(names, counts, strict=True)
    ]


def examples(dataset: Dataset, table: pa.Table, predictions: pd.DataFrame, names: list[str]) -> list[dict]:
    """Return the given test rows in raw units, with the truth, the prediction and the likeliest classes.

    table: the raw rows that the predictions' `index` counts.
    """
    raw = table.take(predictions["index"].to_numpy())
    columns = {name: to_values(raw[name]) for name in dataset.features}
    shown = []
    for number, row in enumerate(predictions.to_dict("records")):
        values = {name: columns[name][number] for name in columns}
        pictures = {name: to_png(value) for name, value in values.items() if np.ndim(value) == 2}
        shown.append(
            {
                "index": row["index"],
                "pictures": pictures,
                "values": {name: float(value) for name, value in values.items() if name not in pictures},
                "true": names[row["true"]] if names else row["true"],
                "predicted": names[row["predicted"]] if names else row["predicted"],
                "right": row["true"] == row["predicted"] if names else None,
                "likeliest": sorted(((row[f"probability {name}"], name) for name in names), reverse=True)[:3],
            }
        )
    return shown


def to_png(pixels: np.ndarray) -> str:
    """Return a uint8 picture [height, width] as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def number(value: float) -> str:
    """Format a figure with four decimals, or two digits where it is smaller; a count with separators."""
    if isinstance(value, int):
        return f"{value:,}"
    magnitude = abs(value)
    if magnitude >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if magnitude >= 0.001 or value == 0 else f"{value:.1e}"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def render(models: list[dict], baselines: list[dict], sources: list[dict]) -> str:
    """Return the page.

    models: of `describe`. baselines: of `describe_baseline`. sources: provenance of each data set used.
    """
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    templates.filters |= {"number": number, "duration": duration}
    sample = any(model["source"] == "sample" for model in models)
    return templates.get_template("report.html.jinja").render(
        models=models, baselines=baselines, sources=sources, sample=sample
    )


def report(params: Params, folder: Path) -> None:
    """Write `index.html` and `summary.json` of all models of `params` into `folder`."""
    artifacts = {name: read_artifacts(name) for name in params.models}
    parities = {name: read_parity(name) for name in params.parity}
    baselines = read_baselines(params)
    used = {read["metrics"]["dataset"]: read["metrics"]["raw_sha256"] for read in artifacts.values()}
    tables = {name: read_raw(get_dataset(name), sha256) for name, sha256 in used.items()}
    sources = [read_provenance(get_dataset(name)) for name in used]
    models = []
    for name, read in artifacts.items():
        learnt = (params.models[name].dataset, params.models[name].target)
        rivals = {other: rival for other, rival in baselines.items() if (rival["dataset"], rival["target"]) == learnt}
        notes = comparable_notes(params, name, read["metrics"]["source"])
        models.append(describe(name, read, notes, tables[read["metrics"]["dataset"]], parities.get(name), rivals))
    compared = [
        describe_baseline(name, read, comparable_notes(params, name, read["source"]))
        for name, read in baselines.items()
    ]
    write_json(folder / "summary.json", summarize(params, artifacts, parities, baselines))
    (folder / "index.html").write_text(render(models, compared, sources), encoding="utf-8")


report_task = task(report)
