"""The metrics.json files of models, lecture recipes and baselines. Without Keras, so that the report can read them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, TypeAdapter

from config import paths
from config.params import Task
from datasets import get_dataset
from tasks.data.contracts import (
    Number,
    OpenContract,
    Seconds,
    Sha256,
    Source,
    fault,
    only_with_batches,
    read_contract,
    refuse_false_source,
    refuse_other_values,
    write_contract,
)
from tasks.evaluation.metrics import ClassMetrics, SliceMetrics

FILE = "metrics.json"
# By split, then by metric. Those of a further output have its name before theirs.
SplitMetrics = dict[Annotated[str, Field(pattern="^(train|valid|test)$")], dict[str, Number]]
# The metrics that every model of a task has; a baseline has no loss.
EXPECTED = {
    "regression": ("loss", "rmse", "mae", "r2"),
    "binary": ("loss", "accuracy"),
    "multiclass": ("loss", "accuracy"),
}


class Parameters(OpenContract):
    """How many numbers a network has."""

    total: NonNegativeInt
    trainable: NonNegativeInt


class MemberMetrics(OpenContract):
    """What one network of an ensemble reaches alone, on valid and test."""

    seed: NonNegativeInt
    metrics: SplitMetrics


class ModelMetrics(OpenContract):
    """artifacts/M/metrics.json: what `train` measures, and what a rerun reproduces.

    per_class, slices: of the test split. probes: the exported model's answers to the example rows of the recipe.
    members: of an ensemble; else None, and not in the file.
    """

    name: str
    dataset: str
    task: Task
    source: Source
    raw_sha256: Sha256
    source_sha256: Sha256 | None = only_with_batches()
    seed: NonNegativeInt
    parameters: Parameters
    epochs: PositiveInt
    metrics: SplitMetrics
    per_class: dict[str, ClassMetrics]
    slices: dict[str, SliceMetrics]
    probes: dict[str, Number]
    members: list[MemberMetrics] | None = Field(default=None, exclude_if=lambda value: value is None)


class LectureRun(OpenContract):
    """What one training by the recipe of the lecture notes reaches."""

    normalization: str
    seed: NonNegativeInt
    epochs: PositiveInt
    metrics: SplitMetrics


class LectureRecipeMetrics(OpenContract):
    """artifacts/lecture_recipes/M/metrics.json: what `lecture_recipe` measures."""

    name: str
    source: Source
    raw_sha256: Sha256
    source_sha256: Sha256 | None = only_with_batches()
    runs: list[LectureRun] = Field(min_length=1)


class LectureRecipeRun(OpenContract):
    """artifacts/lecture_recipes/M/run.json: the seconds of all trainings."""

    seconds: Seconds


class BaselineParameters(OpenContract):
    """How many numbers a baseline has learned."""

    total: NonNegativeInt


class BaselineMetrics(OpenContract):
    """An entry of artifacts/baselines/metrics.json: what `baselines` measures."""

    dataset: str
    task: Task
    target: str
    estimator: str
    source: Source
    raw_sha256: Sha256
    source_sha256: Sha256 | None = only_with_batches()
    parameters: BaselineParameters
    metrics: SplitMetrics


class BaselineRun(OpenContract):
    """An entry of artifacts/baselines/run.json: the seconds of the fit."""

    fit: Seconds


BASELINES = TypeAdapter(dict[str, BaselineMetrics])
BASELINE_RUNS = TypeAdapter(dict[str, BaselineRun])


def write_metrics(metrics: ModelMetrics | LectureRecipeMetrics, folder: Path) -> None:
    write_contract(folder / FILE, metrics)


def read_metrics(name: str) -> ModelMetrics:
    """Read the metrics of model `name`; raises UserError where they contradict themselves or the data set's file."""
    path, stage = paths.artifacts_folder(name) / FILE, f"train@{name}"
    found = read_contract(path, ModelMetrics, stage)
    refuse_other_values(path, stage, found, {"name": name}, "its folder")
    check_metrics(path, stage, found.metrics, EXPECTED[found.task])
    if (found.task == "regression") == bool(found.per_class):
        raise fault(path, stage, "per_class", f"does not fit task {found.task!r}")
    refuse_false_source(path, stage, get_dataset(found.dataset), found, "raw_sha256")
    return found


def read_lecture_recipe_metrics(name: str) -> LectureRecipeMetrics:
    """Read the metrics of `lecture_recipe@name`; raises UserError where some are missing."""
    path, stage = paths.lecture_recipe_folder(name) / FILE, f"lecture_recipe@{name}"
    found = read_contract(path, LectureRecipeMetrics, stage)
    for run in found.runs:
        check_metrics(path, stage, run.metrics)
    return found


def write_baselines(metrics: Mapping[str, BaselineMetrics], seconds: Mapping[str, float], folder: Path) -> None:
    """Write metrics.json and run.json.

    Args:
        metrics: by baseline.
        seconds: of the fit, by baseline.
        folder: where the two files are put.
    """
    write_contract(folder / FILE, metrics)
    write_contract(folder / "run.json", {name: BaselineRun(fit=round(taken, 3)) for name, taken in seconds.items()})


def read_baseline_metrics() -> dict[str, BaselineMetrics]:
    """Read the metrics of all baselines; raises UserError where they contradict themselves or the data set's file."""
    path, stage = paths.BASELINES / FILE, "baselines"
    found = read_contract(path, BASELINES, stage)
    for measured in found.values():
        expected = tuple(metric for metric in EXPECTED[measured.task] if metric != "loss")
        check_metrics(path, stage, measured.metrics, expected)
        dataset = get_dataset(measured.dataset)
        refuse_false_source(path, stage, dataset, measured, "raw_sha256")
    return found


def read_baseline_runs() -> dict[str, BaselineRun]:
    return read_contract(paths.BASELINES / "run.json", BASELINE_RUNS, "baselines")


def check_metrics(path: Path, stage: str, metrics: SplitMetrics, expected: tuple[str, ...] = ()) -> None:
    """Raise UserError where a split, or a metric of one, is missing.

    Args:
        path: the file that holds them.
        stage: which makes it anew.
        metrics: what it holds.
        expected: the metrics that every split must have, besides RMSE or accuracy.
    """
    for split in ("train", "valid", "test"):
        found = metrics.get(split)
        if found is None:
            raise fault(path, stage, f"metrics.{split}", "is missing")
        for metric in expected:
            if metric not in found:
                raise fault(path, stage, f"metrics.{split}.{metric}", "is missing")
        if not found.keys() & {"rmse", "accuracy"}:
            raise fault(path, stage, f"metrics.{split}", "has neither rmse nor accuracy")
