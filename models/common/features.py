"""Views: what a model sees of a prepared row, what it learns, and how much a row counts.

A view is named in params.yaml (`models.M.inputs`, `models.M.target`, `fit.sample_weight`) and computed
here alone, for training and inside the exported graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from keras import ops

from runtime.errors import unknown_name


class Schema(Protocol):
    """What a target can depend on besides its own values: facts of the prepared data (`tasks.data.schema`)."""

    @property
    def class_names(self) -> Sequence[str] | None: ...

    @property
    def train_median(self) -> float | None: ...


@dataclass(frozen=True)
class InputView:
    """`compute` turns prepared columns, [batch] or [batch, ...] float32 each, into one float32 tensor."""

    columns: tuple[str, ...] | None  # None: every feature, in the data set's order
    compute: Callable[[Sequence[Any]], Any]

    def columns_of(self, features: Sequence[str]) -> tuple[str, ...]:
        return tuple(features) if self.columns is None else self.columns


@dataclass(frozen=True)
class TargetView:
    """`compute` turns the prepared target, a NumPy array [rows], into what the loss gets.

    It also gets the prepared data set's schema.json, which knows the classes and the train split's median.
    """

    labels: Literal["quantity", "binary", "class", "one-hot"]
    compute: Callable[[np.ndarray, Schema], np.ndarray]
    class_names: tuple[str, ...] | None = None  # None: the data set's own, or a quantity
    dataset: str | None = None  # the only one that it is for; None: any whose target is of that kind

    @property
    def task(self) -> Literal["regression", "binary", "multiclass"]:
        if self.labels == "quantity":
            return "regression"
        return "binary" if self.labels == "binary" else "multiclass"


def side_by_side(columns: Sequence[Any]) -> Any:
    return ops.stack(columns, axis=-1)  # n x [batch] -> [batch, n]


def alone(columns: Sequence[Any]) -> Any:
    return columns[0]


def grey(size: int) -> Callable[[Sequence[Any]], Any]:
    """Return a view of one picture, [batch, height, width] -> [batch, size, size, 1], resized bilinearly."""

    def compute(columns: Sequence[Any]) -> Any:
        return ops.image.resize(ops.expand_dims(columns[0], -1), (size, size), data_format="channels_last")

    return compute


def colour(size: int) -> Callable[[Sequence[Any]], Any]:
    """Return a view of one grey picture as red, green and blue alike: [batch, size, size, 3]."""

    def compute(columns: Sequence[Any]) -> Any:
        return ops.repeat(grey(size)(columns), 3, axis=-1)

    return compute


def as_column(target: np.ndarray) -> np.ndarray:
    return target.astype(np.float32)[:, None]  # [rows] -> [rows, 1]


def one_hot(target: np.ndarray, schema: Schema) -> np.ndarray:
    assert schema.class_names
    return np.eye(len(schema.class_names), dtype=np.float32)[target]  # [rows] -> [rows, classes]


HOUSING = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
FOOTWEAR = (5, 7, 9)  # sandal, sneaker, ankle boot

INPUT_VIEWS = {
    "all": InputView(None, side_by_side),
    "housing_wide": InputView(HOUSING[:5], side_by_side),
    "housing_deep": InputView(HOUSING[2:], side_by_side),
    "housing_with_ratios": InputView((*HOUSING, "BedrmsPerRoom", "PeoplePerRoom"), side_by_side),
    "petals": InputView(("petal_length", "petal_width"), side_by_side),
    "image": InputView(("image",), alone),
    "image_28_grey": InputView(("image",), lambda columns: ops.expand_dims(columns[0], -1)),
    "image_64_grey": InputView(("image",), grey(64)),
    "image_32_colour": InputView(("image",), colour(32)),
}

TARGET_VIEWS = {
    "value": TargetView("quantity", lambda target, _: as_column(target)),
    "class": TargetView("class", lambda target, _: target),
    "one_hot": TargetView("one-hot", one_hot),
    "is_setosa": TargetView(
        "binary", lambda target, _: as_column(target == 0), ("not setosa", "setosa"), dataset="iris"
    ),
    "is_footwear": TargetView(
        "binary",
        lambda target, _: as_column(np.isin(target, FOOTWEAR)),
        ("not footwear", "footwear"),
        dataset="fashion_mnist",
    ),
    "is_above_median": TargetView(
        "binary",
        lambda target, schema: as_column(target > np.float32(schema.train_median)),
        ("up to the median", "above the median"),
        dataset="california_housing",
    ),
}

# From the prepared target and schema.json to how much each row counts in training: float32 [rows].
WEIGHT_VIEWS: dict[str, Callable[[np.ndarray, Schema], np.ndarray]] = {
    # The census writes 5.00001 for every value above 5: such a row says less than it seems to.
    "capped_values_half": lambda target, _: np.where(target > 5, 0.5, 1.0).astype(np.float32),
}


def get_input_view(name: str) -> InputView:
    if name not in INPUT_VIEWS:
        raise unknown_name("input view", name, INPUT_VIEWS, "The views of models/common/features.py")
    return INPUT_VIEWS[name]


def get_target_view(name: str) -> TargetView:
    if name not in TARGET_VIEWS:
        raise unknown_name("target view", name, TARGET_VIEWS, "The views of models/common/features.py")
    return TARGET_VIEWS[name]


def get_weight_view(name: str) -> Callable[[np.ndarray, Schema], np.ndarray]:
    if name not in WEIGHT_VIEWS:
        raise unknown_name("weight view", name, WEIGHT_VIEWS, "The views of models/common/features.py")
    return WEIGHT_VIEWS[name]


def columns_needed(views: dict[str, str], features: Sequence[str], derived: Sequence[str] = ()) -> list[str]:
    """Return the prepared columns that at least one of the views uses, in the data set's order.

    features: what "all" stands for. derived: columns that the data set has besides.
    Raises UserError when a view is unknown or needs a column that the data set has not.
    """
    used = {column for view in views.values() for column in get_input_view(view).columns_of(features)}
    columns = [*features, *derived]
    for column in sorted(used - set(columns)):
        raise unknown_name(
            "column", column, columns, f"A view of {', '.join(views.values())} needs it; the data set has"
        )
    return [name for name in columns if name in used]


def compute_inputs(views: dict[str, str], columns: dict[str, Any], features: Sequence[str]) -> dict[str, Any]:
    """Compute every input of a network from prepared columns.

    views: name of the input: name of its view. columns: name: values, [batch] or [batch, ...].
    """
    result = {}
    for name, view_name in views.items():
        view = get_input_view(view_name)
        result[name] = view.compute([columns[column] for column in view.columns_of(features)])
    return result
