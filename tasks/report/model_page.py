"""Model page: the content of the page of one model."""

import statistics
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from config import paths
from config.params import ModelParams, Params
from datasets.dataset import Dataset, to_values
from tasks.evaluation.metrics_files import BaselineMetrics, ModelMetrics
from tasks.promotion.verdict import Verdict
from tasks.publishing.usage import ways
from tasks.report import charts, classification, regression
from tasks.report.diagnosis import SETTLED_EPOCHS, diagnose, weak_classes, weak_slices
from tasks.report.images import filter_tiles, sheet, to_png
from tasks.report.network_diagram import draw
from tasks.report.read import Artifacts, BaselineResult, Data, LectureRecipe
from tasks.report.verdict import PRIMARY_METRIC, Evidence, compare_with_reference

EXAMPLES = 3


def describe_model(
    read: Artifacts,
    params: Params,
    data: Data,
    lecture_recipe: LectureRecipe | None,
    baselines: dict[str, BaselineResult],
    status: str | None,
) -> dict[str, Any]:
    """Return what the page of a model shows.

    Args:
        read: what `train` wrote.
        params: the parameters of the workspace.
        data: the model's data set.
        lecture_recipe: the runs by the lecture recipe, if the model has any.
        baselines: those that learn the same target from the same data set.
        status: of its training, if the last run did not complete it.
    """
    recipe, metrics = params.models[read.name], read.metrics
    baselines = {name: other for name, other in baselines.items() if metrics and is_comparable(other.metrics, metrics)}
    notes = comparable_notes(params, read.name, metrics.source if metrics else "real") or {}
    task = metrics.task if metrics else recipe.task
    metric = PRIMARY_METRIC[task]
    evidence = Evidence(lecture_recipe.runs if lecture_recipe else (), read.predictions, data.split_rows)
    page: dict[str, Any] = {
        "name": read.name,
        "dataset": {"name": data.dataset.name, "title": data.dataset.title},
        "task": task,
        "metric": metric,
        "unit": f" ({data.dataset.target_unit})" if task == "regression" and data.dataset.target_unit else "",
        "missing": [*read.missing, *other_rows(metrics, data)],
        "mixed": read.mixed,
        "status": status,
        "changed": is_out_of_date(read, recipe),
        "metrics": metrics,
        "run": read.run,
        "notes": notes,
        "verdict": compare_with_reference(metrics.metrics, notes, metric, evidence) if metrics else None,
        "baselines": {name: other.metrics.metrics["test"][metric] for name, other in baselines.items()},
        "members": mean_of_members(metrics, metric) if metrics and metrics.members else None,
        "findings": [],
        "curves": [],
        "lecture_recipe": describe_lecture_recipe(lecture_recipe, metric, notes) if lecture_recipe else None,
        "classification": None,
        "outputs": [],
        "regression": None,
        "examples": [],
        "recipe": to_yaml(read.run.recipe if read.run else written(recipe)),
        "network": describe_network(read) if read.graph else None,
        "ways": ways(read.name, read.export) if read.export else [],
        "formats": read.export.formats if read.export else {},
        "promotion": describe_promotion(read.verdict, read.is_judged) if read.verdict else None,
    }
    if read.history is not None:
        page["findings"] = diagnose(read.history, skill(metrics, baselines) if metrics else None, restores_best(recipe))
        page["curves"] = [charts.learning_curves(read.history, name) for name in curve_columns(read.history, metric)]
    table = rows_of(metrics, data)
    if metrics and read.predictions is not None:
        page["outputs"] = [
            describe_output(read.predictions, output, recipe.targets[output]) for output in recipe.targets
        ]
        names = list(metrics.per_class)
        if names:
            page["classification"] = describe_classification(read.predictions, names, data.dataset, table)
            page["findings"] += weak_classes(metrics.per_class)
        else:
            page["regression"] = describe_regression(read.predictions, page["unit"], data.dataset, table)
            page["findings"] += weak_slices(page["regression"]["slices"], metrics.metrics["test"]["rmse"])
        if table is not None:
            page["examples"] = examples(data.dataset, table, read.predictions.head(EXAMPLES), names)
    return page


def mean_of_members(metrics: ModelMetrics, metric: str) -> dict[str, float]:
    """Return the mean of a metric over the networks of an ensemble, by split."""
    members = metrics.members or []
    return {split: statistics.fmean(member.metrics[split][metric] for member in members) for split in ("valid", "test")}


def written(recipe: ModelParams) -> dict[str, Any]:
    """Return a recipe as params.yaml and run.json have it."""
    return recipe.model_dump(mode="json", exclude_defaults=True)


