"""Baselines: models of scikit-learn on raw columns, and guesses, that a network has to be compared with."""

import time
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import task

from config import paths
from config.params import Baseline
from datasets import get_dataset
from datasets.dataset import to_values
from models.common.features import get_feature, get_target
from runtime.errors import UserError
from tasks.data.examples import check_features, true_class
from tasks.data.raw import read_raw
from tasks.data.schema import PreparedSchema, read_schema, read_split_rows
from tasks.evaluation.metrics import classification_metrics, regression_metrics
from tasks.evaluation.metrics_files import BaselineMetrics, BaselineParameters, write_baselines


def baseline(name: str, params: Baseline) -> tuple[BaselineMetrics, float]:
    """Fit baseline `name` on train and measure it on every split; return its figures and the seconds of the fit.

    It sees the float64 raw values of the rows of each split, in the order of the prepared table.
    Raises UserError when the estimator does not take its arguments or a file is missing.
    """
    dataset = get_dataset(params.dataset)
    schema = read_schema(params.dataset)
    check_features(f"baselines.{name}", dataset, {name: params.inputs}, params.target)
    target = get_target(params.target)
    table = read_raw(dataset, schema.raw_sha256)
    columns = get_feature(params.inputs).columns_of(dataset.features)
    data = {}
    for split, numbers in read_split_rows(dataset, schema, table.num_rows).items():
        rows = table.take(numbers)
        data[split] = (raw_features(rows, columns), raw_target(rows, dataset.target, target, schema))
    estimator = make_estimator(name, params, target.task)
    began = time.monotonic()
    estimator.fit(*data["train"])
    seconds = time.monotonic() - began
    measure = regression_metrics if target.task == "regression" else classification_metrics
    measured = {split: measure(true, estimator.predict(features)) for split, (features, true) in data.items()}
    metrics = BaselineMetrics(
        dataset=params.dataset,
        task=target.task,
        target=params.target,
        estimator=describe(estimator),
        source=schema.source,
        raw_sha256=schema.raw_sha256,
        parameters=BaselineParameters(total=count_parameters(estimator[-1])),
        metrics=measured,
    )
    return metrics, seconds


def raw_features(rows: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    """Return float64 [rows, numbers]: the columns side by side, pictures row by row."""
    values = [to_values(rows[name]) for name in columns]
    return np.concatenate([value.reshape(len(value), -1) for value in values], axis=1).astype(np.float64)


def raw_target(rows: pa.Table, column: str, target: Any, schema: PreparedSchema) -> np.ndarray:
    """Return what is learnt, [rows]: float64 quantities as they are, or int64 classes."""
    values = to_values(rows[column])
    return values if target.task == "regression" else true_class(target.compute(values, schema))


def make_estimator(name: str, params: Baseline, task_name: str):
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.linear_model import Perceptron
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = task_name == "regression"
    kinds: dict[str, Any] = {
        "dummy": DummyRegressor if regression else DummyClassifier,
        "perceptron": None if regression else Perceptron,
        "mlp": MLPRegressor if regression else MLPClassifier,
    }
    kind = kinds[params.estimator]
    if kind is None:
        raise UserError(f"{paths.PARAMS}: baselines.{name}.estimator: {params.estimator!r} does not fit a regression.")
    try:
        estimator = kind(**params.arguments)
        estimator._validate_params()
    except (TypeError, ValueError) as error:
        raise UserError(f"{paths.PARAMS}: baselines.{name}.arguments: {error}") from None
    return make_pipeline(StandardScaler(), estimator) if params.standardize else make_pipeline(estimator)


def describe(pipeline) -> str:
    """Return the estimator as scikit-learn prints it, such as `StandardScaler | MLPRegressor(random_state=42)`."""
    return " | ".join(" ".join(repr(step).split()) for step in pipeline)


def count_parameters(estimator) -> int:
    """Return how many numbers `estimator` has learnt; a guess is one number."""
    if hasattr(estimator, "coefs_"):
        return sum(values.size for values in (*estimator.coefs_, *estimator.intercepts_))
    if hasattr(estimator, "coef_"):
        return int(estimator.coef_.size + estimator.intercept_.size)
    return 1


write_baselines_task = task(write_baselines)
baseline_task = task(task_run_name="baseline-{name}")(baseline)
