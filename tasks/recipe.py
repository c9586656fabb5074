"""Recipe: check that data, views, network and loss of a model fit each other, before anything long begins."""

import keras
import pyarrow as pa
from prefect import task

from config import paths
from config.errors import UserError, unknown_name
from config.params import ModelParams
from datasets import get_dataset
from datasets.dataset import Dataset
from models import Shapes, output_shapes
from models.views import columns_needed, get_target_view, get_weight_view

# What the last layer must be for a loss to mean what it says.
OUTPUT_ACTIVATION = {
    "mean_squared_error": "linear",
    "huber": "linear",
    "binary_crossentropy": "sigmoid",
    "sparse_categorical_crossentropy": "softmax",
    "categorical_crossentropy": "softmax",
    "half_squared_error": "heaviside",
}

# Of several classes, the kind of labels that a loss compares with, and the target that gives them.
LABELS = {"sparse_categorical_crossentropy": "class", "categorical_crossentropy": "one-hot"}
TARGETS = {"class": "class", "one-hot": "one_hot"}


def fault(name: str, key: str, message: str) -> UserError:
    return UserError(f"{paths.PARAMS}: models.{name}.{key}: {message}")


def check_views(section: str, dataset: Dataset, inputs: dict[str, str], target_name: str) -> list[str]:
    """Raise UserError unless the views suit `dataset`; return the raw columns that they need.

    section: of params.yaml, for the message. inputs: name of an input: name of its view.
    """
    try:
        needed = dataset.raw_columns(columns_needed(inputs, dataset.features, tuple(dataset.derived)))
    except UserError as error:
        raise UserError(f"{paths.PARAMS}: {section}.inputs: {error}") from None
    try:
        target = get_target_view(target_name)
    except UserError as error:
        raise UserError(f"{paths.PARAMS}: {section}.target: {error}") from None
    if target.dataset not in (None, dataset.name):
        message = f"{target_name!r} is for {target.dataset}, not for {dataset.name}."
        raise UserError(f"{paths.PARAMS}: {section}.target: {message}")
    if target.dataset is None and (target.task == "regression") != (dataset.class_names is None):
        fitting = "class" if dataset.class_names else "value"
        message = f"{target_name!r} does not fit {dataset.name}; use {fitting!r}."
        raise UserError(f"{paths.PARAMS}: {section}.target: {message}")
    return needed


def check_recipe(name: str, params: ModelParams) -> None:
    """Raise UserError unless the views of model `name` suit its data set, and its task and probes the views."""
    dataset = get_dataset(params.dataset)
    needed = check_views(f"models.{name}", dataset, params.inputs, params.target)
    target = get_target_view(params.target)
    if params.task != target.task:
        raise fault(name, "task", f"{params.task!r} does not fit target {params.target!r}; use {target.task!r}.")
    wanted = LABELS.get(params.compile.loss, target.labels)
    if target.labels != wanted:
        message = f"{params.compile.loss!r} compares with {wanted} labels, and target {params.target!r} gives"
        raise fault(name, "compile.loss", f"{message} {target.labels} labels; use target {TARGETS[wanted]!r}.")
    if params.fit.sample_weight:
        try:
            get_weight_view(params.fit.sample_weight)
        except UserError as error:
            raise fault(name, "fit.sample_weight", str(error)) from None
    check_class_weight(name, params)
    for label, row in params.probes.items():
        if sorted(row) != sorted(needed):
            given = ", ".join(row) or "nothing"
            raise fault(name, f"probes.{label}", f"gives {given}; the exported model takes {', '.join(needed)}.")
    for column in needed if params.probes else ():
        if isinstance(dataset.schema.field(column).type, pa.FixedShapeTensorType):
            raise fault(name, "probes", f"a probe is a row of numbers, and {column!r} of {dataset.name} is a picture.")


def check_class_weight(name: str, params: ModelParams) -> None:
    if isinstance(params.fit.class_weight, dict):
        target, dataset = get_target_view(params.target), get_dataset(params.dataset)
        classes = target.class_names or dataset.class_names or ()
        for label in params.fit.class_weight:
            if label not in classes:
                raise unknown_name("class", label, classes, f"{paths.PARAMS}: models.{name}.fit.class_weight, classes")


def check_network(name: str, model: keras.Model, params: ModelParams, inputs: Shapes) -> None:
    """Raise UserError unless every output of `model` suits the task, the classes and the loss of model `name`.

    inputs: name of each input of the network: shape of one row.
    """
    classes = get_dataset(params.dataset).class_names or ()
    expected = len(classes) if params.task == "multiclass" else 1
    wanted = OUTPUT_ACTIVATION[params.compile.loss]
    shapes = output_shapes(model, inputs)
    for output, shape in shapes.items():
        if shape[-1] != expected:
            message = f"layer {output!r} has {shape[-1]} outputs; task {params.task!r} on {params.dataset} needs"
            raise fault(name, "build", f"{message} {expected}.")
        found = model.get_layer(output).activation.__name__
        if found != wanted:
            raise fault(name, "build", f"layer {output!r} is {found}; loss {params.compile.loss!r} needs {wanted}.")
    for output in params.compile.loss_weights or {}:
        if output not in shapes:
            raise unknown_name("output", output, shapes, f"{paths.PARAMS}: models.{name}.compile.loss_weights, outputs")
    if params.compile.loss_weights and set(params.compile.loss_weights) != set(shapes):
        raise fault(name, "compile.loss_weights", f"give a weight to each of the outputs {', '.join(shapes)}.")


check_recipe_task = task(check_recipe)
