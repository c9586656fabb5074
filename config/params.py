"""`params.yaml`, read once at the edge into typed, frozen objects.

An unknown key, a wrong type or a value out of range is a `UserError` that names the key, the value
and what would be valid.
"""

import os
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from config import paths
from config.disk import refuse_unless_file
from config.errors import UserError, unknown_name
from config.lockable import refuse_unwritable


class Section(BaseModel):
    """A mapping of `params.yaml` in which every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    raise ValueError(str(unknown_name("parameter", str(key), cls.model_fields, "Valid here")))
        return values


def parse_share(value: Any) -> Any:
    """Turn 0.25, or the text "1/12", into a `Fraction` between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a share such as 0.25 or 1/12")
    try:
        share = Fraction(str(value).replace(" ", ""))
    except (ValueError, ZeroDivisionError):
        raise ValueError("expected a share such as 0.25 or 1/12") from None
    if not 0 < share < 1:
        raise ValueError("expected a share greater than 0 and less than 1")
    return share


def parse_memory(value: Any) -> Any:
    """Turn a size such as "800 MB" into bytes, and a share such as 1/2 into a `Fraction`."""
    try:
        return parse_share(value)
    except ValueError:
        pass
    try:
        size = int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError:
        size = 0
    if isinstance(value, bool) or size <= 0 or "/" in str(value):  # of 3/2 GB, ByteSize takes the 3
        raise ValueError("expected a share of free memory such as 1/2, or a size such as 800 MB")
    return size


# NumPy and scikit-learn take seeds of 32 bits.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# Names become file names, stage names, words of a command line, and scopes of a graph.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Task = Literal["regression", "binary", "multiclass"]
Normalization = Literal["none", "standard", "clipped", "pixels"]
Loss = Literal[
    "mean_squared_error",
    "huber",
    "binary_crossentropy",
    "half_squared_error",
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
]
Metric = Literal["mean_absolute_error", "precision", "recall", "auc", "top_3_accuracy"]
Share = Annotated[Fraction, BeforeValidator(parse_share)]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Execution = Literal["auto", "xla", "graph", "batches"]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Data(Section):
    """Which source the data sets are taken from: the real one, or the generated sample."""

    source: Literal["real", "sample"]


class Hardware(Section):
    """How training uses the machine: it changes how long an epoch takes, and its figures by rounding alone."""

    device: Literal["auto", "cpu", "gpu"]  # auto: every GPU there is, else the processor
    precision: Precision  # of the arithmetic; the published model is float32 in any case
    execution: Execution  # xla, graph: an epoch as one program, by that compiler; batches: Keras' own loop
    threads: Literal["auto"] | PositiveInt  # of the processor, for one training; see `training_threads`
    memory: Annotated[Fraction | int, BeforeValidator(parse_memory)]  # a split that takes more is streamed

    def training_threads(self, pictures: bool) -> int:
        """Return how many threads a training on pictures, or on rows of numbers, uses.

        auto: every core for pictures; one for numbers, whose steps are too small to be divided.
        """
        if self.threads != "auto":
            return self.threads
        return usable_cores() if pictures else 1


class Split(Section):
    """How rows are divided. A part that the source itself sets aside keeps its rows, whatever stands here."""

    seed: Seed
    test: Share | None = None  # of all rows; None: by the rule of tasks.split.default_share
    valid: Share | None = None  # of the rows that are left after test
    stratify: bool = True  # keep the classes' proportions in every split; regression is never stratified


class DatasetParams(Section):
    """How a data set is prepared."""

    normalization: Normalization
    tail: Share | None = None  # of the train rows, on each side, that `clipped` moves to the bound
    split: Split

    @model_validator(mode="after")
    def tail_goes_with_clipped(self) -> "DatasetParams":
        if self.normalization == "clipped" and self.tail is None:
            raise ValueError("normalization 'clipped' needs tail, the share of rows beyond each bound, such as 0.005")
        if self.tail is not None and self.tail >= Fraction(1, 2):
            raise ValueError(f"tail is a share on each side, less than a half, got {float(self.tail):g}")
        return self


class Compile(Section):
    """What `keras.Model.compile` gets."""

    optimizer: Literal["sgd", "adam"]
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: falls to 0 over all epochs
    average: Annotated[float, Field(gt=0, lt=1)] | None = None  # momentum of a moving average of the weights
    loss: Loss
    loss_weights: dict[Name, Weight] | None = None  # by output; None: each counts once
    metrics: list[Metric] = []  # measured each epoch beside the task's own figure


