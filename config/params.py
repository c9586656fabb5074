"""`params.yaml`, read once into typed, frozen objects.

An unknown key, a wrong type or a value out of range is a `UserError` that names the key, the value and what would be
valid. So is a name that no file of datasets/ or models/ defines.
"""

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    Field,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from config import paths
from config.gates import GATED_METRICS, Gates
from config.lockable import refuse_unwritable
from config.names import build_arguments, dataset_files, definitions, families
from config.retention import Retention
from config.search import OBJECTIVES, Search, Space, check_keys, corners, join_spaces, preparation
from config.section import Different, Section, Seed
from runtime.disk import refuse_unless_file
from runtime.errors import UserError, shortened, unknown_name
from runtime.process_pool import usable_cores

# Limits far above any sensible value, and far below what exhausts memory or time.
MAX_EPOCHS = 1_000_000
MAX_BATCH = 1_000_000  # rows
MAX_THREADS = 1024
MAX_ENTRIES = 1000  # of a list, such as a network's layers
MAX_INTEGER = 2**31 - 1  # in what builds a network: TensorFlow's shapes hold no more
MAX_BASELINE_UNITS = 10_000  # of a layer in scikit-learn
MAX_NAME_LENGTH = 64  # a name is part of file names, and of keys that DVC writes into one line of dvc.lock
MAX_NUMBER_LENGTH = 40  # of a share or a size, in characters
# Of the file itself; its values include what aliases stand for.
MAX_CHARACTERS = 1_000_000
MAX_VALUES = 100_000
MAX_DEPTH = 50
MAX_FAULTS = 20  # in one message


def parse_share(value: Any) -> Any:
    """Turn 0.25, or the text "1/12", into a `Fraction` between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a share such as 0.25 or 1/12")
    text = str(value).replace(" ", "")
    if len(text) > MAX_NUMBER_LENGTH or (isinstance(value, str) and "e" in text.lower()):  # 1e-999999999
        raise ValueError("expected a share such as 0.25 or 1/12")
    try:
        share = Fraction(text)
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
        size = int(TypeAdapter(ByteSize).validate_python(value)) if len(str(value)) <= MAX_NUMBER_LENGTH else 0
    except ValidationError:
        size = 0
    if isinstance(value, bool) or size <= 0 or "/" in str(value):  # of 3/2 GB, ByteSize takes the 3
        raise ValueError("expected a share of free memory such as 1/2, or a size such as 800 MB")
    return size


def check_name(name: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            "a name has lower-case letters, digits and _, begins with a letter, "
            f"and has at most {MAX_NAME_LENGTH} characters"
        )
    return name


def check_sizes(value: Any) -> Any:
    """Return `value`; raises ValueError if a list or an integer in it is too large to build a network or estimator."""
    for part in parts_of(value):
        if isinstance(part, list) and len(part) > MAX_ENTRIES:
            raise ValueError(f"a list here has at most {MAX_ENTRIES} entries, not {len(part)}")
        if isinstance(part, int) and abs(part) > MAX_INTEGER:
            raise ValueError(f"a whole number here is at most {MAX_INTEGER}, not {shortened(str(part))}")
    return value


def parts_of(value: Any) -> Iterator[Any]:
    """Yield `value`, and everything in it."""
    yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from parts_of(part)


# Names become file names, stage names, words of a command line, and scopes of a TensorFlow graph.
Name = Annotated[str, AfterValidator(check_name)]
Epochs = Annotated[int, Field(gt=0, le=MAX_EPOCHS)]
Arguments = Annotated[dict[str, Any], AfterValidator(check_sizes)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Task = Literal["regression", "binary", "multiclass"]
Normalization = Literal["none", "standard", "clipped", "pixels"]
Loss = Literal[
    "mean_squared_error",
    "huber",
    "binary_crossentropy",
    "half_squared_error",
    "signed_half_squared_error",
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
]
Metric = Literal["mean_absolute_error", "precision", "recall", "auc", "top_3_accuracy"]
Share = Annotated[Fraction, BeforeValidator(parse_share)]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Execution = Literal["auto", "xla", "graph", "batches"]


class Data(Section):
    """The source of all data sets: the real one, or the generated sample."""

    source: Literal["real", "sample"]


class Hardware(Section):
    """How training uses the machine. This changes how long an epoch takes, and metrics only by rounding."""

    device: Literal["auto", "cpu", "gpu"]  # auto: all GPUs if there are any, else the processor
    precision: Precision  # of the arithmetic in training; the published model is float32
    execution: Execution  # xla, graph: an epoch as one compiled program; batches: Keras' own loop
    threads: (
        Literal["auto"] | Annotated[int, Field(gt=0, le=MAX_THREADS)]
    )  # of the processor for one training; see `training_threads`
    memory: Annotated[Fraction | int, BeforeValidator(parse_memory)]  # a larger split is streamed from disk

    def training_threads(self, pictures: bool) -> int:
        """Return how many threads a training on images, or on rows of numbers, uses.

        auto: all cores for images; one for numbers, because their steps are too small to split.
        """
        if self.threads != "auto":
            return self.threads
        return usable_cores() if pictures else 1


class Split(Section):
    """How rows are split. If the source defines a split itself, such as test, that split keeps the source's rows."""

    seed: Seed
    test: Share | None = None  # of all rows; None: see tasks.preparation.split.default_share
    valid: Share | None = None  # of the rows that are not in test
    stratify: bool = True  # same class proportions in every split; regression is never stratified


