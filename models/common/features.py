"""Features and targets: what a network gets from a prepared row, what it learns, and how much the row counts.

params.yaml names them (`models.M.inputs`, `models.M.target`, `fit.sample_weight`). They are computed here alone, for
training and inside the exported graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from keras import ops

from runtime.errors import unknown_name


class Schema(Protocol):
    """The facts of the prepared data that a target can depend on (`tasks.data.schema`)."""

    @property
    def class_names(self) -> Sequence[str] | None: ...

    @property
    def train_median(self) -> float | None: ...


@dataclass(frozen=True)
class FeatureDefinition:
    """An input of a network.

    columns: the prepared columns that it needs; None: every feature of the data set, in its order.
    compute: turns those columns, float32 [batch] or [batch, ...] each, into one float32 tensor.
    """

    columns: tuple[str, ...] | None
    compute: Callable[[Sequence[Any]], Any]

    def columns_of(self, features: Sequence[str]) -> tuple[str, ...]:
        return tuple(features) if self.columns is None else self.columns


@dataclass(frozen=True)
class TargetDefinition:
    """What a network learns.

    labels: what kind of labels the loss compares with.
    compute: turns the prepared target, a NumPy array [rows], and facts of the prepared data into these labels.
    class_names: None: the data set's own, or a quantity.
    dataset: the only one that it suits; None: any whose target is of that kind.
    """

    labels: Literal["quantity", "binary", "class", "one-hot"]
    compute: Callable[[np.ndarray, Schema], np.ndarray]
    class_names: tuple[str, ...] | None = None
    dataset: str | None = None

    @property
    def task(self) -> Literal["regression", "binary", "multiclass"]:
        if self.labels == "quantity":
            return "regression"
        return "binary" if self.labels == "binary" else "multiclass"


def stack_columns(columns: Sequence[Any]) -> Any:
    return ops.stack(columns, axis=-1)  # n x [batch] -> [batch, n]


def first_column(columns: Sequence[Any]) -> Any:
    return columns[0]


def to_gray(size: int) -> Callable[[Sequence[Any]], Any]:
    """Return what resizes one image bilinearly: [batch, height, width] -> [batch, size, size, 1]."""

    def compute(columns: Sequence[Any]) -> Any:
        return ops.image.resize(ops.expand_dims(columns[0], -1), (size, size), data_format="channels_last")

    return compute


def to_color(size: int) -> Callable[[Sequence[Any]], Any]:
    """Return what resizes one gray image and repeats it as red, green and blue: [batch, size, size, 3]."""

    def compute(columns: Sequence[Any]) -> Any:
        return ops.repeat(to_gray(size)(columns), 3, axis=-1)

    return compute


def as_column(target: np.ndarray) -> np.ndarray:
    return target.astype(np.float32)[:, None]  # [rows] -> [rows, 1]


def one_hot(target: np.ndarray, schema: Schema) -> np.ndarray:
    assert schema.class_names
    return np.eye(len(schema.class_names), dtype=np.float32)[target]  # [rows] -> [rows, classes]


def is_one_of(classes: Sequence[int]) -> Callable[[np.ndarray, Schema], np.ndarray]:
    return lambda target, _: as_column(np.isin(target, classes))


def garment(classes: Sequence[int], name: str) -> TargetDefinition:
    """Return whether a garment of Fashion-MNIST is of one of some classes."""
    return TargetDefinition("binary", is_one_of(classes), (f"not {name}", name), dataset="fashion_mnist")


def gate(rows: Sequence[int], name: str) -> TargetDefinition:
    """Return what a gate answers: 1 for these rows of the truth table, of a b = 00, 01, 10, 11."""
    return TargetDefinition("binary", is_one_of(rows), (f"{name} is 0", f"{name} is 1"), dataset="logic")


HOUSING = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
FOOTWEAR = (5, 7, 9)  # sandal, sneaker, ankle boot
UPPER_BODY = (0, 2, 3, 4, 6)  # T-shirt, pullover, dress, coat, shirt
LOWER_BODY = (1, 3)  # trouser, dress
LONG_SLEEVES = (2, 4)  # pullover, coat; a shirt has either

FEATURES = {
    "all": FeatureDefinition(None, stack_columns),
    "housing_wide": FeatureDefinition(HOUSING[:5], stack_columns),
    "housing_deep": FeatureDefinition(HOUSING[2:], stack_columns),
    "housing_with_ratios": FeatureDefinition((*HOUSING, "BedrmsPerRoom", "PeoplePerRoom"), stack_columns),
    "housing_place": FeatureDefinition(HOUSING[6:], stack_columns),
    "petals": FeatureDefinition(("petal_length", "petal_width"), stack_columns),
    "image": FeatureDefinition(("image",), first_column),
    "image_28_grey": FeatureDefinition(("image",), lambda columns: ops.expand_dims(columns[0], -1)),
    "image_64_grey": FeatureDefinition(("image",), to_gray(64)),
    "image_32_colour": FeatureDefinition(("image",), to_color(32)),
}

TARGETS = {
    "value": TargetDefinition("quantity", lambda target, _: as_column(target)),
    "class": TargetDefinition("class", lambda target, _: target),
    "one_hot": TargetDefinition("one-hot", one_hot),
    "is_setosa": TargetDefinition(
        "binary", lambda target, _: as_column(target == 0), ("not setosa", "setosa"), dataset="iris"
    ),
    "is_footwear": garment(FOOTWEAR, "footwear"),
    "is_for_upper_body": garment(UPPER_BODY, "upper body"),
    "is_for_lower_body": garment(LOWER_BODY, "lower body"),
    "has_long_sleeves": garment(LONG_SLEEVES, "long sleeves"),
    "and": gate((3,), "and"),
    "or": gate((1, 2, 3), "or"),
    "nand": gate((0, 1, 2), "nand"),
    "xor": gate((1, 2), "xor"),
    "is_above_median": TargetDefinition(
        "binary",
        lambda target, schema: as_column(target > np.float32(schema.train_median)),
        ("up to the median", "above the median"),
        dataset="california_housing",
    ),
}

# The weight of each row in training, float32 [rows], from the prepared target and facts of the prepared data.
SAMPLE_WEIGHTS: dict[str, Callable[[np.ndarray, Schema], np.ndarray]] = {
    # The census writes 5.00001 for every value above 5, so such a row says less.
    "capped_values_half": lambda target, _: np.where(target > 5, 0.5, 1.0).astype(np.float32),
}


def get_feature(name: str) -> FeatureDefinition:
    if name not in FEATURES:
        raise unknown_name("feature", name, FEATURES, "The features of models/common/features.py")
    return FEATURES[name]


def get_target(name: str) -> TargetDefinition:
    if name not in TARGETS:
        raise unknown_name("target", name, TARGETS, "The targets of models/common/features.py")
    return TARGETS[name]


def get_sample_weight(name: str) -> Callable[[np.ndarray, Schema], np.ndarray]:
    if name not in SAMPLE_WEIGHTS:
        raise unknown_name("sample weight", name, SAMPLE_WEIGHTS, "The sample weights of models/common/features.py")
    return SAMPLE_WEIGHTS[name]


def columns_needed(inputs: dict[str, str], features: Sequence[str], derived: Sequence[str] = ()) -> list[str]:
    """Return the prepared columns that the inputs of a network need, in the data set's order.

    Args:
        inputs: name of each input: its feature.
        features: the columns that "all" stands for.
        derived: further columns of the data set.

    Raises:
        UserError: a feature is unknown, or needs a column that the data set lacks.
    """
    used = {column for feature in inputs.values() for column in get_feature(feature).columns_of(features)}
    columns = [*features, *derived]
    for column in sorted(used - set(columns)):
        raise unknown_name("column", column, columns, f"One of {', '.join(inputs.values())} needs it; the data set has")
    return [name for name in columns if name in used]


def compute_inputs(inputs: dict[str, str], columns: dict[str, Any], features: Sequence[str]) -> dict[str, Any]:
    """Compute every input of a network from prepared columns.

    Args:
        inputs: name of each input: its feature.
        columns: values of the prepared columns, [batch] or [batch, ...], by name.
        features: the columns that "all" stands for.
    """
    result = {}
    for name, feature_name in inputs.items():
        feature = get_feature(feature_name)
        result[name] = feature.compute([columns[column] for column in feature.columns_of(features)])
    return result
