"""Checks before a training: data, features, target, network and loss of a recipe must fit each other."""

import math
import threading
from typing import NamedTuple

import keras
import psutil
import pyarrow as pa
from prefect import task

from config import paths
from config.params import ModelParams
from datasets import get_dataset
from models.common.features import get_sample_weight, get_target
from models.common.neighbours import Neighbours
from models.common.outputs import MAIN_OUTPUT, Shapes
from models.common.registry import build_model, output_shapes
from models.common.weights import all_layers
from runtime.errors import UserError, unknown_name
from tasks.data.examples import check_features

# The activation of the last layer that each loss requires.
OUTPUT_ACTIVATION = {
    "mean_squared_error": "linear",
    "huber": "linear",
    "binary_crossentropy": "sigmoid",
    "sparse_categorical_crossentropy": "softmax",
    "categorical_crossentropy": "softmax",
    "half_squared_error": "heaviside",
    "signed_half_squared_error": "sign",
}

# For several classes: the kind of labels that a loss compares with, and the target that gives them.
LABELS = {"sparse_categorical_crossentropy": "class", "categorical_crossentropy": "one-hot"}
TARGETS = {"class": "class", "one-hot": "one_hot"}

# The loss of an output that learns other labels than the main one.
USUAL_LOSS = {
    "quantity": "mean_squared_error",
    "binary": "binary_crossentropy",
    "class": "sparse_categorical_crossentropy",
    "one-hot": "categorical_crossentropy",
}

# The bytes of a number, and how many numbers an optimizer keeps for each weight.
BYTES = 4
SLOTS = {"sgd": 0, "adam": 2, "adamw": 2}
# Building a network without its weights takes milliseconds, but hours for a million layers.
MAX_BUILD_SECONDS = 120


class Size(NamedTuple):
    """The weights of a network, and the numbers in all its layers' outputs for one row."""

    parameters: int
    activations: int


def fault(name: str, key: str, message: str) -> UserError:
    """Return the error for a key of a model in params.yaml.

    Args:
        name: of the model.
        key: below the model.
        message: what is wrong there.
    """
    return UserError(f"{paths.PARAMS}: models.{name}.{key}: {message}")


def loss_of(params: ModelParams, output: str) -> str:
    """Return the name of the loss of an output: the recipe's, or the usual one where it learns other labels."""
    labels = get_target(params.target_of(output)).labels
    return params.compile.loss if labels == get_target(params.target).labels else USUAL_LOSS[labels]


def check_recipe(name: str, params: ModelParams) -> None:
    """Raise UserError unless the inputs and the target of model `name` suit its data set, its task and its probes."""
    dataset = get_dataset(params.dataset)
    needed = check_features(f"models.{name}", dataset, params.inputs, params.target)
    for output, own in params.targets.items():
        check_features(f"models.{name}", dataset, params.inputs, own, f"targets.{output}")
    target = get_target(params.target)
    if params.task != target.task:
        raise fault(name, "task", f"{params.task!r} does not fit target {params.target!r}; use {target.task!r}.")
    wanted = LABELS.get(params.compile.loss, target.labels)
    if target.labels != wanted:
        message = f"{params.compile.loss!r} compares with {wanted} labels, and target {params.target!r} gives"
        raise fault(name, "compile.loss", f"{message} {target.labels} labels; use target {TARGETS[wanted]!r}.")
    if params.fit.sample_weight:
        try:
            get_sample_weight(params.fit.sample_weight)
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
        target, dataset = get_target(params.target), get_dataset(params.dataset)
        classes = target.class_names or dataset.class_names or ()
        for label in params.fit.class_weight:
            if label not in classes:
                raise unknown_name("class", label, classes, f"{paths.PARAMS}: models.{name}.fit.class_weight, classes")