class DatasetParams(Section):
    """How a data set is prepared."""

    normalization: Normalization
    tail: Share | None = None  # of the train rows, on each side, that `clipped` moves to its bound
    split: Split

    @model_validator(mode="after")
    def tail_goes_with_clipped(self) -> "DatasetParams":
        if self.normalization == "clipped" and self.tail is None:
            raise ValueError("normalization 'clipped' needs tail, the share of rows beyond each bound, such as 0.005")
        if self.tail is not None and self.tail >= Fraction(1, 2):
            raise ValueError(f"tail is a share on each side, less than a half, got {float(self.tail):g}")
        return self


class Compile(Section):
    """The arguments of `keras.Model.compile`."""

    optimizer: Literal["sgd", "adam", "adamw"]
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None  # of adamw: by learning rate x this
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: falls to 0 over all epochs
    warmup: Annotated[float, Field(gt=0, lt=1)] | None = None  # share of the steps in which a cosine rate rises first
    average: Annotated[float, Field(gt=0, lt=1)] | None = None  # momentum of a moving average of the weights
    loss: Loss
    label_smoothing: Annotated[float, Field(gt=0, lt=1)] | None = None  # share of a label given to all classes
    loss_weights: dict[Name, Weight] | None = None  # by output; None: each counts once
    metrics: list[Metric] = Field([], max_length=MAX_ENTRIES)  # in addition to the task's primary metric

    @model_validator(mode="after")
    def options_fit_each_other(self) -> "Compile":
        if (self.weight_decay is None) == (self.optimizer == "adamw"):
            raise ValueError(f"optimizer adamw needs weight_decay, and no other takes it; it is {self.optimizer!r}")
        if self.warmup and self.schedule != "cosine":
            raise ValueError(f"warmup needs the schedule 'cosine', which is {self.schedule!r}")
        if self.label_smoothing and self.loss != "categorical_crossentropy":
            raise ValueError(f"label_smoothing needs the loss 'categorical_crossentropy', which is {self.loss!r}")
        return self


class EarlyStopping(Section):
    """Stop when the validation loss has not fallen for `patience` epochs."""

    patience: Epochs
    restore_best: bool = True  # end with the weights of the best epoch, not the last


class Checkpoint(Section):
    """Save the model after each epoch, in checkpoints/M."""

    best_only: bool = True  # only if the validation loss is the lowest so far
    weights_only: bool = True