def restores_best(recipe: ModelParams) -> bool:
    """Return whether the fit keeps the model of its best epoch instead of the last one."""
    return bool(recipe.fit.early_stopping and recipe.fit.early_stopping.restore_best)


def is_out_of_date(read: Artifacts, recipe: ModelParams) -> bool:
    """Return whether a model was trained by another recipe than that of params.yaml."""
    return read.run is not None and read.run.recipe != written(recipe)


def comparable_notes(params: Params, name: str, source: str) -> dict | None:
    """Return what the lecture notes print for a model; None for sample data, which they did not use."""
    return params.notes.get(name) if source == "real" else None


def is_comparable(baseline: BaselineMetrics, metrics: ModelMetrics) -> bool:
    return (baseline.task, baseline.source) == (metrics.task, metrics.source)


def other_rows(metrics: ModelMetrics | None, data: Data) -> list[str]:
    """Return a sentence if a model was trained on other rows than those in data/raw."""
    if not metrics or not data.provenance or metrics.raw_sha256 == data.provenance.sha256:
        return []
    return [f"{paths.raw_table(data.dataset.name)} has other rows than those that the model was trained on."]


def rows_of(metrics: ModelMetrics | None, data: Data) -> pa.Table | None:
    """Return the raw rows that the `index` of the predictions counts; None if those in data/raw are others."""
    return data.table if metrics and not other_rows(metrics, data) else None


def skill(metrics: ModelMetrics, baselines: dict[str, BaselineResult]) -> float | None:
    """Return how much of the error of a predictor without inputs the model avoids on train; None if not known.

    A regression is compared with the mean predictor (R2). A classification is compared with the worst of its baselines,
    which is the majority predictor.
    """
    train = metrics.metrics["train"]
    if metrics.task == "regression":
        return train["r2"]
    accuracies = [other.metrics.metrics["train"]["accuracy"] for other in baselines.values()]
    return 1 - (1 - train["accuracy"]) / (1 - min(accuracies)) if accuracies and min(accuracies) < 1 else None


def curve_columns(history: pd.DataFrame, metric: str) -> list[str]:
    """Return the columns to draw: the loss, the primary metric, and the same metric of further outputs."""
    further = [str(name) for name in history.columns if name.endswith(f"_{metric}") and not name.startswith("val_")]
    return [name for name in ("loss", metric, *further) if f"val_{name}" in history]


def describe_lecture_recipe(recipe: LectureRecipe, metric: str, notes: dict) -> dict[str, Any]:
    """Return what the page shows of a model's runs by the lecture recipe.

    Args:
        recipe: of `read_lecture_recipe`.
        metric: the model's primary metric.
        notes: what the lecture notes print, by split.
    """
    history = recipe.history
    rows: list[dict[str, Any]] = []
    for run in recipe.runs:
        mine = history[(history["normalization"] == run.normalization) & (history["seed"] == run.seed)]
        settled = mine[mine["epoch"] > SETTLED_EPOCHS][f"val_{metric}"]
        rows.append(
            {
                "normalization": run.normalization,
                "seed": run.seed,
                "epochs": run.epochs,
                "valid": run.metrics["valid"][metric],
                "test": {key: value for key, value in run.metrics["test"].items() if key.endswith(metric)},
                "highest": float(settled.max()) if len(settled) else None,
            }
        )
    metrics = list(rows[0]["test"])
    means = []
    for normalization in dict.fromkeys(row["normalization"] for row in rows):
        same = [row for row in rows if row["normalization"] == normalization]
        test = {key: statistics.fmean(row["test"][key] for row in same) for key in metrics}
        means.append(
            {"normalization": normalization, "valid": statistics.fmean(row["valid"] for row in same), "test": test}
        )
    return {
        "rows": rows,
        "means": means,
        "metrics": metrics,
        "notes": notes.get("test", {}),
        "after": SETTLED_EPOCHS,
        "chart": charts.lecture_recipe_curves(history, metric, SETTLED_EPOCHS),
    }


def describe_classification(
    predictions: pd.DataFrame, names: list[str], dataset: Dataset, table: pa.Table | None
) -> dict[str, Any]:
    """Return what the page shows of the predictions of a classification on test.

    Args:
        predictions: columns index, true, predicted and the probability of each class.
        names: of the classes.
        dataset: the model's data set.
        table: the raw rows that `index` counts; None if they are not there.
    """
    calibration = classification.calibration(predictions, names)
    wrong = classification.most_confident_errors(predictions, names)
    return {
        "confusion": classification.confusion(predictions, names),
        "calibration": {**calibration, "chart": charts.calibration(**calibration)},
        "wrong": int((predictions["true"] != predictions["predicted"]).sum()),
        "errors": examples(dataset, table, wrong, names) if table is not None else [],
    }


