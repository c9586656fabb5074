"""Build a model and fit it on the train split, with the valid split for validation."""

import csv
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from config.params import Compile, Hardware, ModelParams
from datasets import get_dataset
from models.common.features import get_target
from models.common.losses import get_loss
from models.common.neighbours import Neighbours
from models.common.outputs import MAIN_OUTPUT, broadcast_target
from models.common.registry import build_model, output_shapes
from models.common.weights import adapt_neighbours, adapt_normalization, copy_weights, draw_weights
from tasks.data.examples import join
from tasks.data.schema import GROUP_ROWS
from tasks.data.streaming import Split, raise_read_errors
from tasks.training.callbacks import EpochClock, LossRatio, ProgressLog, StopOnNonFiniteLoss
from tasks.training.checkpoints import checkpoint_callbacks, open_checkpoints, read_history, seconds_spent
from tasks.training.hardware import choose_execution, choose_precision, data_parallel
from tasks.training.recipe_checks import check_network, check_size, loss_of
from tasks.training.shuffling import EpochOrder, TrainingData, ordered_batches, shuffled_batches

# Batches of a call in Keras' own loop; between calls TensorFlow returns to Python.
STEPS_PER_EXECUTION = 32
# Histograms of each weight that TensorBoard gets over a whole training, roughly.
HISTOGRAMS = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    history: the value of every logged metric after each epoch.
    precision, execution: the `hardware.precision` and `hardware.execution` of the training.
    precision_reason: why that precision, in words.
    epoch_ends: when each epoch of this process ended, by `time.perf_counter`.
    earlier_seconds: what the epochs took that it resumed from.
    """

    model: keras.Model
    history: dict[str, list[float]]
    precision: str
    precision_reason: str
    execution: str
    epoch_ends: list[float]
    earlier_seconds: float


def fit(
    name: str,
    params: ModelParams,
    seed: int,
    hardware: Hardware,
    train: Split,
    valid: Split,
    network: str | None = None,
    logs: Path | None = None,
    checkpoints: Path | None = None,
    more: Sequence[keras.callbacks.Callback] = (),
) -> Fitted:
    """Build a model, train it by its recipe and return it in float32.

    The same seed on the same machine gives the same weights, bit for bit, in one run or resumed.

    Args:
        name: of the model, for messages.
        params: its recipe.
        seed: of the initial weights, of the order of the rows and of random layers.
        hardware: how training uses the machine.
        train, valid: the rows.
        network: the name of the network; None: `name`.
        logs: folder for TensorBoard; None: no logs.
        checkpoints: folder for the checkpoints of the recipe; None: no checkpoints.
        more: callbacks that are called after those of the recipe.

    Raises:
        UserError: the build arguments do not fit the family, the network does not fit into memory, or the loss
            becomes NaN.
    """
    network = network or name
    shapes = {key: rows.shape[1:] for key, rows in train.first_rows().inputs.items()}
    check_size(name, params, shapes, train.rows)
    make_reproducible(seed)
    model = build_model(params.family, shapes, name, params.build, network, train.rows)
    draw_weights(model, seed)
    check_network(name, model, params, shapes)
    outputs = list(output_shapes(model, shapes))
    steps = math.ceil(train.rows / params.fit.batch_size)
    precision, why = choose_precision(hardware, model)
    trained = model
    with training_scope(precision, strategy := data_parallel()):
        if strategy or precision != "float32":
            trained = build_model(params.family, shapes, name, params.build, network, train.rows)
            draw_weights(trained, seed)
            for output in outputs:
                trained.get_layer(output).dtype_policy = "float32"  # losses and probabilities need its precision
        adapt(trained, train)
        execution = choose_execution(hardware.execution, trained, params.fit, steps * params.fit.epochs)
        compile_model(trained, params, outputs, steps, execution)
    logger.info("%s: %d parameters, %d rows, %s, %s", name, model.count_params(), train.rows, precision, execution)
    logger.info("%s: precision %s, %s", name, precision, why)
    earlier = 0.0
    if checkpoints:
        threads = hardware.training_threads(get_dataset(params.dataset).has_pictures)
        how = [precision, execution, f"{threads} threads", *keras.distribution.list_devices()]
        open_checkpoints(params, seed, how, (train, valid), checkpoints)
        earlier = seconds_spent(checkpoints)
    if logs:
        log_graph(trained, train, logs)
    order = EpochOrder(train.rows, seed)
    clock = EpochClock()
    data = TrainingData(train, valid, outputs, params.fit.batch_size, order)
    with raise_read_errors(train, valid), fit_arguments(trained, data, execution) as arguments:
        history = trained.fit(
            **arguments,
            epochs=params.fit.epochs,
            shuffle=False,  # the rows are shuffled already
            verbose=0,
            callbacks=[*callbacks(name, params, order, logs, checkpoints), clock, *more],
        )
    if trained is not model:
        compile_model(model, params, outputs, steps, execution)
        copy_weights(trained, model)
    logged = read_history(checkpoints) if checkpoints and params.fit.resume else history.history
    plain = {plain_name(metric): values for metric, values in logged.items()}
    return Fitted(model, plain, precision, why, execution, clock.ends, earlier)


@contextmanager
def training_scope(precision: str, strategy: Any) -> Iterator[None]:
    """Build models of the block in a precision, with a copy for each device of a `tf.distribute.Strategy`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        with strategy.scope() if strategy else nullcontext():
            yield
    finally:
        keras.config.set_dtype_policy(before)


