"""Model: what the page of one model shows."""

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
from tasks.report import charts, classification, regression
from tasks.report.diagnosis import SETTLED_EPOCHS, diagnose, weak_classes, weak_slices
from tasks.report.formatting import MAIN_FIGURE, verdict
from tasks.report.images import filter_tiles, sheet, to_png
from tasks.report.network_diagram import draw
from tasks.report.read import Artifacts, BaselineResult, Data, LectureRecipe

EXAMPLES = 3


def describe_model(
    read: Artifacts,
    params: Params,
    data: Data,
    lecture_recipe: LectureRecipe | None,
    baselines: dict[str, BaselineResult],
    ending: str | None,
) -> dict[str, Any]:
    """Return what the page of a model shows.

    baselines: those that learn the same from the same data set. ending: of its training in a run that did not do it.
    """
    recipe, metrics = params.models[read.name], read.metrics
    baselines = {name: other for name, other in baselines.items() if metrics and is_comparable(other.metrics, metrics)}
    notes = comparable_notes(params, read.name, metrics.source if metrics else "real") or {}
    task = metrics.task if metrics else recipe.task
    figure, more_is_better = MAIN_FIGURE[task]
    page: dict[str, Any] = {
        "name": read.name,
        "dataset": {"name": data.dataset.name, "title": data.dataset.title},
        "task": task,
        "figure": figure,
        "unit": f" ({data.dataset.target_unit})" if task == "regression" and data.dataset.target_unit else "",
        "missing": [*read.missing, *other_rows(metrics, data)],
        "mixed": read.mixed,
        "ending": ending,
        "changed": is_out_of_date(read, recipe),
        "metrics": metrics,
        "run": read.run,
        "notes": notes,
        "verdict": verdict(metrics.metrics, notes, figure, more_is_better) if metrics else None,
        "baselines": {name: other.metrics.metrics["test"][figure] for name, other in baselines.items()},
        "findings": [],
        "curves": [],
        "lecture_recipe": describe_lecture_recipe(lecture_recipe, figure, notes) if lecture_recipe else None,
        "classes": None,
        "quantity": None,
        "examples": [],
        "recipe": to_yaml(read.run.recipe if read.run else written(recipe)),
        "network": describe_network(read) if read.graph else None,
    }
    if read.history is not None:
        page["findings"] = diagnose(read.history, skill(metrics, baselines) if metrics else None, restores_best(recipe))
        page["curves"] = [charts.learning_curves(read.history, name) for name in curve_columns(read.history, figure)]
    table = rows_of(metrics, data)
    if metrics and read.predictions is not None:
        names = list(metrics.per_class)
        if names:
            page["classes"] = describe_classes(read.predictions, names, data.dataset, table)
            page["findings"] += weak_classes(metrics.per_class)
        else:
            page["quantity"] = describe_quantity(read.predictions, page["unit"], data.dataset, table)
            page["findings"] += weak_slices(page["quantity"]["slices"], metrics.metrics["test"]["rmse"])
        if table is not None:
            page["examples"] = examples(data.dataset, table, read.predictions.head(EXAMPLES), names)
    return page


def written(recipe: ModelParams) -> dict[str, Any]:
    """Return a recipe as params.yaml and run.json have it."""
    return recipe.model_dump(mode="json", exclude_defaults=True)


def restores_best(recipe: ModelParams) -> bool:
    """Tell whether the model that is kept is not the last epoch's but the best one's."""
    return bool(recipe.fit.early_stopping and recipe.fit.early_stopping.restore_best)


def is_out_of_date(read: Artifacts, recipe: ModelParams) -> bool:
    """Tell whether a model was trained by another recipe than the one that is in params.yaml now."""
    return read.run is not None and read.run.recipe != written(recipe)


def comparable_notes(params: Params, name: str, source: str) -> dict | None:
    """Return what the notes print for model `name`; None for a model of sample data, which they say nothing of."""
    return params.notes.get(name) if source == "real" else None


def is_comparable(baseline: BaselineMetrics, metrics: ModelMetrics) -> bool:
    return (baseline.task, baseline.source) == (metrics.task, metrics.source)


def other_rows(metrics: ModelMetrics | None, data: Data) -> list[str]:
    """Return a sentence where the rows that a model was trained on are not those that are there now."""
    if not metrics or not data.provenance or metrics.raw_sha256 == data.provenance.sha256:
        return []
    return [f"{paths.raw_table(data.dataset.name)} has other rows than those that the model was trained on."]


def rows_of(metrics: ModelMetrics | None, data: Data) -> pa.Table | None:
    """Return the raw rows that the model's predictions count; None where those in data/raw are others."""
    return data.table if metrics and not other_rows(metrics, data) else None


def skill(metrics: ModelMetrics, baselines: dict[str, BaselineResult]) -> float | None:
    """Return the share of the best guess's error on train that the model avoids; None where it is not known.

    Of squares for a quantity (R2); of errors for classes, where the best guess is the worst of the baselines.
    """
    train = metrics.metrics["train"]
    if metrics.task == "regression":
        return train["r2"]
    guesses = [other.metrics.metrics["train"]["accuracy"] for other in baselines.values()]
    return 1 - (1 - train["accuracy"]) / (1 - min(guesses)) if guesses and min(guesses) < 1 else None


def curve_columns(history: pd.DataFrame, figure: str) -> list[str]:
    """Return the figures to draw: the loss, the main figure, and the same figure of further outputs."""
    further = [str(name) for name in history.columns if name.endswith(f"_{figure}") and not name.startswith("val_")]
    return [name for name in ("loss", figure, *further) if f"val_{name}" in history]


def describe_lecture_recipe(recipe: LectureRecipe, figure: str, notes: dict) -> dict[str, Any]:
    """Return what the page shows of a model's runs by the notes' own recipe. recipe: of `read_lecture_recipe`."""
    history = recipe.history
    rows: list[dict[str, Any]] = []
    for run in recipe.runs:
        mine = history[(history["normalization"] == run.normalization) & (history["seed"] == run.seed)]
        settled = mine[mine["epoch"] > SETTLED_EPOCHS][f"val_{figure}"]
        rows.append(
            {
                "normalization": run.normalization,
                "seed": run.seed,
                "epochs": run.epochs,
                "valid": run.metrics["valid"][figure],
                "test": {key: value for key, value in run.metrics["test"].items() if key.endswith(figure)},
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
        "chart": charts.lecture_recipe_curves(history, figure, SETTLED_EPOCHS),
    }


def describe_classes(
    predictions: pd.DataFrame, names: list[str], dataset: Dataset, table: pa.Table | None
) -> dict[str, Any]:
    calibration = classification.calibration(predictions, names)
    mistakes = classification.worst_mistakes(predictions, names)
    return {
        "confusion": classification.confusion(predictions, names),
        "calibration": {**calibration, "chart": charts.calibration(**calibration)},
        "wrong": int((predictions["true"] != predictions["predicted"]).sum()),
        "mistakes": examples(dataset, table, mistakes, names) if table is not None else [],
    }


def describe_quantity(predictions: pd.DataFrame, unit: str, dataset: Dataset, table: pa.Table | None) -> dict[str, Any]:
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