def check_network(name: str, model: keras.Model, params: ModelParams, inputs: Shapes) -> None:
    """Raise UserError unless every output of a network suits the task, the classes and the loss.

    Args:
        name: of the model, for the message.
        model: the network.
        params: its recipe.
        inputs: the shape of a row of each input, by name.
    """
    classes = get_dataset(params.dataset).class_names or ()
    shapes = output_shapes(model, inputs)
    for output in params.targets:
        if output not in shapes or output == MAIN_OUTPUT:
            further = [known for known in shapes if known != MAIN_OUTPUT]
            raise unknown_name("output", output, further, f"{paths.PARAMS}: models.{name}.targets, further outputs")
    for output, shape in shapes.items():
        task_name, loss = get_target(params.target_of(output)).task, loss_of(params, output)
        expected = len(classes) if task_name == "multiclass" else 1
        if shape[-1] != expected:
            message = f"layer {output!r} has {shape[-1]} outputs; task {task_name!r} on {params.dataset} needs"
            raise fault(name, "build", f"{message} {expected}.")
        found = model.get_layer(output).activation.__name__
        if found != (wanted := OUTPUT_ACTIVATION[loss]):
            raise fault(name, "build", f"layer {output!r} is {found}; loss {loss!r} needs {wanted}.")
    layers = [type(layer) for layer in all_layers(model)]
    if params.compile.average and keras.layers.BatchNormalization in layers:
        reason = "batch normalization has statistics of the weights that were not averaged"
        raise fault(name, "compile.average", f"{reason}; leave it out.")
    if Neighbours in layers and get_target(params.target).labels not in ("quantity", "binary"):
        raise fault(name, "target", f"family {params.family!r} learns a number; {params.target!r} is a class.")
    for output in params.compile.loss_weights or {}:
        if output not in shapes:
            raise unknown_name("output", output, shapes, f"{paths.PARAMS}: models.{name}.compile.loss_weights, outputs")
    if params.compile.loss_weights and set(params.compile.loss_weights) != set(shapes):
        raise fault(name, "compile.loss_weights", f"give a weight to each of the outputs {', '.join(shapes)}.")


def check_size(name: str, params: ModelParams, inputs: Shapes, rows: int) -> None:
    """Raise UserError where a training needs more memory than is free, before it allocates any.

    Args:
        name: of the model.
        params: its recipe.
        inputs: the shape of a row of each input, by name.
        rows: of the train split.
    """
    size = network_size(name, params, inputs, rows)
    if size is None:
        return
    copies = 2 + SLOTS[params.compile.optimizer] + bool(params.compile.average)
    needed = BYTES * (copies * size.parameters + min(params.fit.batch_size, rows) * size.activations)
    free = psutil.virtual_memory().available
    if needed > free:
        raise fault(
            name,
            "build",
            f"a network of {size.parameters:,} parameters, with {size.activations:,} activations a row, takes at least "
            f"{needed / 1e9:,.1f} GB to train with batch_size {params.fit.batch_size}; {free / 1e9:.1f} GB are "
            "free. Make its layers or batch_size smaller.",
        )


def network_size(name: str, params: ModelParams, inputs: Shapes, rows: int) -> Size | None:
    """Return the size of a network without allocating its weights; None where it cannot be built that way.

    It is built in another thread. Keras keeps state by thread, so names and seeds of this thread do not change.

    Args:
        name: of the model.
        params: its recipe.
        inputs: the shape of a row of each input, by name.
        rows: of the train split.

    Raises:
        UserError: `build_model` raises it, or the network has too many layers.
    """
    sizes: list[Size] = []
    errors: list[UserError] = []

    def build() -> None:
        try:
            with keras.StatelessScope(initialize_variables=False):
                model = build_model(params.family, inputs, name, params.build, train_rows=rows)
                output_shapes(model, inputs)
                sizes.append(Size(model.count_params(), sum(map(output_size, model.layers))))
        except UserError as error:
            errors.append(error)
        except Exception:  # noqa: BLE001  # building it with weights raises it again
            return

    thread = threading.Thread(target=build, daemon=True)
    thread.start()
    thread.join(MAX_BUILD_SECONDS)
    if thread.is_alive():
        raise fault(name, "build", f"the network is not built within {MAX_BUILD_SECONDS} s: it has too many layers.")
    if errors:
        raise errors[0]
    return sizes[0] if sizes else None


def output_size(layer: keras.Layer) -> int:
    """Return how many numbers the output of `layer` has for one row; 0 outside a graph of layers."""
    try:
        outputs = keras.tree.flatten(layer.output)
    except (AttributeError, ValueError):
        return 0
    return sum(math.prod(size or 1 for size in output.shape[1:]) for output in outputs)


check_recipe_task = task(check_recipe)