class EarlyStopping(Section):
    """Stop when the loss on valid has not fallen for `patience` epochs."""

    patience: PositiveInt
    restore_best: bool = True  # end with the weights of the best epoch, not of the last


class Checkpoint(Section):
    """Save the model after each epoch, in checkpoints/M."""

    best_only: bool = True  # only when the loss on valid is the lowest so far
    weights_only: bool = True


class Fit(Section):
    """What `keras.Model.fit` gets, and its callbacks."""

    epochs: PositiveInt
    batch_size: PositiveInt
    class_weight: Literal["balanced"] | dict[str, Weight] | None = None  # by name of the class, 1 for those not named
    sample_weight: str | None = None  # a view of models/views.py; multiplied by class_weight
    early_stopping: EarlyStopping | None = None
    checkpoint: Checkpoint | None = None
    loss_ratio: bool = False  # log the loss on valid divided by that on train
    profile_batches: tuple[PositiveInt, PositiveInt] | None = None  # first and last batch that TensorBoard profiles
    resume: bool = False  # go on from the last epoch that an earlier run of this recipe finished

    @field_validator("profile_batches", mode="before")
    @classmethod
    def take_list(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value  # YAML knows no tuple

    @model_validator(mode="after")
    def options_fit_each_other(self) -> "Fit":
        if self.resume and self.early_stopping:
            raise ValueError(
                "resume and early_stopping exclude each other: a checkpoint does not hold how long to wait"
            )
        if self.profile_batches and self.profile_batches[0] > self.profile_batches[1]:
            raise ValueError(f"profile_batches: the first, {self.profile_batches[0]}, is behind the last")
        return self


# By task: the losses that its labels suit, and what may be measured beside its own figure.
LOSSES = {
    "regression": ["mean_squared_error", "huber"],
    "binary": ["binary_crossentropy", "half_squared_error"],
    "multiclass": ["sparse_categorical_crossentropy", "categorical_crossentropy"],
}
METRICS = {
    "regression": ["mean_absolute_error"],
    "binary": ["precision", "recall", "auc"],
    "multiclass": ["top_3_accuracy"],
}


class ModelParams(Section):
    """One model: its data, its architecture and its recipe."""

    dataset: str
    task: Task
    family: str  # the module of models/ that builds it
    inputs: dict[Name, str] = Field(min_length=1)  # name of each input of the network: view of a prepared row
    target: str  # view of a prepared row that is learnt, by every output
    build: dict[str, Any] = {}  # keyword arguments of the family's `build`
    compile: Compile
    fit: Fit
    probes: dict[str, dict[str, Number]] = {}  # label: a row in raw units on which the exported model is shown

    @model_validator(mode="after")
    def recipe_fits_task(self) -> "ModelParams":
        check_recipe_fits(self.task, self.compile, self.fit)
        return self


def check_recipe_fits(task: str, compile: Compile, fit: Fit) -> None:
    """Raise ValueError, naming what fits, when the loss, a metric or a weight does not suit the task's labels.

    Likewise when two parts of the recipe exclude each other.
    """
    if compile.average and fit.resume:
        raise ValueError("compile.average and fit.resume exclude each other: a checkpoint holds the averaged weights")
    if compile.average and fit.early_stopping and not fit.early_stopping.restore_best:
        raise ValueError(
            "compile.average with early_stopping needs restore_best: Keras keeps the average of that epoch"
        )
    if compile.loss not in LOSSES[task]:
        fitting = " or ".join(LOSSES[task])
        raise ValueError(f"compile.loss {compile.loss!r} does not fit task {task!r}; use {fitting}")
    for metric in compile.metrics:
        if metric not in METRICS[task]:
            fitting = ", ".join(METRICS[task])
            raise ValueError(f"compile.metrics: {metric!r} does not fit task {task!r}, which can have {fitting}")
    if fit.class_weight and task == "regression":
        raise ValueError("fit.class_weight is for classes, and task 'regression' has none")


class Parity(Section):
    """The notes' own recipe for a model whose default recipe is ours: trained with several seeds, to compare."""

    dataset: str  # the model's; dvc.yaml, which cannot look it up there, makes a dependency of it
    family: str  # likewise
    seeds: list[Seed] = Field(min_length=1)
    normalizations: list[Normalization] = Field(min_length=1)  # the recipe is tried with each
    compile: Compile
    fit: Fit


class Baseline(Section):
    """A model of scikit-learn on raw columns, to compare networks with."""

    dataset: str
    inputs: str  # a view of columns
    target: str
    estimator: Literal["dummy", "perceptron", "mlp"]
    standardise: bool = False
    arguments: dict[str, Any] = {}  # keyword arguments of the estimator


Figures = dict[Literal["train", "valid", "test", "probes"], dict[str, Number]]


class Params(Section):
    """The whole of `params.yaml`."""

    seed: Seed
    data: Data
    hardware: Hardware
    datasets: dict[Name, DatasetParams]
    models: dict[Name, ModelParams]
    baselines: dict[Name, Baseline] = {}
    parity: dict[str, Parity] = {}
    notes: dict[str, Figures] = {}  # what the lecture notes print for a model, shown beside our figures

    @model_validator(mode="after")
    def names_exist(self) -> "Params":
        used = {f"models.{name}": model.dataset for name, model in self.models.items()}
        used |= {f"baselines.{name}": baseline.dataset for name, baseline in self.baselines.items()}
        for key, dataset in used.items():
            if dataset not in self.datasets:
                raise ValueError(f"{key}.dataset: {unknown_name('dataset', dataset, self.datasets, 'Known')}")
        for name in self.baselines:
            if name in self.models:
                raise ValueError(f"baselines.{name}: there is a model of this name already")
        for name in {"baselines", "parity"} & set(self.models):
            raise ValueError(f"models.{name}: this name is taken, for a folder in {paths.ARTIFACTS}")
        for name in self.notes:
            if name not in {**self.models, **self.baselines}:
                raise ValueError(f"notes: {unknown_name('model', name, [*self.models, *self.baselines], 'Known')}")
        for name, parity in self.parity.items():
            if name not in self.models:
                raise ValueError(f"parity: {unknown_name('model', name, self.models, 'Known')}")
            try:
                check_recipe_fits(self.models[name].task, parity.compile, parity.fit)
            except ValueError as error:
                raise ValueError(f"parity.{name}: {error}") from None
            for key in ("dataset", "family"):
                if getattr(parity, key) != (wanted := getattr(self.models[name], key)):
                    raise ValueError(f"parity.{name}.{key} is {getattr(parity, key)!r}; the model's is {wanted!r}")
            if "clipped" in parity.normalizations and not self.datasets[self.models[name].dataset].tail:
                raise ValueError(f"parity.{name}: 'clipped' needs datasets.{self.models[name].dataset}.tail")
        return self

    def dataset(self, name: str) -> DatasetParams:
        """Return the parameters of data set `name`; raises UserError with the valid names."""
        if name not in self.datasets:
            raise unknown_name("dataset", name, self.datasets, f"The data sets of {paths.PARAMS}")
        return self.datasets[name]

    def model(self, name: str) -> ModelParams:
        """Return the parameters of model `name`; raises UserError with the valid names."""
        if name not in self.models:
            raise unknown_name("model", name, self.models, f"The models of {paths.PARAMS}")
        return self.models[name]


def load_params(path: Path = paths.PARAMS) -> Params:
    """Read and validate `path`; raises UserError with one line for each fault."""
    refuse_unless_file(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} not found in {Path.cwd()}: run this from the root of the project.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    return parse_params(text, path)


@lru_cache(maxsize=1)
def parse_params(text: str, path: Path) -> Params:
    """Validate `text`, what `path` holds; see `load_params`. Once for a stage, which asks more than once."""
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = f" line {mark.line + 1}" if mark else ""
        problem = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        raise UserError(f"{path}{line}: not valid YAML ({problem}).") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    try:
        refuse_unwritable(values)
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(fault_lines(path, error))) from None


def fault_lines(path: Path, error: ValidationError) -> list[str]:
    """Describe every fault as `file: key: what is wrong (the value)`."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        value = fault["input"]
        shown = "" if isinstance(value, dict | BaseModel) else f", got {value!r}"
        lines.append(f"{path}: {key + ': ' if key else ''}{message}{shown}")
    return lines
