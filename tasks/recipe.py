"""Recipe: check that data, views, network and loss of a model fit each other, before anything long begins."""

import keras
import pyarrow as pa
from prefect import task

from config import paths
from config.errors import UserError
from config.params import ModelParams
from datasets import get_dataset
from models.views import columns_needed, get_target_view

# What the last layer must be for a loss to mean what it says.
OUTPUT_ACTIVATION = {
    "mean_squared_error": "linear",
    "binary_crossentropy": "sigmoid",
    "sparse_categorical_crossentropy": "softmax",
    "half_squared_error": "heaviside",
}


def fault(name: str, key: str, message: str) -> UserError:
    return UserError(f"{paths.PARAMS}: models.{name}.{key}: {message}")


def check_recipe(name: str, params: ModelParams) -> None:
    """Raise UserError unless the views of model `name` suit its data set, and its task and probes the views."""
    dataset = get_dataset(params.dataset)
    needed = columns_needed(params.inputs, dataset.features)
    target = get_target_view(params.target)
    if target.dataset not in (None, dataset.name):
        raise fault(name, "target", f"{params.target!r} is for {target.dataset}, not for {dataset.name}.")
    if target.dataset is None and (target.task == "regression") != (dataset.class_names is None):
        fitting = "class" if dataset.class_names else "value"
        raise fault(name, "target", f"{params.target!r} does not fit {dataset.name}; use {fitting!r}.")
    if params.task != target.task:
        raise fault(name, "task", f"{params.task!r} does not fit target {params.target!r}; use {target.task!r}.")
    for label, row in params.probes.items():
        if sorted(row) != sorted(needed):
            given = ", ".join(row) or "nothing"
            raise fault(name, f"probes.{label}", f"gives {given}; the exported model takes {', '.join(needed)}.")
    for column in needed if params.probes else ():
        if isinstance(dataset.schema.field(column).type, pa.FixedShapeTensorType):
            raise fault(name, "probes", f"a probe is a row of numbers, and {column!r} of {dataset.name} is a picture.")


def check_network(name: str, model: keras.Model, params: ModelParams) -> None:
    """Raise UserError unless the outputs of `model` suit the task, the classes and the loss of model `name`."""
    classes = get_dataset(params.dataset).class_names or ()
    expected = len(classes) if params.task == "multiclass" else 1
    if model.output_shape[-1] != expected:
        found = f"the network has {model.output_shape[-1]} outputs"
        raise fault(name, "build", f"{found}; task {params.task!r} on {params.dataset} needs {expected}.")
    found, wanted = model.layers[-1].activation.__name__, OUTPUT_ACTIVATION[params.compile.loss]
    if found != wanted:
        raise fault(name, "build", f"the last layer is {found}; loss {params.compile.loss!r} needs {wanted}.")


check_recipe_task = task(check_recipe)
