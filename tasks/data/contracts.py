"""Contracts: what stands in the JSON files that stages exchange, checked where it is written and where it is read.

A key that is missing or unknown, a wrong type, a number that a calculation cannot use, or a statement that contradicts
the data set's own file is refused: what is made from it would be wrong without a word.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from datasets.dataset import Dataset
from runtime.errors import UserError
from tasks.data.files import read_json, write_json

CLOSED = ConfigDict(extra="forbid", strict=True)
OPEN = ConfigDict(extra="allow", strict=True)  # of what is read for a page alone
SHOWN_VALUE = 80  # characters


def fit_float32(value: float) -> float:
    if not np.isfinite(np.float32(value)):
        raise ValueError("is too large")
    return value


def divide(value: float) -> float:
    if not np.float32(value) > 0:
        raise ValueError("is not greater than 0")
    return value


Source = Literal["real", "sample"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
# Of statistics, with which float32 values are calculated.
Single = Annotated[float, Field(allow_inf_nan=False, ge=-1e38, le=1e38), AfterValidator(fit_float32)]
Divisor = Annotated[Single, AfterValidator(divide)]
Classes = list[str] | None
Splits = Literal["train", "valid", "test"]


class Provenance(TypedDict):
    """data/raw/D.json: what `ingest` says of the raw rows."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]
    dataset: str
    title: str
    source: Source
    origin: str
    version: str
    licence: str
    citation: str | None
    sha256: Sha256
    rows: PositiveInt
    columns: dict[str, str]
    class_names: Classes


class Duplicates(TypedDict):
    __pydantic_config__ = CLOSED  # type: ignore[misc]
    rows_equal_to_an_earlier_row: NonNegativeInt
    valid_rows_also_in_train: NonNegativeInt
    test_rows_also_in_train: NonNegativeInt


class SplitRows(TypedDict):
    __pydantic_config__ = CLOSED  # type: ignore[misc]
    train: PositiveInt
    valid: PositiveInt
    test: PositiveInt


class PreparedSchema(TypedDict):
    """data/prepared/D/schema.json: what `prepare` says of its tables."""

    __pydantic_config__ = CLOSED  # type: ignore[misc]
    dataset: str
    source: Source
    raw_sha256: Sha256
    features: list[str]
    derived: list[str]
    target: str
    target_unit: str | None
    class_names: Classes
    rows: SplitRows
    columns: dict[str, str]
    train_median: Single | None
    duplicates: Duplicates


class AsTheyAre(TypedDict):
    __pydantic_config__ = CLOSED  # type: ignore[misc]
    method: Literal["none"]


class Pixels(TypedDict):
    __pydantic_config__ = CLOSED  # type: ignore[misc]
    method: Literal["pixels"]
    divisor: Divisor


class Standard(TypedDict):
    __pydantic_config__ = CLOSED  # type: ignore[misc]
    method: Literal["standard"]
    mean: dict[str, Single]
    std: dict[str, Divisor]


class Clipped(TypedDict):
    __pydantic_config__ = CLOSED  # type: ignore[misc]
    method: Literal["clipped"]
    low: dict[str, Single]
    high: dict[str, Single]
    mean: dict[str, Single]
    std: dict[str, Divisor]


# data/prepared/D/normalization.json: what `prepare` has normalised with.
Normalization = Annotated[AsTheyAre | Pixels | Standard | Clipped, Field(discriminator="method")]


