"""The sections `search_spaces` and `search` of `params.yaml`: hyperparameters that vary, and how they are searched."""

import copy
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator, model_validator

from config.section import Different, Section, Seed

MAX_TRIALS = 10_000
MAX_ROUND = 256
MAX_FINALISTS = 100
MAX_MINUTES = 100_000
MAX_CHOICES = 1000
# What a hyperparameter's name begins with, and what follows: keys of `models.M`, or of the data set's entry.
RECIPE = ("build", "compile", "fit")
PREPARATION = "preparation"
PREPARED = ("normalization", "tail")

Objective = Literal["rmse", "accuracy", "loss"]
# By task: what a search can minimize or maximize on valid, the default first.
OBJECTIVES: dict[str, tuple[Objective, ...]] = {
    "regression": ("rmse", "loss"),
    "binary": ("accuracy", "loss"),
    "multiclass": ("accuracy", "loss"),
}
MAXIMIZED = ("accuracy",)

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Choices(Section):
    """One of some values, such as `{choices: [sgd, adam]}`."""

    choices: list[Any] = Field(min_length=1, max_length=MAX_CHOICES)

    @field_validator("choices")
    @classmethod
    def choices_differ(cls, choices: list[Any]) -> list[Any]:
        for number, choice in enumerate(choices):
            if choice in choices[:number]:
                raise ValueError(f"names {choice!r} twice")
        return choices

    def extremes(self) -> list[Any]:
        """Return the values by which the recipe is checked."""
        return self.choices


class Interval(Section):
    """A number from `low` to `high`, both included; a whole one if both bounds are.

    log: equally likely by its logarithm. step: `low` plus a multiple of it.
    """

    low: int | Finite
    high: int | Finite
    log: bool = False
    step: int | Finite | None = None

    @model_validator(mode="after")
    def bounds_fit(self) -> "Interval":
        if self.low > self.high:
            raise ValueError(f"low, {self.low}, is above high, {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"with log, low is greater than 0, not {self.low}")
        if self.step is not None and (self.step <= 0 or self.log):
            raise ValueError("step is greater than 0, and excludes log")
        if self.whole and isinstance(self.step, float):
            raise ValueError(f"step is {self.step}, and the bounds are whole numbers")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def extremes(self) -> list[Any]:
        """Return the values by which the recipe is checked."""
        return [self.low, self.high]


class Layers(Section):
    """A list with the same number for each layer, such as the units of hidden layers."""

    layers: Interval
    units: Interval

    @model_validator(mode="after")
    def are_whole(self) -> "Layers":
        if not (self.layers.whole and self.units.whole):
            raise ValueError("layers and units are whole numbers")
        return self

    def extremes(self) -> list[Any]:
        """Return the values by which the recipe is checked."""
        return [[units] * layers for layers in self.layers.extremes() for units in self.units.extremes()]


def kind_of(value: Any) -> str:
    """Return which kind of hyperparameter a mapping of params.yaml is."""
    if isinstance(value, Section):
        return type(value).__name__.lower()
    keys = value if isinstance(value, dict) else {}
    return next((kind for kind in ("choices", "layers") if kind in keys), "interval")


Hyperparameter = Annotated[
    Annotated[Choices, Tag("choices")] | Annotated[Interval, Tag("interval")] | Annotated[Layers, Tag("layers")],
    Discriminator(kind_of),
]
# By dotted key, such as compile.learning_rate.
Space = dict[str, Hyperparameter]


class Search(Section):
    """How hyperparameters of a model are searched.

    The recipe is written here in full, without what `spaces` vary, and not taken from `models.M`: so a search does not
    run again because its winner was applied there.
    """

    dataset: str  # the model's; repeated, because dvc.yaml needs it for a dependency and cannot look it up
    family: str  # likewise
    spaces: list[str] = Field(min_length=1)  # names in search_spaces, whose hyperparameters are joined
    build: dict[str, Any] = Field(default={})
    compile: dict[str, Any] = Field(default={})
    fit: dict[str, Any] = Field(default={})
    reference: str | None = None  # a model whose figures in `notes` the report shows beside; None: the model itself
    objective: Objective | None = None  # on valid; None: the main metric of the task
    sampler: Literal["random", "tpe", "gp"] = "tpe"
    pruner: Literal["none", "median", "halving"] = "none"  # stops a trial that is worse than earlier ones at an epoch
    warmup: PositiveInt = 5  # epochs before a trial can be stopped
    trials: Annotated[int, Field(gt=0, le=MAX_TRIALS)]
    minutes: Annotated[float, Field(gt=0, le=MAX_MINUTES)] | None = None  # no trial starts after that
    # The trials of a round know the results of earlier rounds only: so the number of workers changes no result.
    round: Annotated[int, Field(gt=0, le=MAX_ROUND)] = 4
    finalists: Annotated[int, Field(gt=0, le=MAX_FINALISTS)] = 3  # the best trials, trained with each of `seeds`
    seed: Seed = 42  # of the trials; that of trial N follows from it and N
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MAX_FINALISTS), Different] = Field([42, 43, 44])

    def recipe(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return `build`, `compile` and `fit` with the values of hyperparameters, by dotted key, put in."""
        recipe = copy.deepcopy({name: getattr(self, name) for name in RECIPE})
        for key, value in values.items():
            section, _, rest = key.partition(".")
            if section in RECIPE:
                put(recipe[section], rest.split("."), value)
        return recipe


def put(values: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a value in nested mappings, which are made where they are missing."""
    *sections, last = keys
    for name in sections:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise ValueError(f"{'.'.join(keys)}: {name} is no section")
    values[last] = value


def preparation(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `values`, by dotted key, say on the preparation: normalization, tail."""
    start = f"{PREPARATION}."
    return {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}


def join_spaces(names: list[str], spaces: Mapping[str, Space]) -> Space:
    """Return the hyperparameters of some spaces.

    Args:
        names: of the spaces.
        spaces: all of them, by name.

    Raises:
        ValueError: two spaces vary the same hyperparameter.
    """
    joined: Space = {}
    for name in names:
        for key, varied in spaces[name].items():
            if key in joined:
                raise ValueError(f"spaces: two of them vary {key}")
            joined[key] = varied
    return joined


def check_keys(space: Space) -> None:
    """Raise ValueError if a key of a space belongs to no hyperparameter."""
    for key in space:
        section, _, rest = key.partition(".")
        if section == PREPARATION and rest in PREPARED:
            continue
        if section not in RECIPE or not all(rest.split(".")):
            valid = ", ".join([*(f"{name}.KEY" for name in RECIPE), *(f"{PREPARATION}.{key}" for key in PREPARED)])
            raise ValueError(f"{key!r} is no hyperparameter; valid: {valid}")


def corners(space: Space) -> Iterator[dict[str, Any]]:
    """Yield values for a space: all lowest ones first, then each other extreme of each hyperparameter alone."""
    lowest = {key: varied.extremes()[0] for key, varied in space.items()}
    yield lowest
    for key, varied in space.items():
        for value in varied.extremes()[1:]:
            yield lowest | {key: value}
