"""Baselines to compare networks with: scikit-learn's models and dummy predictors, on raw columns."""

import time
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import task

from config import paths
from config.params import Baseline
from datasets import get_dataset
from datasets.dataset import Dataset, to_values
from models.common.features import TargetDefinition, get_feature, get_target
from runtime.errors import UserError
from tasks.data.examples import check_features, true_class
from tasks.data.raw import read_raw
from tasks.data.schema import PreparedSchema, read_schema, read_split_rows
from tasks.evaluation.metrics import classification_metrics, regression_metrics
from tasks.evaluation.metrics_files import BaselineMetrics, BaselineParameters, write_baselines

NEAR = 0.01  # degrees, added to each distance: the grid of the places


def baseline(name: str, params: Baseline) -> tuple[BaselineMetrics, float]:
    """Fit a baseline on train and measure it on every split; return its metrics and the seconds of the fit.

    It gets float64 raw values, in the order of the prepared tables. Raises UserError where the estimator refuses its
    arguments, or a file is missing or damaged.
    """
    schema = read_schema(params.dataset)
    data = read_rows(name, params, schema)
    target = get_target(params.target)
    estimator = make_estimator(name, params, target.task)
    began = time.monotonic()
    try:
        estimator.fit(*data["train"])
    except (TypeError, ValueError) as error:
        raise refused_arguments(name, error) from None
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
        source_sha256=schema.source_sha256,
        parameters=BaselineParameters(total=count_parameters(estimator[-1])),
        metrics=measured,
    )
    return metrics, seconds


def raw_features(rows: pa.Table, feature: str, dataset: Dataset) -> np.ndarray:
    """Return the columns of a feature side by side, derived ones too, images flattened: float64 [rows, numbers]."""
    columns = get_feature(feature).columns_of(dataset.features)
    known = dataset.derive({name: to_values(rows[name]) for name in dataset.raw_columns(columns)})
    values = [known[name] for name in columns]
    return np.concatenate([value.reshape(len(value), -1) for value in values], axis=1).astype(np.float64)


def read_rows(name: str, params: Baseline, schema: PreparedSchema) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return what a baseline gets, by split: its columns, float64 [rows, numbers], and what it learns, [rows].

    Args:
        name: of the baseline, for messages.
        params: of params.yaml.
        schema: of the prepared data.

    Raises:
        UserError: inputs, target or neighbours do not suit each other, or a file is missing or damaged.
    """
    dataset = get_dataset(params.dataset)
    needed = {"inputs": params.inputs} | ({"place": params.neighbours.place} if params.neighbours else {})
    check_features(f"baselines.{name}", dataset, needed, params.target)
    target = get_target(params.target)
    if params.neighbours and target.task != "regression":
        raise UserError(f"{paths.PARAMS}: baselines.{name}.neighbours: they are for a regression.")
    table = read_raw(dataset, schema.raw_sha256)
    data, places = {}, {}
    for split, numbers in read_split_rows(dataset, schema, table.num_rows).items():
        rows = table.take(numbers)
        data[split] = (raw_features(rows, params.inputs, dataset), raw_target(rows, dataset.target, target, schema))
        if params.neighbours:
            places[split] = raw_features(rows, params.neighbours.place, dataset)
    if not params.neighbours:
        return data
    more = neighbour_columns(name, params.neighbours.counts, places, data["train"][1])
    return {split: (np.hstack([features, more[split]]), true) for split, (features, true) in data.items()}


def neighbour_columns(
    name: str, counts: list[int], places: dict[str, np.ndarray], targets: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the mean target of the nearest train rows of each row, by split: float64 [rows, counts].

    A train row is not its own neighbour. The weight is 1 / (distance + NEAR).

    Args:
        name: of the baseline, for messages.
        counts: of rows, for each column.
        places: of the rows of each split, float64 [rows, axes].
        targets: of the train rows, float64 [rows].

    Raises:
        UserError: there are not more train rows than neighbours.
    """
    from sklearn.neighbors import NearestNeighbors

    if max(counts) >= len(targets):
        raise UserError(
            f"{paths.PARAMS}: baselines.{name}.neighbours.counts: {max(counts)}; of {len(targets)} train rows "
            f"a row has at most {len(targets) - 1} neighbours."
        )
    index = NearestNeighbors(n_neighbors=max(counts)).fit(places["train"])
    found = {}
    for split, asked in places.items():
        distances, numbers = index.kneighbors(None if split == "train" else asked)
        weights, near = 1 / (distances + NEAR), targets[numbers]
        means = [np.average(near[:, :count], axis=1, weights=weights[:, :count]) for count in counts]
        found[split] = np.stack(means, axis=1)
    return found


def raw_target(rows: pa.Table, column: str, target: TargetDefinition, schema: PreparedSchema) -> np.ndarray:
    """Return what the baseline learns, [rows]: float64 quantities, or int64 classes.

    Args:
        rows: the raw rows.
        column: of the target.
        target: its definition.
        schema: of the prepared data.
    """
    values = to_values(rows[column])
    return values if target.task == "regression" else true_class(target.compute(values, schema))


def make_estimator(name: str, params: Baseline, task_name: str) -> Any:
    """Return the scikit-learn pipeline of a baseline.

    Args:
        name: of the baseline, for messages.
        params: of params.yaml.
        task_name: "regression", "binary" or "multiclass".

    Raises:
        UserError: the estimator does not suit the task, or does not know an argument.
    """
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.linear_model import Perceptron
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = task_name == "regression"
    kinds: dict[str, Any] = {
        "dummy": DummyRegressor if regression else DummyClassifier,
        "perceptron": None if regression else Perceptron,
        "gradient_boosting": HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier,
        "mlp": MLPRegressor if regression else MLPClassifier,
    }
    kind = kinds[params.estimator]
    if kind is None:
        raise UserError(f"{paths.PARAMS}: baselines.{name}.estimator: {params.estimator!r} does not fit a regression.")
    try:
        estimator = kind(**params.arguments)
    except TypeError as error:
        raise refused_arguments(name, error) from None
    return make_pipeline(StandardScaler(), estimator) if params.standardize else make_pipeline(estimator)


def refused_arguments(name: str, error: Exception) -> UserError:
    return UserError(f"{paths.PARAMS}: baselines.{name}.arguments: {error}")


def describe(pipeline: Any) -> str:
    """Return the estimator as scikit-learn prints it, such as `StandardScaler | MLPRegressor(random_state=42)`."""
    return " | ".join(" ".join(repr(step).split()) for step in pipeline)


def count_parameters(estimator: Any) -> int:
    """Return how many numbers `estimator` has learned; a dummy predictor has one, trees one for each leaf at most."""
    if hasattr(estimator, "n_trees_per_iteration_"):
        return int(estimator.n_iter_ * estimator.n_trees_per_iteration_ * (estimator.max_leaf_nodes or 1))
    if hasattr(estimator, "coefs_"):
        return sum(values.size for values in (*estimator.coefs_, *estimator.intercepts_))
    if hasattr(estimator, "coef_"):
        return int(estimator.coef_.size + estimator.intercept_.size)
    return 1


write_baselines_task = task(write_baselines)
baseline_task = task(task_run_name="baseline-{name}")(baseline)
