"""Evaluate: measure a trained model on every split; the only step that reads the test split.

RMSE, MAE and R2 are in the target's unit; precision, recall and F1 are scikit-learn's, macro-averaged
over the classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from prefect import task

from config.params import ModelParams
from models.views import get_target_view
from tasks.examples import Examples, read_examples

BATCH_ROWS = 4096
# Below this many rows a quarter of them says nothing.
SLICED_ROWS = 100


@dataclass(frozen=True)
class Evaluation:
    """`metrics`: by split. `per_class` and `slices`: of the test split. `predictions`: one row a test row."""

    metrics: dict[str, dict[str, float]]
    per_class: dict[str, dict[str, float]]
    slices: dict[str, dict[str, float]]
    predictions: pd.DataFrame


def evaluate(model: keras.Model, params: ModelParams, schema: dict, train: Examples, valid: Examples) -> Evaluation:
    """Measure `model` on train, valid and test.

    schema: the prepared data set's schema.json. Raises UserError where the test split is damaged.
    """
    test = read_examples(params, "test")
    names = class_names(params, schema)
    metrics = {}
    for split, examples in {"train": train, "valid": valid, "test": test}.items():
        output = model.predict(examples.x, batch_size=BATCH_ROWS, verbose=0)
        loss = model.evaluate(examples.x, examples.target, batch_size=BATCH_ROWS, verbose=0, return_dict=True)["loss"]
        figures = class_figures(examples, output) if names else quantity_figures(examples.target, output)
        metrics[split] = {"loss": float(loss), **figures}
    predictions = to_predictions(test, output, names)  # of test, the last split
    per_class = figures_per_class(predictions, names) if names else {}
    slices = {} if names else figures_per_quarter(predictions, schema["target"])
    return Evaluation(metrics, per_class, slices, predictions)


def class_names(params: ModelParams, schema: dict) -> list[str]:
    """Return the names of the classes that the model tells apart; empty for a regression."""
    if params.task == "regression":
        return []
    return list(get_target_view(params.target).class_names or schema["class_names"])


def predicted_class(output: np.ndarray) -> np.ndarray:
    """Return int64 [rows]: the likeliest of several classes, or whether the only output is at least 0.5."""
    return output.argmax(axis=1) if output.shape[1] > 1 else (output[:, 0] >= 0.5).astype(np.int64)


def class_figures(examples: Examples, output: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    true, predicted = examples.target.reshape(-1).astype(np.int64), predicted_class(output)
    return {
        "accuracy": float(accuracy_score(true, predicted)),
        "f1_macro": float(f1_score(true, predicted, average="macro", zero_division=0)),
    }


def quantity_figures(target: np.ndarray, output: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    true, predicted = target.reshape(-1).astype(np.float64), output.reshape(-1).astype(np.float64)
    return {
        "rmse": float(root_mean_squared_error(true, predicted)),
        "mae": float(mean_absolute_error(true, predicted)),
        "r2": float(r2_score(true, predicted)),
    }


def to_predictions(test: Examples, output: np.ndarray, names: list[str]) -> pd.DataFrame:
    """Return index, true and predicted of each test row, and the probability of each class."""
    frame: dict[str, Any] = {"index": test.index, "true": test.target.reshape(-1)}
    if not names:
        frame["predicted"] = output.reshape(-1)
        return pd.DataFrame(frame)
    frame["true"] = frame["true"].astype(np.int64)
    frame["predicted"] = predicted_class(output).astype(np.int64)
    probabilities = output if output.shape[1] > 1 else np.concatenate([1 - output, output], axis=1)
    return pd.DataFrame(frame | {f"probability {name}": probabilities[:, k] for k, name in enumerate(names)})


def figures_per_class(predictions: pd.DataFrame, names: list[str]) -> dict[str, dict[str, float]]:
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        predictions["true"], predictions["predicted"], labels=range(len(names)), zero_division=0
    )
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        for name, p, r, f, n in zip(names, *columns, strict=True)
    }


def figures_per_quarter(predictions: pd.DataFrame, target: str) -> dict[str, dict[str, float]]:
    """Return RMSE and MAE for each quarter of the test rows by their true value; empty for small splits."""
    if len(predictions) < SLICED_ROWS:
        return {}
    quarters = pd.qcut(predictions["true"], 4, duplicates="drop")
    slices = {}
    for quarter, rows in predictions.groupby(quarters, observed=True):
        error = (rows["predicted"] - rows["true"]).astype(np.float64)
        label = f"{target} {quarter.left:g} to {quarter.right:g}"
        slices[label] = {
            "rmse": float(np.sqrt((error**2).mean())),
            "mae": float(error.abs().mean()),
            "bias": float(error.mean()),
            "rows": len(rows),
        }
    return slices


def write_predictions(predictions: pd.DataFrame, folder: Path) -> None:
    predictions.to_parquet(folder / "predictions.parquet", index=False, compression="zstd")


evaluate_task = task(evaluate)