class Fit(Section):
    """The arguments of `keras.Model.fit`, and its callbacks."""

    epochs: Epochs
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH)]
    class_weight: Literal["balanced"] | dict[str, Weight] | None = None  # by class name; 1 for classes without an entry
    sample_weight: str | None = None  # a sample weight of models/common/features.py; multiplied by class_weight
    early_stopping: EarlyStopping | None = None
    checkpoint: Checkpoint | None = None
    loss_ratio: bool = False  # log the validation loss divided by the training loss
    profile_batches: tuple[PositiveInt, PositiveInt] | None = None  # first and last batch that TensorBoard profiles
    resume: bool = False  # continue after the last epoch that an earlier run of this recipe finished

    @field_validator("sample_weight")
    @classmethod
    def weight_exists(cls, name: str | None, info: ValidationInfo) -> str | None:
        return name and known_definition("sample weight", "SAMPLE_WEIGHTS", name, info)

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


# By task: the losses that fit its labels, and the metrics in addition to its primary one.
LOSSES = {
    "regression": ["mean_squared_error", "huber"],
    "binary": ["binary_crossentropy", "half_squared_error", "signed_half_squared_error"],
    "multiclass": ["sparse_categorical_crossentropy", "categorical_crossentropy"],
}
METRICS = {
    "regression": ["mean_absolute_error"],
    "binary": ["precision", "recall", "auc"],
    "multiclass": ["top_3_accuracy"],
}


ExportFormat = Literal["litert", "onnx"]


