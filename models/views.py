"""Views: what a model sees of a prepared row, and what it learns.

A view is named in params.yaml (`models.M.inputs`, `models.M.target`) and computed here alone, for
training and inside the exported graph.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from config.errors import unknown_name


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

    `task` is what a model of it does: "regression", "binary" or "multiclass".
    """

    task: str
    compute: Callable[[np.ndarray], np.ndarray]
    class_names: tuple[str, ...] | None = None  # None: the data set's own, or a quantity
    dataset: str | None = None  # the only one that it is for; None: any whose target is of that kind


def side_by_side(columns: Sequence[Any]) -> Any:
    return ops.stack(columns, axis=-1)  # n x [batch] -> [batch, n]


def alone(columns: Sequence[Any]) -> Any:
    return columns[0]


def as_column(target: np.ndarray) -> np.ndarray:
    return target.astype(np.float32)[:, None]  # [rows] -> [rows, 1]


INPUT_VIEWS = {
    "all": InputView(None, side_by_side),
    "housing_wide": InputView(("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population"), side_by_side),  # 0-4
    "housing_deep": InputView(  # 2-7
        ("AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude"), side_by_side
    ),
    "petals": InputView(("petal_length", "petal_width"), side_by_side),
    "image": InputView(("image",), alone),
}

TARGET_VIEWS = {
    "value": TargetView("regression", as_column),
    "class": TargetView("multiclass", lambda target: target),
    "is_setosa": TargetView("binary", lambda target: as_column(target == 0), ("not setosa", "setosa"), "iris"),
}


def get_input_view(name: str) -> InputView:
    if name not in INPUT_VIEWS:
        raise unknown_name("input view", name, INPUT_VIEWS, "The views of models/views.py")
    return INPUT_VIEWS[name]


def get_target_view(name: str) -> TargetView:
    if name not in TARGET_VIEWS:
        raise unknown_name("target view", name, TARGET_VIEWS, "The views of models/views.py")
    return TARGET_VIEWS[name]


def columns_needed(views: dict[str, str], features: Sequence[str]) -> list[str]:
    """Return the features that at least one of the views uses, in the data set's order.

    Raises UserError when a view is unknown or needs a column that the data set has not.
    """
    used = {column for view in views.values() for column in get_input_view(view).columns_of(features)}
    for column in sorted(used - set(features)):
        raise unknown_name(
            "column", column, features, f"A view of {', '.join(views.values())} needs it; the data set has"
        )
    return [name for name in features if name in used]


def compute_inputs(views: dict[str, str], columns: dict[str, Any], features: Sequence[str]) -> dict[str, Any]:
    """Compute every input of a network from prepared columns.

    views: name of the input: name of its view. columns: name: values, [batch] or [batch, ...].
    """
    result = {}
    for name, view_name in views.items():
        view = get_input_view(view_name)
        result[name] = view.compute([columns[column] for column in view.columns_of(features)])
    return result