def compile_model(model: keras.Model, params: ModelParams, outputs: list[str], steps: int, execution: str) -> None:
    """Compile `model` by its recipe.

    Args:
        model: the network.
        params: its recipe.
        outputs: the names of its outputs.
        steps: of an epoch.
        execution: "batches", "graph" or "xla".
    """
    at_once = min(STEPS_PER_EXECUTION, steps)
    if params.fit.profile_batches or execution != "batches" or model.distribute_strategy.num_replicas_in_sync > 1:
        at_once = 1  # the profiler counts calls, a fused epoch is one, and several devices take a batch at a time
    model.compile(
        optimizer=make_optimizer(params.compile, steps * params.fit.epochs),
        loss=losses_of(params, outputs),
        loss_weights=params.compile.loss_weights if len(outputs) > 1 else None,
        metrics=metrics_of(params, outputs),
        steps_per_execution=at_once,
        jit_compile="auto" if execution == "batches" else False,  # a fused epoch is compiled as a whole
    )


def losses_of(params: ModelParams, outputs: list[str]) -> Any:
    """Return the loss of each output, as Keras takes them."""
    own = {name: make_loss(params, name) for name in params.targets}
    return broadcast_target(make_loss(params, MAIN_OUTPUT), outputs, own)


def make_loss(params: ModelParams, output: str) -> Any:
    """Return the loss of an output: the recipe's, or the usual one for another kind of labels."""
    name = loss_of(params, output)
    return get_loss(name, params.compile.label_smoothing if name == params.compile.loss else None)


def adapt(model: keras.Model, train: Split) -> None:
    """Give the layers of `model` what they take from the train rows before a training.

    Every layer `normalize_INPUT` gets the mean and variance of that input's rows. The sums are taken over groups of
    rows: more exact, and the same from memory as from disk. A layer that looks up neighbours gets all rows.
    """
    adapt_normalization(model, {name: rows_in_groups(train, name) for name in train.first_rows().inputs})
    if any(isinstance(layer, Neighbours) for layer in model.layers):
        whole = join(list(train.parts()))
        adapt_neighbours(model, whole.inputs, whole.target)


def rows_in_groups(split: Split, name: str) -> Iterator[np.ndarray]:
    for part in split.parts():
        for first in range(0, part.rows, GROUP_ROWS):
            yield part.inputs[name][first : first + GROUP_ROWS]


@contextmanager
def fit_arguments(model: keras.Model, data: TrainingData, execution: str) -> Iterator[dict[str, Any]]:
    """Yield the arguments of `model.fit` that give it the rows.

    Args:
        model: a compiled network.
        data: the rows.
        execution: "batches", "graph" or "xla".
    """
    if execution == "batches":
        yield {"x": shuffled_batches(data), "validation_data": ordered_batches(data.valid, data.outputs)}
        return
    from tasks.training.fused_steps import fused  # imports TensorFlow, which other backends of Keras do without

    with fused(model, data, execution == "xla") as arguments:
        yield arguments