class ModelParams(Section):
    """One model: its data, its architecture and its recipe."""

    dataset: str
    task: Task
    family: str  # the module of models/ that builds it
    inputs: dict[Name, str] = Field(min_length=1)  # name of each input of the network: its feature
    target: str  # what every output learns that is not in `targets`
    targets: dict[Name, str] = Field(default={})  # what further outputs learn, by output
    build: Arguments = Field(default={})  # keyword arguments of the family's `build`
    compile: Compile
    fit: Fit
    # Of an ensemble: a network for each.
    seeds: Annotated[list[Seed], Field(min_length=2, max_length=MAX_ENTRIES), Different] | None = None
    # Besides the SavedModel.
    export: Annotated[list[ExportFormat], Field(max_length=MAX_ENTRIES), Different] = Field(default=[])
    probes: dict[str, dict[str, Number]] = Field(default={})  # label: a row in raw units, for an example prediction

    @field_validator("family")
    @classmethod
    def family_exists(cls, name: str, info: ValidationInfo) -> str:
        if info.context and (known := families(info.context)) and name not in known:
            raise ValueError(unknown_name("family", name, known, "The families of models/"))
        return name

    @field_validator("inputs")
    @classmethod
    def features_exist(cls, inputs: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        for name in inputs.values():
            known_definition("feature", "FEATURES", name, info)
        return inputs

    @field_validator("target")
    @classmethod
    def target_exists(cls, name: str, info: ValidationInfo) -> str:
        return known_definition("target", "TARGETS", name, info)

    @field_validator("targets")
    @classmethod
    def targets_exist(cls, targets: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        for name in targets.values():
            known_definition("target", "TARGETS", name, info)
        return targets

    @field_validator("build")
    @classmethod
    def family_takes_arguments(cls, build: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        takes = build_arguments(info.context, info.data.get("family", "")) if info.context else None
        if takes is None:
            return build
        for argument in build:
            if argument not in takes:
                raise ValueError(unknown_name("argument", argument, takes, f"{info.data['family']} takes"))
        if missing := [argument for argument, required in takes.items() if required and argument not in build]:
            raise ValueError(f"family {info.data['family']!r} needs {', '.join(missing)} here")
        return build

    @model_validator(mode="after")
    def recipe_fits_task(self) -> "ModelParams":
        check_recipe_fits(self.task, self.compile, self.fit)
        if self.targets and self.fit.class_weight:
            raise ValueError("targets and fit.class_weight exclude each other: a row has a class for each target")
        if self.seeds and self.fit.early_stopping:
            raise ValueError("seeds and early_stopping exclude each other: all networks are trained equally long")
        if self.seeds and self.compile.loss == "signed_half_squared_error":
            raise ValueError("seeds and the loss of a sign exclude each other: a mean of -1 and 1 is neither")
        return self

    def target_of(self, output: str) -> str:
        """Return what an output learns."""
        return self.targets.get(output, self.target)


def known_definition(kind: str, dictionary: str, name: str, info: ValidationInfo) -> str:
    """Return `name`, if models/common/features.py defines it.

    Args:
        kind: for the message, such as "input".
        dictionary: where models/common/features.py defines names of this kind.
        name: as params.yaml has it.
        info: has the project's folder as its context.

    Raises:
        ValueError: there is no such definition.
    """
    known = definitions(info.context, dictionary) if info.context else None
    if known is not None and name not in known:
        raise ValueError(unknown_name(kind, name, known, f"The {kind}s of models/common/features.py"))
    return name


def check_recipe_fits(task: str, compile: Compile, fit: Fit) -> None:
    """Check a recipe against its task.

    Args:
        task: decides which losses, metrics and weights fit the labels.
        compile: the recipe's section of that name.
        fit: likewise.

    Raises:
        ValueError: something does not fit the task, or two options exclude each other; the message names what fits.
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


class LectureRecipe(Section):
    """The lecture notes' recipe for a model whose default recipe differs; trained with several seeds, to compare."""

    dataset: str  # the model's; repeated, because dvc.yaml needs it for a dependency and cannot look it up
    family: str  # likewise
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MAX_ENTRIES), Different]
    normalizations: Annotated[list[Normalization], Field(min_length=1), Different]  # the recipe is tried with each
    build: Arguments = Field(default={})  # what replaces the model's
    compile: Compile
    fit: Fit

    def of(self, model: ModelParams) -> ModelParams:
        """Return `model` with this recipe: one network."""
        own = {"build": {**model.build, **self.build}, "compile": self.compile, "fit": self.fit, "seeds": None}
        return model.model_copy(update=own)


class NeighbourColumns(Section):
    """More columns of a baseline: the mean target of the nearest train rows, weighted by the inverse distance."""

    place: str  # a feature: where a row is
    counts: list[PositiveInt] = Field(min_length=1, max_length=MAX_ENTRIES)  # of rows, a column each

    @field_validator("place")
    @classmethod
    def feature_exists(cls, name: str, info: ValidationInfo) -> str:
        return known_definition("feature", "FEATURES", name, info)


class Baseline(Section):
    """A model of scikit-learn on raw columns, with which networks are compared."""

    dataset: str
    inputs: str  # a feature
    target: str
    neighbours: NeighbourColumns | None = None  # of a regression
    estimator: Literal["dummy", "perceptron", "mlp", "gradient_boosting"]
    standardize: bool = False
    arguments: Arguments = Field(default={})  # keyword arguments of the estimator

    @field_validator("inputs")
    @classmethod
    def feature_exists(cls, name: str, info: ValidationInfo) -> str:
        return known_definition("feature", "FEATURES", name, info)

    @field_validator("target")
    @classmethod
    def target_exists(cls, name: str, info: ValidationInfo) -> str:
        return known_definition("target", "TARGETS", name, info)

    @field_validator("arguments")
    @classmethod
    def can_be_trained(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for argument, most in (("hidden_layer_sizes", MAX_BASELINE_UNITS), ("max_iter", MAX_EPOCHS)):
            for part in parts_of(arguments.get(argument)):
                if isinstance(part, int) and part > most:
                    raise ValueError(f"{argument} is at most {most}, not {part}")
        return arguments


ReferenceMetrics = dict[Literal["train", "valid", "test", "probes"], dict[str, Number]]


class Params(Section):
    """The whole of `params.yaml`."""

    seed: Seed
    data: Data
    hardware: Hardware
    datasets: dict[Name, DatasetParams]
    models: dict[Name, ModelParams]
    baselines: dict[Name, Baseline] = Field(default={})
    lecture_recipes: dict[str, LectureRecipe] = Field(default={})
    leave_out: list[str] = Field([], max_length=MAX_ENTRIES)  # models that a run of the whole pipeline does not train
    notes: dict[str, ReferenceMetrics] = Field(default={})  # the published results of the lecture notes, by model
    search_spaces: dict[Name, Space] = Field(default={})  # hyperparameters that vary, by name
    search: dict[str, Search] = Field(default={})  # how a model's hyperparameters are searched
    gates: dict[str, Gates] = Field(default={})  # what a candidate must keep, by data set
    retention: Retention = Retention()  # how much is kept of what every night adds

    @field_validator("datasets")
    @classmethod
    def dataset_files_exist(cls, datasets: dict[str, DatasetParams], info: ValidationInfo) -> dict[str, DatasetParams]:
        known = dataset_files(info.context) if info.context else []
        for name in datasets if known else ():
            if name not in known:
                raise ValueError(unknown_name("dataset", name, known, "The files of datasets/"))
        return datasets

    @model_validator(mode="after")
    def names_exist(self, info: ValidationInfo) -> "Params":
        used = {f"models.{name}": model.dataset for name, model in self.models.items()}
        used |= {f"baselines.{name}": baseline.dataset for name, baseline in self.baselines.items()}
        for key, dataset in used.items():
            if dataset not in self.datasets:
                raise ValueError(f"{key}.dataset: {unknown_name('dataset', dataset, self.datasets, 'Known')}")
        for name in self.baselines:
            if name in self.models:
                raise ValueError(f"baselines.{name}: there is a model of this name already")
        for name in {"baselines", "lecture_recipes", "search"} & set(self.models):
            raise ValueError(f"models.{name}: this name is taken, for a folder in {paths.ARTIFACTS}")
        for name, model in self.models.items():
            if model.targets and (name in self.lecture_recipes or name in self.search):
                raise ValueError(f"models.{name}.targets: a model with a lecture recipe or a search has one target")
        for name in self.leave_out:
            if name not in self.models:
                raise ValueError(f"leave_out: {unknown_name('model', name, self.models, 'Known')}")
        for name in self.notes:
            if name not in {**self.models, **self.baselines}:
                raise ValueError(f"notes: {unknown_name('model', name, [*self.models, *self.baselines], 'Known')}")
        for name, recipe in self.lecture_recipes.items():
            if name not in self.models:
                raise ValueError(f"lecture_recipes: {unknown_name('model', name, self.models, 'Known')}")
            try:
                check_recipe_fits(self.models[name].task, recipe.compile, recipe.fit)
            except ValueError as error:
                raise ValueError(f"lecture_recipes.{name}: {error}") from None
            takes = build_arguments(info.context, self.models[name].family) if info.context else None
            for argument in recipe.build:
                if takes is not None and argument not in takes:
                    message = unknown_name("argument", argument, takes, f"{self.models[name].family} takes")
                    raise ValueError(f"lecture_recipes.{name}.build: {message}")
            for key in ("dataset", "family"):
                if getattr(recipe, key) != (wanted := getattr(self.models[name], key)):
                    raise ValueError(
                        f"lecture_recipes.{name}.{key} is {getattr(recipe, key)!r}; the model's is {wanted!r}"
                    )
            if "clipped" in recipe.normalizations and not self.datasets[self.models[name].dataset].tail:
                raise ValueError(f"lecture_recipes.{name}: 'clipped' needs datasets.{self.models[name].dataset}.tail")
        return self

    @model_validator(mode="after")
    def searches_fit_models(self, info: ValidationInfo) -> "Params":
        for name, space in self.search_spaces.items():
            try:
                check_keys(space)
            except ValueError as error:
                raise ValueError(f"search_spaces.{name}: {error}") from None
        for name, search in self.search.items():
            if name not in self.models:
                raise ValueError(f"search: {unknown_name('model', name, self.models, 'Known')}")
            for key in ("dataset", "family"):
                if getattr(search, key) != (wanted := getattr(self.models[name], key)):
                    raise ValueError(f"search.{name}.{key} is {getattr(search, key)!r}; the model's is {wanted!r}")
            for wanted in search.spaces:
                if wanted not in self.search_spaces:
                    raise ValueError(f"search.{name}: {unknown_name('space', wanted, self.search_spaces, 'Known')}")
            objectives = OBJECTIVES[self.models[name].task]
            if search.objective and search.objective not in objectives:
                raise ValueError(f"search.{name}: {unknown_name('objective', search.objective, objectives, 'Valid')}")
            if search.reference and search.reference not in self.notes:
                raise ValueError(f"search.{name}: {unknown_name('reference', search.reference, self.notes, 'Known')}")
            if search.finalists > search.trials:
                raise ValueError(f"search.{name}: {search.finalists} finalists of {search.trials} trials")
            try:
                for values in corners(join_spaces(search.spaces, self.search_spaces)):
                    self.searched(name, values, info.context)
            except ValidationError as error:
                fault = error.errors()[0]
                key, message = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
                got = f", got {shortened(repr(fault['input']))}" if fault["type"] != "missing" else ""
                raise ValueError(f"search.{name}: {key + ': ' if key else ''}{message}{got}") from None
            except ValueError as error:
                raise ValueError(f"search.{name}: {error}") from None
        return self

    @model_validator(mode="after")
    def gates_fit_models(self) -> "Params":
        for name, gates in self.gates.items():
            if name not in self.datasets:
                raise ValueError(f"gates: {unknown_name('dataset', name, self.datasets, 'Known')}")
            models = {model: recipe for model, recipe in self.models.items() if recipe.dataset == name}
            for model, own in gates.models.items():
                if model not in models:
                    raise ValueError(f"gates.{name}.models: {unknown_name('model', model, models, f'Those of {name}')}")
                valid = GATED_METRICS[models[model].task]
                for metric in own.absolute:
                    if metric not in valid:
                        key = f"gates.{name}.models.{model}.absolute"
                        raise ValueError(f"{key}: {unknown_name('metric', metric, valid, 'Valid here')}")
        return self

    def gates_of(self, dataset: str) -> Gates:
        """Return the gates of a data set; the defaults where the section has none."""
        return self.gates.get(dataset, Gates())

    def space_of(self, name: str) -> Space:
        """Return the hyperparameters that the search of model `name` varies, by dotted key."""
        return join_spaces(self.search[name].spaces, self.search_spaces)

    def searched(
        self, name: str, values: dict[str, Any], context: Path | None = None
    ) -> tuple[ModelParams, DatasetParams]:
        """Return the recipe of a model and the preparation of its data set with the values of a search put in.

        Args:
            name: of a model that `search` has.
            values: of the hyperparameters, by dotted key.
            context: the project's folder, where names in the recipe are looked up; None: they are not.

        Raises:
            ValueError: the values do not fit the recipe; a ValidationError where one is out of range.
        """
        model = self.models[name]
        given = model.model_dump(mode="json") | self.search[name].recipe(values)
        recipe = ModelParams.model_validate(given, context=context)
        prepared = self.datasets[model.dataset].model_dump(mode="json") | preparation(values)
        return recipe, DatasetParams.model_validate(prepared)

    def search_of(self, name: str) -> Search:
        """Return the search of model `name`; raises UserError with the valid names."""
        if name not in self.search:
            raise unknown_name("search", name, self.search, f"The models in `search` of {paths.PARAMS}")
        return self.search[name]

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
    """Validate `text`, the content of `path`; see `load_params`. Cached, because a stage asks more than once.

    Names in it are looked up in the code in the folder of `path`.
    """
    values = parse_values(text, path)
    try:
        return Params.model_validate(values, context=path.absolute().parent)
    except ValidationError as error:
        raise UserError("\n".join(fault_lines(path, error))) from None


@lru_cache(maxsize=1)
def parse_values(text: str, path: Path) -> Any:
    """Return the values of `text`, the YAML of the file `path`; they are cached and must not be changed.

    Raises UserError if it is no YAML, too large, or refers to itself or to something outside.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{path} has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read.")
    yaml = YAML(typ="safe", pure=True)
    try:
        if "&" in text:  # an anchor
            check_aliases(yaml.parse(text), path)
        values = yaml.load(text)
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        line = f" line {mark.line + 1}" if mark else ""
        problem = error.problem if isinstance(error, MarkedYAMLError) else str(error)
        raise UserError(f"{path}{line}: not valid YAML ({problem}).") from None
    except RecursionError:
        raise UserError(f"{path}: values within values, more than {MAX_DEPTH} deep.") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    check_values(values, path)
    try:
        refuse_unwritable(values)
    except ValueError as error:
        raise UserError(f"{path}: {error}.") from None
    return values


def check_values(values: Any, path: Path) -> None:
    """Raise UserError for too many values, too deep nesting, and text that DVC or Hydra would replace."""
    for number, (key, value) in enumerate(every_value(values), start=1):
        if number > MAX_VALUES:
            raise UserError(f"{path} has more than {MAX_VALUES:,} values.")
        if len(key) > MAX_DEPTH:
            raise UserError(f"{path}: values within values, more than {MAX_DEPTH} deep.")
        if isinstance(value, str) and "${" in value:
            got = f"got {shortened(repr(value))}"
            raise UserError(f"{path}: {'.'.join(key)}: ${{...}} is not replaced, write the value itself; {got}.")


def check_aliases(events: Iterator[Event], path: Path) -> None:
    """Raise UserError if an alias refers to what it is in, or aliases stand for more than MAX_VALUES values."""
    sizes: dict[str, int] = {}
    inside: list[tuple[str | None, int]] = []  # open sections: anchor, and values so far
    for event in events:
        if isinstance(event, AliasEvent):
            if event.anchor in [anchor for anchor, _ in inside]:
                line = event.start_mark.line + 1
                raise UserError(f"{path} line {line}: the alias *{shortened(event.anchor)} refers to what it is in.")
            complete = event.anchor, sizes.get(event.anchor, 1)
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            inside.append((event.anchor, 1))
            continue
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            complete = inside.pop()
        elif isinstance(event, NodeEvent):
            complete = event.anchor, 1
        else:
            continue
        anchor, size = complete
        if size > MAX_VALUES:
            raise UserError(f"{path} has more than {MAX_VALUES:,} values, with what its aliases stand for.")
        if anchor and not isinstance(event, AliasEvent):
            sizes[anchor] = size
        if inside:
            inside[-1] = inside[-1][0], inside[-1][1] + size


def every_value(value: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every key and value of a YAML document, each with the keys that lead to it."""
    yield key, value
    if isinstance(value, dict):
        for name, part in value.items():
            yield (*key, str(name)), name
            yield from every_value(part, (*key, str(name)))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from every_value(part, (*key, str(number)))


def fault_lines(path: Path, error: ValidationError) -> list[str]:
    """Return a line for each fault: `file: key: what is wrong, got the value`."""
    lines = []
    for fault in error.errors():
        key = ".".join(shortened(str(part)) for part in fault["loc"] if part != "[key]")
        message = fault["msg"].removeprefix("Value error, ")
        value = fault["input"]
        in_message = isinstance(value, dict | BaseModel) or (isinstance(value, str) and repr(value) in message)
        shown = "" if in_message else f", got {shortened(repr(value))}"
        lines.append(f"{path}: {key + ': ' if key else ''}{message}{shown}")
    if len(lines) > MAX_FAULTS:
        lines[MAX_FAULTS:] = [f"... and {len(lines) - MAX_FAULTS} more faults"]
    return lines
