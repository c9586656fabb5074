"""Evaluate a trained model on every split; no other step of `train` reads the test split."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from prefect import task

from config.params import ModelParams
from models.common.outputs import (
    MAIN_OUTPUT,
    broadcast_target,
    class_probabilities,
    metric_prefix,
    named_outputs,
    predicted_class,
)
from tasks.data.examples import class_names, true_class
from tasks.data.schema import BATCH_ROWS, PreparedSchema
from tasks.data.streaming import Split, open_split
from tasks.evaluation.metrics import (
    ClassMetrics,
    SliceMetrics,
    classification_metrics,
    metrics_per_class,
    metrics_per_quarter,
    regression_metrics,
)


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model.

    metrics: by split. per_class, slices: of the test split. predictions: a row for each test row.
    """

    metrics: dict[str, dict[str, float]]
    per_class: dict[str, ClassMetrics]
    slices: dict[str, SliceMetrics]
    predictions: pd.DataFrame


@dataclass(frozen=True)
class Answer:
    """What an output says of some rows. target: what it should. names: of its classes; none for a quantity."""

    target: np.ndarray
    output: np.ndarray
    names: list[str]

    @property
    def true(self) -> np.ndarray:
        return true_class(self.target) if self.names else self.target.reshape(-1)

    @property
    def predicted(self) -> np.ndarray:
        return predicted_class(self.output).astype(np.int64) if self.names else self.output.reshape(-1)

    def measure(self) -> dict[str, float]:
        measure = classification_metrics if self.names else regression_metrics
        return measure(self.true, self.predicted)


def evaluate(
    model: keras.Model, params: ModelParams, schema: PreparedSchema, memory: int, train: Split, valid: Split
) -> Evaluation:
    """Measure a model on train, valid and test.

    Args:
        model: compiled with the loss of its recipe.
        params: the recipe.
        schema: of the prepared data.
        memory: bytes; a larger test split is streamed from disk.
        train, valid: the rows of these splits.

    Raises:
        UserError: the test split is missing or damaged.
    """
    test = open_split(params, "test", memory)
    return measure(model, params, schema, {"train": train, "valid": valid, "test": test})


def evaluate_members(
    members: Mapping[int, keras.Model], params: ModelParams, schema: PreparedSchema, memory: int, valid: Split
) -> dict[int, dict[str, dict[str, float]]]:
    """Return the metrics of each network of an ensemble on valid and test, by its seed.

    Args:
        members: compiled with the loss of the recipe.
        params: the recipe.
        schema: of the prepared data.
        memory: bytes; a larger test split is streamed from disk.
        valid: its rows.
    """
    splits = {"valid": valid, "test": open_split(params, "test", memory)} if members else {}
    return {seed: measure(model, params, schema, splits).metrics for seed, model in members.items()}


def measure(model: keras.Model, params: ModelParams, schema: PreparedSchema, splits: Mapping[str, Split]) -> Evaluation:
    """Measure a model on some splits.

    Args:
        model: compiled with the loss of its recipe.
        params: the recipe.
        schema: of the prepared data.
        splits: the rows by split. The last one gives the metrics per class, the slices and the predictions.
    """
    names = class_names(params, schema)
    metrics = {}
    for split, examples in splits.items():
        returned, target, own, index = predict(model, examples)
        outputs = named_outputs(returned)
        compared = broadcast_target(target, outputs, own)
        metrics[split] = {"loss": float(model.compute_loss(y=compared, y_pred=returned))}
        answers = {
            name: Answer(own.get(name, target), output, class_names(params, schema, name))
            for name, output in outputs.items()
        }
        for name, answer in answers.items():
            metrics[split] |= {f"{metric_prefix(name)}{metric}": value for metric, value in answer.measure().items()}
    predictions = to_predictions(index, answers, [*own])
    if names:
        return Evaluation(metrics, metrics_per_class(predictions, names), {}, predictions)
    error = (predictions["predicted"] - predictions["true"]).astype(np.float64)
    slices = metrics_per_quarter(schema.target, predictions["true"], error)
    return Evaluation(metrics, {}, slices, predictions)


def predict(model: keras.Model, examples: Split) -> tuple[Any, np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Return the predictions of `model` for all rows, their target, the outputs' own targets, and their index."""
    parts = [
        (model.predict(part.x, batch_size=BATCH_ROWS, verbose=0), part.target, part.own, part.index)
        for part in examples.parts()
    ]
    return keras.tree.map_structure(lambda *values: np.concatenate(values), *parts)


def to_predictions(index: np.ndarray, answers: Mapping[str, Answer], own: list[str]) -> pd.DataFrame:
    """Return the index, the true and predicted value of each row, and the probability of each class.

    Args:
        index: numbers of the raw rows.
        answers: by output, the main one first. The columns of a further output begin with its name.
        own: the outputs with a target of their own, which have a true value of their own.
    """
    frame: dict[str, Any] = {"index": index}
    for name, answer in answers.items():
        start = metric_prefix(name)
        if name == MAIN_OUTPUT or name in own:
            frame[f"{start}true"] = answer.true
        frame[f"{start}predicted"] = answer.predicted
        if answer.names:
            probabilities = class_probabilities(answer.output)
            frame |= {f"{start}probability {label}": probabilities[:, k] for k, label in enumerate(answer.names)}
    return pd.DataFrame(frame)


def write_predictions(predictions: pd.DataFrame, folder: Path) -> None:
    predictions.to_parquet(folder / "predictions.parquet", index=False, compression="zstd")


evaluate_task = task(evaluate)
evaluate_members_task = task(evaluate_members)
