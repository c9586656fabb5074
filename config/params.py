"""`params.yaml`, read once at the edge into typed, frozen objects.

An unknown key, a wrong type or a value out of range is a `UserError` that names the key, the value
and what would be valid.
"""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from config import paths
from config.errors import UserError, unknown_name


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


# NumPy and scikit-learn take seeds of 32 bits.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# Names become file names, stage names, words of a command line, and scopes of a graph.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[Fraction, BeforeValidator(parse_share)]


class Data(Section):
    """Which source the data sets are taken from: the real one, or the generated sample."""

    source: Literal["real", "sample"]


class Split(Section):
    """How rows are divided. A part that the source itself sets aside keeps its rows, whatever stands here."""

    seed: Seed
    test: Share | None = None  # of all rows; None: by the rule of tasks.split.default_share
    valid: Share | None = None  # of the rows that are left after test
    stratify: bool = True  # keep the classes' proportions in every split; regression is never stratified


class DatasetParams(Section):
    """How a data set is prepared."""

    normalization: Literal["none", "standard", "pixels"]
    split: Split


class Compile(Section):
    """What `keras.Model.compile` gets."""

    optimizer: Literal["sgd", "adam"]
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    loss: Literal["mean_squared_error", "binary_crossentropy", "sparse_categorical_crossentropy", "half_squared_error"]


class Fit(Section):
    """What `keras.Model.fit` gets."""

    epochs: PositiveInt
    batch_size: PositiveInt


LOSSES = {
    "regression": {"mean_squared_error"},
    "binary": {"binary_crossentropy", "half_squared_error"},
    "multiclass": {"sparse_categorical_crossentropy"},
}


class ModelParams(Section):
    """One model: its data, its architecture and its recipe."""

    dataset: str
    task: Literal["regression", "binary", "multiclass"]
    family: str  # the module of models/ that builds it
    inputs: dict[Name, str] = Field(min_length=1)  # name of each input of the network: view of a prepared row
    target: str  # view of a prepared row that is learnt
    build: dict[str, Any] = {}  # keyword arguments of the family's `build`
    compile: Compile
    fit: Fit
    probes: dict[str, dict[str, Number]] = {}  # label: a row in raw units on which the exported model is shown

    @model_validator(mode="after")
    def loss_fits_task(self) -> "ModelParams":
        fitting = sorted(LOSSES[self.task])
        if self.compile.loss not in fitting:
            raise ValueError(
                f"compile.loss {self.compile.loss!r} does not fit task {self.task!r}; use {' or '.join(fitting)}"
            )
        return self


Figures = dict[Literal["train", "valid", "test", "probes"], dict[str, Number]]


class Params(Section):
    """The whole of `params.yaml`."""

    seed: Seed
    data: Data
    datasets: dict[Name, DatasetParams]
    models: dict[Name, ModelParams]
    notes: dict[str, Figures] = {}  # what the lecture notes print for a model, shown beside our figures

    @model_validator(mode="after")
    def names_exist(self) -> "Params":
        for name, model in self.models.items():
            if model.dataset not in self.datasets:
                error = unknown_name("dataset", model.dataset, self.datasets, "Known")
                raise ValueError(f"models.{name}.dataset: {error}")
        for name in self.notes:
            if name not in self.models:
                raise ValueError(f"notes: {unknown_name('model', name, self.models, 'Known')}")
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
    try:
        values = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise UserError(f"{path} not found in {Path.cwd()}: run this from the root of the project.") from None
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = f" line {mark.line + 1}" if mark else ""
        problem = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        raise UserError(f"{path}{line}: not valid YAML ({problem}).") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
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