def callbacks(
    name: str, params: ModelParams, order: EpochOrder, logs: Path | None, checkpoints: Path | None
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of a training.

    Args:
        name: of the model, for messages.
        params: its recipe.
        order: of the rows.
        logs: folder for TensorBoard; None: no logs.
        checkpoints: folder for the checkpoints of the recipe; None: no checkpoints.
    """
    return [
        order,
        # First, so that the callbacks behind it see the averaged weights at the end of an epoch.
        *([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if params.compile.average else []),
        StopOnNonFiniteLoss(name),
        *([LossRatio()] if params.fit.loss_ratio else []),
        ProgressLog(),
        *([tensorboard(params, logs)] if logs else []),
        *(checkpoint_callbacks(params, checkpoints) if checkpoints else []),
        *early_stopping(params),
    ]


def tensorboard(params: ModelParams, logs: Path) -> keras.callbacks.TensorBoard:
    """Return the callback that logs scalars, layers, histograms of the weights, and the profile of the recipe."""
    every = max(1, params.fit.epochs // HISTOGRAMS)
    return keras.callbacks.TensorBoard(
        log_dir=str(logs), histogram_freq=every, profile_batch=params.fit.profile_batches or 0
    )


def log_graph(model: keras.Model, train: Split, logs: Path) -> None:
    """Write the operations of the network for TensorBoard's page of graphs; Keras itself writes the layers only.

    Args:
        model: the network.
        train: rows to trace it with.
        logs: folder for TensorBoard.
    """
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    forward = tf.function(lambda x: model(x, training=False))
    graph = forward.get_concrete_function(train.first_rows().take(np.arange(1)).x).graph
    with tf.summary.create_file_writer(str(logs / "train")).as_default():
        tf.summary.graph(graph)


def make_reproducible(seed: int) -> None:
    """Seed every random generator and make TensorFlow use deterministic operations, which matters on a GPU."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def make_optimizer(recipe: Compile, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of a recipe.

    Args:
        recipe: the optimizer, its rate and its schedule.
        steps: of the whole training. A cosine schedule rises for a share of them, if wanted, and then falls to 0.
    """
    rate: Any = recipe.learning_rate
    if recipe.schedule == "cosine":
        rises = {}
        if recipe.warmup:
            rises = {"warmup_target": rate, "warmup_steps": max(1, round(recipe.warmup * steps))}
        first = 0.0 if rises else rate
        rate = keras.optimizers.schedules.CosineDecay(first, max(1, steps - rises.get("warmup_steps", 0)), **rises)
    more: dict[str, Any] = {"use_ema": True, "ema_momentum": recipe.average} if recipe.average else {}
    if recipe.optimizer == "adamw":
        more["weight_decay"] = recipe.weight_decay
    makes = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
    return makes[recipe.optimizer](learning_rate=rate, **more)


def metrics_of(params: ModelParams, outputs: list[str]) -> Any:
    """Return the metrics that Keras computes each epoch besides the loss; the primary one of the task is first."""
    one_hot = params.compile.loss == "categorical_crossentropy"
    top = keras.metrics.TopKCategoricalAccuracy if one_hot else keras.metrics.SparseTopKCategoricalAccuracy
    make = {
        "mean_absolute_error": lambda: keras.metrics.MeanAbsoluteError(name="mae"),
        "precision": lambda: keras.metrics.Precision(name="precision"),
        "recall": lambda: keras.metrics.Recall(name="recall"),
        "auc": lambda: keras.metrics.AUC(name="auc"),
        "top_3_accuracy": lambda: top(k=3, name="top_3_accuracy"),
    }

    def chosen(output: str) -> list[str | keras.metrics.Metric]:
        regression = get_target(params.target_of(output)).task == "regression"
        own = keras.metrics.RootMeanSquaredError(name="rmse") if regression else "accuracy"
        further = [] if output in params.targets else params.compile.metrics
        return [own, *(make[metric]() for metric in further)]

    return {output: chosen(output) for output in outputs} if len(outputs) > 1 else chosen(MAIN_OUTPUT)


def early_stopping(params: ModelParams) -> list[keras.callbacks.Callback]:
    chosen = params.fit.early_stopping
    if chosen is None:
        return []
    return [keras.callbacks.EarlyStopping(patience=chosen.patience, restore_best_weights=chosen.restore_best)]


def plain_name(metric: str) -> str:
    """Return Keras' name of a metric without the name of the main output; losses keep it."""
    if metric.endswith("_loss"):
        return metric
    start = "val_" if metric.startswith("val_") else ""
    return start + metric.removeprefix(start).removeprefix(f"{MAIN_OUTPUT}_")


def write_history(history: dict[str, list[float]], folder: Path) -> None:
    """Write `history.csv`: a row per epoch, a column per metric."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", *history])
        rows.writerows([epoch, *values] for epoch, values in enumerate(zip(*history.values(), strict=True), start=1))
