"""One way to fit one model, as a process: each line on standard input asks for a fit, whose figures it prints.

    python -m benchmarks.one_fit MODEL WAY EPOCHS ROWS

Ways: `notes`, the notes' own `model.fit` on NumPy arrays; `keras`, the same with the best of Keras' own settings;
`ours`, what the pipeline does; `ours_exact`, in float32; `loop`, the pipeline's batches by Keras' own loop; `nudged`,
with its bits, but one number of one train row greater by the least that float32 can be; `gpu`, as `ours`, on the GPU;
the others are on the processor.
ROWS: of the train split, 0 for all; more than there are repeat them.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import keras
import numpy as np

from config.params import ModelParams, Params, load_params
from datasets import get_dataset
from models.common.losses import get_loss
from models.common.outputs import broadcast_target
from models.common.registry import build_model, output_shapes
from models.common.weights import adapt_normalization
from runtime.stderr import quiet_stderr
from tasks.data.examples import Examples, read_examples
from tasks.publishing.run_record import peak_memory_bytes
from tasks.training.callbacks import EpochClock
from tasks.training.fit import STEPS_PER_EXECUTION, fit, make_optimizer, metrics_of
from tasks.training.hardware import has_convolutions, use_device


def recipe_of(params: Params, name: str, epochs: int) -> ModelParams:
    """Return the notes' recipe of model `name`, without early stopping and checkpoints."""
    recipe = params.model(name)
    if name in params.lecture_recipes:
        recipe = recipe.model_copy(
            update={"compile": params.lecture_recipes[name].compile, "fit": params.lecture_recipes[name].fit}
        )
    plain = {"epochs": epochs, "early_stopping": None, "checkpoint": None, "resume": False, "loss_ratio": False}
    return recipe.model_copy(update={"fit": recipe.fit.model_copy(update=plain)})


Figures = tuple[dict[str, list[float]], list[float], str]  # history, end of each epoch, precision


def fit_as_notes(
    params: Params, name: str, recipe: ModelParams, train: Examples, valid: Examples, best: bool
) -> Figures:
    keras.utils.set_random_seed(params.seed)
    shapes = {key: rows.shape[1:] for key, rows in train.inputs.items()}
    model = build_model(recipe.family, shapes, name, recipe.build)
    adapt_normalization(model, train.inputs)
    outputs = list(output_shapes(model, shapes))
    settings = {"steps_per_execution": STEPS_PER_EXECUTION, "jit_compile": not has_convolutions(model)} if best else {}
    steps = math.ceil(train.rows / recipe.fit.batch_size)
    model.compile(
        optimizer=make_optimizer(recipe.compile, steps * recipe.fit.epochs),
        loss=broadcast_target(get_loss(recipe.compile.loss), outputs),
        loss_weights=recipe.compile.loss_weights if len(outputs) > 1 else None,
        metrics=metrics_of(recipe, outputs),
        **settings,
    )
    clock = EpochClock()
    history = model.fit(
        train.x,
        broadcast_target(train.target, outputs),
        epochs=recipe.fit.epochs,
        batch_size=recipe.fit.batch_size,
        validation_data=(valid.x, broadcast_target(valid.target, outputs)),
        verbose=0,
        callbacks=[clock],
    )
    return history.history, clock.ends, "float32"


def fit_as_pipeline(
    params: Params, name: str, recipe: ModelParams, train: Examples, valid: Examples, **hardware
) -> Figures:
    chosen = params.hardware.model_copy(update=hardware)
    fitted = fit(name, recipe, params.seed, chosen, train, valid)
    return fitted.history, fitted.epoch_ends, fitted.precision


WAYS: dict[str, Callable[..., Figures]] = {
    "notes": partial(fit_as_notes, best=False),
    "keras": partial(fit_as_notes, best=True),
    "ours": fit_as_pipeline,
    "ours_exact": partial(fit_as_pipeline, precision="float32"),
    "gpu": fit_as_pipeline,
    "loop": partial(fit_as_pipeline, precision="float32", execution="batches"),
    "nudged": partial(fit_as_pipeline, precision="float32", execution="graph"),
}


PEERS = ("notes", "keras")  # they leave the threads to TensorFlow


def nudge(train: Examples) -> Examples:
    """Return the rows with the greatest number of the first one's first input made greater by a unit in its last place.

    How far the figures then part tells what a difference between two ways to round means.
    """
    name, values = next(iter(train.inputs.items()))
    moved = values.copy()
    numbers = moved[0].reshape(-1)  # a view
    greatest = numbers.argmax()
    numbers[greatest] = np.nextafter(numbers[greatest], np.float32(np.inf))
    return replace(train, inputs={**train.inputs, name: moved})


def measure(params: Params, name: str, recipe: ModelParams, train: Examples, valid: Examples, way: str) -> dict:
    """Fit once; return the seconds it took, tracing and compiling included, and what it ended with."""
    keras.backend.clear_session()
    began = time.perf_counter()
    history, ends, precision = WAYS[way](params, name, recipe, train, valid)
    return {
        "seconds": time.perf_counter() - began,
        "precision": precision,
        "epoch_ends": [end - began for end in ends],
        "history": {figure: [float(value) for value in values] for figure, values in history.items()},
        "peak_memory_bytes": peak_memory_bytes(),
    }


def main() -> None:
    name, way, epochs, rows = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with quiet_stderr():
        params = load_params()
        recipe = recipe_of(params, name, epochs)
        threads = params.hardware.training_threads(get_dataset(recipe.dataset).has_pictures)
        use_device("gpu" if way == "gpu" else "cpu", None if way in PEERS else threads)
        keras.ops.zeros(())
    train, valid = read_examples(recipe, "train"), read_examples(recipe, "valid")
    if rows:
        train = train.take(np.arange(rows) % train.rows)
    if way == "nudged":
        train = nudge(train)
    print(json.dumps({"rows": train.rows, "multiply_adds": multiply_adds(recipe, train)}), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(params, name, recipe, train, valid, way)), flush=True)


def multiply_adds(recipe: ModelParams, train: Examples) -> int:
    """Return the multiplications of one row's way forward through the Dense and Conv2D layers."""
    shapes = {key: rows.shape[1:] for key, rows in train.inputs.items()}
    model = build_model(recipe.family, shapes, "counted", recipe.build)
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Conv2D):
            total += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
    return total


if __name__ == "__main__":
    main()