class Parameters(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    total: NonNegativeInt
    trainable: NonNegativeInt


class ClassFigures(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    precision: Number
    recall: Number
    f1: Number
    rows: NonNegativeInt


class SliceFigures(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    rmse: Number
    mae: Number
    bias: Number
    rows: NonNegativeInt


class Metrics(TypedDict):
    """artifacts/M/metrics.json: what `train` has measured."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    name: str
    dataset: str
    task: Literal["regression", "binary", "multiclass"]
    source: Source
    raw_sha256: Sha256
    seed: NonNegativeInt
    parameters: Parameters
    epochs: PositiveInt
    metrics: dict[Splits, dict[str, Number]]
    per_class: dict[str, ClassFigures]
    slices: dict[str, SliceFigures]
    probes: dict[str, Number]


class Seconds(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    fit: Annotated[Number, Field(ge=0)]
    total: Annotated[Number, Field(ge=0)]


class Versions(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    keras: str


class Run(TypedDict):
    """artifacts/M/run.json: what a rerun does not reproduce."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    began: str
    seconds: Seconds
    peak_memory_bytes: NonNegativeInt
    device: str
    precision: str
    execution: str
    cores: int | None
    platform: str
    backend: str
    versions: Versions
    git_commit: str | None
    recipe: dict[str, Any]
    files: dict[str, str]  # the SHA-256 of each file of the training (tasks/publishing/checksums.py)


class Layer(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    name: str
    type: str
    activation: str | None
    shape: list[int | None]
    parameters: NonNegativeInt
    trainable: NonNegativeInt


class Graph(TypedDict):
    """artifacts/M/network/graph.json: the layers of a network, and which reads which."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    layers: Annotated[list[Layer], Field(min_length=1)]
    links: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    index: NonNegativeInt


class LectureRun(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    normalization: str
    seed: NonNegativeInt
    epochs: PositiveInt
    metrics: dict[Splits, dict[str, Number]]


class LectureRecipeMetrics(TypedDict):
    """artifacts/lecture_recipes/M/metrics.json: what `lecture_recipe` has measured."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    name: str
    source: Source
    raw_sha256: Sha256
    runs: Annotated[list[LectureRun], Field(min_length=1)]


class SummaryRow(TypedDict):
    """An entry of reports/summary.json, of which a report reads the last committed one."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    name: str
    source: Source
    metrics: dict[Splits, dict[str, Number]]


class BaselineParameters(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    total: NonNegativeInt


class BaselineMetrics(TypedDict):
    """An entry of artifacts/baselines/metrics.json: what `baselines` has measured."""

    __pydantic_config__ = OPEN  # type: ignore[misc]
    dataset: str
    task: Literal["regression", "binary", "multiclass"]
    target: str
    estimator: str
    source: Source
    raw_sha256: Sha256
    parameters: BaselineParameters
    metrics: dict[Splits, dict[str, Number]]


class FitSeconds(TypedDict):
    __pydantic_config__ = OPEN  # type: ignore[misc]
    fit: Annotated[Number, Field(ge=0)]


PROVENANCE = TypeAdapter(Provenance)
PREPARED_SCHEMA = TypeAdapter(PreparedSchema)
NORMALIZATION: TypeAdapter[Any] = TypeAdapter(Normalization)
METRICS = TypeAdapter(Metrics)
RUN = TypeAdapter(Run)
GRAPH = TypeAdapter(Graph)
LECTURE_RECIPE = TypeAdapter(LectureRecipeMetrics)
SUMMARY = TypeAdapter(list[SummaryRow])
BASELINES = TypeAdapter(dict[str, BaselineMetrics])
BASELINES_RUN = TypeAdapter(dict[str, FitSeconds])
# The figures that every model of a task has.
FIGURES = {
    "regression": ("loss", "rmse", "mae", "r2"),
    "binary": ("loss", "accuracy"),
    "multiclass": ("loss", "accuracy"),
}


def read_contract(path: Path, contract: TypeAdapter[Any], stage: str) -> dict[str, Any]:
    """Read a JSON object of the form `contract`; raises UserError, naming key, value and stage, where it is another."""
    values = read_json(path, stage)
    try:
        contract.validate_python(values)
    except ValidationError as error:
        raise fault(path, stage, *describe(error)) from None
    return values


def write_contract(path: Path, contract: TypeAdapter[Any], values: dict[str, Any]) -> None:
    """Write a JSON object, in the order of its keys; raises ValidationError where it is not of the form `contract`."""
    contract.validate_python(values)
    write_json(path, values)


def describe(error: ValidationError) -> tuple[str, str]:
    """Return the key of the first fault and what is wrong with it; of a long value only its beginning."""
    found = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in found["loc"])
    if found["type"] == "missing":
        return key, "is missing"
    if found["type"] == "union_tag_not_found":
        return found["ctx"]["discriminator"].strip("'"), "is missing"
    if found["type"] == "union_tag_invalid":
        tag = found["ctx"]["discriminator"].strip("'")
        return tag, f"expected one of {found['ctx']['expected_tags']}, got {shorten(found['input'][tag])}"
    if found["type"] == "extra_forbidden":
        return key, "is not known here"
    return key, f"{found['msg'].removeprefix('Value error, ')}, got {shorten(found['input'])}"


def fault(path: Path, stage: str, key: str, told: str) -> UserError:
    return UserError(f"{path}: {key + ': ' if key else ''}{told}. Run `dvc repro --force {stage}`.")


def refuse_other_values(path: Path, stage: str, found: dict[str, Any], wanted: dict[str, Any], where: str) -> None:
    """Raise UserError where a key of `found` has another value than in `wanted`, which `where` states."""
    for key, value in wanted.items():
        if found[key] != value:
            raise fault(path, stage, key, f"is {shorten(found[key])}, but {where} says {shorten(value)}")


def shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}…"


def refuse_false_source(path: Path, stage: str, dataset: Dataset, source: str, sha256: str, key: str) -> None:
    """Raise UserError where rows are called real and are not the published ones. key: of the checksum."""
    if source == "real" and sha256 != dataset.sha256:
        told = f"is {sha256}, but source is 'real', and the real rows have {dataset.sha256}"
        raise fault(path, stage, key, told)


def check_provenance(path: Path, stage: str, dataset: Dataset, values: dict[str, Any]) -> None:
    """Raise UserError where a provenance contradicts the data set's file."""
    wanted = {
        "dataset": dataset.name,
        "columns": {field.name: str(field.type) for field in dataset.schema},
        "class_names": list(dataset.class_names) if dataset.class_names else None,
    }
    refuse_other_values(path, stage, values, wanted, f"datasets/{dataset.name}.py")
    refuse_false_source(path, stage, dataset, values["source"], values["sha256"], "sha256")


def check_prepared_schema(path: Path, stage: str, dataset: Dataset, columns: dict[str, str], values: dict) -> None:
    """Raise UserError where schema.json contradicts the data set's file. columns: the prepared ones' types, by name."""
    wanted = {
        "dataset": dataset.name,
        "features": list(dataset.features),
        "derived": list(dataset.derived),
        "target": dataset.target,
        "target_unit": dataset.target_unit,
        "class_names": list(dataset.class_names) if dataset.class_names else None,
        "columns": columns,
    }
    refuse_other_values(path, stage, values, wanted, f"datasets/{dataset.name}.py")
    refuse_false_source(path, stage, dataset, values["source"], values["raw_sha256"], "raw_sha256")
    if (values["train_median"] is None) != bool(dataset.class_names):
        raise fault(path, stage, "train_median", f"is {values['train_median']!r}")


def check_statistics(path: Path, stage: str, columns: Iterable[str], values: dict[str, Any]) -> None:
    """Raise UserError unless every statistic is there for each of `columns` and no other, and bounds are in order."""
    wanted = set(columns)
    for key in ("low", "high", "mean", "std"):
        if key in values and values[key].keys() != wanted:
            odd = sorted(values[key].keys() ^ wanted)
            raise fault(path, stage, f"{key}.{odd[0]}", "is missing" if odd[0] in wanted else "is no column")
    for name in wanted if "low" in values else ():
        if values["low"][name] > values["high"][name]:
            raise fault(path, stage, f"low.{name}", f"is above high.{name}")


def check_metrics(path: Path, stage: str, values: dict[str, Any]) -> None:
    """Raise UserError unless the figures of every split are there. values: of Metrics, BaselineMetrics or a run of
    LectureRecipeMetrics, which is not told its task.
    """
    for split in ("train", "valid", "test"):
        if split not in values["metrics"]:
            raise fault(path, stage, f"metrics.{split}", "is missing")
        for figure in FIGURES.get(values.get("task", ""), ()):
            if figure == "loss" and "estimator" in values:
                continue
            if figure not in values["metrics"][split]:
                raise fault(path, stage, f"metrics.{split}.{figure}", "is missing")
        if not values["metrics"][split].keys() & {"rmse", "accuracy"}:
            raise fault(path, stage, f"metrics.{split}", "has neither rmse nor accuracy")
    if "per_class" in values and (values["task"] == "regression") == bool(values["per_class"]):
        raise fault(path, stage, "per_class", f"does not fit task {values['task']!r}")


def check_graph(path: Path, stage: str, values: dict[str, Any]) -> None:
    """Raise UserError where a link is not one of two layers that are there, or the links go round in a circle."""
    import networkx

    names = {layer["name"] for layer in values["layers"]}
    for number, link in enumerate(values["links"]):
        if not names.issuperset(link):
            raise fault(path, stage, f"links.{number}", f"{shorten(link)} names a layer that is not there")
    if not networkx.is_directed_acyclic_graph(networkx.DiGraph(values["links"])):
        raise fault(path, stage, "links", "go round in a circle")