def describe_output(predictions: pd.DataFrame, output: str, target: str) -> dict[str, Any]:
    """Return what the page shows of an output that learns a target of its own.

    Args:
        predictions: columns of that output begin with its name.
        output: its name.
        target: what it learns.
    """
    start = f"{output}_"
    own = {name.removeprefix(start): predictions[name] for name in map(str, predictions) if name.startswith(start)}
    names = [name.removeprefix("probability ") for name in own if name.startswith("probability ")]
    table = pd.DataFrame(own)
    shown = classification.confusion(table, names) if names and {"true", "predicted"} <= {*own} else []
    return {"name": output, "target": target, "confusion": shown}


def describe_regression(
    predictions: pd.DataFrame, unit: str, dataset: Dataset, table: pa.Table | None
) -> dict[str, Any]:
    """Return what the page shows of the predictions of a regression on test.

    Args:
        predictions: columns index, true and predicted.
        unit: of the target, as the axes have it.
        dataset: the model's data set.
        table: the raw rows that `index` counts; None if they are not there.
    """
    errors = regression.residual(predictions)
    shown: dict[str, Any] = {
        "scatter": charts.predicted_against_true(predictions, unit),
        "residuals": charts.residuals(errors, unit),
        "map": None,
        "slices": {},
    }
    if table is None:
        return shown
    raw = table.take(predictions["index"].to_numpy())
    columns = {name: to_values(raw[name]) for name in (*dataset.features, dataset.target)}
    shown["slices"] = regression.by_quarter(predictions, pd.DataFrame(columns))
    if dataset.place:
        cells = regression.on_map(predictions, pd.DataFrame({name: columns[name] for name in dataset.place}))
        shown["map"] = charts.error_map(cells, regression.CELL_DEGREES, unit)
    return shown


def examples(dataset: Dataset, table: pa.Table, predictions: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Return test rows in raw units, with the true value, the prediction and the most probable classes.

    Args:
        dataset: the model's data set.
        table: the raw rows that `index` counts.
        predictions: the rows to show.
        names: of the classes; [] for a regression.
    """
    raw = table.take(predictions["index"].to_numpy())
    columns = {name: to_values(raw[name]) for name in dataset.features}
    shown = []
    for number, row in enumerate(predictions.to_dict("records")):
        values = {name: columns[name][number] for name in columns}
        images = {name: to_png(value) for name, value in values.items() if np.ndim(value) == 2}
        shown.append(
            {
                "index": row["index"],
                "images": images,
                "values": {name: float(value) for name, value in values.items() if name not in images},
                "true": names[row["true"]] if names else row["true"],
                "predicted": names[row["predicted"]] if names else row["predicted"],
                "right": row["true"] == row["predicted"] if names else None,
                "most_probable": sorted(((row[f"probability {name}"], name) for name in names), reverse=True)[:3],
            }
        )
    return shown


def describe_promotion(verdict: Verdict, is_judged: bool) -> dict[str, Any]:
    """Return what the page shows of the verdict on the last candidate.

    verdict: the content of verdict.json. is_judged: whether the candidate is the model of the page.
    """
    parts = {found.name for found in verdict.comparisons if found.kind == "part"}
    rules: list[dict[str, Any]] = [{"place": place, "rule": rule} for place, rule in enumerate(verdict.rules)]
    return {
        "verdict": verdict,
        "is_judged": is_judged,
        "rules": [row for row in rules if row["rule"].name not in parts],
        "parts": sorted((row for row in rules if row["rule"].name in parts), key=lambda row: row["rule"].passed),
        "chart": charts.gains(verdict) if verdict.comparisons else None,
    }


def describe_network(read: Artifacts) -> dict[str, Any]:
    assert read.graph

    def shown(tiles: np.ndarray, kind: np.ndarray) -> dict[str, Any]:
        return {"count": kind.shape[-1], "size": kind.shape[:2], "png": to_png(sheet(tiles))}

    return {
        "layers": read.graph.layers,
        "drawing": draw(read.graph),
        "filters": {name: shown(filter_tiles(kernel), kernel) for name, kernel in read.filters.items()},
        "maps": {name: shown(np.moveaxis(values, -1, 0), values) for name, values in read.maps.items()},
        "index": read.graph.index,
    }


def to_yaml(values: dict[str, Any]) -> str:
    yaml = YAML(typ="rt")
    yaml.default_flow_style = None
    text = StringIO()
    yaml.dump(values, text)
    return text.getvalue()
